//! Comparing all of an account with its server.

use axum::extract::State;
use axum::response::Response;
use emailclient_core::platform::id::AccountId;
use emailclient_core::sync::run;

use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{AccountResync, AccountsManage, May};
use crate::reply::Reply;
use crate::routes::sync::{RunView, require_active};
use crate::state::AppState;

/// Compares every UID and flag of the account with the server, whatever its numbers say. Answers the run that does it.
#[utoipa::path(post, path = "/api/accounts/{id}/resync", tag = "accounts", security(("bearer" = ["accounts:manage"])), params(("id" = Uuid, Path)),
    responses((status = 202, body = RunView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn resync_account(
    State(state): State<AppState>,
    caller: May<AccountsManage, AccountResync>,
    PathId(id): PathId<AccountId>,
    Query(NoQuery {}): Query<NoQuery>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut tx = key.tx(&state, &caller).await?;
        require_active(&mut tx, id).await?;
        let run = run::resync(&mut tx, id, None).await?;
        caller.audit(&mut tx, &id.to_string()).await?;
        Ok((tx, Reply::accepted(&format!("/api/sync/status/{id}"), &RunView::from(run))?))
    })
    .await
}
