//! Connecting an account.

use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::account;
use emailclient_core::sync::run;

use super::input::{AccountIn, VerifyQuery, check, check_hosts};
use super::view::{AccountView, etag, exists};
use super::{tokens, trial, tries};
use crate::error::{ApiError, Problem};
use crate::extract::{Json, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{AccountCreate, AccountsManage, May};
use crate::reply::Reply;
use crate::state::AppState;

/// Connects an account and starts its first synchronisation. The credentials are tried first, unless `verify=false`.
#[utoipa::path(post, path = "/api/accounts", tag = "accounts", security(("bearer" = ["accounts:manage"])),
    params(("verify" = Option<bool>, Query, description = "false: save without trying the credentials")), request_body = AccountIn,
    responses((status = 201, body = AccountView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn create(
    State(state): State<AppState>,
    caller: May<AccountsManage, AccountCreate>,
    Query(query): Query<VerifyQuery>,
    key: IdempotencyKey,
    Json(body): Json<AccountIn>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        if let Some(auth) = body.oauth2().cloned() {
            return tokens::create(&state, &caller, (&key, query.wanted()), (body, auth)).await;
        }
        let new = body.with_passwords()?;
        check(&new, None, state.clock.now())?;
        let mut look = caller.aside(&state).await?;
        if account::exists(&mut look, &new.email, None).await? {
            return Err(exists());
        }
        look.release();
        check_hosts(&state, &new, !query.wanted()).await?;
        tries::admit(&state, &caller, &new).await?;
        if query.wanted() {
            trial::require(&state, &caller, &new, None).await?;
        }
        let mut tx = key.tx(&state, &caller).await?;
        let account = account::create(&mut tx, &state.keyring, &new).await?;
        run::request(&mut tx, account.id).await?;
        caller.audit(&mut tx, &account.id.to_string()).await?;
        let (location, tag) = (format!("/api/accounts/{}", account.id), etag(&account));
        Ok((tx, Reply::created(&location, &AccountView::from(account))?.etag(&tag)))
    })
    .await
}
