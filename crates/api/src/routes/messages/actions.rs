//! `POST /api/messages/actions`

use std::collections::HashSet;

use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::mailbox;
use emailclient_core::domain::message;
use emailclient_core::domain::operation::{self, AT_ONCE, Action, MAX_MESSAGES};
use emailclient_core::domain::search::{self, Search};
use emailclient_core::platform::db::TenantTx;
use emailclient_core::platform::id::{MailboxId, MessageId};
use mail::flags::is_valid_keyword;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::update::refusal;
use crate::caller::Caller;
use crate::error::{ApiError, FieldError, Problem};
use crate::extract::{Json, NoQuery, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{MailWrite, May, MessageDelete};
use crate::reply::Reply;
use crate::routes::jobs::JobView;
use crate::routes::search::parse;
use crate::state::AppState;

/// Ids of one request, which fit into the route's body. A query may find more, up to [`MAX_MESSAGES`].
const MAX_IDS: usize = 10_000;
/// Faults told in one answer.
const MAX_FAULTS: usize = 100;

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
    /// Which messages, 10,000 at most.
    #[schema(value_type = Option<Vec<Uuid>>, max_items = 10000)]
    ids: Option<Vec<MessageId>>,
    /// Which messages, in the search syntax; 100,000 at most.
    #[schema(min_length = 1, max_length = 2000)]
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
    /// Messages that the action was applied to; with a mailbox to narrow it, those that are there.
    updated: usize,
}

impl ActionRequest {
    /// What is asked for, or everything that is wrong with it.
    fn action(&self) -> Result<Action, ApiError> {
        let mut faults = Vec::new();
        self.check_selection(&mut faults);
        let (target, keyword) = (self.target(&mut faults), self.keyword(&mut faults));
        let mailbox_id = self.mailbox_id;
        let action = match self.action {
            ActionName::MarkRead => Some(Action::MarkRead { mailbox_id }),
            ActionName::MarkUnread => Some(Action::MarkUnread { mailbox_id }),
            ActionName::Star => Some(Action::Star { mailbox_id }),
            ActionName::Unstar => Some(Action::Unstar { mailbox_id }),
            ActionName::AddKeyword => keyword.map(|keyword| Action::AddKeyword { keyword, mailbox_id }),
            ActionName::RemoveKeyword => keyword.map(|keyword| Action::RemoveKeyword { keyword, mailbox_id }),
            ActionName::Move => target.map(|mailbox_id| Action::Move { mailbox_id }),
            ActionName::Copy => target.map(|mailbox_id| Action::Copy { mailbox_id }),
            ActionName::Archive => Some(Action::Archive { mailbox_id }),
            ActionName::Junk => Some(Action::Junk { mailbox_id }),
            ActionName::Trash => Some(Action::Trash { mailbox_id }),
            ActionName::Delete => Some(Action::Delete { mailbox_id }),
        };
        match action {
            Some(action) if faults.is_empty() => Ok(action),
            _ => Err(ApiError::validation("see errors for the fields").with_errors(faults)),
        }
    }

    fn check_selection(&self, faults: &mut Vec<FieldError>) {
        match (&self.ids, &self.query) {
            (None, None) => {
                faults.push(FieldError::new("/ids", "missing", "name messages by ids or by query"));
            }
            (Some(_), Some(_)) => {
                faults.push(FieldError::new("/query", "exclusive", "ids and query exclude each other"));
            }
            (Some(ids), None) if ids.is_empty() || ids.len() > MAX_IDS => {
                faults.push(FieldError::new("/ids", "length", format!("1 to {MAX_IDS} ids are expected")));
            }
            _ => {}
        }
    }

    fn target(&self, faults: &mut Vec<FieldError>) -> Option<MailboxId> {
        if self.mailbox_id.is_none() && matches!(self.action, ActionName::Move | ActionName::Copy) {
            faults.push(FieldError::new("/mailbox_id", "missing", "this action needs a mailbox to go to"));
        }
        self.mailbox_id
    }

    fn keyword(&self, faults: &mut Vec<FieldError>) -> Option<String> {
        let labelled = matches!(self.action, ActionName::AddKeyword | ActionName::RemoveKeyword);
        let (code, text) = match (&self.keyword, labelled) {
            (None, true) => ("missing", "this action needs a keyword"),
            (Some(_), false) => ("unexpected", "this action takes no keyword"),
            (Some(keyword), true) if !is_valid_keyword(keyword) => {
                ("invalid", "a keyword is an IMAP atom of at most 255 characters")
            }
            _ => return self.keyword.clone(),
        };
        faults.push(FieldError::new("/keyword", code, text));
        None
    }
}

