//! The scheduler: starts rounds that are due and picks up what crashed workers left.
//!
//! [`schedule`] is one table: what is due how often. Any number of schedulers may run; one leads, by a lease in the
//! database ([`leader`]), and another takes over within seconds when it stops. Every step is harmless when run twice.

pub mod leader;
pub mod schedule;
pub mod sweep;

use std::process::ExitCode;
use std::time::Duration;

use emailclient_core::platform::config::{Config, Keys};
use emailclient_core::platform::db::Db;
use emailclient_core::platform::heartbeat::Heartbeat;
use emailclient_core::platform::metrics::table;
use emailclient_core::platform::start;
use emailclient_core::queue::fleet::Fleet;
use metrics::gauge;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Accounts and jobs of all tenants are counted this often.
const FLEET_EVERY: Duration = Duration::from_secs(15);
/// The part of this service that must go round.
const LOOP: &str = "loop";

/// The program `emailclient-scheduler`, from its settings in the environment to its exit status: see
/// [`start::service`].
pub async fn main() -> ExitCode {
    start::service("emailclient-scheduler", Keys::Spared, serve).await
}

/// Runs until `shutdown` fires.
///
/// # Errors
/// When a setting cannot be used, or the database refuses the role or has another schema.
pub async fn serve(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let db = Db::new(&config)?;
    db.verify().await?;
    let heartbeat = Heartbeat::new(config.heartbeat_dir.as_deref(), "emailclient-scheduler", [LOOP])?;
    let leader = leader::Leader::new(db.clone());
    tracing::info!(scheduler = %leader.owner(), "scheduler started");
    let mut schedule = schedule::Schedule::new();
    let (mut fleet, mut looked) = (Fleet::default(), None::<Instant>);
    while !shutdown.is_cancelled() {
        match leader.hold().await {
            Ok(true) => {
                schedule.run_due(&db, &config).await;
                heartbeat.beat(LOOP);
                gauge!(table::LEADING.name).set(1.0);
                if looked.is_none_or(|at| at.elapsed() >= FLEET_EVERY) {
                    looked = Some(Instant::now());
                    if let Err(error) = fleet.look(&db).await {
                        tracing::warn!(%error, "accounts and jobs could not be counted");
                    }
                }
            }
            // Standing by is well, too: the lease was asked for and the database answered.
            Ok(false) => {
                heartbeat.beat(LOOP);
                gauge!(table::LEADING.name).set(0.0);
                fleet.forget();
                looked = None;
            }
            Err(error) => tracing::warn!(%error, "the database did not answer"),
        }
        tokio::select! {
            () = tokio::time::sleep(schedule::TICK) => {}
            () = shutdown.cancelled() => {}
        }
    }
    leader.step_down().await;
    heartbeat.end();
    db.close().await;
    Ok(())
}
