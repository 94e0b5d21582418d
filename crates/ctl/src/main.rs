//! `emailctl`: see the library of the same crate.

use clap::Parser as _;
use emailclient_core::config::Source;
use emailctl::command::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    emailclient_core::tls::install_provider();
    emailctl::run(Cli::parse().command, &Source::from_env()).await
}
