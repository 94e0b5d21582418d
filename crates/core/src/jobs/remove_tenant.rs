//! Removes a tenant that the operator has deleted, in portions that each commit: its accounts as any account goes, then every table,
//! its row last. Nothing stays of it, the audit trail neither; that it was deleted stands in the logs of `emailctl` and worker.

use std::time::Duration;

use tokio::time::Instant;

use super::remove_accounts::{AGAIN, SLICE, remove};
use super::{JobError, enqueue_lost};
use crate::access::tenant::removal as tenant;
use crate::domain::account::removal;
use crate::platform::db::{Db, DbError};
use crate::platform::failpoint;
use crate::platform::id::TenantId;
use crate::queue::job::{Declaration, Job, Sweep, priority};
use crate::queue::portion::Size;
use crate::queue::{lease, suspension};
use crate::sync::driver::SyncContext;

/// It takes the tenant's other jobs away.
pub const DECLARATION: Declaration = Declaration {
    kind: "remove_tenant",
    attempts: 1000,
    priority: priority::BACKGROUND,
    sweep: Sweep::Every(Duration::from_secs(15), |db, _| Box::pin(sweep(db))),
};

/// Its dedupe key.
#[must_use]
pub fn key(tenant_id: TenantId) -> String {
    tenant_id.to_string()
}

/// Goes on where the last committed portion ended.
///
/// # Errors
/// When the database refused, or the process stops, or the slice is over; what was committed before stays.
pub async fn run(env: &SyncContext, id: TenantId, _: TenantId) -> Result<(), JobError> {
    let mut tx = env.db.removal(id).await?;
    let deleted = tenant::is_deleted(&mut tx).await?;
    tx.release();
    if !deleted {
        return Ok(());
    }
    let end = Instant::now() + SLICE;
    let over = || env.shutdown.is_cancelled() || Instant::now() > end;
    let done = everything(&env.db, id, &over).await;
    if done.map_err(|error| JobError::retry_after(AGAIN, error))? {
        tracing::info!(tenant = %id, "a deleted tenant is removed");
        return Ok(());
    }
    tracing::info!(tenant = %id, "a deleted tenant is being removed");
    Err(JobError::postpone(Duration::from_millis(500), anyhow::anyhow!("more is to be removed")))
}

/// Whether nothing is left.
async fn everything(db: &Db, id: TenantId, over: &impl Fn() -> bool) -> Result<bool, DbError> {
    suspension::stop(db, id).await?;
    if !portions(db, id, over, What::Jobs).await? {
        return Ok(false);
    }
    while mark(db, id).await? {
        if over() {
            return Ok(false);
        }
    }
    for removal in removal::list(db, id).await? {
        if !remove(db, id, removal.account, over).await? {
            return Ok(false);
        }
    }
    let mut tx = db.removal(id).await?;
    let tables = tenant::tables(&mut tx).await?;
    tx.release();
    for table in &tables {
        if !portions(db, id, over, What::Table(table)).await? {
            return Ok(false);
        }
    }
    if !portions(db, id, over, What::Trail).await? {
        return Ok(false);
    }
    let mut tx = db.removal(id).await?;
    let gone = tenant::row(&mut tx).await?;
    tx.commit().await?;
    Ok(gone)
}

/// Deletes one of its accounts that is not deleted yet. Whether there was one.
async fn mark(db: &Db, id: TenantId) -> Result<bool, DbError> {
    let mut tx = db.tenant(id).await?;
    let Some(account) = removal::any(&mut tx).await? else { return Ok(false) };
    lease::lock(&mut tx, &[account]).await?;
    removal::delete(&mut tx, account).await?;
    tx.commit().await?;
    Ok(true)
}

/// What goes in portions.
#[derive(Clone, Copy)]
enum What<'a> {
    /// Jobs that do not run.
    Jobs,
    /// A table of the catalogue.
    Table(&'a str),
    /// The audit trail.
    Trail,
}

/// Removes what there is of this until there is nothing or it is `over`. Whether there is nothing.
async fn portions(db: &Db, id: TenantId, over: &impl Fn() -> bool, what: What<'_>) -> Result<bool, DbError> {
    let mut size = Size::default();
    loop {
        if over() {
            return Ok(false);
        }
        let mut tx = db.removal(id).await?;
        let begun = Instant::now();
        let gone = match what {
            What::Jobs => tenant::jobs(&mut tx, size.rows).await?,
            What::Table(table) => tenant::portion(&mut tx, table, size.rows).await?,
            What::Trail => tenant::trail(&mut tx, size.rows).await?,
        };
        if gone == 0 {
            tx.release();
            return Ok(true);
        }
        tx.commit().await?;
        failpoint::pass("removed-portion");
        size.took(begun.elapsed());
    }
}

/// Gives a job to tenants that lost theirs.
async fn sweep(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let lost = tenant::lost(&mut tx).await?;
    drop(tx);
    enqueue_lost(db, lost.into_iter().map(|tenant| (tenant, tenant)).collect(), |tenant_id| {
        Job::RemoveTenant { tenant_id }
    })
    .await
}
