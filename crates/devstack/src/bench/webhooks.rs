//! How many events a second one worker sends to webhooks: those of a bulk action, replayed to one endpoint and to several.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use devstack::Stack;
use serde_json::json;
use tokio::task::JoinSet;

use super::bulk::job;
use super::figure::Figure;
use super::mailbox::{self, Corpus};
use super::process::{self, Servers};
use super::sink::Sink;
use super::{Plan, WORKER, ours, progress};
use crate::product::{Product, Session, text};

const MESSAGES: usize = 20_000;
const MESSAGE_BYTES: usize = 4_096;
/// No more than a tenant has places in a worker.
const ENDPOINTS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) async fn measure(stack: &Stack, plan: &Plan) -> Result<Vec<Figure>> {
    let product = Product::start(stack, &plan.listen).await?;
    let session = product.log_in().await?;
    let corpus = Corpus { messages: plan.scaled(MESSAGES), size: Some(MESSAGE_BYTES) };
    progress(&format!("webhooks: filling {} messages", corpus.messages))?;
    let filled = mailbox::fill(stack.endpoints(), "webhooks", corpus).await?;
    let asked = ours::connect(&session, stack.endpoints(), &filled.user).await?;
    ours::until_listed(&session, &asked, filled.messages).await?;
    ours::until_searchable(&session, &asked, &filled.oldest_token).await?;
    let since = text(&session.get(&format!("/api/accounts/{}", asked.id)).await?, "created_at")?;
    let stars = json!({ "query": "in:inbox -is:starred", "action": "star" });
    let starred = job(&session, stars).await?;
    progress(&format!("webhooks: {starred} messages are starred"))?;
    let servers = Servers::of(stack.endpoints(), &product)?;
    let worker = product.pid(WORKER).context("the worker has no process id")?;
    let mut figures = Vec::new();
    for endpoints in [1, ENDPOINTS] {
        let (mut rates, mut cpu) = (Vec::new(), Vec::new());
        let events = (starred * endpoints) as f64;
        let mut hooks = Hooks::open(&session, endpoints).await?;
        for run in 0..=plan.few() {
            servers.settle().await?;
            let before = process::family_cpu_seconds(worker)?;
            let seconds = hooks.replay(&session, &since, starred).await?;
            let used = process::family_cpu_seconds(worker)? - before;
            progress(&format!("webhooks: {events} events to {endpoints} in {seconds:.2} s"))?;
            // Thrown away: the first of a kind plans its statements.
            if run > 0 {
                rates.push(events / seconds);
                cpu.push(used * 1e6 / events);
            }
        }
        hooks.close(&session).await?;
        let what = format!("events sent to {endpoints} webhook{}", if endpoints == 1 { "" } else { "s" });
        figures.push(Figure::new(&what, "1/s", Some(">= 2000"), rates));
        figures.push(Figure::new("the worker's processor time for each", "us", None, cpu));
    }
    product.stop(stack).await;
    Ok(figures)
}

/// Ids of events that have arrived, each with its endpoint.
type Arrived = Arc<Mutex<HashSet<(usize, String)>>>;

struct Hooks {
    ids: Vec<String>,
    /// When the last of them was made, which is after all that is replayed.
    made: String,
    arrived: Arrived,
    /// Serves until it is dropped.
    _serving: JoinSet<Result<()>>,
}

impl Hooks {
    async fn open(session: &Session, endpoints: usize) -> Result<Self> {
        let arrived = Arrived::default();
        let (mut ids, mut made, mut serving) = (Vec::new(), String::new(), JoinSet::new());
        for n in 0..endpoints {
            let all = Arc::clone(&arrived);
            let heard = move |id: &str| {
                all.lock().unwrap_or_else(PoisonError::into_inner).insert((n, id.to_owned()));
            };
            let sink = Sink::open(heard).await?;
            let body = json!({ "url": sink.url(), "types": ["message.updated"] });
            let created = session.post("/api/webhooks", body).await?;
            ids.push(text(&created, "id")?);
            made = text(&created, "created_at")?;
            serving.spawn(sink.serve());
        }
        Ok(Self { ids, made, arrived, _serving: serving })
    }

    /// From the first request until all events have arrived at each: seconds.
    async fn replay(&mut self, session: &Session, since: &str, events: usize) -> Result<f64> {
        let count = || self.arrived.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let started = Instant::now();
        for id in &self.ids {
            let body = json!({ "since": since, "until": self.made, "types": ["message.updated"] });
            session.post(&format!("/api/webhooks/{id}/replay"), body).await?;
        }
        while count() < events * self.ids.len() {
            if started.elapsed() > PATIENCE {
                bail!("{} of {} events have arrived", count(), events * self.ids.len());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(started.elapsed().as_secs_f64())
    }

    async fn close(self, session: &Session) -> Result<()> {
        for id in &self.ids {
            session.call(reqwest::Method::DELETE, &format!("/api/webhooks/{id}"), None).await?;
        }
        Ok(())
    }
}
