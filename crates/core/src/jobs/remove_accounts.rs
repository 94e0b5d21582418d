//! Removes what is left of the accounts that a tenant has deleted, one after the other, in portions that each commit.

use std::time::Duration;

use tokio::time::Instant;

use super::{JobError, enqueue_lost};
use crate::access::tenant;
use crate::domain::account::removal::{self, Removal, Stage};
use crate::platform::db::{Db, DbError};
use crate::platform::failpoint;
use crate::platform::id::{AccountId, TenantId};
use crate::queue::job::{Declaration, Job, Sweep, priority};
use crate::queue::portion::Size;
use crate::sync::driver::SyncContext;

/// Nobody waits for it. It makes room every few seconds, so it is none of those that last, and is not kept waiting by them.
pub const DECLARATION: Declaration = Declaration {
    kind: "remove_accounts",
    attempts: 1000,
    priority: priority::BACKGROUND,
    sweep: Sweep::Every(Duration::from_secs(15), |db, _| Box::pin(sweep(db))),
};

/// Its dedupe key: one at a time of each tenant, however many accounts it has deleted.
#[must_use]
pub fn key(tenant_id: TenantId) -> String {
    tenant_id.to_string()
}

/// After this long the job makes room for others and goes on later.
pub(super) const SLICE: Duration = Duration::from_secs(10);
/// After a failure: what fails in a long removal does not add up.
pub(super) const AGAIN: Duration = Duration::from_secs(15);

/// Goes on where the last committed portion ended.
///
/// # Errors
/// When the database refused, or the process stops, or the slice is over; what was committed before stays.
pub async fn run(env: &SyncContext, tenant: TenantId, _: TenantId) -> Result<(), JobError> {
    let mut tx = env.db.removal(tenant).await?;
    let whole = tenant::removal::is_deleted(&mut tx).await?;
    tx.release();
    // Two that remove the same rows would each take the other's for the end.
    if whole {
        return Ok(());
    }
    let end = Instant::now() + SLICE;
    let over = || env.shutdown.is_cancelled() || Instant::now() > end;
    let mut failed = None;
    for removal in removal::list(&env.db, tenant).await? {
        match remove(&env.db, tenant, removal.account, &over).await {
            Ok(true) => tracing::info!(account = %removal.account, "a deleted account is removed"),
            Ok(false) => {
                tell(env, tenant).await?;
                let more = anyhow::anyhow!("more is to be removed");
                return Err(JobError::postpone(Duration::from_millis(200), more));
            }
            // One that cannot be removed now keeps no other waiting.
            Err(error) => {
                tracing::warn!(account = %removal.account, error = ?error, "a deleted account could not be removed; it is tried again");
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(()), |error| Err(JobError::retry_after(AGAIN, error)))
}

async fn tell(env: &SyncContext, tenant: TenantId) -> Result<(), DbError> {
    for Removal { account, removed, total, .. } in removal::list(&env.db, tenant).await? {
        tracing::info!(%account, removed, total, "a deleted account is being removed");
    }
    Ok(())
}

/// Removes an account portion by portion until it is gone or `over`. Whether it is gone.
pub(super) async fn remove(
    db: &Db,
    tenant: TenantId,
    account: AccountId,
    over: impl Fn() -> bool,
) -> Result<bool, DbError> {
    for stage in Stage::ALL {
        let mut size = Size::default();
        loop {
            if over() {
                return Ok(false);
            }
            let mut tx = db.removal(tenant).await?;
            let begun = Instant::now();
            let rows = removal::portion(&mut tx, account, stage, size.rows).await?;
            if rows == 0 {
                tx.release();
                break;
            }
            tx.commit().await?;
            failpoint::pass("removed-portion");
            size.took(begun.elapsed());
        }
    }
    Ok(true)
}

/// Gives a job to tenants that lost theirs.
async fn sweep(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let lost = removal::lost(&mut tx).await?;
    drop(tx);
    enqueue_lost(db, lost.into_iter().map(|tenant| (tenant, tenant)).collect(), |tenant_id| {
        Job::RemoveAccounts { tenant_id }
    })
    .await
}
