//! `emailctl`: see the library of the same crate.

use std::process::ExitCode;

use clap::Parser as _;
use emailclient_core::config::Source;
use emailclient_core::{start, tls};
use emailctl::command::Cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    tls::install_provider();
    match emailctl::run(Cli::parse().command, &Source::from_env()).await {
        Ok(code) => code,
        Err(error) => start::exit("emailctl", Err(error)),
    }
}
