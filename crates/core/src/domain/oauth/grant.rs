//! What was granted to an app, with the tokens it gave: by a person (a refresh token), to the app itself, or to a service account
//! for a user. Accounts that log in with tokens name their grant.
//!
//! One worker renews a grant at a time: who has its claim. Nothing is locked while the provider is asked, so an answer is
//! stored only where the row still has the refresh token that was sent (its `generation`), whoever has the claim by then. A
//! refresh token that the provider calls invalid counts as refused after a second look: an answer that was lost, or two
//! workers at once, may have used it up.

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use uuid::Uuid;

use super::provider::Provider;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AppId, GrantId, TenantId};
use crate::platform::seal::{Keyring, Place, SealError, Sealed};
use crate::platform::words::words;
use wire::oauth::Tokens;
use wire::secret::Secret;

const REFRESH: &str = "refresh_token";
const ACCESS: &str = "access_token";
/// Who asks has half of it.
pub const CLAIM: TimeDelta = TimeDelta::seconds(30);
/// Between the first and the second answer that a refresh token is invalid.
pub const SECOND_LOOK: TimeDelta = TimeDelta::seconds(30);
/// A grant that nobody uses is renewed so often: providers forget those that are silent for months, some after weeks.
const UNUSED: TimeDelta = TimeDelta::days(7);
/// A token is renewed before its end by a fifth of its life, and by no more than this.
const AHEAD: TimeDelta = TimeDelta::minutes(5);
/// Of what a provider says in words.
const WORDS: usize = 500;

words! {
    /// What a grant rests on.
    pub enum Kind {
        /// A person's consent.
        Person = "person",
        /// The app itself (RFC 6749 §4.4).
        Client = "client",
        /// A service account, for a user (RFC 7523).
        Service = "service",
    }
}

/// A grant with its secrets opened.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// The app it was given to.
    pub app: AppId,
    /// What it rests on.
    pub kind: Kind,
    /// For whom, where it is one person's.
    pub subject: String,
    /// The refresh token.
    pub refresh: Option<Secret>,
    /// The access token.
    pub access: Option<Secret>,
    /// Which refresh token that is.
    pub generation: i64,
    /// When the access token ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was renewed.
    pub renewed_at: Option<DateTime<Utc>>,
    /// When it is due.
    pub renew_at: Option<DateTime<Utc>>,
    /// Whether the access token was asked for since.
    pub used: bool,
    /// Nobody asks the provider before this.
    pub next_try_at: Option<DateTime<Utc>>,
    /// Failures one after the other.
    pub failures: i32,
    /// The provider's words: it has refused, and a person has to act.
    pub refused: Option<String>,
    /// What it said of the app when it was asked last.
    pub app_fault: Option<String>,
}

/// Why a grant cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A token could not be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

/// What there is before any token was asked for.
#[derive(Debug, Clone)]
pub struct NewGrant<'a> {
    /// The app.
    pub app: AppId,
    /// Whose.
    pub provider: Provider,
    /// What it rests on.
    pub kind: Kind,
    /// For whom; empty for an app itself.
    pub subject: &'a str,
    /// A refresh token that a client has already.
    pub refresh: Option<&'a Secret>,
}

const fn place(tenant: TenantId, id: GrantId, field: &str) -> Place<'_> {
    Place { tenant, row: id.0, field }
}

/// Keeps a grant. One of an app itself is there once, whoever asks for it; so is one of a refresh token that was handed over: the
/// provider may have replaced it since, and it is worth nothing a second time. Those that no account came to need are swept away.
///
/// # Errors
/// [`StoreError`].
pub async fn create(tx: &mut TenantTx, keyring: &Keyring, new: &NewGrant<'_>) -> Result<GrantId, StoreError> {
    let (tenant, id) = (tx.tenant(), GrantId::new());
    // One that is just being given to an account is locked by its foreign key.
    sqlx::query(
        "DELETE FROM oauth_grants WHERE tenant_id = $1 AND id = ANY (ARRAY(
           SELECT g.id FROM oauth_grants g WHERE g.tenant_id = $1 AND g.created_at < now() - interval '1 hour'
             AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.tenant_id = g.tenant_id AND a.grant_id = g.id)
           FOR UPDATE SKIP LOCKED))",
    )
    .bind(tenant)
    .execute(tx.conn())
    .await?;
    let handed = new.refresh.map(|token| Sha256::digest(token.expose().as_bytes()).to_vec());
    if let Some(handed) = &handed {
        let kept: Option<GrantId> = sqlx::query_scalar(
            "SELECT g.id FROM oauth_grants g WHERE g.tenant_id = $1 AND g.app_id = $2 AND g.handed_hash = $3 AND g.refused IS NULL
               AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.tenant_id = g.tenant_id AND a.grant_id = g.id)
             ORDER BY g.id LIMIT 1",
        )
        .bind(tenant)
        .bind(new.app)
        .bind(handed)
        .fetch_optional(tx.conn())
        .await?;
        if let Some(kept) = kept {
            return Ok(kept);
        }
    }
    let refresh = new.refresh.map(|token| keyring.seal(place(tenant, id, REFRESH), token)).transpose()?;
    let made: Option<GrantId> = sqlx::query_scalar(
        "INSERT INTO oauth_grants (tenant_id, id, app_id, kind, subject, refresh_token, refresh_token_key, provider, handed_hash, renew_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + make_interval(days => 7))
         ON CONFLICT (tenant_id, app_id) WHERE kind = 'client' DO NOTHING RETURNING id",
    )
    .bind(tenant)
    .bind(id)
    .bind(new.app)
    .bind(new.kind)
    .bind(new.subject)
    .bind(refresh.as_ref().map(|s| s.bytes.as_slice()))
    .bind(refresh.as_ref().map(|s| s.key_id.as_str()))
    .bind(new.provider)
    .bind(handed)
    .fetch_optional(tx.conn())
    .await?;
    if let Some(id) = made {
        return Ok(id);
    }
    Ok(sqlx::query_scalar(
        "SELECT id FROM oauth_grants WHERE tenant_id = $1 AND app_id = $2 AND kind = 'client'",
    )
    .bind(tenant)
    .bind(new.app)
    .fetch_one(tx.conn())
    .await?)
}

