//! Devices without a browser (RFC 8628): a person enters a code elsewhere, and who asks for the device asks the provider.
//!
//! Rows live for an hour at most, so that their codes are not sealed anew when keys change: one that does not open any more has the
//! person begin again.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::Row as _;

use super::grant::StoreError;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, AppId, DeviceId, TenantId, UserId};
use crate::platform::seal::{Keyring, Place, Sealed};
use wire::oauth::DeviceCode;
use wire::secret::Secret;

const DEVICE_CODE: &str = "device_code";
/// For whom a flow was, it can be asked for so long after its end.
const KEPT: TimeDelta = TimeDelta::hours(1);

/// What a person is doing elsewhere.
#[derive(Debug, Clone)]
pub struct Device {
    /// The app that asks.
    pub app: AppId,
    /// The account that is renewed; none: a new one.
    pub account: Option<AccountId>,
    /// Who sent the person.
    pub actor: UserId,
    /// What the provider is asked with; none once it has answered for good.
    pub code: Option<Secret>,
    /// What the person enters.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// When both end.
    pub expires_at: DateTime<Utc>,
    /// Between two questions.
    pub interval: Duration,
    /// The account that came of it.
    pub connected: Option<AccountId>,
    /// Why none did: a word and a text.
    pub failed: Option<(String, String)>,
}

const fn place(tenant: TenantId, id: DeviceId) -> Place<'static> {
    Place { tenant, row: id.0, field: DEVICE_CODE }
}

/// Keeps what a provider gave. Those that have long ended are swept away.
///
/// # Errors
/// [`StoreError`].
pub async fn begin(
    tx: &mut TenantTx,
    keyring: &Keyring,
    (app, account, actor): (AppId, Option<AccountId>, UserId),
    (code, now): (&DeviceCode, DateTime<Utc>),
) -> Result<DeviceId, StoreError> {
    let (tenant, id) = (tx.tenant(), DeviceId::new());
    sqlx::query("DELETE FROM oauth_devices WHERE tenant_id = $1 AND expires_at < $2")
        .bind(tenant)
        .bind(now - KEPT)
        .execute(tx.conn())
        .await?;
    let sealed = keyring.seal(place(tenant, id), &code.device_code)?;
    let seconds = |d: Duration| i32::try_from(d.as_secs()).unwrap_or(i32::MAX);
    sqlx::query(
        "INSERT INTO oauth_devices (tenant_id, id, app_id, account_id, actor, device_code, device_code_key, user_code, verification_uri,
           verification_uri_complete, expires_at, interval_seconds, next_poll_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(tenant)
    .bind(id)
    .bind(app)
    .bind(account)
    .bind(actor)
    .bind(&sealed.bytes)
    .bind(&sealed.key_id)
    .bind(&code.user_code)
    .bind(&code.verification_uri)
    .bind(&code.verification_uri_complete)
    .bind(now + TimeDelta::from_std(code.expires_in).unwrap_or(KEPT))
    .bind(seconds(code.interval).max(1))
    .bind(now + TimeDelta::from_std(code.interval).unwrap_or_default())
    .execute(tx.conn())
    .await?;
    Ok(id)
}

/// One of them. `None`: there is none, or it has long ended.
///
/// # Errors
/// [`StoreError`].
pub async fn get(tx: &mut TenantTx, keyring: &Keyring, id: DeviceId) -> Result<Option<Device>, StoreError> {
    let tenant = tx.tenant();
    let row = sqlx::query(
        "SELECT app_id, account_id, actor, device_code, device_code_key, user_code, verification_uri, verification_uri_complete,
           expires_at, interval_seconds, connected_id, error, error_text FROM oauth_devices WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let sealed: (Option<Vec<u8>>, Option<String>) =
        (row.try_get("device_code")?, row.try_get("device_code_key")?);
    let code = match sealed {
        (Some(bytes), Some(key_id)) => Some(keyring.open(place(tenant, id), &Sealed { key_id, bytes })?),
        _ => None,
    };
    let error: Option<String> = row.try_get("error")?;
    let text: Option<String> = row.try_get("error_text")?;
    Ok(Some(Device {
        app: row.try_get("app_id")?,
        account: row.try_get("account_id")?,
        actor: row.try_get("actor")?,
        code,
        user_code: row.try_get("user_code")?,
        verification_uri: row.try_get("verification_uri")?,
        verification_uri_complete: row.try_get("verification_uri_complete")?,
        expires_at: row.try_get("expires_at")?,
        interval: Duration::from_secs(u64::try_from(row.try_get::<i32, _>("interval_seconds")?).unwrap_or(5)),
        connected: row.try_get("connected_id")?,
        failed: error.map(|error| (error, text.unwrap_or_default())),
    }))
}

/// Takes the right to ask the provider now. `false`: somebody just asked, or it has answered for good.
///
/// # Errors
/// Those of the database.
pub async fn may_ask(tx: &mut TenantTx, id: DeviceId, now: DateTime<Utc>) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE oauth_devices SET next_poll_at = $3::timestamptz + make_interval(secs => greatest(interval_seconds, 20))
         WHERE tenant_id = $1 AND id = $2 AND next_poll_at <= $3 AND expires_at > $3 AND connected_id IS NULL AND error IS NULL",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// The person has not decided. `slower`: the provider wants to be asked more seldom (RFC 8628 §3.5).
///
/// # Errors
/// Those of the database.
pub async fn waits(tx: &mut TenantTx, id: DeviceId, slower: bool, now: DateTime<Utc>) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE oauth_devices SET interval_seconds = interval_seconds + $3, next_poll_at = $4::timestamptz + make_interval(secs => interval_seconds + $3)
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(if slower { 5 } else { 0 })
    .bind(now)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// It has ended, with an account or with a reason. The code is forgotten. An account that is there is the end, whoever comes later.
///
/// # Errors
/// Those of the database.
pub async fn end(
    tx: &mut TenantTx,
    id: DeviceId,
    outcome: Result<AccountId, (&str, &str)>,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE oauth_devices SET device_code = NULL, device_code_key = NULL, connected_id = $3, error = $4, error_text = $5
         WHERE tenant_id = $1 AND id = $2 AND connected_id IS NULL AND ($3::uuid IS NOT NULL OR error IS NULL)",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(outcome.ok())
    .bind(outcome.err().map(|(word, _)| word))
    .bind(outcome.err().map(|(_, text)| text))
    .execute(tx.conn())
    .await?;
    Ok(())
}
