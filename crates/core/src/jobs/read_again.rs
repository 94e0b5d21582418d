//! Reads the stored mail of an account again that an earlier parser read (`mail::mime::PARSE_VERSION`), in portions that each
//! commit.

use std::time::Duration;

use mail::mime::PARSE_VERSION;

use super::{JobError, enqueue_lost};
use crate::platform::db::{Db, DbError, SystemTx};
use crate::platform::id::{AccountId, TenantId};
use crate::queue::job::{Declaration, Job, Sweep, priority};
use crate::sync::driver::SyncContext;
use crate::sync::store::reread;

/// Old mail is shown a little poorer while it waits.
pub const DECLARATION: Declaration = Declaration {
    kind: "read_again",
    attempts: 20,
    priority: priority::AUDIT,
    sweep: Sweep::Every(Duration::from_secs(10), |db, _| Box::pin(sweep(db))),
};

/// Its dedupe key.
#[must_use]
pub fn key(account_id: AccountId) -> String {
    account_id.to_string()
}

/// Accounts begun in one look.
const AT_ONCE: i64 = 20;
/// After this long the job makes room for others and goes on later.
const SLICE: Duration = Duration::from_secs(5);
/// How long it makes room.
const ROOM: Duration = Duration::from_secs(1);

/// Reads until nothing is left or the slice is over.
///
/// # Errors
/// When the database refuses; what was read before stays.
pub async fn run(env: &SyncContext, tenant: TenantId, account: AccountId) -> Result<(), JobError> {
    let end = tokio::time::Instant::now() + SLICE;
    loop {
        let place = env.work.acquire().await;
        if !reread::portion(&env.db, tenant, account, env.config.parse_index_text).await? {
            return Ok(());
        }
        drop(place);
        if env.shutdown.is_cancelled() || tokio::time::Instant::now() > end {
            return Err(JobError::postpone(ROOM, anyhow::anyhow!("more mail is to be read again")));
        }
    }
}

/// Gives a job to accounts whose mail an earlier parser read.
async fn sweep(db: &Db) -> Result<(), DbError> {
    let due = due(&mut db.system().await?).await?;
    enqueue_lost(db, due, |account_id| Job::ReadAgain { account_id }).await
}

/// Accounts whose mail an earlier parser read, without a job.
pub async fn due(tx: &mut SystemTx) -> Result<Vec<(TenantId, AccountId)>, DbError> {
    Ok(sqlx::query_as(
        "SELECT a.tenant_id, a.id FROM accounts a JOIN tenants t ON t.id = a.tenant_id
         WHERE a.read_by < $1 AND t.suspended_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = a.tenant_id AND j.kind = 'read_again'
                           AND j.dedupe_key = a.id::text AND j.state IN ('ready','running'))
         ORDER BY a.tenant_id, a.id LIMIT $2",
    )
    .bind(PARSE_VERSION)
    .bind(AT_ONCE)
    .fetch_all(tx.conn())
    .await?)
}
