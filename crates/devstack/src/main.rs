//! `devstack`: holds real servers while somebody works with them.
//!
//! One module per subcommand that does more than start and wait. Each ends by returning, so that the stack is
//! dropped; nothing here calls `exit` while one is alive.

mod bench;
mod demo;
mod interrupts;
mod product;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use devstack::{Endpoints, Options, Stack};
use tokio::process::Command;

use crate::interrupts::Interrupts;

/// Real PostgreSQL, Redis, Dovecot and Postfix as private child processes.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Starts the servers, runs a command with DEVSTACK in its environment, ends them; exits as the command did.
    Run {
        #[command(flatten)]
        stack: StackArguments,
        /// The command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Starts the servers, prints one line of JSON that says where they are, and stays until it is interrupted.
    Up {
        #[command(flatten)]
        stack: StackArguments,
        /// Also end when standard input does.
        #[arg(long)]
        until_eof: bool,
    },
    /// The whole product with two filled mailboxes; prints curl lines to try.
    Demo(demo::Arguments),
    /// Measures the product against mbsync and by the clock; prints a table and JSON.
    Bench(bench::Arguments),
}

#[derive(Args, Clone)]
struct StackArguments {
    /// Where all data lies; kept afterwards. Without it a temporary folder, deleted at the end.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Let PostgreSQL forget its last commits on a power cut, for the sake of speed.
    #[arg(long)]
    no_fsync: bool,
    /// `host:port` that takes mail for other domains than lab.test; without it such mail is refused.
    #[arg(long)]
    relay: Option<String>,
}

impl StackArguments {
    fn options(self) -> Options {
        Options { dir: self.dir, fsync: !self.no_fsync, relay: self.relay }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Subcommands::Run { stack, command } => run(stack, &command).await,
        Subcommands::Up { stack, until_eof } => up(stack, until_eof).await,
        Subcommands::Demo(arguments) => demo::run(arguments).await,
        Subcommands::Bench(arguments) => bench::run(arguments).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("devstack: {error:#}");
        ExitCode::FAILURE
    })
}

async fn start(options: Options, interrupts: &mut Interrupts) -> Result<Option<Stack>> {
    let starting = tokio::task::spawn_blocking(move || Stack::start(&options));
    tokio::pin!(starting);
    tokio::select! {
        stack = &mut starting => Ok(Some(stack??)),
        // The thread cannot be stopped half-way; it ends within its own time limit, and the servers with it.
        () = interrupts.next() => { drop(starting.await); Ok(None) }
    }
}

async fn run(arguments: StackArguments, command: &[OsString]) -> Result<ExitCode> {
    let Some((program, rest)) = command.split_first() else { bail!("which command?") };
    let mut interrupts = Interrupts::new()?;
    let Some(stack) = start(arguments.options(), &mut interrupts).await? else {
        return Ok(ExitCode::from(130));
    };
    let (name, value) = stack.endpoints().to_env()?;
    let mut child = Command::new(program)
        .args(rest)
        .env(name, value)
        .spawn()
        .with_context(|| program.to_string_lossy().into_owned())?;
    let pid = child.id().unwrap_or_default();
    stack.adopt_pid(pid)?;
    let status = tokio::select! {
        status = child.wait() => status?,
        () = interrupts.next() => {
            // A terminal has told the command as well; `kill` told only us. Twice does no harm.
            let _ = devstack::signal("TERM", pid);
            tokio::time::timeout(Duration::from_secs(5), child.wait()).await.ok();
            return Ok(ExitCode::from(130));
        }
    };
    stack.forget_pid(pid)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

async fn up(arguments: StackArguments, until_eof: bool) -> Result<ExitCode> {
    let mut interrupts = Interrupts::new()?;
    // A thread of its own, so that the reader's death while the servers start is noticed as well.
    let (closed, input) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        if until_eof {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            drop(closed);
        } else {
            std::thread::park();
        }
    });
    let Some(stack) = start(arguments.options(), &mut interrupts).await? else {
        return Ok(ExitCode::from(130));
    };
    print(stack.endpoints())?;
    let mut watch = tokio::time::interval(Duration::from_secs(2));
    tokio::pin!(input);
    loop {
        tokio::select! {
            () = interrupts.next() => return Ok(ExitCode::SUCCESS),
            _ = &mut input => return Ok(ExitCode::SUCCESS),
            _ = watch.tick() => if !stack.is_running() {
                bail!("a server has ended by itself; see {}", stack.endpoints().dir.join("log").display());
            }
        }
    }
}

fn print(endpoints: &Endpoints) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(endpoints)?)?;
    out.flush().context("standard output")
}
