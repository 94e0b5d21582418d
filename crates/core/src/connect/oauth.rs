//! From a grant to a token that is good now, and from a person who came back to a grant.
//!
//! - [`token`]: for who logs in; renews where it must, one process at a time
//! - [`renew`]: ahead of time, for the job
//! - [`exchange`]: a code for tokens, and whose mailbox it is ([`identity`])
//! - [`revoke`]: gives a grant back

pub mod identity;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::Process;
use crate::domain::oauth::app::{self, AppError, Usable};
use crate::domain::oauth::grant::{self, Grant, Kind, StoreError};
use crate::platform::db::DbError;
use crate::platform::id::{GrantId, TenantId};
use crate::platform::metrics::table;
use crate::queue::suspension;
use wire::oauth::{self as wire_oauth, DeviceCode, TokenError, Tokens, Way};
use wire::post::Address;
use wire::secret::Secret;
use wire::trouble::Trouble;

/// For one answer of a provider: half of a claim, so that what comes is stored before others ask.
const PATIENCE: Duration = Duration::from_secs(15);
/// A token that ends sooner is not begun to be used: the clocks may differ, and a login takes its time.
const SHORTEST: TimeDelta = TimeDelta::seconds(30);
/// For another process to renew.
const WAIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(200);
/// After the first failure; each further one doubles it.
const BACKOFF: TimeDelta = TimeDelta::seconds(10);
const LONGEST_BACKOFF: TimeDelta = TimeDelta::minutes(30);
/// An answer is stored again and again for half a minute: it may hold a refresh token that is told once.
const STORE_TRIES: u32 = 30;
const STORE_AGAIN: Duration = Duration::from_secs(1);
/// Of an assertion (RFC 7523 §3): Google takes an hour at most.
const ASSERTION: TimeDelta = TimeDelta::minutes(10);
const JWT_BEARER: &str = "the app has no private key";

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// There is no such grant, or its app is gone.
    #[error("the grant or its app is gone")]
    Gone,
    /// The provider refused it for good, in these words: a person has to consent again.
    #[error("the provider refused the grant: {0}")]
    Refused(String),
    /// The provider does not take the app, in these words.
    #[error("the provider refused the app: {0}")]
    App(String),
    /// The provider is not to be asked before this.
    #[error("the provider gives no token now")]
    Later {
        /// From now.
        wait: Duration,
        /// What it said last, where this was asked just now.
        error: Option<TokenError>,
    },
    /// What is sealed does not open.
    #[error(transparent)]
    Seal(#[from] crate::platform::seal::SealError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl GrantError {
    /// Its row of the one table; `None`: it is ours.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Refused(_) => Some(Trouble::ConsentWithdrawn),
            Self::App(_) => Some(Trouble::AppRefused),
            Self::Later { .. } => Some(Trouble::NoToken),
            Self::Gone | Self::Seal(_) => Some(Trouble::CredentialsUnusable),
            Self::Db(_) => None,
        }
    }

    /// The provider's words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Refused(words) | Self::App(words) => words.clone(),
            Self::Later { error: Some(error), .. } => error.to_string(),
            _ => String::new(),
        }
    }
}

impl From<StoreError> for GrantError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Seal(error) => Self::Seal(error),
            StoreError::Db(error) => Self::Db(error),
        }
    }
}

impl From<AppError> for GrantError {
    fn from(error: AppError) -> Self {
        match error {
            AppError::Seal(error) => Self::Seal(error),
            AppError::Db(error) => Self::Db(error),
            AppError::TooMany | AppError::InUse => Self::Gone,
        }
    }
}

/// The way out to providers.
#[must_use]
pub fn way(process: &Process) -> Way {
    Way { outbound: process.outbound.clone(), tls: process.tls.clone(), patience: PATIENCE }
}