/// The messages meant, each once; an id of nobody's or another tenant's is refused.
async fn selection(
    tx: &mut TenantTx,
    state: &AppState,
    request: &ActionRequest,
) -> Result<Vec<MessageId>, ApiError> {
    let mut seen = HashSet::new();
    if let Some(text) = &request.query {
        let query = parse(text, state.clock.now(), None)?;
        let (ids, more) = search::ids(tx, &Search { query, account: None }, MAX_MESSAGES).await?;
        if more {
            let detail =
                format!("the query matches more than {MAX_MESSAGES} messages, which is the limit; narrow it");
            return Err(ApiError::invalid_field("/query", "too-many", &detail));
        }
        // Read in pages: one whose place in the order changed meanwhile is there twice.
        return Ok(ids.into_iter().filter(|id| seen.insert(*id)).collect());
    }
    let ids = request.ids.clone().unwrap_or_default();
    let known: HashSet<MessageId> = message::visible(tx, &ids).await?.into_iter().collect();
    let unknown = |(index, _): (usize, &MessageId)| {
        FieldError::new(format!("/ids/{index}"), "unknown", "there is no such object")
    };
    let missing = ids.iter().enumerate().filter(|(_, id)| !known.contains(id));
    let faults: Vec<FieldError> = missing.map(unknown).take(MAX_FAULTS).collect();
    if !faults.is_empty() {
        return Err(ApiError::validation("some of the messages do not exist").with_errors(faults));
    }
    Ok(ids.into_iter().filter(|id| seen.insert(*id)).collect())
}

/// Leaves the work to a worker; the answer says where it can be followed.
async fn postpone(
    tx: &mut TenantTx,
    caller: &Caller,
    action: &Action,
    ids: &[MessageId],
) -> Result<Reply, ApiError> {
    action.check(tx, ids).await.map_err(|e| refusal(e, "/mailbox_id"))?;
    let job = JobView::from(operation::create(tx, caller.principal.user, action, ids).await?);
    Reply::accepted(&format!("/api/jobs/{}", job.id), &job)
}

/// Does one thing to many messages. More than 500 are changed by a job, which is answered with 202.
#[utoipa::path(post, path = "/api/messages/actions", tag = "messages", security(("bearer" = ["mail:write"])), request_body = ActionRequest,
    responses((status = 200, body = ActionReply),
              (status = 202, body = JobView, headers(("Location" = String, description = "The job: `/api/jobs/{id}`"))),
              (status = 400, body = Problem, content_type = "application/problem+json"),
              (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn act_on_messages(
    State(state): State<AppState>,
    caller: May<MailWrite, MessageDelete>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
    Json(request): Json<ActionRequest>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let action = request.action()?;
        // Most requests name messages of one account. Requests over several accounts wait for the locks of rows.
        if let Some(first) = request.ids.as_ref().and_then(|ids| ids.first()) {
            caller.turn_at_message(&state, *first).await?;
        }
        let mut tx = key.tx(&state, &caller).await?;
        if let Some(id) = request.mailbox_id
            && mailbox::get(&mut tx, id).await?.is_none()
        {
            return Err(ApiError::unknown_reference("/mailbox_id"));
        }
        let ids = selection(&mut tx, &state, &request).await?;
        if request.action == ActionName::Delete {
            caller.audit(&mut tx, &format!("{} messages", ids.len())).await?;
        } else {
            tx.nothing_to_audit();
        }
        if ids.len() > AT_ONCE {
            let reply = postpone(&mut tx, &caller, &action, &ids).await?;
            return Ok((tx, reply));
        }
        let updated = action.apply(&mut tx, &ids).await.map_err(|e| refusal(e, "/mailbox_id"))?;
        Ok((tx, Reply::ok(&ActionReply { updated })?))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: serde_json::Value) -> Result<(), Vec<String>> {
        let request: ActionRequest = serde_json::from_value(body).unwrap();
        request.action().map(drop).map_err(|e| e.problem().errors.iter().map(|f| f.pointer.clone()).collect())
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
