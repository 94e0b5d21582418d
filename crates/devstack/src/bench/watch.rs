//! One worker that watches many accounts: its memory, and how soon it notices.
//!
//! Dovecot takes one process and one inotify instance for each session as it is configured elsewhere here, and Linux gives
//! a user 128 of those (`fs.inotify.max_user_instances`); beyond them Dovecot looks every 30 seconds instead of being told.
//! So fifty sessions share a process for this measurement.

use std::fs::{self, File};
use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use devstack::{Endpoints, Stack};
use serde_json::Value;

use super::figure::{Figure, percentile};
use super::{Plan, WORKER, milliseconds, process, progress};
use crate::product::{MAIL_PASSWORD, Product, Session, account, text};

/// Time for all accounts to be synchronised and watched.
const UNTIL_WATCHED: Duration = Duration::from_secs(900);
/// Messages delivered one after the other, each to another account.
const DELIVERIES: usize = 25;

/// Only the watch notices anything, and the stampede after a start is over soon.
const SETTINGS: [(&str, &str); 3] = [
    ("SYNC_INTERVAL_SECONDS", "86400"),
    ("IMAP_CONNECTS_PER_SECOND", "100"),
    ("IMAP_CONNECTS_PER_HOST_PER_SECOND", "100"),
];

const CROWDED: &str = "
default_client_limit = 10000
service imap {
  client_limit = 50
  service_count = 0
}
";

/// Memory with all accounts watched, right after their first synchronisation and after a restart, and the time from a
/// delivery to the list.
pub(super) async fn measure(stack: &Stack, plan: &Plan) -> Result<Vec<Figure>> {
    let endpoints = stack.endpoints();
    let mut conf =
        File::options().append(true).open(&endpoints.dovecot_conf).context("only root may measure this")?;
    conf.write_all(CROWDED.as_bytes())?;
    let reloaded = endpoints.doveadm(&["reload"])?;
    if !reloaded.status.success() {
        bail!("doveadm reload: {}", String::from_utf8_lossy(&reloaded.stderr));
    }
    progress(&format!("{} mailboxes to watch", plan.watched))?;
    let users: Vec<String> = (0..plan.watched).map(|n| format!("watched{n}@lab.test")).collect();
    for user in &users {
        if !endpoints.mail_root.join(user).exists() {
            endpoints.add_mailbox(user, MAIL_PASSWORD)?;
            endpoints.fill(user, [("INBOX", vec![], 1_700_000_000, message(user, "first"))])?;
        }
    }
    let product = Product::start_with(stack, &plan.listen, &SETTINGS).await?;
    let session = product.log_in().await?;
    let idle = resident(&product)?;
    let mut ids = Vec::with_capacity(users.len());
    for user in &users {
        let created = session.post("/api/accounts?verify=false", account(endpoints, user, "Watched")).await?;
        ids.push(text(&created, "id")?);
    }
    let started = Instant::now();
    watched(&product, endpoints, plan.watched).await?;
    progress(&format!("watched after {:.0} s", started.elapsed().as_secs_f64()))?;
    let at_first = resident(&product)?;
    product.stop(stack).await;

    let product = Product::start_with(stack, &plan.listen, &SETTINGS).await?;
    let session = product.log_in().await?;
    watched(&product, endpoints, plan.watched).await?;
    let later = resident(&product)?;
    let noticed = deliveries(endpoints, &session, &users, &ids).await?;
    product.stop(stack).await;
    let (n, of) = (plan.watched, |share| vec![percentile(&noticed, share)]);
    let each = (later - idle) * 1000.0 / n as f64;
    Ok(vec![
        Figure::new("worker that watches nothing, resident", "MB", None, vec![idle]),
        Figure::new(
            &format!("worker, {n} accounts just synchronised and watched"),
            "MB",
            None,
            vec![at_first],
        ),
        Figure::new(
            &format!("worker, {n} accounts watched after a restart"),
            "MB",
            Some("<= 100"),
            vec![later],
        ),
        Figure::new("the same for each account", "kB", Some("<= 64"), vec![each]),
        Figure::new("delivery to one of them until listed, p50", "ms", Some("<= 520"), of(0.5)),
        Figure::new("delivery to one of them until listed, p99", "ms", Some("<= 600"), of(0.99)),
    ])
}

fn resident(product: &Product) -> Result<f64> {
    process::resident_mb(product.pid(WORKER).context("the worker has no process id")?)
}

/// Waits until every account has its connection and the worker has nothing else to do.
async fn watched(product: &Product, endpoints: &Endpoints, accounts: usize) -> Result<()> {
    let worker = product.pid(WORKER).context("the worker has no process id")?;
    let until = Instant::now() + UNTIL_WATCHED;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = connections(endpoints.imaps_port)?;
        if now == accounts {
            process::settle(&[worker]).await?;
            if connections(endpoints.imaps_port)? == accounts {
                return Ok(());
            }
        }
        if Instant::now() > until {
            bail!("{now} of {accounts} accounts are watched after {UNTIL_WATCHED:?}");
        }
    }
}

/// Connections to this port of 127.0.0.1 that are established, seen from the side that made them.
fn connections(port: u16) -> Result<usize> {
    let remote = format!(":{port:04X}");
    let mut all = 0;
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table)?;
        all += text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|f| f.get(2).is_some_and(|r| r.ends_with(&remote)) && f.get(3) == Some(&"01"))
            .count();
    }
    Ok(all)
}

/// From the moment the server has taken a message until our API lists it: milliseconds.
async fn deliveries(
    endpoints: &Endpoints,
    session: &Session,
    users: &[String],
    ids: &[String],
) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for (n, (user, id)) in users.iter().zip(ids).step_by((users.len() / DELIVERIES).max(1)).enumerate() {
        let subject = format!("noticed {n} {}", std::process::id());
        let (stack, to, bytes) = (endpoints.clone(), user.clone(), message(user, &subject));
        tokio::task::spawn_blocking(move || stack.deliver(&to, &bytes)).await??;
        let started = Instant::now();
        let list = format!("/api/accounts/{id}/messages?role=inbox&limit=5");
        loop {
            let page = session.get(&list).await?;
            let listed = page.pointer("/data").and_then(Value::as_array).into_iter().flatten();
            if listed.filter_map(|m| m.pointer("/subject")).any(|s| s == &Value::from(subject.as_str())) {
                break;
            }
            if started.elapsed() > Duration::from_secs(60) {
                bail!("a message to {user} is not listed after a minute");
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        times.push(milliseconds(started.elapsed()));
    }
    Ok(times)
}

fn message(user: &str, subject: &str) -> Vec<u8> {
    format!(
        "From: Bench <bench@example.test>\r\nTo: {user}\r\nSubject: {subject}\r\nMessage-ID: <{}.{user}>\r\n\
         Date: Sat, 21 Nov 2026 10:00:00 +0000\r\n\r\nbody\r\n",
        subject.replace(' ', ".")
    )
    .into_bytes()
}
