//! One round of synchronisation of an account.

use std::time::Duration;

use mail::sync::Depth;

use super::{JobError, past};
use crate::platform::config::Config;
use crate::platform::db::{Db, DbError, SystemTx, TenantTx};
use crate::platform::id::{AccountId, TenantId};
use crate::queue::job::{Declaration, Job, Sweep, enqueue, priority};
use crate::sync::driver::{self, SyncContext, SyncError};

/// Asked for by a user or by news, it is more urgent than when it is due.
pub const DECLARATION: Declaration = Declaration {
    kind: "sync_account",
    attempts: 20,
    priority: priority::ROUND,
    sweep: Sweep::Every(Duration::from_secs(1), |db, config| Box::pin(sweep(db, config))),
};

/// Rounds started in one look; the rest waits for the next, longest waiting first.
const AT_ONCE: i64 = 500;

/// Its dedupe key.
#[must_use]
pub fn key(account_id: AccountId) -> String {
    account_id.to_string()
}

/// While another job has the account. Short: a user may be waiting for this one.
const BUSY: Duration = Duration::from_millis(250);

/// Runs a round. What went wrong on the server's side is recorded at the account, with the time of the next try, and
/// is no failure of the job.
///
/// # Errors
/// When the database refused, the account was busy or the process stops.
pub async fn run(env: &SyncContext, tenant: TenantId, account: AccountId) -> Result<(), JobError> {
    if !env.config.imap_enabled {
        return Ok(());
    }
    let report = driver::sync_account(env, tenant, account, Depth::Full).await;
    settle(account, report)
}

/// What the end of a round means for its job.
pub(super) fn settle(account: AccountId, result: Result<driver::Report, SyncError>) -> Result<(), JobError> {
    match result {
        Ok(report) => {
            tracing::info!(%account, visited = report.visited, failed = report.failed, created = report.created, flagged = report.flagged,
                removed = report.removed, pushed = report.pushed, "round done");
            Ok(())
        }
        Err(SyncError::NoSuchAccount | SyncError::Paused) => Ok(()),
        Err(error) if error.is_recorded() => {
            tracing::warn!(%account, %error, "round ended early; the account says when it is tried again");
            Ok(())
        }
        Err(error @ (SyncError::Busy | SyncError::Stopped)) => Err(JobError::postpone(BUSY, error)),
        Err(error) => Err(JobError::retry(error)),
    }
}

/// Starts the rounds that are due.
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
            start(&mut tx, account, config.sync_interval).await?;
            tx.commit().await
        };
        past(db, account, started.await).await?;
    }
    Ok(())
}

/// Accounts whose next round is due, longest waiting first.
pub async fn due(tx: &mut SystemTx, limit: i64) -> Result<Vec<(TenantId, AccountId)>, DbError> {
    Ok(sqlx::query_as(
        "SELECT l.tenant_id, l.account_id FROM account_leases l
         JOIN accounts a ON a.tenant_id = l.tenant_id AND a.id = l.account_id
         JOIN tenants t ON t.id = l.tenant_id
         WHERE l.next_due_at <= now() AND a.state <> 'paused' AND t.suspended_at IS NULL
         ORDER BY l.next_due_at LIMIT $1",
    )
    .bind(limit)
    .fetch_all(tx.conn())
    .await?)
}

/// Enqueues the round of a due account and moves its next turn `interval` on. Nothing is
/// done when it is not due any more, or when somebody holds its row, such as its deletion does for minutes: then it is due at the
/// next look, and nobody behind it waits.
async fn start(tx: &mut TenantTx, account: AccountId, interval: Duration) -> Result<(), DbError> {
    let moved = sqlx::query(
        "UPDATE account_leases SET next_due_at = now() + make_interval(secs => $3)
         WHERE (tenant_id, account_id) IN (SELECT tenant_id, account_id FROM account_leases
           WHERE tenant_id = $1 AND account_id = $2 AND next_due_at <= now() FOR UPDATE SKIP LOCKED)",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(interval.as_secs_f64())
    .execute(tx.conn())
    .await?;
    if moved.rows_affected() == 0 {
        return Ok(());
    }
    enqueue(tx, &Job::SyncAccount { account_id: account }, Duration::ZERO).await?;
    Ok(())
}
