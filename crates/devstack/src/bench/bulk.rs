//! One action on a hundred thousand messages, while single messages of the account are listed and changed: how long it
//! takes, and how long anybody holds a lock or waits for one meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use devstack::{Endpoints, Stack};
use serde_json::{Value, json};

use super::edits::{Edit, Edited, mailbox};
use super::figure::{Figure, percentile};
use super::mailbox::{Corpus, fill};
use super::process::Servers;
use super::sql::{Locks, Sql};
use super::{Plan, milliseconds, ours, progress};
use crate::product::{Product, Session, text};

const SETTINGS: [(&str, &str); 2] = [("IMAP_IDLE_ENABLED", "false"), ("SYNC_INTERVAL_SECONDS", "86400")];
/// As many as one action takes.
const MESSAGES: usize = 100_000;
const MESSAGE_BYTES: usize = 4_096;
/// Messages that are changed one by one meanwhile.
const EDITED: usize = 50;
/// Between two requests of whoever works meanwhile.
const PAUSE: Duration = Duration::from_millis(50);

/// One value for each action.
#[derive(Default)]
struct Taken {
    seconds: Vec<f64>,
    pushed: Vec<f64>,
    held: Vec<f64>,
    awaited: Vec<f64>,
    edits: Vec<f64>,
    lists: Vec<f64>,
}

struct Bench<'a> {
    session: &'a Session,
    servers: &'a Servers,
    account: String,
    messages: usize,
    /// For the locks, and for what waits.
    sql: [Sql; 2],
}

pub(super) async fn measure(stack: &Stack, plan: &Plan) -> Result<Vec<Figure>> {
    let product = Product::start_with(stack, &plan.listen, &SETTINGS).await?;
    let session = product.log_in().await?;
    let servers = Servers::of(stack.endpoints(), &product)?;
    let mut bench = Bench::new(stack.endpoints(), plan, &session, &servers).await?;
    let boxes = [
        mailbox(&session, &bench.account, "inbox").await?,
        mailbox(&session, &bench.account, "archive").await?,
    ];
    let (mut stars, mut moves) = (Taken::default(), Taken::default());
    for run in 0..plan.few() {
        let [from, to] = if run.is_multiple_of(2) { ["inbox", "archive"] } else { ["archive", "inbox"] };
        let [inbox, archive] = &boxes;
        let target = if to == "inbox" { inbox } else { archive };
        let star = if run.is_multiple_of(2) { "star" } else { "unstar" };
        bench.act(json!({ "query": format!("in:{from}"), "action": star }), &mut stars).await?;
        let body = json!({ "query": format!("in:{from}"), "action": "move", "mailbox_id": target });
        bench.act(body, &mut moves).await?;
    }
    let messages = bench.messages;
    let deleted = bench.delete().await?;
    drop(bench);
    product.stop(stack).await;
    let mut figures = stars.figures(&format!("star {messages} messages by a query"));
    figures.extend(moves.figures(&format!("move {messages} messages by a query")));
    figures.extend(deleted);
    Ok(figures)
}

impl<'a> Bench<'a> {
    async fn new(
        endpoints: &Endpoints,
        plan: &Plan,
        session: &'a Session,
        servers: &'a Servers,
    ) -> Result<Self> {
        let corpus = Corpus { messages: plan.scaled(MESSAGES), size: Some(MESSAGE_BYTES) };
        progress(&format!("bulk: filling {} messages", corpus.messages))?;
        let filled = fill(endpoints, "bulk", corpus).await?;
        let asked = ours::connect(session, endpoints, &filled.user).await?;
        ours::until_listed(session, &asked, filled.messages).await?;
        ours::until_searchable(session, &asked, &filled.oldest_token).await?;
        let sql = [Sql::open(endpoints)?, Sql::open(endpoints)?];
        Ok(Self { session, servers, account: asked.id, messages: filled.messages, sql })
    }

    /// Deletes the account, until all of it is removed.
    async fn delete(&mut self) -> Result<Vec<Figure>> {
        self.servers.settle().await?;
        let [locks, rows] = &mut self.sql;
        let over = AtomicBool::new(false);
        let started = Instant::now();
        let work = async {
            let answered = self.session.delete(&format!("/api/accounts/{}", self.account)).await;
            let answered = answered.map(|()| milliseconds(started.elapsed()));
            let removed = rows.until_removed().await;
            over.store(true, Ordering::Relaxed);
            removed?;
            anyhow::Ok((answered?, started.elapsed().as_secs_f64()))
        };
        let (work, locks) = tokio::join!(work, locks.watch_locks(&over));
        let ((answered, removed), Locks { held, awaited }) = (work?, locks?);
        progress(&format!("bulk: deleted in {answered:.0} ms, removed after {removed:.1} s"))?;
        progress(&format!("bulk: locks held {:.0} ms: {}", held.milliseconds, held.statement))?;
        Ok(vec![
            Figure::new(
                &format!("delete an account of {} messages", self.messages),
                "ms",
                Some("<= 100"),
                vec![answered],
            ),
            Figure::new("until all of it is removed", "s", None, vec![removed]),
            Figure::new("longest that locks were held", "ms", Some("<= 1000"), vec![held.milliseconds]),
            Figure::new("longest wait for a lock", "ms", Some("<= 1000"), vec![awaited.milliseconds]),
        ])
    }

