//! The worker: takes jobs from the lease table, synchronises accounts, watches their INBOX and sends mail.
//!
//! [`jobs`] is the list of jobs, [`runtime`] the only file that names apalis, [`idle`] the watching of mailboxes.
//! Decisions live in `emailclient-mail`, queries in `emailclient-core`.

pub mod environment;
pub mod error;
pub mod idle;
pub mod jobs;
pub mod runtime;

use emailclient_core::config::Config;
use tokio_util::sync::CancellationToken;

/// Runs until `shutdown` fires and the jobs in hand have ended.
///
/// # Errors
/// When a setting cannot be used, or the database refuses the role or has another schema.
pub async fn serve(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    emailclient_core::tls::install_provider();
    let env = environment::new(config, shutdown)?;
    env.db.verify().await?;
    tracing::info!(worker = %env.worker_id, concurrency = env.config.worker_concurrency, "worker started");
    let watching = env.config.imap_enabled && env.config.imap_idle_enabled;
    let watch = async {
        if watching {
            idle::watch(&env).await;
        }
    };
    let work = async {
        if env.config.worker_enabled {
            runtime::work(&env).await
        } else {
            env.shutdown.cancelled().await;
            Ok(())
        }
    };
    let ((), worked) = tokio::join!(watch, work);
    env.db.close().await;
    tracing::info!(worker = %env.worker_id, "worker stopped");
    worked
}
