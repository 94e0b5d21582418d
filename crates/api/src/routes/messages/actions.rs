//! `POST /api/messages/actions`

use std::collections::HashSet;

use axum::extract::State;
use axum::response::Response;
use emailclient_core::db::TenantTx;
use emailclient_core::id::{MailboxId, MessageId};
use emailclient_core::mailbox;
use emailclient_core::message;
use emailclient_core::message::edit::{self, FlagEdit};
use emailclient_core::message::transfer::{self, Target};
use emailclient_core::search::{self, Search};
use mail::flags::{Flags, is_valid_keyword};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::update::refusal;
use crate::caller::Caller;
use crate::error::{ApiError, FieldError, Problem};
use crate::extract::{Json, NoQuery, Query};
use crate::idempotency::IdempotencyKey;
use crate::reply::Reply;
use crate::routes::search::parse;
use crate::state::AppState;

/// Ids of one request: what one transaction changes well within a second.
const MAX_IDS: usize = 1_000;
/// Messages that a query may match, so that one careless word does not rewrite a whole account.
const MAX_MATCHES: usize = 10_000;
/// Messages changed by one statement.
const BATCH: usize = 500;

/// What is done with the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ActionName {
    /// Sets `\Seen`.
    MarkRead,
    /// Clears `\Seen`.
    MarkUnread,
    /// Sets `\Flagged`.
    Star,
    /// Clears `\Flagged`.
    Unstar,
    /// Sets `keyword`.
    AddKeyword,
    /// Clears `keyword`.
    RemoveKeyword,
    /// To the mailbox `mailbox_id`.
    Move,
    /// A copy to the mailbox `mailbox_id`.
    Copy,
    /// To the account's Archive.
    Archive,
    /// To the account's Junk.
    Junk,
    /// To the account's Trash.
    Trash,
    /// To the account's Trash, and from there for good.
    Delete,
}

/// One action on many messages: those in `ids`, or those that `query` finds.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ActionRequest {
    /// Which messages, 1000 at most.
    #[schema(value_type = Option<Vec<Uuid>>)]
    ids: Option<Vec<MessageId>>,
    /// Which messages, in the search syntax.
    query: Option<String>,
    /// What is done with them.
    action: ActionName,
    /// The target of `move` and `copy`; with the others, only the copies in this mailbox.
    #[schema(value_type = Option<Uuid>)]
    mailbox_id: Option<MailboxId>,
    /// The keyword of `add_keyword` and `remove_keyword`.
    keyword: Option<String>,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ActionReply {
    /// Messages that the action was applied to.
    updated: usize,
}

impl ActionRequest {
    /// Refuses what no action could mean.
    fn check(&self) -> Result<(), ApiError> {
        let mut faults = Vec::new();
        match (&self.ids, &self.query) {
            (None, None) => {
                faults.push(FieldError::new("/ids", "missing", "name messages by ids or by query"))
            }
            (Some(_), Some(_)) => {
                faults.push(FieldError::new("/query", "exclusive", "ids and query exclude each other"))
            }
            (Some(ids), None) if ids.is_empty() || ids.len() > MAX_IDS => {
                faults.push(FieldError::new("/ids", "length", format!("1 to {MAX_IDS} ids are expected")));
            }
            _ => {}
        }
        let targeted = matches!(self.action, ActionName::Move | ActionName::Copy);
        if targeted && self.mailbox_id.is_none() {
            faults.push(FieldError::new("/mailbox_id", "missing", "this action needs a mailbox to go to"));
        }
        let labelled = matches!(self.action, ActionName::AddKeyword | ActionName::RemoveKeyword);
        match (&self.keyword, labelled) {
            (None, true) => {
                faults.push(FieldError::new("/keyword", "missing", "this action needs a keyword"))
            }
            (Some(_), false) => {
                faults.push(FieldError::new("/keyword", "unexpected", "this action takes no keyword"))
            }
            (Some(keyword), true) if !is_valid_keyword(keyword) => {
                faults.push(FieldError::new(
                    "/keyword",
                    "invalid",
                    "a keyword is an IMAP atom of at most 255 characters",
                ));
            }
            _ => {}
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(ApiError::validation("see errors for the fields").with_errors(faults))
        }
    }

    fn flag_edit(&self) -> Option<FlagEdit> {
        let keyword = || self.keyword.clone().into_iter().collect();
        let none = FlagEdit::default();
        Some(match self.action {
            ActionName::MarkRead => FlagEdit { add: Flags::SEEN, ..none },
            ActionName::MarkUnread => FlagEdit { remove: Flags::SEEN, ..none },
            ActionName::Star => FlagEdit { add: Flags::FLAGGED, ..none },
            ActionName::Unstar => FlagEdit { remove: Flags::FLAGGED, ..none },
            ActionName::AddKeyword => FlagEdit { keywords_add: keyword(), ..none },
            ActionName::RemoveKeyword => FlagEdit { keywords_remove: keyword(), ..none },
            _ => return None,
        })
    }
}

