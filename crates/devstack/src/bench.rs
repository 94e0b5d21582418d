//! `devstack bench`: what users feel, measured against mbsync in the same run, on real servers, through the REST API.
//!
//! A benchmark is not a test: nothing fails on a time. Each figure is taken several times, printed with its median and
//! its spread, as a table and as one line of JSON. The next figure: a function that returns a [`Figure`], and one line
//! in `measure`.

mod figure;
mod mbsync;
mod process;
mod watch;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use devstack::corpus::Generator;
use devstack::{Endpoints, Stack};
use serde_json::{Value, json};

use crate::interrupts::Interrupts;
use crate::product::{MAIL_PASSWORD, Product, Session, account, text};
use crate::{StackArguments, start};
use figure::{Figure, percentile};

const API: &str = "emailclient-api";
const WORKER: &str = "emailclient-worker";

/// Arguments of `devstack bench`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    stack: StackArguments,
    /// Where the API listens meanwhile.
    #[arg(long, default_value = "127.0.0.1:5099")]
    listen: SocketAddr,
    /// How often each figure is taken.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Messages in the mailbox that is synchronised.
    #[arg(long, default_value_t = 2000)]
    messages: usize,
    /// Requests per run of a latency.
    #[arg(long, default_value_t = 500)]
    requests: usize,
    /// Accounts that one worker watches; 0 leaves that out.
    #[arg(long, default_value_t = 1000)]
    watched: usize,
    /// Measures the watching alone.
    #[arg(long)]
    only_watched: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    if arguments.runs == 0 || arguments.requests == 0 || arguments.messages == 0 {
        bail!("nothing to measure");
    }
    let mut interrupts = Interrupts::new()?;
    let options = arguments.stack.options();
    let Some(stack) = start(options, &mut interrupts).await? else { return Ok(ExitCode::from(130)) };
    let plan = Plan {
        listen: arguments.listen.to_string(),
        runs: arguments.runs,
        messages: arguments.messages,
        requests: arguments.requests,
        watched: arguments.watched,
        only_watched: arguments.only_watched,
    };
    let figures = tokio::select! {
        figures = measure(&stack, &plan) => figures?,
        () = interrupts.next() => return Ok(ExitCode::from(130)),
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", figure::table(&figures))?;
    writeln!(out, "{}", json!({ "messages": plan.messages, "runs": plan.runs, "figures": figures }))?;
    Ok(ExitCode::SUCCESS)
}

struct Plan {
    listen: String,
    runs: usize,
    messages: usize,
    requests: usize,
    watched: usize,
    only_watched: bool,
}

async fn measure(stack: &Stack, plan: &Plan) -> Result<Vec<Figure>> {
    if plan.only_watched {
        return watch::measure(stack, plan).await;
    }
    let mut figures = starts(stack, plan).await?;
    let product = Product::start(stack, &plan.listen).await?;
    let session = product.log_in().await?;
    let account_id = first_sync(stack, plan, &product, &session, &mut figures).await?;
    let list = format!("/api/accounts/{account_id}/messages?role=inbox&limit=50");
    let [median, worst] = latency(plan, &session, &list).await?;
    figures.push(Figure::new("list 50 messages, p50", "ms", None, median));
    figures.push(Figure::new("list 50 messages, p99", "ms", Some("<= 10"), worst));
    let [median, worst] = latency(plan, &session, "/health").await?;
    figures.push(Figure::new("health, p50", "ms", Some("<= 5"), median));
    figures.push(Figure::new("health, p99", "ms", None, worst));
    if let Some(pid) = product.pid(API) {
        figures.push(Figure::new(
            "api after all this, resident",
            "MB",
            None,
            vec![process::resident_mb(pid)?],
        ));
    }
    product.stop(stack).await;
    figures.extend(watch::measure(stack, plan).await?);
    Ok(figures)
}

/// Start to ready, and what the API occupies when nobody has asked it anything else.
async fn starts(stack: &Stack, plan: &Plan) -> Result<Vec<Figure>> {
    let (mut ready, mut resident) = (Vec::new(), Vec::new());
    for run in 0..plan.runs {
        progress(&format!("start {} of {}", run + 1, plan.runs))?;
        let product = Product::start(stack, &plan.listen).await?;
        ready.push(milliseconds(product.start_to_ready));
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Some(pid) = product.pid(API) {
            resident.push(process::resident_mb(pid)?);
        }
        product.stop(stack).await;
    }
    Ok(vec![
        Figure::new("start to ready", "ms", Some("<= 1000"), ready),
        Figure::new("api idle, resident", "MB", Some("<= 40"), resident),
    ])
}

