//! `POST /api/mailboxes/{id}/resync`

use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::mailbox;
use emailclient_core::platform::id::MailboxId;
use emailclient_core::sync::run;

use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{AccountsManage, MailboxResync, May};
use crate::reply::Reply;
use crate::routes::sync::{RunView, require_active};
use crate::state::AppState;

/// Compares every UID and flag of the mailbox with the server, whatever its numbers say. Answers the run that does it.
#[utoipa::path(post, path = "/api/mailboxes/{id}/resync", tag = "mailboxes", security(("bearer" = ["accounts:manage"])), params(("id" = Uuid, Path)),
    responses((status = 202, body = RunView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn resync_mailbox(
    State(state): State<AppState>,
    caller: May<AccountsManage, MailboxResync>,
    PathId(id): PathId<MailboxId>,
    Query(NoQuery {}): Query<NoQuery>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut tx = key.tx(&state, &caller).await?;
        let account = mailbox::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?.account_id;
        require_active(&mut tx, account).await?;
        let run = run::resync(&mut tx, account, Some(id)).await?;
        caller.audit(&mut tx, &id.to_string()).await?;
        Ok((tx, Reply::accepted(&format!("/api/sync/status/{account}"), &RunView::from(run))?))
    })
    .await
}