    /// One action, until its job is done, and until the server has all of it.
    async fn act(&mut self, body: Value, taken: &mut Taken) -> Result<()> {
        self.servers.settle().await?;
        let what = body.to_string();
        let mut edited = Edited::newest(self.session, &self.account, EDITED).await?;
        let [locks, waits] = &mut self.sql;
        let (over, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let started = Instant::now();
        let work = async {
            let updated = job(self.session, body).await;
            let seconds = started.elapsed().as_secs_f64();
            done.store(true, Ordering::Relaxed);
            let pushed = waits.until_pushed().await;
            over.store(true, Ordering::Relaxed);
            pushed?;
            let updated = updated?;
            if updated != self.messages {
                bail!("the action changed {updated} of {} messages", self.messages);
            }
            anyhow::Ok((seconds, started.elapsed().as_secs_f64()))
        };
        let meanwhile = meanwhile(self.session, &self.account, &mut edited, &done, taken);
        let (work, locks, meanwhile) = tokio::join!(work, locks.watch_locks(&over), meanwhile);
        let ((seconds, pushed), Locks { held, awaited }) = (work?, locks?);
        meanwhile?;
        progress(&format!("bulk: {what} {seconds:.1} s, on the server after {pushed:.1} s"))?;
        progress(&format!("bulk: locks held {:.0} ms: {}", held.milliseconds, held.statement))?;
        progress(&format!("bulk: locks awaited {:.0} ms: {}", awaited.milliseconds, awaited.statement))?;
        taken.seconds.push(seconds);
        taken.pushed.push(pushed);
        taken.held.push(held.milliseconds);
        taken.awaited.push(awaited.milliseconds);
        Ok(())
    }
}

/// One action, until its job is done. How many messages it changed.
pub(super) async fn job(session: &Session, body: Value) -> Result<usize> {
    let asked = session.post("/api/messages/actions", body).await?;
    // So few, at a small scale, that the request did it itself.
    let mut job = asked.clone();
    if let Ok(id) = text(&asked, "id") {
        loop {
            job = session.get(&format!("/api/jobs/{id}")).await?;
            match job.get("state").and_then(Value::as_str) {
                Some("done") => break,
                Some("queued" | "running") => tokio::time::sleep(Duration::from_millis(20)).await,
                _ => bail!("the action did not end well: {job}"),
            }
        }
    }
    let updated = job.get("updated").and_then(Value::as_u64).with_context(|| job.to_string())?;
    Ok(usize::try_from(updated)?)
}

/// What the user does until `done`: looks at the list and changes one message, in turn.
async fn meanwhile(
    session: &Session,
    account: &str,
    edited: &mut Edited,
    done: &AtomicBool,
    taken: &mut Taken,
) -> Result<()> {
    let list = format!("/api/accounts/{account}/messages?limit=50");
    while !done.load(Ordering::Relaxed) {
        let started = Instant::now();
        session.get(&list).await?;
        taken.lists.push(milliseconds(started.elapsed()));
        taken.edits.push(edited.edit(session, Edit::Read).await?);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

impl Taken {
    fn figures(self, what: &str) -> Vec<Figure> {
        let worst = |times: &[f64]| vec![percentile(times, 0.99)];
        vec![
            Figure::new(&format!("{what}, until the job is done"), "s", Some("<= 60"), self.seconds),
            Figure::new("until the mail server has it", "s", None, self.pushed),
            Figure::new("longest that locks were held", "ms", Some("<= 1000"), self.held),
            Figure::new("longest wait for a lock", "ms", Some("<= 1000"), self.awaited),
            Figure::new("list 50 messages meanwhile, p99", "ms", None, worst(&self.lists)),
            Figure::new("change one message meanwhile, p50", "ms", None, vec![percentile(&self.edits, 0.5)]),
            Figure::new("the same, p99", "ms", None, worst(&self.edits)),
        ]
    }
}
