//! Makes the text of synchronised messages searchable, newest first, in batches that each commit.

use std::time::Duration;

use super::{JobError, enqueue_lost};
use crate::domain::search::index;
use crate::platform::db::{Db, DbError, SystemTx};
use crate::platform::id::{AccountId, TenantId};
use crate::queue::job::{Declaration, Job, Sweep, priority};
use crate::sync::driver::SyncContext;

/// Searching finds new mail a little later when it waits.
pub const DECLARATION: Declaration = Declaration {
    kind: "index_text",
    attempts: 20,
    priority: priority::BACKGROUND,
    sweep: Sweep::Every(Duration::from_secs(15), |db, _| Box::pin(sweep(db))),
};

/// Its dedupe key.
#[must_use]
pub fn key(account_id: AccountId) -> String {
    account_id.to_string()
}

/// After this long the job makes room for others and goes on later.
const SLICE: Duration = Duration::from_secs(20);

/// Indexes until nothing is left, the slice is over, or a first synchronisation needs the processor.
///
/// # Errors
/// When the database refuses; what was indexed before stays.
pub async fn run(env: &SyncContext, tenant: TenantId, account: AccountId) -> Result<(), JobError> {
    if !env.config.parse_index_text {
        return Ok(());
    }
    let end = tokio::time::Instant::now() + SLICE;
    loop {
        if index::shall_wait(&env.db, tenant, account).await? {
            return Err(JobError::postpone(Duration::from_secs(1), anyhow::anyhow!("more text is arriving")));
        }
        let place = env.work.acquire().await;
        if !index::index_pending(&env.db, tenant, account).await? {
            return Ok(());
        }
        drop(place);
        if env.shutdown.is_cancelled() || tokio::time::Instant::now() > end {
            return Err(JobError::postpone(
                Duration::from_millis(200),
                anyhow::anyhow!("more text is waiting"),
            ));
        }
    }
}

/// Gives a job to what lost its own.
///
/// # Errors
/// When the database refuses.
pub async fn sweep(db: &Db) -> Result<(), DbError> {
    let lost = lost(&mut db.system().await?).await?;
    enqueue_lost(db, lost, |account_id| Job::IndexText { account_id }).await
}

/// Accounts with messages whose text is not searchable yet and no job that will make it so.
pub async fn lost(tx: &mut SystemTx) -> Result<Vec<(TenantId, AccountId)>, DbError> {
    Ok(sqlx::query_as(
        "SELECT m.tenant_id, m.account_id FROM (
           SELECT tenant_id, account_id FROM unindexed_batches
           UNION SELECT tenant_id, account_id FROM messages WHERE indexed_at IS NULL) m
         WHERE NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = m.tenant_id AND j.kind = 'index_text'
                           AND j.dedupe_key = m.account_id::text AND j.state IN ('ready','running'))
         LIMIT 200",
    )
    .fetch_all(tx.conn())
    .await?)
}