/// An access token that is good now. `refused`: a mail server did not take this one, so it is not the answer.
///
/// # Errors
/// [`GrantError`].
pub async fn token(
    process: &Process,
    (tenant, id): (TenantId, GrantId),
    refused: Option<&Secret>,
) -> Result<Secret, GrantError> {
    let until = Instant::now() + WAIT;
    loop {
        let now = process.clock.now();
        let grant = read(process, (tenant, id)).await?;
        if let Some(words) = grant.refused {
            return Err(GrantError::Refused(words));
        }
        let ends = grant.expires_at.unwrap_or(now);
        let access =
            grant.access.as_ref().filter(|token| refused.is_none_or(|r| r.expose() != token.expose()));
        let left = ends - now;
        if let Some(token) = access.filter(|_| left > SHORTEST || left > life(&grant) / 5) {
            if !grant.used {
                let renew_at = grant::due(grant.renewed_at.unwrap_or(now), ends, process.clock.unit());
                let mut tx = process.db.tenant(tenant).await?;
                grant::note_used(&mut tx, id, renew_at).await?;
                tx.commit().await?;
            }
            return Ok(token.clone());
        }
        // Better a token that may end in a moment than none.
        let last = access.filter(|_| left > TimeDelta::zero()).cloned();
        match ask(process, tenant, &grant).await {
            Ok(Some(tokens)) => return Ok(tokens.access),
            Ok(None) => {}
            // What the provider says of the app takes nothing from a token that is good.
            Err(error @ (GrantError::Later { .. } | GrantError::App(_))) => return last.ok_or(error),
            Err(error) => return Err(error),
        }
        // Somebody else asks, or what we sent was no longer the newest.
        if let Some(token) = last {
            return Ok(token);
        }
        if Instant::now() > until {
            return Err(GrantError::Later { wait: LOOK, error: None });
        }
        sleep(LOOK).await;
    }
}

fn life(grant: &Grant) -> TimeDelta {
    grant.expires_at.zip(grant.renewed_at).map_or(TimeDelta::zero(), |(end, begin)| end - begin)
}

/// Renews a grant whose time has come. Harmless when it has not.
///
/// # Errors
/// [`GrantError`].
pub async fn renew(process: &Process, (tenant, id): (TenantId, GrantId)) -> Result<(), GrantError> {
    let grant = read(process, (tenant, id)).await?;
    if let Some(words) = grant.refused {
        return Err(GrantError::Refused(words));
    }
    if grant.renew_at.is_none_or(|at| at > process.clock.now()) {
        return Ok(());
    }
    let mut tx = process.db.tenant(tenant).await?;
    let rests = suspension::is_suspended(&mut tx).await? || grant::rest_unless_named(&mut tx, id).await?;
    tx.commit().await?;
    if rests {
        return Ok(());
    }
    ask(process, tenant, &grant).await.map(drop)
}

async fn read(process: &Process, (tenant, id): (TenantId, GrantId)) -> Result<Grant, GrantError> {
    let mut tx = process.db.tenant(tenant).await?;
    let grant = grant::open(&mut tx, &process.keyring, id).await?.ok_or(GrantError::Gone)?;
    tx.release();
    Ok(grant)
}

/// Asks the provider, if nobody else does. `None`: somebody does, or the answer was to a refresh token that is none any more.
async fn ask(process: &Process, tenant: TenantId, grant: &Grant) -> Result<Option<Tokens>, GrantError> {
    let now = process.clock.now();
    if let Some(at) = grant.next_try_at.filter(|at| *at > now) {
        return Err(match &grant.app_fault {
            Some(words) => GrantError::App(words.clone()),
            None => GrantError::Later { wait: (at - now).to_std().unwrap_or_default(), error: None },
        });
    }
    // A task of its own: whoever asks may go away, and the answer may hold the only refresh token that is good from now on.
    let task = tokio::spawn(claim_and_ask(process.clone(), tenant, grant.clone()));
    task.await.unwrap_or_else(|_| Err(later(BACKOFF, None)))
}

async fn claim_and_ask(
    process: Process,
    tenant: TenantId,
    grant: Grant,
) -> Result<Option<Tokens>, GrantError> {
    let now = process.clock.now();
    let mut tx = process.db.tenant(tenant).await?;
    let Some(claim) = grant::claim(&mut tx, (grant.id, grant.generation), now).await? else {
        tx.release();
        return Ok(None);
    };
    let app = app::open(&mut tx, &process.oauth_apps, &process.keyring, grant.app).await?;
    tx.commit().await?;
    let answer = match &app {
        Some(app) => request(&way(&process), app, &grant, now).await,
        None => Err(GrantError::App("the app is gone".to_owned())),
    };
    for _ in 1..STORE_TRIES {
        match store(&process, tenant, (&grant, claim), &answer).await {
            Err(GrantError::Db(error)) => {
                tracing::warn!(grant_id = %grant.id, %error, "a provider's answer is not stored yet");
                sleep(STORE_AGAIN).await;
            }
            done => return done,
        }
    }
    store(&process, tenant, (&grant, claim), &answer).await
}

