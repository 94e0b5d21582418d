//! What Prometheus reads of a service: counters, gauges and histograms, on a listener of their own.
//!
//! Every metric of ours stands in [`table`], with its help and its buckets; docs/metrics.md is held to it by a test. No label
//! has a value that grows: no tenant, account, host, address, and of paths only their patterns. The next metric: a row of the
//! table, a line in docs/metrics.md, and one of the macros of the crate `metrics` where it happens.

mod listener;
pub mod table;

use std::net::SocketAddr;
use std::time::Duration;

use metrics::gauge;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::platform::config::{Config, MetricsListen};
use table::{Kind, Metric};

/// Histograms are emptied into their buckets so often, also where nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// What this process counts.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    process: Collector,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Another program listens there, or it is no address of this machine.
    #[error("METRICS_LISTEN: cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// Something counts already.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl Metrics {
    /// Begins to count. Before it the macros of the crate `metrics` do nothing. Once a process.
    ///
    /// # Errors
    /// When something counts already.
    pub fn install() -> Result<Self, BuildError> {
        // No gauge is ever forgotten (`idle_timeout`): what is counted up and down would begin at 0 again.
        let mut builder = PrometheusBuilder::new();
        for metric in table::ALL.iter().flat_map(|rows| rows.iter()) {
            if let Kind::Histogram(buckets) = metric.kind {
                builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
            }
        }
        let handle = builder.install_recorder()?;
        table::ALL.iter().flat_map(|rows| rows.iter()).for_each(Metric::describe);
        let process = Collector::default();
        process.describe();
        Ok(Self { handle, process })
    }

    /// All of it, in the text format of Prometheus.
    #[must_use]
    pub fn text(&self) -> String {
        self.process.collect();
        collect_runtime();
        self.handle.render()
    }

    async fn keep_up(&self) {
        loop {
            tokio::time::sleep(UPKEEP).await;
            self.handle.run_upkeep();
        }
    }
}

/// What tokio tells of itself.
fn collect_runtime() {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let runtime = runtime.metrics();
    gauge!(table::TASKS.name).set(runtime.num_alive_tasks() as f64);
    gauge!(table::TASKS_WAITING.name).set(runtime.global_queue_depth() as f64);
}

/// Begins to count and listens as `METRICS_LISTEN` says, until `shutdown`. `usual`: the port of this service without the
/// setting. Several services of one machine may want the same one then, so who does not get it says so and works on.
///
/// # Errors
/// When the address that was set cannot be listened on, or this process counts already.
pub async fn start(config: &Config, usual: u16, shutdown: &CancellationToken) -> Result<(), MetricsError> {
    let listener = match config.metrics_listen {
        MetricsListen::Off => return Ok(()),
        MetricsListen::Usual => {
            let address = SocketAddr::from(([127, 0, 0, 1], usual));
            match TcpListener::bind(address).await {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::warn!(%address, %error, "metrics are not served; METRICS_LISTEN gives another address");
                    return Ok(());
                }
            }
        }
        MetricsListen::At(address) => {
            let bound = TcpListener::bind(address).await;
            bound.map_err(|error| MetricsError::Listen { address, error })?
        }
    };
    let metrics = Metrics::install()?;
    tracing::info!(address = ?listener.local_addr(), "metrics are served");
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = listener::serve(&metrics, listener) => {}
            () = metrics.keep_up() => {}
            () = shutdown.cancelled() => {}
        }
    });
    Ok(())
}
