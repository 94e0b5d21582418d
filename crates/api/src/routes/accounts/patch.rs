//! Changing an account in part.

use axum::extract::State;
use emailclient_core::platform::id::AccountId;

use super::input::{AccountPatch, VerifyQuery};
use super::replace::change;
use super::view::AccountView;
use crate::error::{ApiError, Problem};
use crate::etag::Conditions;
use crate::extract::{Deferred, PathId, Query};
use crate::permission::{AccountUpdate, AccountsManage, May};
use crate::reply::Reply;
use crate::state::AppState;

/// Changes the fields that are given. Changed credentials are tried first, unless `verify=false`.
#[utoipa::path(patch, path = "/api/accounts/{id}", tag = "accounts", security(("bearer" = ["accounts:manage"])),
    params(("id" = Uuid, Path), ("verify" = Option<bool>, Query),
    ("If-Match" = Option<String>, Header, description = "the ETag that was read")), request_body = AccountPatch,
    responses((status = 200, body = AccountView), (status = 409, body = Problem, content_type = "application/problem+json"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn patch(
    State(state): State<AppState>,
    caller: May<AccountsManage, AccountUpdate>,
    PathId(id): PathId<AccountId>,
    Query(query): Query<VerifyQuery>,
    conditions: Conditions,
    body: Deferred<AccountPatch>,
) -> Result<Reply, ApiError> {
    change(&state, &caller, (id, &conditions, query.wanted()), |old| body.meaning()?.over(old)).await
}
