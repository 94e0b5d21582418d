//! Asking for a round.

use axum::extract::State;
use axum::response::Response;
use emailclient_core::platform::id::AccountId;
use emailclient_core::sync::run;

use super::{RunView, require_active};
use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{MailRead, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// Synchronises the account now. Answers the round that will see everything that is on the server at this moment.
#[utoipa::path(post, path = "/api/sync/imap/{account_id}", tag = "sync", security(("bearer" = ["mail:read"])),
    params(("account_id" = Uuid, Path)),
    responses((status = 202, body = RunView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn start(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(id): PathId<AccountId>,
    Query(NoQuery {}): Query<NoQuery>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut tx = key.tx(&state, &caller).await?;
        require_active(&mut tx, id).await?;
        let run = run::request(&mut tx, id).await?;
        Ok((tx, Reply::accepted(&format!("/api/sync/status/{id}"), &RunView::from(run))?))
    })
    .await
}
