//! One account.

use axum::extract::State;
use emailclient_core::domain::account;
use emailclient_core::platform::id::AccountId;
use http::StatusCode;

use super::view::{AccountView, etag};
use crate::error::{ApiError, Problem};
use crate::etag::Conditions;
use crate::extract::{NoQuery, PathId, Query};
use crate::permission::{MailRead, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// One account, with its state and its tag.
#[utoipa::path(get, path = "/api/accounts/{id}", tag = "accounts", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = AccountView), (status = 304), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn get(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(id): PathId<AccountId>,
    Query(NoQuery {}): Query<NoQuery>,
    conditions: Conditions,
) -> Result<Reply, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let account = account::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    tx.release();
    let tag = etag(&account);
    if conditions.is_current(&tag) {
        return Ok(Reply::empty(StatusCode::NOT_MODIFIED).etag(&tag));
    }
    Ok(Reply::ok(&AccountView::from(account))?.etag(&tag))
}
