//! Cross-tenant questions of the scheduler and the watcher: who leads, who watches what, what was left behind. What is due for a
//! job is asked in its file of `crate::jobs`.
//!
//! Answers are pairs of ids; the work itself happens in a [`TenantTx`] of that tenant.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::platform::db::{Db, DbError, SystemTx, TenantTx};
use crate::platform::id::{AccountId, TenantId};
use crate::sync::store::vanish;

/// Busy accounts whose watches are renewed in one look; each may have to be waited for.
const BUSY_WATCHES: i64 = 10;

/// Takes or keeps the lease called `name`; `false` when another scheduler holds it. One that ends later than a lease can was
/// taken before the clock was set back: it has `lease` left from now on, so that its holder can renew it.
pub async fn lead(tx: &mut SystemTx, name: &str, owner: Uuid, lease: Duration) -> Result<bool, DbError> {
    sqlx::query(
        "UPDATE scheduler_lease SET expires_at = now() + make_interval(secs => $3)
         WHERE name = $1 AND owner <> $2 AND expires_at > now() + make_interval(secs => $3 + 1)",
    )
    .bind(name)
    .bind(owner)
    .bind(lease.as_secs_f64())
    .execute(tx.conn())
    .await?;
    let done = sqlx::query(
        "INSERT INTO scheduler_lease (name, owner, expires_at) VALUES ($1, $2, now() + make_interval(secs => $3))
         ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at
         WHERE scheduler_lease.owner = excluded.owner OR scheduler_lease.expires_at < now()",
    )
    .bind(name)
    .bind(owner)
    .bind(lease.as_secs_f64())
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives up the lease called `name`, so that another scheduler need not wait for its end.
pub async fn step_down(tx: &mut SystemTx, name: &str, owner: Uuid) -> Result<(), DbError> {
    sqlx::query("DELETE FROM scheduler_lease WHERE name = $1 AND owner = $2")
        .bind(name)
        .bind(owner)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Accounts with messages in no mailbox that nobody waits for any more.
pub async fn accounts_with_gone(tx: &mut SystemTx) -> Result<Vec<(TenantId, AccountId)>, DbError> {
    let rows = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT a.tenant_id, a.account_id FROM (
           SELECT tenant_id, account_id, min(gone_at) AS first FROM messages WHERE gone_at < now() - interval '{least} seconds'
           GROUP BY tenant_id, account_id) a
         WHERE a.first < {over} LIMIT 200",
        least = vanish::GONE_KEPT_FOR.as_secs(),
        over = vanish::over("a.tenant_id", "a.account_id")
    )))
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// Accounts with messages that went at an instant which is still to come, because the clock was set back.
pub async fn accounts_with_gone_ahead(tx: &mut SystemTx) -> Result<Vec<(TenantId, AccountId)>, DbError> {
    let rows = sqlx::query_as(
        "SELECT DISTINCT tenant_id, account_id FROM messages WHERE gone_at > now() + interval '1 minute' LIMIT 200",
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// Messages that went at an instant which is still to come went now: the clock was set back since.
pub async fn gone_by_now(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE messages SET gone_at = now() WHERE tenant_id = $1 AND account_id = $2 AND gone_at > now() + interval '1 minute'",
    )
    .bind(tx.tenant())
    .bind(account)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Forgets idempotency keys older than a day. Returns how many.
pub async fn prune_idempotency(tx: &mut SystemTx) -> Result<u64, DbError> {
    let done = sqlx::query("DELETE FROM idempotency_keys WHERE created_at < now() - interval '24 hours'")
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected())
}

/// An account that is to be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Watched {
    /// Its owner.
    pub tenant: TenantId,
    /// The account.
    pub account: AccountId,
    /// The server allows one connection, and somebody else of us needs it now.
    pub gives_way: bool,
}

