//! Connecting an account by OAuth2 without sending a person anywhere: the caller has a refresh token, or the app may act by itself
//! or for its users. With a person it is [`crate::routes::oauth`].

use emailclient_core::connect::GrantLogin;
use emailclient_core::domain::account::{self, NewAccount};
use emailclient_core::domain::oauth::app::{self, Usable};
use emailclient_core::domain::oauth::grant::{self, Kind, NewGrant, StoreError};
use emailclient_core::domain::oauth::provider::Provider;
use emailclient_core::platform::db::TenantTx;
use emailclient_core::platform::id::{AppId, GrantId};
use emailclient_core::sync::run;
use wire::secret::Secret;

use super::input::{AccountIn, AuthIn, check};
use super::trial;
use super::view::{AccountView, etag, exists};
use crate::error::ApiError;
use crate::idempotency::IdempotencyKey;
use crate::permission::{AccountCreate, AccountsManage, May};
use crate::reply::Reply;
use crate::state::AppState;

/// Makes the account, after a token was got and both servers took it, unless nobody wants that tried.
///
/// # Errors
/// 422 with pointers, or with the word of what went wrong.
pub async fn create(
    state: &AppState,
    caller: &May<AccountsManage, AccountCreate>,
    (key, verify): (&IdempotencyKey, bool),
    (body, auth): (AccountIn, AuthIn),
) -> Result<(TenantTx, Reply), ApiError> {
    let missing = || ApiError::invalid_field("/auth/app_id", "missing", "this field is required");
    let app_id: AppId = auth.app_id.ok_or_else(missing)?;
    let mut tx = caller.aside(state).await?;
    let app = app::open(&mut tx, &state.oauth_apps, &state.keyring, app_id).await?;
    let app = app.ok_or_else(|| ApiError::unknown_reference("/auth/app_id"))?;
    let kind = kind(&app, &auth)?;
    let new = body.at_provider(&app.terms.endpoints)?;
    if account::exists(&mut tx, &new.email, None).await? {
        return Err(exists());
    }
    // The grant first, and it stays for an hour: a provider may take a refresh token once, and give another that must not be lost.
    let grant = store(&mut tx, state, (&app, kind), (&new.email, auth.refresh_token.as_ref())).await?;
    let new = NewAccount { grant: Some(grant), ..new };
    check(&new, None, state.clock.now())?;
    tx.commit().await?;
    if verify {
        caller.context.tried_elsewhere();
        let (imap, smtp) = trial::with_token(state, &new, GrantLogin::Grant(caller.tenant(), grant)).await;
        trial::require_both(imap, smtp)?;
    }
    let mut tx = key.tx(state, caller).await?;
    let account = account::create(&mut tx, &state.keyring, &new).await?;
    run::request(&mut tx, account.id).await?;
    caller.audit(&mut tx, &account.id.to_string()).await?;
    let (location, tag) = (format!("/api/accounts/{}", account.id), etag(&account));
    Ok((tx, Reply::created(&location, &AccountView::from(account))?.etag(&tag)))
}

async fn store(
    tx: &mut TenantTx,
    state: &AppState,
    (app, kind): (&Usable, Kind),
    (email, refresh): (&str, Option<&Secret>),
) -> Result<GrantId, ApiError> {
    let subject = if kind == Kind::Client { "" } else { email };
    let new = NewGrant { app: app.id, provider: app.said.provider, kind, subject, refresh };
    Ok(grant::create(tx, &state.keyring, &new).await?)
}

/// What the grant rests on, and whether the app can do that.
fn kind(app: &Usable, auth: &AuthIn) -> Result<Kind, ApiError> {
    let refuse = |field: &str, code: &str, detail: &str| Err(ApiError::invalid_field(field, code, detail));
    let own = !app.terms.own_scopes.is_empty();
    match (&auth.refresh_token, auth.grant) {
        (Some(token), None | Some(Kind::Person)) => {
            let good = !token.is_empty()
                && token.expose().len() <= wire::oauth::TOKEN_BYTES
                && token.expose().bytes().all(|b| b.is_ascii_graphic());
            if good {
                Ok(Kind::Person)
            } else {
                refuse("/auth/refresh_token", "invalid", "a token on one line is expected")
            }
        }
        (Some(_), Some(_)) => refuse("/auth/refresh_token", "not-allowed", "this grant has none"),
        (None, None | Some(Kind::Person)) => refuse(
            "/auth/refresh_token",
            "missing",
            "a refresh token, a grant, or POST /api/oauth/authorize for a person",
        ),
        // Whatever organisations gave the deployment's app, every tenant could read with it.
        (None, Some(_)) if app.is_shared => refuse(
            "/auth/app_id",
            "not-allowed",
            "an app of the deployment acts for people who consent, and for nobody else",
        ),
        (None, Some(Kind::Client))
            if app.said.provider == Provider::Microsoft && app.said.directory.is_none() =>
        {
            refuse("/auth/app_id", "not-allowed", "the app needs its tenant for this")
        }
        (None, Some(Kind::Service)) if app.private_key.is_none() => {
            refuse("/auth/grant", "not-allowed", "the app has no private key")
        }
        (None, Some(Kind::Client)) if app.client.secret.is_none() => {
            refuse("/auth/grant", "not-allowed", "the app has no client secret")
        }
        // Google's own tokens of an app open no mailbox.
        (None, Some(Kind::Client)) if app.said.provider == Provider::Google => {
            refuse("/auth/grant", "not-allowed", "Google has service accounts for this")
        }
        (None, Some(kind)) if own => Ok(kind),
        (None, Some(_)) => refuse(
            "/auth/grant",
            "not-allowed",
            "the provider has no such thing, or the app names no scopes for it",
        ),
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Seal(error) => error.into(),
            StoreError::Db(error) => error.into(),
        }
    }
}
