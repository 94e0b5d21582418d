//! Pausing an account, and going on with it.

use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::submission;
use emailclient_core::platform::id::AccountId;
use emailclient_core::sync::pause;

use super::view::{AccountView, etag};
use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{AccountPause, AccountResume, AccountsManage, May};
use crate::reply::Reply;
use crate::state::AppState;

/// Stops reading, watching and pushing, at once and until `resume`. Mail stays readable, edits wait, sending goes on.
#[utoipa::path(post, path = "/api/accounts/{id}/pause", tag = "accounts", security(("bearer" = ["accounts:manage"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = AccountView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn pause(
    State(state): State<AppState>,
    caller: May<AccountsManage, AccountPause>,
    PathId(id): PathId<AccountId>,
    Query(NoQuery {}): Query<NoQuery>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut tx = key.tx(&state, &caller).await?;
        let account = pause::pause(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
        caller.audit(&mut tx, &id.to_string()).await?;
        let tag = etag(&account);
        Ok((tx, Reply::ok(&AccountView::from(account))?.etag(&tag)))
    })
    .await
}

/// Goes on with a paused account: a round begins at once.
#[utoipa::path(post, path = "/api/accounts/{id}/resume", tag = "accounts", security(("bearer" = ["accounts:manage"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = AccountView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn resume(
    State(state): State<AppState>,
    caller: May<AccountsManage, AccountResume>,
    PathId(id): PathId<AccountId>,
    Query(NoQuery {}): Query<NoQuery>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut tx = key.tx(&state, &caller).await?;
        let account = pause::resume(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
        submission::retry_unreached(&mut tx, id).await?;
        caller.audit(&mut tx, &id.to_string()).await?;
        let tag = etag(&account);
        Ok((tx, Reply::ok(&AccountView::from(account))?.etag(&tag)))
    })
    .await
}
