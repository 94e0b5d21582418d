//! Removes what is left of the mailboxes that a tenant's accounts have lost, one after the other, in portions that each commit.

use std::time::Duration;

use tokio::time::Instant;

use super::remove_accounts::{AGAIN, SLICE};
use super::{JobError, enqueue_lost};
use crate::platform::db::{Db, DbError};
use crate::platform::id::TenantId;
use crate::queue::job::{Declaration, Job, Sweep, priority};
use crate::sync::driver::SyncContext;
use crate::sync::store::removal;

/// Nobody waits for it. It makes room every few seconds, as `remove_accounts` does.
pub const DECLARATION: Declaration = Declaration {
    kind: "remove_mailboxes",
    attempts: 1000,
    priority: priority::BACKGROUND,
    sweep: Sweep::Every(Duration::from_secs(15), |db, _| Box::pin(sweep(db))),
};

/// Its dedupe key: one at a time of each tenant.
#[must_use]
pub fn key(tenant_id: TenantId) -> String {
    tenant_id.to_string()
}

/// Goes on where the last committed portion ended.
///
/// # Errors
/// When the database refused, or the process stops, or the slice is over; what was committed before stays.
pub async fn run(env: &SyncContext, tenant: TenantId, _: TenantId) -> Result<(), JobError> {
    let end = Instant::now() + SLICE;
    let over = || env.shutdown.is_cancelled() || Instant::now() > end;
    let mut failed = None;
    for one in removal::list(&env.db, tenant, None).await? {
        let (account, mailbox) = (one.account, one.mailbox);
        match removal::finish(&env.db, tenant, (account, mailbox), over).await {
            Ok(true) => tracing::info!(%account, %mailbox, "a deleted mailbox is removed"),
            Ok(false) => {
                tell(env, tenant).await?;
                let more = anyhow::anyhow!("more is to be removed");
                return Err(JobError::postpone(Duration::from_millis(200), more));
            }
            // It goes with its account.
            Err(DbError::Deleted) => {}
            // One that cannot be removed now keeps no other waiting.
            Err(error) => {
                tracing::warn!(%account, %mailbox, error = ?error, "a deleted mailbox could not be removed; it is tried again");
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(()), |error| Err(JobError::retry_after(AGAIN, error)))
}

async fn tell(env: &SyncContext, tenant: TenantId) -> Result<(), DbError> {
    for one in removal::list(&env.db, tenant, None).await? {
        tracing::info!(account = %one.account, mailbox = %one.mailbox, one.removed, one.total, "a deleted mailbox is being removed");
    }
    Ok(())
}

/// Gives a job to tenants that lost theirs.
async fn sweep(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let lost = removal::lost(&mut tx).await?;
    drop(tx);
    enqueue_lost(db, lost.into_iter().map(|tenant| (tenant, tenant)).collect(), |tenant_id| {
        Job::RemoveMailboxes { tenant_id }
    })
    .await
}
