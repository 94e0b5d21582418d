//! `DELETE /api/mailboxes/{id}`

use axum::extract::State;
use emailclient_core::id::MailboxId;
use emailclient_core::mailbox::change;
use http::StatusCode;

use super::refusal;
use crate::caller::Caller;
use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::state::AppState;

/// Deletes a mailbox with what is in it.
#[utoipa::path(delete, path = "/api/mailboxes/{id}", tag = "mailboxes", security(("bearer" = [])), params(("id" = Uuid, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json"),
              (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete_mailbox(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId<MailboxId>,
    _none: Query<NoQuery>,
) -> Result<StatusCode, ApiError> {
    caller.turn(&state, id.0).await?;
    let mut tx = caller.tx(&state).await?;
    if !change::delete(&mut tx, id).await.map_err(refusal)? {
        return Err(ApiError::not_found());
    }
    caller.audit(&mut tx, "mailbox.delete", &id.to_string()).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
