//! `PATCH /api/messages/{id}`

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use emailclient_core::domain::mailbox;
use emailclient_core::domain::message::edit::{self, FlagEdit};
use emailclient_core::domain::message::transfer::{self, Target, TransferError};
use emailclient_core::domain::message::{self, Message};
use emailclient_core::platform::db::TenantTx;
use emailclient_core::platform::id::{MailboxId, MessageId};
use mail::flags::{Flags, is_valid_keyword};
use serde::Deserialize;
use utoipa::ToSchema;

use super::get::{Wanted, read};
use super::shape::{MessageView, etag};
use crate::error::{ApiError, FieldError, Problem};
use crate::etag::Conditions;
use crate::extract::{Deferred, NoQuery, PathId, Query};
use crate::permission::{MailWrite, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// Longest list of flags or keywords in one change.
const MAX_NAMES: usize = 100;

/// What is to change; an absent field stays.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct MessagePatch {
    /// Clears or sets `\Seen`.
    unread: Option<bool>,
    /// Sets or clears `\Flagged`.
    starred: Option<bool>,
    /// Sets or clears `\Answered`.
    answered: Option<bool>,
    /// System flags to set, by name.
    #[schema(max_items = 100)]
    flags_add: Option<Vec<String>>,
    /// System flags to clear, by name.
    #[schema(max_items = 100)]
    flags_remove: Option<Vec<String>>,
    /// Keywords to set.
    #[schema(max_items = 100)]
    keywords_add: Option<Vec<String>>,
    /// Keywords to clear.
    #[schema(max_items = 100)]
    keywords_remove: Option<Vec<String>>,
    /// The mailbox to move to.
    #[schema(value_type = Option<Uuid>)]
    move_to: Option<MailboxId>,
    /// Only the copy in this mailbox is changed or moved.
    #[schema(value_type = Option<Uuid>)]
    mailbox_id: Option<MailboxId>,
}

impl MessagePatch {
    /// The change of flags and keywords, or what is wrong with it.
    fn edit(self) -> Result<FlagEdit, ApiError> {
        let mut faults = Vec::new();
        let mut add = flags(self.flags_add.as_deref(), "/flags_add", &mut faults);
        let mut remove = flags(self.flags_remove.as_deref(), "/flags_remove", &mut faults);
        for (wanted, flag) in [
            (self.unread.map(|unread| !unread), Flags::SEEN),
            (self.starred, Flags::FLAGGED),
            (self.answered, Flags::ANSWERED),
        ] {
            match wanted {
                Some(true) => add = add | flag,
                Some(false) => remove = remove | flag,
                None => {}
            }
        }
        keywords(self.keywords_add.as_deref(), "/keywords_add", &mut faults);
        keywords(self.keywords_remove.as_deref(), "/keywords_remove", &mut faults);
        if !faults.is_empty() {
            return Err(ApiError::validation("see errors for the fields").with_errors(faults));
        }
        let (keywords_add, keywords_remove) =
            (self.keywords_add.unwrap_or_default(), self.keywords_remove.unwrap_or_default());
        Ok(FlagEdit { add, remove, keywords_add, keywords_remove })
    }
}

fn flags(names: Option<&[String]>, pointer: &str, faults: &mut Vec<FieldError>) -> Flags {
    let mut all = Flags::NONE;
    let names = bounded(names, pointer, faults);
    for (index, name) in names.iter().enumerate() {
        match Flags::from_name(name) {
            Some(flag) => all = all | flag,
            None => {
                let detail = "one of \\Seen, \\Answered, \\Flagged, \\Deleted, \\Draft is expected";
                faults.push(FieldError::new(format!("{pointer}/{index}"), "invalid", detail));
            }
        }
    }
    all
}

fn keywords(names: Option<&[String]>, pointer: &str, faults: &mut Vec<FieldError>) {
    for (index, name) in bounded(names, pointer, faults).iter().enumerate() {
        if !is_valid_keyword(name) {
            let detail = "a keyword is an IMAP atom of at most 255 characters";
            faults.push(FieldError::new(format!("{pointer}/{index}"), "invalid", detail));
        }
    }
}

fn bounded<'a>(names: Option<&'a [String]>, pointer: &str, faults: &mut Vec<FieldError>) -> &'a [String] {
    let names = names.unwrap_or_default();
    if names.len() > MAX_NAMES {
        faults.push(FieldError::new(pointer, "too-many", format!("at most {MAX_NAMES} are taken at once")));
    }
    names.get(..MAX_NAMES.min(names.len())).unwrap_or_default()
}

/// What a refused move means to a client; `pointer` is where the target stands in the body.
pub(super) fn refusal(error: TransferError, pointer: &str) -> ApiError {
    let text = error.to_string();
    match error {
        TransferError::NoSuchMailbox => ApiError::unknown_reference(pointer),
        TransferError::OtherAccount => ApiError::invalid_field(pointer, "other-account", &text),
        TransferError::NotSelectable => ApiError::invalid_field(pointer, "not-selectable", &text),
        TransferError::Db(error) => error.into(),
    }
}

async fn check_source(
    tx: &mut TenantTx,
    message: &Message,
    mailbox: Option<MailboxId>,
) -> Result<(), ApiError> {
    let Some(id) = mailbox else { return Ok(()) };
    if message.summary.placements.iter().any(|p| p.mailbox_id == id) {
        return Ok(());
    }
    match mailbox::get(tx, id).await? {
        None => Err(ApiError::unknown_reference("/mailbox_id")),
        Some(_) => {
            Err(ApiError::invalid_field("/mailbox_id", "not-there", "the message is not in this mailbox"))
        }
    }
}

/// Changes flags and keywords of a message, or moves it.
#[utoipa::path(patch, path = "/api/messages/{id}", tag = "messages", security(("bearer" = ["mail:write"])), params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "the ETag that was read")),
    request_body = MessagePatch,
    responses((status = 200, body = MessageView), (status = 404, body = Problem, content_type = "application/problem+json"),
              (status = 412, body = Problem, content_type = "application/problem+json"),
              (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn update_message(
    State(state): State<AppState>,
    caller: May<MailWrite, Unaudited>,
    PathId(id): PathId<MessageId>,
    _none: Query<NoQuery>,
    conditions: Conditions,
    body: Deferred<MessagePatch>,
) -> Result<Response, ApiError> {
    caller.turn_at_message(&state, id).await?;
    let mut tx = caller.tx(&state).await?;
    let message = message::get_for_update(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    conditions.check_match(&etag(&message))?;
    let body = body.meaning()?;
    check_source(&mut tx, &message, body.mailbox_id).await?;
    let (source, move_to) = (body.mailbox_id, body.move_to);
    let edit = body.edit()?;
    if !edit.is_empty() {
        edit::flags(&mut tx, &[id], source, &edit).await?;
    }
    if let Some(target) = move_to {
        let moved = transfer::move_to(&mut tx, &[id], source, Target::Mailbox(target)).await;
        moved.map_err(|e| refusal(e, "/move_to"))?;
    }
    tx.commit().await?;
    // Read anew: what the answer tells is what the next request will see, bodies included.
    let mut tx = caller.tx(&state).await?;
    let message = message::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    let (view, tag) = read(&state, &caller, tx, message, Wanted::default()).await?;
    Ok(Reply::ok(&view)?.etag(&tag).into_response())
}