/// A mailbox of its own for every run, read by both in turn: who is first changes, so that neither always finds the
/// server's caches warm. Returns the last account.
async fn first_sync(
    stack: &Stack,
    plan: &Plan,
    product: &Product,
    session: &Session,
    figures: &mut Vec<Figure>,
) -> Result<String> {
    let endpoints = stack.endpoints();
    let worker = product.pid(WORKER).context("the worker has no process id")?;
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut worker_cpu, mut postgres_cpu, mut dovecot_cpu, mut mbsync_cpu) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let postgres = process::of_pid_file(&endpoints.dir.join("postgres/postmaster.pid"))?;
    let dovecot = process::of_pid_file(&endpoints.dir.join("dovecot/master.pid"))?;
    let mut account_id = String::new();
    for run in 0..plan.runs {
        progress(&format!("first synchronisation {} of {}", run + 1, plan.runs))?;
        let user = format!("bench{run}@lab.test");
        let (to_fill, name, messages) = (endpoints.clone(), user.clone(), plan.messages);
        tokio::task::spawn_blocking(move || fill(&to_fill, &name, run as u64, messages)).await??;
        let mut peer: Option<(f64, f64)> = None;
        if run % 2 == 1 {
            peer = Some(peer_sync(endpoints, &user, plan.messages).await?);
        }
        let before = process::cpu_seconds(worker)?;
        let before_postgres = process::family_cpu_seconds(postgres)?;
        let before_dovecot = process::family_cpu_seconds(dovecot)?;
        let (id, seconds) = synchronise(session, endpoints, &user, plan.messages).await?;
        process::settle(worker).await?;
        worker_cpu.push(process::cpu_seconds(worker)? - before);
        postgres_cpu.push(process::family_cpu_seconds(postgres)? - before_postgres);
        dovecot_cpu.push(process::family_cpu_seconds(dovecot)? - before_dovecot);
        let (peer, peer_cpu) = match peer {
            Some(taken) => taken,
            None => peer_sync(endpoints, &user, plan.messages).await?,
        };
        mbsync_cpu.push(peer_cpu);
        account_id = id;
        ours.push(seconds);
        theirs.push(peer);
        ratios.push(seconds / peer);
    }
    let messages = plan.messages;
    figures.push(Figure::new(&format!("first sync of {messages} messages"), "s", None, ours));
    figures.push(Figure::new(&format!("mbsync of {messages} messages"), "s", None, theirs));
    figures.push(Figure::new("first sync : mbsync", "ratio", Some("<= 1"), ratios));
    figures.push(Figure::new("worker's CPU for it, text index included", "s", None, worker_cpu));
    figures.push(Figure::new("PostgreSQL's CPU for it, the same", "s", None, postgres_cpu));
    figures.push(Figure::new("Dovecot's CPU for it", "s", None, dovecot_cpu));
    figures.push(Figure::new("mbsync's CPU", "s", None, mbsync_cpu));
    figures.push(Figure::new("worker, peak", "MB", None, vec![process::peak_mb(worker)?]));
    Ok(account_id)
}

/// mbsync's seconds, and those of the processor that it used.
async fn peer_sync(endpoints: &Endpoints, user: &str, messages: usize) -> Result<(f64, f64)> {
    let this = std::process::id();
    let before = process::ended_children_cpu_seconds(this)?;
    let seconds = mbsync::first_sync(endpoints, user, messages).await?;
    Ok((seconds, process::ended_children_cpu_seconds(this)? - before))
}

/// The mailbox, with Dovecot's index made, as a server that has long had this mail would.
fn fill(endpoints: &Endpoints, user: &str, seed: u64, messages: usize) -> Result<()> {
    if !endpoints.mail_root.join(user).exists() {
        endpoints.add_mailbox(user, MAIL_PASSWORD)?;
        let corpus = Generator::new(seed, "bench").to(user).messages(messages);
        endpoints.fill(user, corpus.map(|m| ("INBOX", m.flags, m.internal_date, m.bytes)))?;
    }
    let output = endpoints.doveadm(&["index", "-u", user, "INBOX"])?;
    if !output.status.success() {
        bail!("doveadm index: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// From the request that creates the account to the status that says all is here: the id and the seconds.
async fn synchronise(
    session: &Session,
    endpoints: &Endpoints,
    user: &str,
    messages: usize,
) -> Result<(String, f64)> {
    let started = Instant::now();
    let created = session.post("/api/accounts?verify=false", account(endpoints, user, "Bench")).await?;
    let id = text(&created, "id")?;
    loop {
        let status = session.get(&format!("/api/sync/status/{id}")).await?;
        let field = |path: &str| status.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let synced = status.pointer("/progress/messages_synced").and_then(Value::as_u64).unwrap_or_default();
        if field("/run/state") == "done" && synced >= messages as u64 {
            return Ok((id, started.elapsed().as_secs_f64()));
        }
        if field("/run/state") == "failed" || started.elapsed() > Duration::from_secs(300) {
            bail!("the synchronisation did not end well: {status}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One request after the other on one connection: each run's median and 99th percentile, in milliseconds.
async fn latency(plan: &Plan, session: &Session, path: &str) -> Result<[Vec<f64>; 2]> {
    progress(path)?;
    let (mut median, mut worst) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        session.get(path).await?;
    }
    for _ in 0..plan.runs {
        let mut times = Vec::with_capacity(plan.requests);
        for _ in 0..plan.requests {
            let started = Instant::now();
            session.get(path).await?;
            times.push(milliseconds(started.elapsed()));
        }
        median.push(percentile(&times, 0.5));
        worst.push(percentile(&times, 0.99));
    }
    Ok([median, worst])
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// To standard error: the table and the JSON are alone on standard output.
fn progress(text: &str) -> Result<()> {
    writeln!(std::io::stderr(), "... {text}").context("standard error")
}
