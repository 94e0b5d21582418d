//! Webhooks: events of the log, sent to addresses of the tenant's own (Standard Webhooks 1.0.0).
//!
//! An endpoint has a place in the log: the oldest event that is not settled, and a set of what is settled beyond it ([`lane`]).
//! So a backlog of any length is no rows, and a replay is a second place. What an answer means is [`outcome`]; what failed is kept in
//! [`delivery`]; who sends holds the endpoint's lease ([`lease`]); what goes out is made and signed in [`send`] and [`secret`].
//! Here: what clients write and read. Whatever a client writes takes the lease away, so that who sends begins anew with it.

pub mod delivery;
pub mod lane;
pub mod lease;
pub mod outcome;
pub mod secret;
pub mod send;

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::envelope::Include;
use super::log::{self, Filter};
use crate::domain::event::EventKind;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, WebhookId};
use crate::platform::seal::{Keyring, SealError};
use crate::platform::words::words;
use wire::secret::Secret;

/// Webhooks of a tenant.
pub const MOST: i64 = 50;
/// How far back a replay may reach.
pub const REPLAY_DAYS: i64 = 30;
/// How long the secrets before the last change sign, too.
const OVERLAP: TimeDelta = TimeDelta::hours(24);

words! {
    /// How an endpoint stands.
    pub enum WebhookState {
        /// Events are sent.
        Enabled = "enabled",
        /// It does not answer as it should; it is tried again.
        Failing = "failing",
        /// Nothing is sent until a client enables it.
        Disabled = "disabled",
    }
}

/// What a client says of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWebhook {
    /// Where to.
    pub url: String,
    /// Kinds of events; none: all.
    pub types: Vec<String>,
    /// Events of these accounts; none: of all, and those of the tenant.
    pub account_ids: Vec<AccountId>,
    /// For people.
    pub description: String,
    /// How much goes with an event.
    pub include: Include,
    /// Whether old mail that is read for the first time is told.
    pub backfill: bool,
}

/// A webhook as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// As in [`NewWebhook`].
    pub url: String,
    /// As in [`NewWebhook`].
    pub types: Option<Vec<String>>,
    /// As in [`NewWebhook`].
    pub account_ids: Option<Vec<AccountId>>,
    /// As in [`NewWebhook`].
    pub description: String,
    /// As in [`NewWebhook`].
    pub include: Include,
    /// As in [`NewWebhook`].
    pub backfill: bool,
    /// How it stands.
    pub state: WebhookState,
    /// The word of its last failure, where it is failing or disabled.
    pub cause: Option<String>,
    /// Since when nothing succeeded.
    pub failing_since: Option<DateTime<Utc>>,
    /// When it is tried again.
    pub next_try_at: Option<DateTime<Utc>>,
    /// Events that were taken.
    pub delivered: i64,
    /// Events that were given up.
    pub failed: i64,
    /// When one was taken last.
    pub last_success_at: Option<DateTime<Utc>>,
    /// Until when the secret before the last change signs, too.
    pub previous_until: Option<DateTime<Utc>>,
    /// Events are sent again.
    pub replaying: bool,
    /// Grows with each change by a client.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When a client changed it last.
    pub updated_at: DateTime<Utc>,
}

impl Webhook {
    /// What a client said of it.
    #[must_use]
    pub fn said(&self) -> NewWebhook {
        NewWebhook {
            url: self.url.clone(),
            types: self.types.clone().unwrap_or_default(),
            account_ids: self.account_ids.clone().unwrap_or_default(),
            description: self.description.clone(),
            include: self.include,
            backfill: self.backfill,
        }
    }
}

/// Why a webhook was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The tenant has [`MOST`] of them.
    #[error("a tenant has at most {MOST} webhooks")]
    TooMany,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The secret could not be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<sqlx::Error> for WebhookError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

/// The events that an endpoint wants.
#[must_use]
pub fn filter(types: Option<&[String]>, accounts: Option<&[AccountId]>, backfill: bool) -> Filter {
    // A word that a later release has written is of no event that this one knows.
    let kinds =
        |words: &[String]| words.iter().filter_map(|w| EventKind::from_word(w)).collect::<BTreeSet<_>>();
    Filter { accounts: accounts.map(|all| all.iter().copied().collect()), kinds: types.map(kinds), backfill }
}

fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

