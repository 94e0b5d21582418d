//! `devstack bench`: what users feel, measured against mbsync in the same run, on real servers, through the REST API.
//!
//! A benchmark is not a test: nothing fails on a time. Each figure is taken several times, printed with its median and
//! its spread, as a table and as one line of JSON. A row is some figures that are taken together, on servers of its own
//! that nothing was measured on before. The next row: a file with a function that returns its [`Figure`]s, a variant of
//! [`Row`], and one line in `measure`.

mod bulk;
mod doors;
mod edits;
mod figure;
mod first_sync;
mod growth;
mod imap;
mod latency;
mod mailbox;
mod mbsync;
mod ours;
mod process;
mod rounds;
mod sink;
mod sql;
mod starts;
mod streams;
mod watch;
mod webhooks;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use devstack::Stack;
use serde_json::json;

use crate::interrupts::Interrupts;
use crate::{StackArguments, start};
use figure::Figure;
use first_sync::Kind;

const API: &str = "emailclient-api";
const WORKER: &str = "emailclient-worker";

/// Runs of what takes minutes.
const FEW: usize = 3;

/// Arguments of `devstack bench`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    stack: StackArguments,
    /// Where the API listens meanwhile.
    #[arg(long, default_value = "127.0.0.1:5099")]
    listen: SocketAddr,
    /// What to measure, separated by commas; everything without it.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Row::value_variants().to_vec())]
    rows: Vec<Row>,
    /// How often each figure is taken; those of first synchronisations three times at most.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Multiplies all numbers of messages: 0.01 tries whether everything works.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Requests per run of a latency.
    #[arg(long, default_value_t = 500)]
    requests: usize,
    /// Accounts that one worker watches.
    #[arg(long, default_value_t = 1000)]
    watched: usize,
}

/// What can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    /// Start to ready, and the idle API's memory.
    Starts,
    /// First synchronisation of 20,000 realistic messages, until listed and until searchable.
    FirstSync,
    /// The same of 50,000 messages of 4 KB.
    FirstSyncSmall,
    /// The same of 20,000 messages of 62 KB.
    FirstSyncLarge,
    /// Messages a second in mailboxes of all sizes and of many accounts; the first page.
    Growth,
    /// Rounds without a change and with 250.
    Rounds,
    /// Single requests.
    Latency,
    /// Edits of single messages, on a quiet account and during a first synchronisation.
    Edits,
    /// One action on 100,000 messages, and the locks meanwhile.
    Bulk,
    /// A thousand watched accounts.
    Watched,
    /// Delivery to event, at each door.
    Doors,
    /// Events sent to webhooks.
    Webhooks,
    /// A thousand open streams.
    Streams,
}

struct Plan {
    listen: String,
    runs: usize,
    scale: f64,
    requests: usize,
    watched: usize,
}

impl Plan {
    fn scaled(&self, number: usize) -> usize {
        ((number as f64 * self.scale).round() as usize).max(1)
    }

    fn few(&self) -> usize {
        self.runs.min(FEW)
    }
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { stack, listen, rows, runs, scale, requests, watched } = arguments;
    if runs == 0 || requests == 0 || watched == 0 || !(scale > 0.0 && scale.is_finite()) {
        bail!("nothing to measure");
    }
    let plan = Plan { listen: listen.to_string(), runs, scale, requests, watched };
    let mut interrupts = Interrupts::new()?;
    let (mut taken, mut failed) = (Vec::new(), false);
    for row in rows {
        let name = row.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        let mut options = stack.clone().options();
        options.dir = options.dir.map(|dir| dir.join(&name));
        let started = Instant::now();
        let Some(servers) = start(options, &mut interrupts).await? else { return Ok(ExitCode::from(130)) };
        let figures = tokio::select! {
            figures = measure(row, &servers, &plan) => figures,
            () = interrupts.next() => return Ok(ExitCode::from(130)),
        };
        drop(servers);
        let seconds = started.elapsed().as_secs_f64().round();
        match figures {
            Ok(figures) => {
                let title = format!("{name} ({seconds} s)");
                write!(std::io::stdout().lock(), "{}", figure::table(&title, &figures))?;
                taken.push(json!({ "row": name, "seconds": seconds, "figures": figures }));
            }
            // What the other rows took minutes for is not lost by it.
            Err(error) => {
                failed = true;
                progress(&format!("{name} failed: {error:#}"))?;
                taken.push(json!({ "row": name, "seconds": seconds, "error": format!("{error:#}") }));
            }
        }
    }
    writeln!(std::io::stdout().lock(), "\n{}", json!({ "runs": runs, "scale": scale, "rows": taken }))?;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure(row: Row, stack: &Stack, plan: &Plan) -> Result<Vec<Figure>> {
    match row {
        Row::Starts => starts::measure(stack, plan).await,
        Row::FirstSync => first_sync::measure(stack, plan, &Kind::realistic(plan)).await,
        Row::FirstSyncSmall => first_sync::measure(stack, plan, &Kind::small(plan)).await,
        Row::FirstSyncLarge => first_sync::measure(stack, plan, &Kind::large(plan)).await,
        Row::Growth => growth::measure(stack, plan).await,
        Row::Rounds => rounds::measure(stack, plan).await,
        Row::Latency => latency::measure(stack, plan).await,
        Row::Edits => edits::measure(stack, plan).await,
        Row::Bulk => bulk::measure(stack, plan).await,
        Row::Watched => watch::measure(stack, plan).await,
        Row::Doors => doors::measure(stack, plan).await,
        Row::Webhooks => webhooks::measure(stack, plan).await,
        Row::Streams => streams::measure(stack, plan).await,
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// To standard error: the tables and the JSON are alone on standard output.
fn progress(text: &str) -> Result<()> {
    writeln!(std::io::stderr(), "... {text}").context("standard error")
}
