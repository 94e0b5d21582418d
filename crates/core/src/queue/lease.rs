//! One writer per account: a lease row with an epoch, judged by the database's time.
//!
//! Whoever synchronises an account holds its row of `account_leases`. Taking it over raises the epoch, and every
//! transaction that writes what a mail server said begins with [`Lease::begin`], which checks owner, epoch and time
//! under a share lock: a worker that was stopped and continued can write nothing once another has taken over, and none
//! can take over while a checked transaction is open. Work is never done under the lock, only writes.
//!
//! A new kind of write of synchronised data starts from [`Lease::begin`]; there is no other way to get its transaction.

use std::time::Duration;

use uuid::Uuid;

use crate::platform::db::{Db, DbError, TenantTx};
use crate::platform::id::{AccountId, TenantId};

/// The right to write one account's synchronised rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Owner of the account.
    pub tenant: TenantId,
    /// The account.
    pub account: AccountId,
    /// The process that holds it.
    pub owner: Uuid,
    /// Grows with every taking; an earlier holder's is smaller.
    pub epoch: i64,
}

/// Why a write under a lease was not done.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// It ran out or another worker took over: stop, nothing may be written any more.
    #[error("the lease of the account was lost")]
    Lost,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Takes the lease of `account` if nobody holds it. `None`: someone does, the account is paused, its tenant suspended, or
/// there is none.
///
/// Not reentrant: the same `owner` asking twice gets `None` the second time, so two jobs of one process do not mix.
pub async fn acquire(
    tx: &mut TenantTx,
    account: AccountId,
    owner: Uuid,
    ttl: Duration,
) -> Result<Option<Lease>, DbError> {
    let tenant = tx.tenant();
    let epoch: Option<i64> = sqlx::query_scalar(
        "INSERT INTO account_leases AS l (tenant_id, account_id, owner, epoch, expires_at)
         SELECT a.tenant_id, a.id, $3, 1, clock_timestamp() + make_interval(secs => $4)
         FROM accounts a JOIN tenants t ON t.id = a.tenant_id
         WHERE a.tenant_id = $1 AND a.id = $2 AND t.suspended_at IS NULL
         ON CONFLICT (tenant_id, account_id) DO UPDATE
           SET owner = excluded.owner, epoch = l.epoch + 1, expires_at = excluded.expires_at
           WHERE l.paused_at IS NULL AND (l.owner IS NULL OR l.expires_at IS NULL OR l.expires_at <= clock_timestamp())
         RETURNING l.epoch",
    )
    .bind(tenant)
    .bind(account)
    .bind(owner)
    .bind(ttl.as_secs_f64())
    .fetch_optional(tx.conn())
    .await?;
    Ok(epoch.map(|epoch| Lease { tenant, account, owner, epoch }))
}

