//! Changing an account as a whole, and what changing it in part shares with that.

use axum::extract::State;
use emailclient_core::domain::account::{self, Account, NewAccount};
use emailclient_core::domain::submission;
use emailclient_core::platform::db::{DbError, TenantTx};
use emailclient_core::platform::id::AccountId;
use emailclient_core::queue::lease;
use emailclient_core::sync::run;
use emailclient_core::sync::store::keep;
use mail::keep::Keep;

use super::input::{AccountIn, VerifyQuery, check, check_hosts, connection_changed, keep_grant};
use super::view::{AccountView, etag, exists};
use super::{trial, tries};
use crate::error::{ApiError, Problem};
use crate::etag::Conditions;
use crate::extract::{Deferred, PathId, Query};
use crate::permission::{AccountUpdate, AccountsManage, May};
use crate::reply::Reply;
use crate::state::AppState;

/// Replaces the account; a password that is left out stays, if host, port, security and user name do. Changed credentials are tried first, unless `verify=false`.
#[utoipa::path(put, path = "/api/accounts/{id}", tag = "accounts", security(("bearer" = ["accounts:manage"])),
    params(("id" = Uuid, Path), ("verify" = Option<bool>, Query),
    ("If-Match" = Option<String>, Header, description = "the ETag that was read")), request_body = AccountIn,
    responses((status = 200, body = AccountView), (status = 409, body = Problem, content_type = "application/problem+json"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn replace(
    State(state): State<AppState>,
    caller: May<AccountsManage, AccountUpdate>,
    PathId(id): PathId<AccountId>,
    Query(query): Query<VerifyQuery>,
    conditions: Conditions,
    body: Deferred<AccountIn>,
) -> Result<Reply, ApiError> {
    let merge = |old: &Account| Ok(keep_grant(body.meaning()?.with_passwords()?, old));
    change(&state, &caller, (id, &conditions, query.wanted()), merge).await
}

/// Reads, merges and writes. Where servers or credentials change, they are tried in between, and it is written only if
/// nobody else wrote meanwhile.
///
/// # Errors
/// 404, 412, and as for a new account.
pub async fn change(
    state: &AppState,
    caller: &May<AccountsManage, AccountUpdate>,
    (id, conditions, verify): (AccountId, &Conditions, bool),
    merge: impl FnOnce(&Account) -> Result<NewAccount, ApiError>,
) -> Result<Reply, ApiError> {
    let mut tx = caller.tx(state).await?;
    let old = account::get_for_update(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    conditions.check_match(&etag(&old))?;
    let new = merge(&old)?;
    check(&new, Some(&old), state.clock.now())?;
    if account::exists(&mut tx, &new.email, Some(id)).await? {
        return Err(exists());
    }
    let reconnect = connection_changed(&old.imap, &new.imap) || connection_changed(&old.smtp, &new.smtp);
    let keep = (old.kept.wanted != new.keep).then(|| old.kept.wanted.clone());
    if !reconnect && keep.is_none() {
        let round = old.shared_mailboxes != new.shared_mailboxes && !old.is_paused();
        return write(state, caller, tx, (id, &new, Follows { reconnect, round, keep })).await;
    }
    // No network with a transaction open; and whoever works on the account comes before its row.
    tx.release();
    if reconnect {
        check_hosts(state, &new, !verify).await?;
        tries::admit(state, caller, &new).await?;
        if verify {
            trial::require(state, caller, &new, Some(id)).await?;
        }
    }
    caller.turn(state, id.0).await?;
    let mut tx = caller.tx(state).await?;
    tx.wait_for_rows().await?;
    match lease::lock(&mut tx, &[id]).await {
        // It cannot run again: the server was asked.
        Err(DbError::Deleted) => return Err(ApiError::not_found()),
        locked => locked?,
    }
    let now = account::get_for_update(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    if now.version != old.version {
        return Err(ApiError::precondition_failed("the account was changed by someone else meanwhile"));
    }
    let round = reconnect || !old.is_paused();
    write(state, caller, tx, (id, &new, Follows { reconnect, round, keep })).await
}

/// What a change brings with it.
struct Follows {
    /// A connection that was given up is tried again.
    reconnect: bool,
    /// A round shows the difference.
    round: bool,
    /// Another part of it is kept than this.
    keep: Option<Keep>,
}

async fn write(
    state: &AppState,
    caller: &May<AccountsManage, AccountUpdate>,
    mut tx: TenantTx,
    (id, new, follows): (AccountId, &NewAccount, Follows),
) -> Result<Reply, ApiError> {
    let mut account = account::replace(&mut tx, &state.keyring, id, new, follows.reconnect)
        .await?
        .ok_or_else(ApiError::not_found)?;
    if let Some(before) = &follows.keep {
        keep::changed(&mut tx, id, before).await?;
        account = account::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    }
    if follows.round {
        run::request(&mut tx, id).await?;
    }
    if follows.reconnect {
        submission::retry_unreached(&mut tx, id).await?;
    }
    caller.audit(&mut tx, &id.to_string()).await?;
    tx.commit().await?;
    let tag = etag(&account);
    Ok(Reply::ok(&AccountView::from(account))?.etag(&tag))
}
