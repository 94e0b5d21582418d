//! One action on many messages, batch by batch, until the selection is done or somebody cancelled.

use std::time::Duration;

use emailclient_core::domain::message::transfer::TransferError;
use emailclient_core::domain::operation::{self, Step};
use emailclient_core::platform::id::{OperationId, TenantId};

use crate::environment::Environment;
use crate::error::JobError;

/// After this long the job makes room for others and goes on later.
const SLICE: Duration = Duration::from_secs(10);

/// Goes on where the last committed batch ended. What cannot go on is recorded at the operation and is no failure of
/// the job.
///
/// # Errors
/// When the database refused, or the process stops, or the slice is over; what was committed before stays.
pub async fn run(env: &Environment, tenant: TenantId, id: OperationId) -> Result<(), JobError> {
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
    env: &Environment,
    tenant: TenantId,
    id: OperationId,
    refused: &TransferError,
) -> Result<(), JobError> {
    tracing::warn!(operation = %id, error = %refused, "a bulk action cannot go on");
    let mut tx = env.db.tenant(tenant).await?;
    operation::fail(&mut tx, id, &refused.to_string()).await?;
    Ok(tx.commit().await?)
}