/// A grant with its secrets. `None`: there is none.
///
/// # Errors
/// [`StoreError`].
pub async fn open(tx: &mut TenantTx, keyring: &Keyring, id: GrantId) -> Result<Option<Grant>, StoreError> {
    let tenant = tx.tenant();
    let row = sqlx::query(
        "SELECT app_id, kind, subject, refresh_token, refresh_token_key, access_token, access_token_key, generation, expires_at,
           renewed_at, renew_at, used, next_try_at, failures, refused, app_fault
         FROM oauth_grants WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let open = |field: &'static str| -> Result<Option<Secret>, StoreError> {
        let key_id: Option<String> = row.try_get(format!("{field}_key").as_str())?;
        let bytes: Option<Vec<u8>> = row.try_get(field)?;
        let Some((key_id, bytes)) = key_id.zip(bytes) else { return Ok(None) };
        Ok(Some(keyring.open(place(tenant, id, field), &Sealed { key_id, bytes })?))
    };
    Ok(Some(Grant {
        id,
        app: row.try_get("app_id")?,
        kind: row.try_get("kind")?,
        subject: row.try_get("subject")?,
        refresh: open(REFRESH)?,
        access: open(ACCESS)?,
        generation: row.try_get("generation")?,
        expires_at: row.try_get("expires_at")?,
        renewed_at: row.try_get("renewed_at")?,
        renew_at: row.try_get("renew_at")?,
        used: row.try_get("used")?,
        next_try_at: row.try_get("next_try_at")?,
        failures: row.try_get("failures")?,
        refused: row.try_get("refused")?,
        app_fault: row.try_get("app_fault")?,
    }))
}

