//! The API service: settings, logs, signals; everything else is in the library.

use std::process::ExitCode;

use emailclient_core::config::Config;
use emailclient_core::start::{self, StartError};
use emailclient_core::{telemetry, tls};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    start::exit("emailclient-api", run().await)
}

async fn run() -> anyhow::Result<()> {
    let config = Config::from_env()?;
    telemetry::init(&config.log)?;
    tls::install_provider();
    start::verify(&config).await?;
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ended = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        ended.cancel();
    });
    let listener = tokio::net::TcpListener::bind(&config.api_listen).await.map_err(|e| {
        StartError::setting("API_LISTEN", format!("cannot listen on {}: {e}", config.api_listen))
    })?;
    emailclient_api::serve(config, listener, shutdown).await
}
