//! Removing an account.

use axum::extract::State;
use emailclient_core::connect::oauth::{self, GrantError};
use emailclient_core::domain::account;
use emailclient_core::platform::id::AccountId;
use emailclient_core::queue::lease;
use serde::Deserialize;
use utoipa::IntoParams;
use wire::trouble::Trouble;

use super::view::etag;
use crate::error::{ApiError, Problem};
use crate::etag::Conditions;
use crate::extract::{PathId, Query};
use crate::permission::{AccountDelete, AccountsManage, May};
use crate::reply::Reply;
use crate::state::AppState;

/// How.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// Gives the grant of an account with tokens back at its provider first; where that fails, nothing is removed.
    revoke: Option<bool>,
}

/// Removes the account with everything that was read from it. The mail server keeps its messages.
#[utoipa::path(delete, path = "/api/accounts/{id}", tag = "accounts", security(("bearer" = ["accounts:manage"])), params(("id" = Uuid, Path), DeleteQuery, ("If-Match" = Option<String>, Header, description = "the ETag that was read")),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn delete(
    State(state): State<AppState>,
    caller: May<AccountsManage, AccountDelete>,
    PathId(id): PathId<AccountId>,
    Query(query): Query<DeleteQuery>,
    conditions: Conditions,
) -> Result<Reply, ApiError> {
    if query.revoke == Some(true) {
        give_back(&state, &caller, id, &conditions).await?;
    }
    caller.turn(&state, id.0).await?;
    let mut tx = caller.tx(&state).await?;
    lease::lock(&mut tx, &[id]).await?;
    let account = account::get_for_update(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    conditions.check_match(&etag(&account))?;
    account::delete(&mut tx, id).await?;
    caller.audit(&mut tx, &id.to_string()).await?;
    tx.commit().await?;
    Ok(Reply::no_content())
}

/// Has the provider forget what was granted. A provider without a way to do so is passed over.
async fn give_back(
    state: &AppState,
    caller: &May<AccountsManage, AccountDelete>,
    id: AccountId,
    conditions: &Conditions,
) -> Result<(), ApiError> {
    let mut look = caller.aside(state).await?;
    let account = account::get(&mut look, id).await?.ok_or_else(ApiError::not_found)?;
    look.release();
    conditions.check_match(&etag(&account))?;
    let Some((grant, _)) = account.grant else { return Ok(()) };
    caller.context.tried_elsewhere();
    match oauth::revoke(state, (caller.tenant(), grant)).await {
        Ok(_) | Err(GrantError::Gone) => Ok(()),
        Err(GrantError::Db(error)) => Err(error.into()),
        Err(error) => Err(ApiError::trouble(error.trouble().unwrap_or(Trouble::NoToken), error.words())),
    }
}
