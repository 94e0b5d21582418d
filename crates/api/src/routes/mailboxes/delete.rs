//! `DELETE /api/mailboxes/{id}`

use axum::extract::State;
use emailclient_core::platform::id::MailboxId;
use emailclient_core::sync::mailbox_change;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::refusal;
use crate::error::{ApiError, Problem};
use crate::extract::{PathId, Query};
use crate::permission::{MailWrite, MailboxDelete, May};
use crate::state::AppState;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// Whether a mailbox with mail in it may go; its mail is moved to Trash.
    #[serde(default)]
    with_messages: bool,
}

/// Deletes a mailbox; with `with_messages=true` also one with mail in it, which goes to Trash.
#[utoipa::path(delete, path = "/api/mailboxes/{id}", tag = "mailboxes", security(("bearer" = ["mail:write"])), params(("id" = Uuid, Path), DeleteQuery),
    responses((status = 204), (status = 409, body = Problem, content_type = "application/problem+json"),
              (status = 404, body = Problem, content_type = "application/problem+json"),
              (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete_mailbox(
    State(state): State<AppState>,
    caller: May<MailWrite, MailboxDelete>,
    PathId(id): PathId<MailboxId>,
    Query(query): Query<DeleteQuery>,
) -> Result<StatusCode, ApiError> {
    caller.turn(&state, id.0).await?;
    let mut tx = caller.tx(&state).await?;
    if !mailbox_change::delete(&mut tx, id, query.with_messages).await.map_err(refusal)? {
        return Err(ApiError::not_found());
    }
    caller.audit(&mut tx, &id.to_string()).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