/// Stores what the provider said. Doing it twice does no harm.
async fn store(
    process: &Process,
    tenant: TenantId,
    (grant, claim): (&Grant, Uuid),
    answer: &Result<Tokens, GrantError>,
) -> Result<Option<Tokens>, GrantError> {
    let now = process.clock.now();
    let mut tx = process.db.tenant(tenant).await?;
    let outcome = match answer {
        Ok(_) => "renewed",
        Err(GrantError::Refused(_)) => "refused",
        Err(GrantError::App(_)) => "app-refused",
        Err(_) => "failed",
    };
    metrics::counter!(table::OAUTH_RENEWALS.name, "outcome" => outcome).increment(1);
    let of = (grant.id, grant.generation);
    let result = match answer {
        Ok(tokens) => {
            let stored = grant::renewed(&mut tx, &process.keyring, of, tokens, now).await?;
            Ok(stored.then(|| tokens.clone()))
        }
        Err(GrantError::Later { error: Some(error), .. })
            if error.needs_consent() && grant.kind == Kind::Person =>
        {
            let words = error.to_string();
            match grant::invalid(&mut tx, of, &words, now).await? {
                true => Err(GrantError::Refused(words)),
                false => Err(later(grant::SECOND_LOOK, Some(error.clone()))),
            }
        }
        Err(error) => {
            let (wait, error) = judged(error, grant.failures);
            let fault = if let GrantError::App(words) = &error { Some(words.as_str()) } else { None };
            grant::failed(&mut tx, (grant.id, claim), now + wait, fault).await?;
            Err(error)
        }
    };
    tx.commit().await?;
    if let Err(error) = &result {
        tracing::info!(grant_id = %grant.id, %error, "no new token");
    }
    result
}

fn later(wait: TimeDelta, error: Option<TokenError>) -> GrantError {
    GrantError::Later { wait: wait.to_std().unwrap_or_default(), error }
}

/// What a failure means, and when the provider is asked again.
fn judged(error: &GrantError, failures: i32) -> (TimeDelta, GrantError) {
    let doubled = BACKOFF * (1 << failures.clamp(0, 8));
    let backoff = doubled.min(LONGEST_BACKOFF);
    match error {
        GrantError::Later { error: Some(busy @ TokenError::Busy { after: Some(after) }), .. } => {
            let wait =
                TimeDelta::from_std(*after).unwrap_or(LONGEST_BACKOFF).clamp(backoff, TimeDelta::hours(1));
            (wait, later(wait, Some(busy.clone())))
        }
        GrantError::Later { error: Some(error), .. } if !error.is_temporary() => {
            (LONGEST_BACKOFF.min(backoff * 6), GrantError::App(error.to_string()))
        }
        GrantError::Later { error, .. } => (backoff, later(backoff, error.clone())),
        // Whatever it is, it is nothing that the provider said.
        other => (LONGEST_BACKOFF, GrantError::App(other.words())),
    }
}

/// One request for tokens by what the grant rests on. What the provider says comes as [`GrantError::Later`], unjudged.
async fn request(way: &Way, app: &Usable, grant: &Grant, now: DateTime<Utc>) -> Result<Tokens, GrantError> {
    let scope = app.terms.own_scopes.clone();
    let asked = match grant.kind {
        Kind::Person => wire_oauth::Grant::Refresh(grant.refresh.clone().ok_or(GrantError::Gone)?),
        Kind::Client => wire_oauth::Grant::Client { scope },
        Kind::Service => wire_oauth::Grant::Assertion(assertion(app, &grant.subject, &scope, now)?),
    };
    let endpoint = endpoint(&app.terms.endpoints.token_endpoint)?;
    let tokens = wire_oauth::token(way, &endpoint, &app.client, &asked).await;
    tokens.map_err(|error| GrantError::Later { wait: Duration::ZERO, error: Some(error) })
}

/// An address that an app names.
///
/// # Errors
/// [`GrantError::App`].
pub(super) fn endpoint(url: &str) -> Result<Address, GrantError> {
    Address::parse(url).map_err(|error| GrantError::App(error.to_string()))
}

