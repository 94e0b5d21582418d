//! Makes the text of synchronised messages searchable, newest first, in batches that each commit.

use std::time::Duration;

use emailclient_core::domain::search::index;
use emailclient_core::platform::id::{AccountId, TenantId};

use crate::environment::Environment;
use crate::error::JobError;

/// After this long the job makes room for others and goes on later.
const SLICE: Duration = Duration::from_secs(20);

/// Indexes until nothing is left, the slice is over, or a first synchronisation needs the processor.
///
/// # Errors
/// When the database refuses; what was indexed before stays.
pub async fn run(env: &Environment, tenant: TenantId, account: AccountId) -> Result<(), JobError> {
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
