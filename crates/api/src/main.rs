//! The API service: settings, logs, signals; everything else is in the library.

use anyhow::Context as _;
use emailclient_core::config::Config;
use emailclient_core::{telemetry, tls};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::from_env()?;
    telemetry::init(&config.log)?;
    tls::install_provider();
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let ended = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        ended.cancel();
    });
    let listener = tokio::net::TcpListener::bind(&config.api_listen)
        .await
        .with_context(|| format!("API_LISTEN: cannot listen on {}", config.api_listen))?;
    emailclient_api::serve(config, listener, shutdown).await
}
