//! One action on many messages, batch by batch, until the selection is done or somebody cancelled.

use std::time::Duration;

use super::{JobError, enqueue_lost};
use crate::domain::message::transfer::TransferError;
use crate::domain::operation::{self, Step};
use crate::platform::db::{Db, DbError, SystemTx};
use crate::platform::id::{OperationId, TenantId};
use crate::queue::job::{Declaration, Job, Sweep, priority};
use crate::sync::driver::SyncContext;

/// The rows of `operations` count the attempts and decide when to give up.
pub const DECLARATION: Declaration = Declaration {
    kind: "act_on_messages",
    attempts: 1000,
    priority: priority::PUSH,
    sweep: Sweep::Every(Duration::from_secs(15), |db, _| Box::pin(sweep(db))),
};

/// Its dedupe key.
#[must_use]
pub fn key(operation_id: OperationId) -> String {
    operation_id.to_string()
}

/// After this long the job makes room for others and goes on later.
const SLICE: Duration = Duration::from_secs(10);

/// Goes on where the last committed batch ended. What cannot go on is recorded at the operation and is no failure of
/// the job.
///
/// # Errors
/// When the database refused, or the process stops, or the slice is over; what was committed before stays.
pub async fn run(env: &SyncContext, tenant: TenantId, id: OperationId) -> Result<(), JobError> {
    let mut tx = env.db.tenant(tenant).await?;
    let begun = operation::begin(&mut tx, id).await?;
    tx.commit().await?;
    if !begun {
        return Ok(());
    }
    let end = tokio::time::Instant::now() + SLICE;
    loop {
        let mut tx = env.db.tenant(tenant).await?;
        match operation::step(&mut tx, id).await {
            Ok(Step::More) => tx.commit().await?,
            Ok(Step::Over) => return Ok(tx.commit().await?),
            Err(TransferError::Db(error)) => return Err(error.into()),
            Err(refused) => {
                drop(tx);
                return give_up(env, tenant, id, &refused).await;
            }
        }
        if env.shutdown.is_cancelled() || tokio::time::Instant::now() > end {
            let more = anyhow::anyhow!("more messages are waiting");
            return Err(JobError::postpone(Duration::from_millis(200), more));
        }
    }
}

async fn give_up(
    env: &SyncContext,
    tenant: TenantId,
    id: OperationId,
    refused: &TransferError,
) -> Result<(), JobError> {
    tracing::warn!(operation = %id, error = %refused, "a bulk action cannot go on");
    let mut tx = env.db.tenant(tenant).await?;
    operation::fail(&mut tx, id, &refused.to_string()).await?;
    Ok(tx.commit().await?)
}

/// Gives a job to what lost its own.
///
/// # Errors
/// When the database refuses.
pub async fn sweep(db: &Db) -> Result<(), DbError> {
    let lost = lost(&mut db.system().await?).await?;
    enqueue_lost(db, lost, |operation_id| Job::ActOnMessages { operation_id }).await
}

/// Operations that are not over and have no live job.
pub async fn lost(tx: &mut SystemTx) -> Result<Vec<(TenantId, OperationId)>, DbError> {
    Ok(sqlx::query_as(
        "SELECT o.tenant_id, o.id FROM operations o
         WHERE o.finished_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = o.tenant_id AND j.kind = 'act_on_messages'
                           AND j.dedupe_key = o.id::text AND j.state IN ('ready','running'))
         LIMIT 500",
    )
    .fetch_all(tx.conn())
    .await?)
}