/// Makes a webhook, which gets what happens from now on. Its secret is told here and never again.
///
/// # Errors
/// [`WebhookError`].
pub async fn create(
    tx: &mut TenantTx,
    keyring: &Keyring,
    new: &NewWebhook,
) -> Result<(Webhook, Secret), WebhookError> {
    let tenant = tx.tenant();
    // Two that are made at once would both be the last that there is room for.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('webhooks ' || $1::text, 0))")
        .bind(tenant)
        .execute(tx.conn())
        .await?;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM webhooks WHERE tenant_id = $1")
        .bind(tenant)
        .fetch_one(tx.conn())
        .await?;
    if count >= MOST {
        return Err(WebhookError::TooMany);
    }
    let (id, secret) = (WebhookId::new(), secret::generate());
    let sealed = secret::seal(keyring, (tenant, id), secret::CURRENT, &secret)?;
    let position = log::stream(tx).await?.position;
    sqlx::query(
        "INSERT INTO webhooks (tenant_id, id, url, types, account_ids, description, include, backfill, secret, secret_key, position, seen)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)",
    )
    .bind(tenant)
    .bind(id)
    .bind(&new.url)
    .bind(some(&new.types))
    .bind(some(&new.account_ids))
    .bind(&new.description)
    .bind(new.include)
    .bind(new.backfill)
    .bind(sealed.bytes)
    .bind(sealed.key_id)
    .bind(position)
    .execute(tx.conn())
    .await?;
    let made = get(tx, id).await?.ok_or(sqlx::Error::RowNotFound)?;
    Ok((made, secret))
}

/// One webhook.
///
/// # Errors
/// Those of the database.
pub async fn get(tx: &mut TenantTx, id: WebhookId) -> Result<Option<Webhook>, DbError> {
    Ok(list(tx, Some(id), true, 1).await?.into_iter().next())
}

/// The tenant's webhooks after the id `after`, in the order they were made.
///
/// # Errors
/// Those of the database.
pub async fn page(tx: &mut TenantTx, after: Option<WebhookId>, limit: i64) -> Result<Vec<Webhook>, DbError> {
    list(tx, after, false, limit).await
}

async fn list(
    tx: &mut TenantTx,
    from: Option<WebhookId>,
    itself: bool,
    limit: i64,
) -> Result<Vec<Webhook>, DbError> {
    Ok(sqlx::query_as(
        "SELECT id, url, types, account_ids, description, include, backfill, state, cause, failing_since, next_try_at, delivered,
           failed, last_success_at, previous_until, replay_position IS NOT NULL AS replaying, version, created_at, updated_at
         FROM webhooks WHERE tenant_id = $1 AND CASE WHEN $3 THEN id = $2 ELSE id > $2 END ORDER BY id LIMIT $4",
    )
    .bind(tx.tenant())
    .bind(from.unwrap_or(WebhookId(Uuid::nil())))
    .bind(itself)
    .bind(limit)
    .fetch_all(tx.conn())
    .await?)
}

/// Takes the endpoint from whoever sends to it, who then can note nothing more, and has it looked at from `now` on. `false`: there
/// is no such webhook.
///
/// # Errors
/// Those of the database.
async fn take(tx: &mut TenantTx, id: WebhookId, now: DateTime<Utc>) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE webhooks SET owner = NULL, lease_until = NULL, epoch = epoch + 1, wake_at = $3
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// As [`get`], and nobody else changes it until this transaction ends.
///
/// # Errors
/// Those of the database.
pub async fn get_for_update(
    tx: &mut TenantTx,
    id: WebhookId,
    now: DateTime<Utc>,
) -> Result<Option<Webhook>, DbError> {
    if take(tx, id, now).await? { get(tx, id).await } else { Ok(None) }
}

