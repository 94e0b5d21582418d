//! Removing an account.

use axum::extract::State;
use emailclient_core::domain::account;
use emailclient_core::platform::id::AccountId;
use emailclient_core::queue::lease;

use super::view::etag;
use crate::caller::Caller;
use crate::error::{ApiError, Problem};
use crate::etag::Conditions;
use crate::extract::{NoQuery, PathId, Query};
use crate::reply::Reply;
use crate::state::AppState;

/// Removes the account with everything that was read from it. The mail server keeps its messages.
#[utoipa::path(delete, path = "/api/accounts/{id}", tag = "accounts", security(("bearer" = [])), params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "the ETag that was read")),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn delete(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId<AccountId>,
    Query(NoQuery {}): Query<NoQuery>,
    conditions: Conditions,
) -> Result<Reply, ApiError> {
    caller.turn(&state, id.0).await?;
    let mut tx = caller.tx(&state).await?;
    lease::lock(&mut tx, &[id]).await?;
    let account = account::get_for_update(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    conditions.check_match(&etag(&account))?;
    account::delete(&mut tx, id).await?;
    caller.audit(&mut tx, "account.delete", &id.to_string()).await?;
    tx.commit().await?;
    Ok(Reply::no_content())
}
