//! `emailclient-worker`: see the library of the same crate.

use emailclient_core::config::Config;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::from_env()?;
    emailclient_core::telemetry::init(&config.log)?;
    let shutdown = CancellationToken::new();
    emailclient_core::signal::cancel_on_stop(shutdown.clone())?;
    emailclient_worker::serve(config, shutdown).await
}