/// Replaces what a client said of a webhook. One that was failing is tried at once, since it may be another now. `None`: there
/// is no such webhook.
///
/// # Errors
/// Those of the database.
pub async fn replace(
    tx: &mut TenantTx,
    id: WebhookId,
    new: &NewWebhook,
    now: DateTime<Utc>,
) -> Result<Option<Webhook>, DbError> {
    sqlx::query(
        "UPDATE webhooks SET url = $3, types = $4, account_ids = $5, description = $6, include = $7, backfill = $8,
           next_try_at = NULL, version = version + 1, updated_at = $9,
           -- What another address did says nothing of this one.
           failures = CASE WHEN url = $3 THEN failures ELSE 0 END, failing_since = CASE WHEN url = $3 THEN failing_since END,
           cause = CASE WHEN url = $3 OR state = 'disabled' THEN cause END,
           state = CASE WHEN url <> $3 AND state = 'failing' THEN 'enabled' ELSE state END
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(&new.url)
    .bind(some(&new.types))
    .bind(some(&new.account_ids))
    .bind(&new.description)
    .bind(new.include)
    .bind(new.backfill)
    .bind(now)
    .execute(tx.conn())
    .await?;
    get_for_update(tx, id, now).await
}

/// Removes a webhook with what is known of its deliveries. `false`: there was none.
///
/// # Errors
/// Those of the database.
pub async fn delete(tx: &mut TenantTx, id: WebhookId) -> Result<bool, DbError> {
    let done = sqlx::query("DELETE FROM webhooks WHERE tenant_id = $1 AND id = $2")
        .bind(tx.tenant())
        .bind(id)
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Sends again, at once, from where it was left. `None`: there is no such webhook.
///
/// # Errors
/// Those of the database.
pub async fn enable(
    tx: &mut TenantTx,
    id: WebhookId,
    now: DateTime<Utc>,
) -> Result<Option<Webhook>, DbError> {
    sqlx::query(
        "UPDATE webhooks SET state = 'enabled', cause = NULL, failures = 0, failing_since = NULL, next_try_at = NULL
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .execute(tx.conn())
    .await?;
    get_for_update(tx, id, now).await
}

/// Gives a webhook another secret, which is told here and never again. The one before signs beside it for a day, and so do those
/// that signed beside that one: the answer that told of it may have been lost. `None`: there is no such webhook.
///
/// # Errors
/// [`WebhookError`].
pub async fn rotate(
    tx: &mut TenantTx,
    keyring: &Keyring,
    id: WebhookId,
    now: DateTime<Utc>,
) -> Result<Option<(Webhook, Secret)>, WebhookError> {
    let tenant = tx.tenant();
    if !take(tx, id, now).await? {
        return Ok(None);
    }
    let older = secret::stored(tx, id).await?.older(keyring, now);
    let seal = |older| secret::seal(keyring, (tenant, id), secret::PREVIOUS, older);
    let previous = older.as_ref().map(seal).transpose()?;
    let until = previous.is_some().then(|| now + OVERLAP);
    let fresh = secret::generate();
    let sealed = secret::seal(keyring, (tenant, id), secret::CURRENT, &fresh)?;
    sqlx::query(
        "UPDATE webhooks SET secret = $3, secret_key = $4, previous_secret = $5, previous_secret_key = $6, previous_until = $7
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id)
    .bind(sealed.bytes)
    .bind(sealed.key_id)
    .bind(previous.as_ref().map(|sealed| &sealed.bytes))
    .bind(previous.as_ref().map(|sealed| &sealed.key_id))
    .bind(until)
    .execute(tx.conn())
    .await?;
    Ok(get(tx, id).await?.map(|webhook| (webhook, fresh)))
}

/// What is to be sent again.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Events that happened at this moment or later.
    pub since: DateTime<Utc>,
    /// And before this one.
    pub until: DateTime<Utc>,
    /// Of these kinds only; none: of those that the webhook gets.
    pub types: Vec<String>,
}

/// Why nothing is sent again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no such webhook.
    #[error("there is no such webhook")]
    NotFound,
    /// It sends no events.
    #[error("the webhook is disabled")]
    Disabled,
    /// An earlier replay has not ended.
    #[error("events of an earlier replay are being sent")]
    Running,
    /// The log begins later.
    #[error("the log does not reach back so far")]
    TooOld,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Has events sent again, beside what is new, in their order. How many positions of the log that is, at most.
///
/// # Errors
/// [`ReplayError`].
pub async fn replay(
    tx: &mut TenantTx,
    id: WebhookId,
    replay: &Replay,
    now: DateTime<Utc>,
) -> Result<i64, ReplayError> {
    let webhook = get_for_update(tx, id, now).await?.ok_or(ReplayError::NotFound)?;
    if webhook.state == WebhookState::Disabled {
        return Err(ReplayError::Disabled);
    }
    if webhook.replaying {
        return Err(ReplayError::Running);
    }
    let stream = log::stream(tx).await?;
    let (from, to) = (log::position_at(tx, replay.since).await?, log::position_at(tx, replay.until).await?);
    // Whatever was cut off may have happened after `since`.
    if stream.oldest > 1 && from < stream.oldest {
        return Err(ReplayError::TooOld);
    }
    sqlx::query(
        "UPDATE webhooks SET replay_position = $3, replay_until = $4, replay_types = $5, replay_settled = '{}'
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(from)
    .bind(to)
    .bind(some(&replay.types))
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    Ok(to - from)
}
