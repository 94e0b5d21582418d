//! The jobs in hand: their leases are kept alive, and rounds that are in the way of others go back to the queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use emailclient_core::platform::db::{Db, DbError};
use emailclient_core::platform::heartbeat::Heartbeat;
use emailclient_core::platform::id::JobId;
use emailclient_core::queue::job::queue::{self, Room};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::part;

/// Between two looks for rounds that hold too many places: a user's refresh may be waiting for one.
const LOOK: Duration = Duration::from_secs(1);

pub(super) type Held = Arc<Mutex<HashMap<JobId, Arc<Signals>>>>;

/// What a running job is told.
pub(super) struct Signals {
    /// Its lease is gone: nobody waits for its end, and nothing of it is recorded.
    pub lost: CancellationToken,
    /// It is to end soon and will be run again: the process stops, others need its place, or its lease is gone.
    pub stop: CancellationToken,
}

impl Signals {
    /// The job goes on in a task of its own, whoever looks away: only a round that is told to stop gives its account up.
    fn lose(&self) {
        self.lost.cancel();
        self.stop.cancel();
    }
}

/// A job's place among those in hand.
pub(super) struct Entry {
    id: JobId,
    held: Held,
    signals: Arc<Signals>,
}

impl Entry {
    pub fn new(id: JobId, held: &Held, signals: Arc<Signals>) -> Self {
        let before = held.lock().unwrap_or_else(PoisonError::into_inner).insert(id, signals.clone());
        // Its end was written a moment ago and it is merely still here; or its lease had gone and it was claimed again by us
        // before we noticed, which no renewal would tell: the owner is the same.
        if let Some(before) = before {
            before.lose();
        }
        Self { id, held: held.clone(), signals }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.get(&self.id).is_some_and(|signals| Arc::ptr_eq(signals, &self.signals)) {
            held.remove(&self.id);
        }
    }
}

/// Keeps the leases of running jobs alive, also after the signal to stop, until the last of them ended. Renewed every
/// third of their time, so two may fail before another worker takes over.
pub(super) async fn renew_leases(
    db: Db,
    (owner, lease): (Uuid, Duration),
    held: Held,
    stop: CancellationToken,
    heartbeat: Heartbeat,
) {
    loop {
        tokio::time::sleep(lease / 3).await;
        let ids: Vec<JobId> = held.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect();
        if ids.is_empty() {
            if stop.is_cancelled() {
                return;
            }
            continue;
        }
        match renew(&db, owner, &ids, lease).await {
            Ok(still) => {
                // With every slot taken no job is claimed for as long as the jobs last; this is the sign of life then.
                heartbeat.beat(part::JOBS);
                let held = held.lock().unwrap_or_else(PoisonError::into_inner);
                for lost in ids.iter().filter(|id| !still.contains(id)) {
                    if let Some(signals) = held.get(lost).filter(|signals| !signals.lost.is_cancelled()) {
                        tracing::warn!(job = %lost, "lease lost, the job is stopped");
                        signals.lose();
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "leases could not be renewed"),
        }
    }
}

async fn renew(db: &Db, owner: Uuid, ids: &[JobId], lease: Duration) -> Result<Vec<JobId>, DbError> {
    let mut tx = db.system().await?;
    let still = queue::renew(&mut tx, owner, ids, lease).await?;
    tx.commit().await?;
    Ok(still)
}

/// Sends rounds back to the queue that came to their old mail while they ran and hold more places than there are for that.
/// They go on where they were when they are claimed as what they are by now.
pub(super) async fn hand_back(db: Db, owner: Uuid, slots: usize, held: Held, stop: CancellationToken) {
    let room = Room { total: slots, free: 0 };
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        // So few are no surplus, whatever they do.
        if held.lock().unwrap_or_else(PoisonError::into_inner).len() <= slots / 4 {
            continue;
        }
        match surplus(&db, owner, room).await {
            Ok(ids) => {
                let held = held.lock().unwrap_or_else(PoisonError::into_inner);
                for id in ids {
                    if let Some(signals) = held.get(&id) {
                        tracing::info!(job = %id, "old mail makes way for what is due or waited for");
                        signals.stop.cancel();
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "nobody could see which rounds hold too many places"),
        }
    }
}

async fn surplus(db: &Db, owner: Uuid, room: Room) -> Result<Vec<JobId>, DbError> {
    let mut tx = db.system().await?;
    let ids = queue::surplus(&mut tx, owner, room).await?;
    tx.commit().await?;
    Ok(ids)
}