/// Takes the right to ask the provider. `None`: somebody else has it or has just used it, or the provider is not to be asked yet.
///
/// # Errors
/// Those of the database.
pub async fn claim(
    tx: &mut TenantTx,
    (id, generation): (GrantId, i64),
    now: DateTime<Utc>,
) -> Result<Option<Uuid>, DbError> {
    let claim = Uuid::from_bytes(rand::random());
    let done = sqlx::query(
        "UPDATE oauth_grants SET claim = $3, claimed_until = $5
         WHERE tenant_id = $1 AND id = $2 AND generation = $6 AND refused IS NULL AND (claimed_until IS NULL OR claimed_until <= $4)
           AND (next_try_at IS NULL OR next_try_at <= $4)",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(claim)
    .bind(now)
    .bind(now + CLAIM)
    .bind(generation)
    .execute(tx.conn())
    .await?;
    Ok((done.rows_affected() == 1).then_some(claim))
}

/// When a token that ends then is renewed: `unit` (0 to 1) spreads those of many accounts that came at once.
#[must_use]
pub fn due(now: DateTime<Utc>, expires_at: DateTime<Utc>, unit: f64) -> DateTime<Utc> {
    let life = (expires_at - now).max(TimeDelta::zero());
    let ahead = (life / 5).min(AHEAD);
    let spread = ahead.num_milliseconds() as f64 / 2.0 * unit.clamp(0.0, 1.0);
    expires_at - ahead - TimeDelta::milliseconds(spread as i64)
}

/// Stores tokens, unless the refresh token that was sent for them is no longer the one there is. Whether it did.
///
/// # Errors
/// [`StoreError`].
pub async fn renewed(
    tx: &mut TenantTx,
    keyring: &Keyring,
    (id, generation): (GrantId, i64),
    tokens: &Tokens,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let tenant = tx.tenant();
    let access = keyring.seal(place(tenant, id, ACCESS), &tokens.access)?;
    let refresh =
        tokens.refresh.as_ref().map(|token| keyring.seal(place(tenant, id, REFRESH), token)).transpose()?;
    let done = sqlx::query(
        "UPDATE oauth_grants SET access_token = $4, access_token_key = $5, expires_at = $8, renewed_at = $9, renew_at = $10,
           refresh_token = coalesce($6, refresh_token), refresh_token_key = coalesce($7, refresh_token_key),
           generation = generation + 1, scopes = coalesce($11, scopes), used = false, claim = NULL, claimed_until = NULL,
           failures = 0, next_try_at = NULL, invalid_since = NULL, refused = NULL, app_fault = NULL
         WHERE tenant_id = $1 AND id = $2 AND generation = $3",
    )
    .bind(tenant)
    .bind(id)
    .bind(generation)
    .bind(&access.bytes)
    .bind(&access.key_id)
    .bind(refresh.as_ref().map(|s| s.bytes.as_slice()))
    .bind(refresh.as_ref().map(|s| s.key_id.as_str()))
    .bind(now + TimeDelta::from_std(tokens.expires_in).unwrap_or(UNUSED))
    .bind(now)
    .bind(now + UNUSED)
    .bind(&tokens.scope)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The access token is used: it is renewed before its end from now on.
///
/// # Errors
/// Those of the database.
pub async fn note_used(tx: &mut TenantTx, id: GrantId, renew_at: DateTime<Utc>) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE oauth_grants SET used = true, renew_at = $3 WHERE tenant_id = $1 AND id = $2 AND NOT used",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(renew_at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Nobody asks the provider before `until`. For who has the claim. `app_fault`: what it said of the app, where that was it.
///
/// # Errors
/// Those of the database.
pub async fn failed(
    tx: &mut TenantTx,
    (id, claim): (GrantId, Uuid),
    until: DateTime<Utc>,
    app_fault: Option<&str>,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE oauth_grants SET failures = failures + 1, next_try_at = $4, claim = NULL, claimed_until = NULL, app_fault = $5
         WHERE tenant_id = $1 AND id = $2 AND claim = $3",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(claim)
    .bind(until)
    .bind(app_fault)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The provider calls the refresh token invalid: `true` when it said so before, and a person has to act. The first time it is
/// looked at once more after [`SECOND_LOOK`]. An answer to an earlier refresh token says nothing.
///
/// # Errors
/// Those of the database.
pub async fn invalid(
    tx: &mut TenantTx,
    (id, generation): (GrantId, i64),
    words: &str,
    now: DateTime<Utc>,
) -> Result<bool, DbError> {
    let refused: Option<bool> = sqlx::query_scalar(
        "UPDATE oauth_grants SET claim = NULL, claimed_until = NULL, failures = failures + 1,
           invalid_since = coalesce(invalid_since, $4), next_try_at = $6,
           refused = CASE WHEN invalid_since <= $5 THEN $7 END
         WHERE tenant_id = $1 AND id = $2 AND generation = $3 RETURNING refused IS NOT NULL",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(generation)
    .bind(now)
    .bind(now - SECOND_LOOK)
    .bind(now + SECOND_LOOK)
    .bind(mail::address::clean_text(words, WORDS))
    .fetch_optional(tx.conn())
    .await?;
    Ok(refused == Some(true))
}

/// Nobody names it: it is not renewed any more.
///
/// # Errors
/// Those of the database.
pub async fn rest_unless_named(tx: &mut TenantTx, id: GrantId) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE oauth_grants g SET renew_at = NULL WHERE g.tenant_id = $1 AND g.id = $2
           AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.tenant_id = g.tenant_id AND a.grant_id = g.id)",
    )
    .bind(tx.tenant())
    .bind(id)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets a person's or a service account's grant that no account names any more. That of an app itself goes with the app.
///
/// # Errors
/// Those of the database.
pub async fn forget(tx: &mut TenantTx, id: GrantId) -> Result<(), DbError> {
    sqlx::query(
        "DELETE FROM oauth_grants g WHERE g.tenant_id = $1 AND g.id = $2 AND g.kind <> 'client'
           AND NOT EXISTS (SELECT 1 FROM accounts a WHERE a.tenant_id = g.tenant_id AND a.grant_id = g.id)",
    )
    .bind(tx.tenant())
    .bind(id)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// What clients see of the grant of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantShown {
    /// The app.
    pub app_id: AppId,
    /// Whose.
    pub provider: Provider,
    /// What it rests on.
    pub kind: Kind,
    /// What was granted, as the provider said it.
    pub scopes: String,
    /// When the access token ends.
    pub expires_at: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_a_fifth_of_its_life_before_its_end_and_not_all_at_once() {
        let now = DateTime::UNIX_EPOCH;
        let at = |life: i64, unit| (due(now, now + TimeDelta::seconds(life), unit) - now).num_milliseconds();
        assert_eq!([at(3_600, 0.0), at(3_600, 1.0)], [3_300_000, 3_150_000]);
        assert_eq!([at(10, 0.0), at(10, 1.0), at(0, 1.0), at(-5, 0.5)], [8_000, 7_000, 0, -5_000]);
    }
}
