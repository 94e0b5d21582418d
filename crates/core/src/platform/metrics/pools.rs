//! Connections to PostgreSQL and what the runtime does.

use std::time::Duration;

use metrics::gauge;
use tokio_util::sync::CancellationToken;

use super::table;
use crate::platform::db::Db;

const EVERY: Duration = Duration::from_secs(5);

/// Looks at the pools every five seconds until `shutdown`.
pub async fn watch(db: &Db, shutdown: &CancellationToken) {
    loop {
        for (pool, size, idle) in db.pools() {
            gauge!(table::DB_CONNECTIONS.name, "pool" => pool, "state" => "idle").set(idle as f64);
            gauge!(table::DB_CONNECTIONS.name, "pool" => pool, "state" => "used")
                .set(f64::from(size) - idle as f64);
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// What tokio tells of itself, read at a scrape.
pub(super) fn collect_runtime() {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let runtime = runtime.metrics();
    gauge!(table::TASKS.name).set(runtime.num_alive_tasks() as f64);
    gauge!(table::TASKS_WAITING.name).set(runtime.global_queue_depth() as f64);
}
