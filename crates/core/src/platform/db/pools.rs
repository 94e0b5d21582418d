//! How many connections to PostgreSQL there are.

use std::time::Duration;

use metrics::gauge;
use tokio_util::sync::CancellationToken;

use super::Db;
use crate::platform::metrics::table;

const EVERY: Duration = Duration::from_secs(5);

impl Db {
    /// Counts the connections every five seconds until `shutdown`.
    pub async fn count_connections(&self, shutdown: &CancellationToken) {
        loop {
            for (pool, connections) in [("app", &self.app), ("system", &self.system)] {
                let (all, idle) = (f64::from(connections.size()), connections.num_idle() as f64);
                gauge!(table::DB_CONNECTIONS.name, "pool" => pool, "state" => "idle").set(idle);
                gauge!(table::DB_CONNECTIONS.name, "pool" => pool, "state" => "used")
                    .set((all - idle).max(0.0));
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}