/// Exchanges a code for tokens.
///
/// # Errors
/// What the provider said, as [`GrantError::Later`] or [`GrantError::App`].
pub async fn exchange(
    process: &Process,
    app: &Usable,
    (code, verifier): (&Secret, &Secret),
    redirect_uri: &str,
) -> Result<Tokens, GrantError> {
    let asked = wire_oauth::Grant::Code {
        code: code.clone(),
        redirect_uri: redirect_uri.to_owned(),
        verifier: verifier.clone(),
    };
    let endpoint = endpoint(&app.terms.endpoints.token_endpoint)?;
    let tokens = wire_oauth::token(&way(process), &endpoint, &app.client, &asked).await;
    tokens.map_err(|error| judged(&later(TimeDelta::zero(), Some(error)), 0).1)
}

/// Begins with a device (RFC 8628 §3.1).
///
/// # Errors
/// What the provider said, as [`GrantError::Later`] or [`GrantError::App`].
pub async fn device_code(process: &Process, app: &Usable) -> Result<DeviceCode, GrantError> {
    let url = app.terms.endpoints.device_authorization_endpoint.as_deref().unwrap_or_default();
    let code = wire_oauth::device_code(&way(process), &endpoint(url)?, &app.client, &app.terms.scopes).await;
    code.map_err(|error| judged(&later(TimeDelta::zero(), Some(error)), 0).1)
}

/// Why a device has no tokens (RFC 8628 §3.5).
#[derive(Debug)]
pub enum Waiting {
    /// The person has not decided.
    Still {
        /// It is to be asked more seldom.
        slower: bool,
    },
    /// The person said no.
    Denied,
    /// The code has ended.
    Expired,
    /// Something else.
    Failed(GrantError),
}

/// Asks once whether the person has decided.
///
/// # Errors
/// [`Waiting`].
pub async fn device_token(process: &Process, app: &Usable, code: &Secret) -> Result<Tokens, Waiting> {
    let asked = wire_oauth::Grant::Device(code.clone());
    let endpoint = endpoint(&app.terms.endpoints.token_endpoint).map_err(Waiting::Failed)?;
    let error = match wire_oauth::token(&way(process), &endpoint, &app.client, &asked).await {
        Ok(tokens) => return Ok(tokens),
        Err(error) => error,
    };
    let word = if let TokenError::Refused { error, .. } = &error { error.as_str() } else { "" };
    Err(match word {
        "authorization_pending" => Waiting::Still { slower: false },
        "slow_down" => Waiting::Still { slower: true },
        "access_denied" => Waiting::Denied,
        "expired_token" | "invalid_grant" => Waiting::Expired,
        _ => Waiting::Failed(judged(&later(TimeDelta::zero(), Some(error)), 0).1),
    })
}

/// Gives a grant back at its provider (RFC 7009). `false`: the provider has no way to do so.
///
/// # Errors
/// [`GrantError`].
pub async fn revoke(process: &Process, (tenant, id): (TenantId, GrantId)) -> Result<bool, GrantError> {
    let mut tx = process.db.tenant(tenant).await?;
    let grant = grant::open(&mut tx, &process.keyring, id).await?.ok_or(GrantError::Gone)?;
    let app = app::open(&mut tx, &process.oauth_apps, &process.keyring, grant.app).await?;
    tx.release();
    let app = app.ok_or(GrantError::Gone)?;
    // What is refused already needs no giving back.
    if grant.refused.is_some() {
        return Ok(false);
    }
    let (Some(url), Some(token)) = (&app.terms.endpoints.revocation_endpoint, &grant.refresh) else {
        return Ok(false);
    };
    let done = wire_oauth::revoke(&way(process), &endpoint(url)?, &app.client, token).await;
    done.map(|()| true).map_err(|error| judged(&later(TimeDelta::zero(), Some(error)), 0).1)
}

#[derive(Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    sub: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

/// What a service account signs to act for a user (RFC 7523 §3, with Google's `scope`).
fn assertion(app: &Usable, subject: &str, scope: &str, now: DateTime<Utc>) -> Result<Secret, GrantError> {
    let key = app.private_key.as_ref().ok_or_else(|| GrantError::App(JWT_BEARER.to_owned()))?;
    let unreadable = |_| GrantError::App("the app's private key cannot be used".to_owned());
    let key = EncodingKey::from_rsa_pem(key.expose().as_bytes()).map_err(unreadable)?;
    let claims = Assertion {
        iss: &app.said.client_id,
        sub: subject,
        scope,
        aud: &app.terms.endpoints.token_endpoint,
        iat: now.timestamp(),
        exp: (now + ASSERTION).timestamp(),
    };
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).map(Secret::new).map_err(unreadable)
}
