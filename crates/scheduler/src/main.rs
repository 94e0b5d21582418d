//! `emailclient-scheduler`: see the library of the same crate.

use std::process::ExitCode;

use emailclient_core::config::Config;
use emailclient_core::{start, tls};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    start::exit("emailclient-scheduler", run().await)
}

async fn run() -> anyhow::Result<()> {
    let config = Config::from_env()?;
    emailclient_core::telemetry::init(&config.log)?;
    tls::install_provider();
    start::verify(&config).await?;
    let shutdown = CancellationToken::new();
    emailclient_core::signal::cancel_on_stop(shutdown.clone())?;
    emailclient_scheduler::serve(config, shutdown).await
}