/// As [`take_away`], and from everybody until [`reopen`].
pub async fn close(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    take_away(tx, account).await?;
    sqlx::query("UPDATE account_leases SET paused_at = now() WHERE tenant_id = $1 AND account_id = $2")
        .bind(tx.tenant())
        .bind(account)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Takes the lease away from whoever has it: what is under way can write nothing any more and ends at its next transaction.
/// Nothing of it counts as a process that ended over a message.
pub async fn take_away(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    sqlx::query(
        "DELETE FROM ingest_batches t USING mailboxes b, account_leases l
         WHERE t.tenant_id = $1 AND b.tenant_id = $1 AND b.id = t.mailbox_id AND b.account_id = $2
           AND l.tenant_id = $1 AND l.account_id = $2 AND t.epoch = l.epoch",
    )
    .bind(tx.tenant())
    .bind(account)
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "UPDATE account_leases SET owner = NULL, expires_at = NULL, epoch = epoch + 1,
           watch_owner = NULL, watch_expires_at = NULL
         WHERE tenant_id = $1 AND account_id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Lets the lease be taken again, and a round be due at once.
pub async fn reopen(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE account_leases SET paused_at = NULL, next_due_at = now(), failing_since = NULL, wait_until = NULL
         WHERE tenant_id = $1 AND account_id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Extends the lease to `ttl` from now. `false`: it was lost; stop.
pub async fn renew(tx: &mut TenantTx, lease: &Lease, ttl: Duration) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE account_leases SET expires_at = clock_timestamp() + make_interval(secs => $5)
         WHERE tenant_id = $1 AND account_id = $2 AND owner = $3 AND epoch = $4 AND expires_at > clock_timestamp()",
    )
    .bind(lease.tenant)
    .bind(lease.account)
    .bind(lease.owner)
    .bind(lease.epoch)
    .bind(ttl.as_secs_f64())
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives the lease up, so that the next holder need not wait. Harmless when it was lost.
pub async fn release(tx: &mut TenantTx, lease: &Lease) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE account_leases SET owner = NULL, expires_at = NULL, connection_wanted_until = NULL
         WHERE tenant_id = $1 AND account_id = $2 AND owner = $3 AND epoch = $4",
    )
    .bind(lease.tenant)
    .bind(lease.account)
    .bind(lease.owner)
    .bind(lease.epoch)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Keeps whoever holds the leases of these accounts from writing until this transaction ends; before anything else of the
/// accounts is locked. A worker's transaction begins with the lease too: in another order the two would wait for each other
/// until the database ends one of them. Waits 10 s at most for what a worker is writing.
///
/// # Errors
/// [`DbError::Deleted`] when one of them was deleted while it was waited for. A transaction that begins later does not see it.
pub async fn lock(tx: &mut TenantTx, accounts: &[AccountId]) -> Result<(), DbError> {
    let ids: Vec<Uuid> = accounts.iter().map(|id| id.0).collect();
    sqlx::query("SET LOCAL lock_timeout = '10s'").execute(tx.conn()).await?;
    let deleted: Vec<bool> = sqlx::query_scalar(
        "SELECT removed_at IS NOT NULL FROM account_leases
         WHERE tenant_id = $1 AND account_id = ANY ($2) ORDER BY account_id FOR UPDATE",
    )
    .bind(tx.tenant())
    .bind(ids)
    .fetch_all(tx.conn())
    .await?;
    if deleted.contains(&true) { Err(DbError::Deleted) } else { Ok(()) }
}

/// Checks that `lease` is held and keeps it from being taken over until this transaction ends.
///
/// # Errors
/// [`LeaseError::Lost`] when it is not held.
pub async fn fence(tx: &mut TenantTx, lease: &Lease) -> Result<(), LeaseError> {
    let held: Option<i32> = sqlx::query_scalar(
        "SELECT 1 FROM account_leases
         WHERE tenant_id = $1 AND account_id = $2 AND owner = $3 AND epoch = $4 AND expires_at > clock_timestamp()
         FOR SHARE",
    )
    .bind(lease.tenant)
    .bind(lease.account)
    .bind(lease.owner)
    .bind(lease.epoch)
    .fetch_optional(tx.conn())
    .await
    .map_err(DbError::from)?;
    held.map(|_| ()).ok_or(LeaseError::Lost)
}

impl Lease {
    /// Begins a transaction that may write this account's synchronised rows.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when another worker may have taken over.
    pub async fn begin(&self, db: &Db) -> Result<TenantTx, LeaseError> {
        let mut tx = db.tenant(self.tenant).await?;
        fence(&mut tx, self).await?;
        Ok(tx)
    }

    /// The same, with a commit that returns before it is on disk: see [`Db::relaxed`].
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when another worker may have taken over.
    pub async fn begin_relaxed(&self, db: &Db) -> Result<TenantTx, LeaseError> {
        let mut tx = db.relaxed(self.tenant).await?;
        fence(&mut tx, self).await?;
        Ok(tx)
    }
}