/// The messages meant, each once; an id of nobody's or another tenant's is refused.
async fn named(
    tx: &mut TenantTx,
    state: &AppState,
    request: &ActionRequest,
) -> Result<Vec<MessageId>, ApiError> {
    if let Some(text) = &request.query {
        let query = parse(text, state.clock.now(), None)?;
        let (ids, more) = search::ids(tx, &Search { query, account: None }, MAX_MATCHES).await?;
        if more {
            let detail = format!("the query matches more than {MAX_MATCHES} messages; narrow it");
            return Err(ApiError::invalid_field("/query", "too-many", &detail));
        }
        return Ok(ids);
    }
    let ids = request.ids.clone().unwrap_or_default();
    let known: HashSet<MessageId> = message::visible(tx, &ids).await?.into_iter().collect();
    let unknown = |(index, _): (usize, &MessageId)| {
        FieldError::new(format!("/ids/{index}"), "unknown", "there is no such object")
    };
    let faults: Vec<FieldError> =
        ids.iter().enumerate().filter(|(_, id)| !known.contains(id)).map(unknown).collect();
    if !faults.is_empty() {
        return Err(ApiError::validation("some of the messages do not exist").with_errors(faults));
    }
    let mut seen = HashSet::new();
    Ok(ids.into_iter().filter(|id| seen.insert(*id)).collect())
}

async fn perform(tx: &mut TenantTx, request: &ActionRequest, ids: &[MessageId]) -> Result<(), ApiError> {
    let named = request.mailbox_id;
    let edit = request.flag_edit();
    for batch in ids.chunks(BATCH) {
        if let Some(edit) = &edit {
            edit::flags(tx, batch, named, edit).await?;
            continue;
        }
        let done = match (request.action, named) {
            (ActionName::Move, Some(target)) => {
                transfer::move_to(tx, batch, None, Target::Mailbox(target)).await
            }
            (ActionName::Copy, Some(target)) => transfer::copy_to(tx, batch, target).await,
            (ActionName::Archive, source) => {
                transfer::move_to(tx, batch, source, Target::Role("archive")).await
            }
            (ActionName::Junk, source) => transfer::move_to(tx, batch, source, Target::Role("junk")).await,
            (ActionName::Trash, source) => transfer::move_to(tx, batch, source, Target::Role("trash")).await,
            (_, source) => transfer::delete(tx, batch, source, false).await,
        };
        done.map_err(|e| refusal(e, "/mailbox_id"))?;
    }
    Ok(())
}

/// Does one thing to many messages.
#[utoipa::path(post, path = "/api/messages/actions", tag = "messages", security(("bearer" = [])), request_body = ActionRequest,
    responses((status = 200, body = ActionReply), (status = 400, body = Problem, content_type = "application/problem+json"),
              (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn act_on_messages(
    State(state): State<AppState>,
    caller: Caller,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
    Json(request): Json<ActionRequest>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        request.check()?;
        let mut tx = key.tx(&state, &caller).await?;
        if let Some(id) = request.mailbox_id
            && mailbox::get(&mut tx, id).await?.is_none()
        {
            return Err(ApiError::unknown_reference("/mailbox_id"));
        }
        let ids = named(&mut tx, &state, &request).await?;
        perform(&mut tx, &request, &ids).await?;
        if request.action == ActionName::Delete {
            caller.audit(&mut tx, "message.delete", &format!("{} messages", ids.len())).await?;
        }
        Ok((tx, Reply::ok(&ActionReply { updated: ids.len() })?))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: serde_json::Value) -> Result<(), Vec<String>> {
        let request: ActionRequest = serde_json::from_value(body).unwrap();
        request.check().map_err(|e| e.problem().errors.iter().map(|f| f.pointer.clone()).collect())
    }

    #[test]
    fn an_action_needs_messages_and_what_belongs_to_it() {
        use serde_json::json;
        let id = MessageId::new();
        assert!(check(json!({ "ids": [id], "action": "mark_read" })).is_ok());
        assert!(check(json!({ "query": "is:unread", "action": "add_keyword", "keyword": "work" })).is_ok());
        assert_eq!(check(json!({ "action": "star" })).unwrap_err(), ["/ids"]);
        assert_eq!(check(json!({ "ids": [], "action": "star" })).unwrap_err(), ["/ids"]);
        assert_eq!(check(json!({ "ids": [id], "query": "x", "action": "star" })).unwrap_err(), ["/query"]);
        assert_eq!(check(json!({ "ids": [id], "action": "move" })).unwrap_err(), ["/mailbox_id"]);
        assert_eq!(
            check(json!({ "ids": [id], "action": "add_keyword", "keyword": "a b" })).unwrap_err(),
            ["/keyword"]
        );
        assert_eq!(
            check(json!({ "ids": [id], "action": "star", "keyword": "a" })).unwrap_err(),
            ["/keyword"]
        );
    }
}