/// Accounts this worker shall watch: keeps those it watches, adds unwatched ones up to `limit`.
pub async fn claim_watches(
    db: &Db,
    owner: Uuid,
    lease: Duration,
    limit: i64,
) -> Result<Vec<Watched>, DbError> {
    let mut tx = db.system().await?;
    // Only what is free or a third gone is written: this is asked every two seconds, for thousands of rows.
    sqlx::query(
        "UPDATE account_leases l SET watch_owner = $1, watch_expires_at = now() + make_interval(secs => $2)
         FROM (SELECT l.tenant_id, l.account_id FROM account_leases l
               JOIN accounts a ON a.tenant_id = l.tenant_id AND a.id = l.account_id
               JOIN tenants t ON t.id = l.tenant_id
               WHERE (l.watch_expires_at IS NULL OR l.watch_expires_at < now()
                      OR (l.watch_owner = $1 AND l.watch_expires_at < now() + make_interval(secs => $2 * 2 / 3)))
                 AND a.state IN ('connected', 'syncing') AND t.suspended_at IS NULL
               ORDER BY (l.watch_owner = $1) DESC NULLS LAST
               LIMIT greatest(0, $3 - (SELECT count(*) FROM account_leases WHERE watch_owner = $1
                           AND watch_expires_at >= now() + make_interval(secs => $2 * 2 / 3)))
               FOR UPDATE OF l SKIP LOCKED) c
         WHERE l.tenant_id = c.tenant_id AND l.account_id = c.account_id",
    )
    .bind(owner)
    .bind(lease.as_secs_f64())
    .bind(limit)
    .execute(tx.conn())
    .await?;
    tx.commit().await?;
    keep_busy_watches(db, owner, lease).await?;
    let mut tx = db.system().await?;
    let rows = sqlx::query_as(
        "SELECT l.tenant_id AS tenant, l.account_id AS account, coalesce(l.connection_wanted_until > now(), false)
           OR coalesce(l.one_connection_until > now() AND l.owner IS NOT NULL AND l.expires_at > now(), false) AS gives_way
         FROM account_leases l
         JOIN accounts a ON a.tenant_id = l.tenant_id AND a.id = l.account_id
         JOIN tenants t ON t.id = l.tenant_id
         WHERE l.watch_owner = $1 AND l.watch_expires_at > now()
           AND a.state IN ('connected', 'syncing') AND t.suspended_at IS NULL",
    )
    .bind(owner)
    .fetch_all(tx.conn())
    .await?;
    tx.release();
    Ok(rows)
}

/// Renews what `owner` watches and [`claim_watches`] had to pass over. A round that writes without pause locks its account's
/// row at nearly every moment; between two of its transactions only who waits comes to it. Each row on its own: one that is
/// held for long, such as by the deletion of its account, costs the others nothing but that time.
async fn keep_busy_watches(db: &Db, owner: Uuid, lease: Duration) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let rows: Vec<(TenantId, AccountId)> = sqlx::query_as(
        "SELECT l.tenant_id, l.account_id FROM account_leases l
         JOIN accounts a ON a.tenant_id = l.tenant_id AND a.id = l.account_id
         JOIN tenants t ON t.id = l.tenant_id
         WHERE l.watch_owner = $1 AND l.watch_expires_at BETWEEN now() AND now() + make_interval(secs => $2 * 2 / 3)
           AND a.state IN ('connected', 'syncing') AND t.suspended_at IS NULL
         ORDER BY l.watch_expires_at LIMIT $3",
    )
    .bind(owner)
    .bind(lease.as_secs_f64())
    .bind(BUSY_WATCHES)
    .fetch_all(tx.conn())
    .await?;
    tx.release();
    for of in rows {
        if let Err(error) = keep_watch(db, owner, lease, of).await {
            tracing::debug!(account = %of.1, %error, "the watch of a busy account could not be renewed yet");
        }
    }
    Ok(())
}

async fn keep_watch(
    db: &Db,
    owner: Uuid,
    lease: Duration,
    (tenant, account): (TenantId, AccountId),
) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    // Of the whole statement: to the limit on locks each writer that comes in between is a wait of its own.
    sqlx::query("SET LOCAL statement_timeout = '500ms'").execute(tx.conn()).await?;
    sqlx::query(
        "UPDATE account_leases SET watch_expires_at = now() + make_interval(secs => $4)
         WHERE tenant_id = $1 AND account_id = $2 AND watch_owner = $3",
    )
    .bind(tenant)
    .bind(account)
    .bind(owner)
    .bind(lease.as_secs_f64())
    .execute(tx.conn())
    .await?;
    tx.commit().await
}

/// Lets other workers take over at once what this one watched.
pub async fn release_watches(tx: &mut SystemTx, owner: Uuid) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE account_leases SET watch_owner = NULL, watch_expires_at = NULL WHERE watch_owner = $1",
    )
    .bind(owner)
    .execute(tx.conn())
    .await?;
    Ok(())
}
