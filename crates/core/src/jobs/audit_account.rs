//! The daily comparison of an account with its server.

use std::time::Duration;

use super::{JobError, past};
use crate::platform::config::Config;
use crate::platform::db::{Db, DbError, SystemTx, TenantTx};
use crate::platform::id::{AccountId, TenantId};
use crate::queue::job::{Declaration, Job, Sweep, enqueue, priority};
use crate::sync::driver::{self, SyncContext, SyncError};

/// Nobody waits for it.
pub const DECLARATION: Declaration = Declaration {
    kind: "audit_account",
    attempts: 20,
    priority: priority::AUDIT,
    sweep: Sweep::Every(Duration::from_secs(10), |db, config| Box::pin(sweep(db, config))),
};

/// Audits started in one look. Each account has its own time of the day; after a day without a scheduler all of them are due
/// at once, and are spread over hours again.
const AT_ONCE: i64 = 20;

/// Its dedupe key.
#[must_use]
pub fn key(account_id: AccountId) -> String {
    account_id.to_string()
}

/// After this long the job makes room for others and goes on later.
const SLICE: Duration = Duration::from_secs(5);
/// How long it makes room.
const ROOM: Duration = Duration::from_secs(2);
/// A server that failed us is left to the rounds, which say so, and audited later.
const LATER: Duration = Duration::from_secs(3600);

/// Compares the mailboxes that are due, in slices.
///
/// # Errors
/// When the database refused, or there is more to do.
pub async fn run(env: &SyncContext, tenant: TenantId, account: AccountId) -> Result<(), JobError> {
    if !env.config.imap_enabled {
        return Ok(());
    }
    match driver::audit_account(env, tenant, account, SLICE).await {
        Ok(audited) => {
            tracing::info!(%account, mailboxes = audited.mailboxes, repairs = audited.repairs, done = audited.done, "audit");
            if audited.done {
                return Ok(());
            }
            Err(JobError::postpone(ROOM, anyhow::anyhow!("mailboxes are left to be compared")))
        }
        Err(SyncError::NoSuchAccount | SyncError::Paused) => Ok(()),
        Err(error @ (SyncError::Busy | SyncError::Stopped | SyncError::Lost)) => {
            Err(JobError::postpone(ROOM, error))
        }
        Err(error) if error.is_recorded() => {
            tracing::info!(%account, %error, "the audit is put off");
            let mut tx = env.db.tenant(tenant).await?;
            put_off(&mut tx, account, LATER).await?;
            Ok(tx.commit().await?)
        }
        Err(error) => Err(JobError::retry(error)),
    }
}

/// Starts the audits that are due.
async fn sweep(db: &Db, config: &Config) -> Result<(), DbError> {
    if !config.imap_enabled {
        return Ok(());
    }
    let mut tx = db.system().await?;
    let due = due(&mut tx, AT_ONCE).await?;
    drop(tx);
    for (tenant, account) in due {
        let started = async {
            let mut tx = db.tenant(tenant).await?;
            start(&mut tx, account).await?;
            tx.commit().await
        };
        past(db, account, started.await).await?;
    }
    Ok(())
}

/// Accounts whose daily audit is due, longest waiting first; those in trouble are left until they are out of it.
pub async fn due(tx: &mut SystemTx, limit: i64) -> Result<Vec<(TenantId, AccountId)>, DbError> {
    Ok(sqlx::query_as(
        "SELECT l.tenant_id, l.account_id FROM account_leases l
         JOIN accounts a ON a.tenant_id = l.tenant_id AND a.id = l.account_id
         JOIN tenants t ON t.id = l.tenant_id
         WHERE l.next_audit_at <= now() AND a.state IN ('connected', 'syncing') AND t.suspended_at IS NULL
         ORDER BY l.next_audit_at LIMIT $1",
    )
    .bind(limit)
    .fetch_all(tx.conn())
    .await?)
}

/// Enqueues the audit of an account that is due, and moves its next one to the same time tomorrow. Nothing is
/// done when it is not due any more or somebody holds its row.
async fn start(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    let moved = sqlx::query(
        "UPDATE account_leases SET next_audit_at = now() + interval '1 day'
         WHERE (tenant_id, account_id) IN (SELECT tenant_id, account_id FROM account_leases
           WHERE tenant_id = $1 AND account_id = $2 AND next_audit_at <= now() FOR UPDATE SKIP LOCKED)",
    )
    .bind(tx.tenant())
    .bind(account)
    .execute(tx.conn())
    .await?;
    if moved.rows_affected() == 0 {
        return Ok(());
    }
    enqueue(tx, &Job::AuditAccount { account_id: account }, Duration::ZERO).await?;
    Ok(())
}

/// Moves the account's next audit to `wait` from now.
async fn put_off(tx: &mut TenantTx, account: AccountId, wait: Duration) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE account_leases SET next_audit_at = now() + make_interval(secs => $3)
         WHERE tenant_id = $1 AND account_id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(wait.as_secs_f64())
    .execute(tx.conn())
    .await?;
    Ok(())
}
