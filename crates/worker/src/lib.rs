//! The worker: takes jobs from the lease table, synchronises and watches accounts, sends mail, and events to webhooks.
//!
//! [`runtime`] is the only file that names apalis, [`watch`] the watching of mailboxes, [`webhooks`] the sending of events. What a job does stands in
//! `emailclient_core::jobs`.
//! Decisions live in `emailclient-mail`, queries in `emailclient-core`.

pub mod environment;
pub mod runtime;
pub mod watch;
pub mod webhooks;

use std::process::ExitCode;
use std::time::Duration;

use emailclient_core::platform::config::{Config, Keys};
use emailclient_core::platform::heartbeat::Heartbeat;
use emailclient_core::platform::redis_pool;
use emailclient_core::platform::start;
use tokio_util::sync::CancellationToken;

/// The parts of this service that must go round: taking jobs, the watch over mailboxes, and webhooks.
mod part {
    pub(crate) const JOBS: &str = "jobs";
    pub(crate) const WATCH: &str = "watch";
    pub(crate) const WEBHOOKS: &str = "webhooks";
}
/// A worker that takes no jobs looks this often whether its database is there.
const IDLE_BEAT: Duration = Duration::from_secs(5);

/// The program `emailclient-worker`, from its settings in the environment to its exit status: see [`start::service`].
pub async fn main() -> ExitCode {
    start::service("emailclient-worker", Keys::Needed, serve).await
}

/// Runs until `shutdown` fires and the jobs in hand have ended.
///
/// # Errors
/// When a setting cannot be used, or the database refuses the role or has another schema.
pub async fn serve(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let env = environment::new(config, shutdown)?;
    env.db.verify().await?;
    env.db.news.publish(redis_pool::connect(&env.config.redis_url)?);
    tracing::info!(worker = %env.worker_id, concurrency = env.config.worker_concurrency, "worker started");
    let watching = env.config.imap_enabled && env.config.imap_idle_enabled;
    let sending = env.config.worker_enabled;
    let parts = [part::JOBS].into_iter().chain(watching.then_some(part::WATCH));
    let parts = parts.chain(sending.then_some(part::WEBHOOKS));
    let heartbeat = Heartbeat::new(env.config.heartbeat_dir.as_deref(), "emailclient-worker", parts)?;
    let watch = async {
        if watching {
            watch::watch(&env, &heartbeat).await;
        }
    };
    let send = async {
        if sending {
            webhooks::dispatch(&env, &heartbeat).await;
        }
    };
    let work = async {
        if env.config.worker_enabled {
            runtime::work(&env, &heartbeat).await
        } else {
            stand_by(&env, &heartbeat).await;
            Ok(())
        }
    };
    let pools = env.db.count_connections(&env.shutdown);
    let ((), (), worked, ()) = tokio::join!(watch, send, work, pools);
    heartbeat.end();
    env.db.close().await;
    tracing::info!(worker = %env.worker_id, "worker stopped");
    worked
}

async fn stand_by(env: &environment::Environment, heartbeat: &Heartbeat) {
    while !env.shutdown.is_cancelled() {
        match env.db.ping().await {
            Ok(()) => heartbeat.beat(part::JOBS),
            Err(error) => tracing::warn!(%error, "the database did not answer"),
        }
        tokio::select! {
            () = tokio::time::sleep(IDLE_BEAT) => {}
            () = env.shutdown.cancelled() => {}
        }
    }
}
