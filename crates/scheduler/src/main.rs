//! `emailclient-scheduler`: see the library of the same crate.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    emailclient_scheduler::main().await
}
