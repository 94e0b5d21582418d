//! One scheduler at a time does the work: a lease in the database, judged by the database's clock.

use std::time::Duration;

use emailclient_core::platform::db::{Db, DbError};
use emailclient_core::platform::id::new_uuid;
use emailclient_core::sync::due;
use uuid::Uuid;

const NAME: &str = "scheduler";
/// A crashed leader is replaced after this long. Ten ticks, so a slow database does not change the leader.
const LEASE: Duration = Duration::from_secs(10);

/// This process's claim to lead.
#[derive(Debug)]
pub struct Leader {
    db: Db,
    owner: Uuid,
}

impl Leader {
    /// Makes a claim; [`Leader::hold`] asserts it.
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self { db, owner: new_uuid() }
    }

    /// The name of this process in the lease.
    #[must_use]
    pub fn owner(&self) -> Uuid {
        self.owner
    }

    /// Takes or renews the lease; `false` while another holds it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn hold(&self) -> Result<bool, DbError> {
        let mut tx = self.db.system().await?;
        let leads = due::lead(&mut tx, NAME, self.owner, LEASE).await?;
        tx.commit().await?;
        Ok(leads)
    }

    /// Lets another scheduler lead at once.
    pub async fn step_down(&self) {
        let done = async {
            let mut tx = self.db.system().await?;
            due::step_down(&mut tx, NAME, self.owner).await?;
            tx.commit().await
        };
        if let Err(error) = done.await {
            tracing::warn!(%error, "could not step down; the lease runs out instead");
        }
    }
}
