//! Cuts events off the log of a tenant that are older than `EVENT_RETENTION_DAYS`, in portions that each commit.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{JobError, enqueue_lost};
use crate::platform::clock::{Clock as _, SystemClock};
use crate::platform::config::Config;
use crate::platform::db::{Db, DbError, SystemTx};
use crate::platform::id::TenantId;
use crate::queue::job::{Declaration, Job, Sweep, priority};
use crate::sync::driver::SyncContext;

/// Nobody waits for it.
pub const DECLARATION: Declaration = Declaration {
    kind: "cut_event_log",
    attempts: 20,
    priority: priority::AUDIT,
    sweep: Sweep::Every(Duration::from_secs(600), |db, config| Box::pin(sweep(db, config))),
};

/// Its dedupe key.
#[must_use]
pub fn key(tenant_id: TenantId) -> String {
    tenant_id.to_string()
}

/// Events of one portion.
const PORTION: i64 = 5_000;
/// Tenants begun in one look.
const AT_ONCE: i64 = 100;

/// Cuts until what is left is young enough.
///
/// # Errors
/// When the database refuses; what was cut before stays so.
pub async fn run(env: &SyncContext, tenant: TenantId, _: TenantId) -> Result<(), JobError> {
    let before = before(&env.config, env.clock.now());
    // What a process left that ended between the two.
    remove(&env.db, tenant).await?;
    while portion(&env.db, tenant, before).await? {
        if env.shutdown.is_cancelled() {
            return Err(JobError::postpone(Duration::from_secs(1), anyhow::anyhow!("more is to be cut off")));
        }
    }
    Ok(())
}

fn before(config: &Config, now: DateTime<Utc>) -> DateTime<Utc> {
    now - config.event_retention
}

/// Cuts a portion off the beginning. Whether there was one.
///
/// # Errors
/// Those of the database.
pub async fn portion(db: &Db, tenant: TenantId, before: DateTime<Utc>) -> Result<bool, DbError> {
    let mut tx = db.tenant(tenant).await?;
    // Times are in the order of positions, so what is old is one piece. Its end is told first, by itself: who commits an event
    // waits for this row, and is not to wait for the rows that go.
    let oldest: Option<i64> = sqlx::query_scalar(
        "UPDATE tenant_streams s SET oldest = cut.next
         FROM (SELECT max(p.position) + 1 AS next FROM (
                 SELECT e.position, e.created_at FROM tenant_streams o JOIN events e ON e.tenant_id = o.tenant_id AND e.position >= o.oldest
                 WHERE o.tenant_id = $1 ORDER BY e.position LIMIT $3) p
               WHERE p.created_at < $2) cut
         WHERE s.tenant_id = $1 AND cut.next > s.oldest RETURNING s.oldest",
    )
    .bind(tenant)
    .bind(before)
    .bind(PORTION)
    .fetch_optional(tx.conn())
    .await?;
    tx.commit().await?;
    if oldest.is_some() {
        remove(db, tenant).await?;
    }
    Ok(oldest.is_some())
}

/// Removes what stands before the beginning of the log.
async fn remove(db: &Db, tenant: TenantId) -> Result<(), DbError> {
    let mut tx = db.tenant(tenant).await?;
    sqlx::query(
        "DELETE FROM events WHERE tenant_id = $1 AND position < (SELECT oldest FROM tenant_streams WHERE tenant_id = $1)",
    )
    .bind(tenant)
    .execute(tx.conn())
    .await?;
    tx.commit().await
}

/// Gives a job to tenants whose log begins with something old.
async fn sweep(db: &Db, config: &Config) -> Result<(), DbError> {
    let due = due(&mut db.system().await?, before(config, SystemClock.now())).await?;
    let due = due.into_iter().map(|tenant| (tenant, tenant)).collect();
    enqueue_lost(db, due, |tenant_id| Job::CutEventLog { tenant_id }).await
}

/// Tenants whose log begins before this, without a job.
///
/// # Errors
/// Those of the database.
pub async fn due(tx: &mut SystemTx, before: DateTime<Utc>) -> Result<Vec<TenantId>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT s.tenant_id FROM tenant_streams s
         JOIN events e ON e.tenant_id = s.tenant_id AND e.position = s.oldest
         JOIN tenants t ON t.id = s.tenant_id
         WHERE e.created_at < $1 AND t.suspended_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = s.tenant_id AND j.kind = 'cut_event_log'
                           AND j.dedupe_key = s.tenant_id::text AND j.state IN ('ready','running'))
         ORDER BY s.tenant_id LIMIT $2",
    )
    .bind(before)
    .bind(AT_ONCE)
    .fetch_all(tx.conn())
    .await?)
}
