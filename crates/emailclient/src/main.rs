//! The four programs in one file, which is what the image ships: called as `emailclient-worker` (by a link of that
//! name) it is the worker, and so on. They share most of their code: as four files the image had 63 MB, as one it has 37,
//! and the shared part is optimised once.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status for a wrong call, EX_USAGE of sysexits.h.
const EX_USAGE: u8 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match name(&called) {
        "emailclient-api" => Box::pin(emailclient_api::main()).await,
        "emailclient-worker" => Box::pin(emailclient_worker::main()).await,
        "emailclient-scheduler" => Box::pin(emailclient_scheduler::main()).await,
        "emailctl" => Box::pin(emailctl::main()).await,
        _ => {
            let programs = "emailclient-api, emailclient-worker, emailclient-scheduler or emailctl";
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(std::io::stderr(), "{}: call me by a link named {programs}", called.display());
            ExitCode::from(EX_USAGE)
        }
    }
}

fn name(called: &OsString) -> &str {
    Path::new(called).file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
