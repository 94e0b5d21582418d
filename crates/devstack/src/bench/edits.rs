//! Edits of single messages by our user, one after the other: on an account where nothing else happens, and during its first
//! synchronisation.
//!
//! Nothing watches these accounts, and no round is due by itself. On the quiet account each request waits until the mail
//! server has what the one before asked for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use devstack::{Endpoints, Stack};
use serde_json::{Value, json};

use super::figure::{Figure, percentile};
use super::mailbox::{self, Corpus};
use super::process::Servers;
use super::sql::Sql;
use super::{Plan, milliseconds, ours, progress};
use crate::product::{Product, Session, text};

const SETTINGS: [(&str, &str); 2] = [("IMAP_IDLE_ENABLED", "false"), ("SYNC_INTERVAL_SECONDS", "86400")];
const QUIET: usize = 20_000;
const BACKFILL: usize = 50_000;
const MESSAGE_BYTES: usize = 4_096;
/// Messages that are edited in turn.
const EDITED: usize = 50;
/// Of those that wait for the server, a run of a latency has fewer.
const FEWER: usize = 5;
/// Between two edits during a first synchronisation.
const PAUSE: Duration = Duration::from_millis(100);

/// The messages of an account that are edited, each in its turn.
pub(super) struct Edited {
    /// As they were listed, or answered by their last edit.
    messages: Vec<Value>,
    inbox: Value,
    archive: Value,
    next: usize,
}

/// What is asked of a message: each is a change of it.
#[derive(Clone, Copy)]
pub(super) enum Edit {
    /// Starred, or unstarred.
    Star,
    /// Read, or unread.
    Read,
    /// To Archive, or back.
    Move,
}

impl Edited {
    /// The newest of an account that are listed by now.
    pub(super) async fn newest(session: &Session, account: &str, count: usize) -> Result<Self> {
        let page = session.get(&format!("/api/accounts/{account}/messages?limit={count}")).await?;
        let messages = page.pointer("/data").and_then(Value::as_array).cloned().unwrap_or_default();
        let inbox = mailbox(session, account, "inbox").await?;
        let archive = mailbox(session, account, "archive").await?;
        Ok(Self { messages, inbox, archive, next: 0 })
    }

    /// Asks it of the next message, and waits for the answer: milliseconds.
    pub(super) async fn edit(&mut self, session: &Session, edit: Edit) -> Result<f64> {
        let at = self.next % self.messages.len().max(1);
        let message = self.messages.get_mut(at).context("there is nothing to edit")?;
        let is = |field: &str| message.get(field).and_then(Value::as_bool) == Some(true);
        let body = match edit {
            Edit::Star => json!({ "starred": !is("starred") }),
            Edit::Read => json!({ "unread": !is("unread") }),
            Edit::Move if message.pointer("/mailboxes/0/id") == Some(&self.archive) => {
                json!({ "move_to": self.inbox })
            }
            Edit::Move => json!({ "move_to": self.archive }),
        };
        let path = format!("/api/messages/{}", text(message, "id")?);
        self.next += 1;
        let started = Instant::now();
        *message = session.patch(&path, body).await?;
        Ok(milliseconds(started.elapsed()))
    }
}

/// The id of an account's mailbox of this role.
pub(super) async fn mailbox(session: &Session, account: &str, role: &str) -> Result<Value> {
    let page = session.get(&format!("/api/accounts/{account}/mailboxes?limit=200")).await?;
    let mut mailboxes = page.pointer("/data").and_then(Value::as_array).into_iter().flatten();
    let found = mailboxes.find(|m| m.get("role").and_then(Value::as_str) == Some(role));
    found.and_then(|m| m.get("id")).cloned().with_context(|| format!("there is no mailbox {role}"))
}

/// Each run's median and 99th percentile.
#[derive(Default)]
struct Times {
    median: Vec<f64>,
    worst: Vec<f64>,
}

impl Times {
    fn take(&mut self, times: &[f64]) {
        self.median.push(percentile(times, 0.5));
        self.worst.push(percentile(times, 0.99));
    }

    fn figures(self, what: &str, to_reach: [Option<&'static str>; 2]) -> [Figure; 2] {
        [
            Figure::new(&format!("{what}, p50"), "ms", to_reach[0], self.median),
            Figure::new("the same, p99", "ms", to_reach[1], self.worst),
        ]
    }
}

pub(super) async fn measure(stack: &Stack, plan: &Plan) -> Result<Vec<Figure>> {
    let product = Product::start_with(stack, &plan.listen, &SETTINGS).await?;
    let session = product.log_in().await?;
    let servers = Servers::of(stack.endpoints(), &product)?;
    let mut figures = quiet(stack.endpoints(), plan, &session, &servers).await?;
    figures.extend(beside(stack.endpoints(), plan, &session, &servers).await?);
    product.stop(stack).await;
    Ok(figures)
}

async fn quiet(
    endpoints: &Endpoints,
    plan: &Plan,
    session: &Session,
    servers: &Servers,
) -> Result<Vec<Figure>> {
    let corpus = Corpus { messages: plan.scaled(QUIET), size: None };
    progress(&format!("edits: filling {} messages", corpus.messages))?;
    let filled = mailbox::fill(endpoints, "quiet", corpus).await?;
    let asked = ours::connect(session, endpoints, &filled.user).await?;
    ours::until_listed(session, &asked, filled.messages).await?;
    ours::until_searchable(session, &asked, &filled.oldest_token).await?;
    servers.settle().await?;
    let mut sql = Sql::open(endpoints)?;
    let mut figures = Vec::new();
    for (edit, what) in [(Edit::Star, "star"), (Edit::Move, "move")] {
        progress(&format!("edits: {what} on a quiet account"))?;
        let mut edited = Edited::newest(session, &asked.id, EDITED).await?;
        let mut times = Times::default();
        for run in 0..=plan.runs {
            let mut taken = Vec::new();
            for _ in 0..(plan.requests / FEWER).max(1) {
                taken.push(edited.edit(session, edit).await?);
                sql.until_pushed().await?;
            }
            // Thrown away: the first of a kind plans its statements.
            if run > 0 {
                times.take(&taken);
            }
        }
        let what = format!("{what} one of {} messages, nothing else going on", filled.messages);
        figures.extend(times.figures(&what, [Some("<= 10"), None]));
    }
    progress("edits: one after the other")?;
    let mut edited = Edited::newest(session, &asked.id, EDITED).await?;
    let mut times = Times::default();
    for _ in 0..plan.runs {
        let mut taken = Vec::new();
        for _ in 0..plan.requests {
            taken.push(edited.edit(session, Edit::Star).await?);
        }
        times.take(&taken);
        sql.until_pushed().await?;
    }
    figures.extend(times.figures("star, one request after the other", [None, None]));
    Ok(figures)
}

/// While the account's old mail is read, from its first page to its last message.
async fn beside(
    endpoints: &Endpoints,
    plan: &Plan,
    session: &Session,
    servers: &Servers,
) -> Result<Vec<Figure>> {
    let corpus = Corpus { messages: plan.scaled(BACKFILL), size: Some(MESSAGE_BYTES) };
    let (mut times, mut seconds) = (Times::default(), Vec::new());
    for run in 0..plan.few() {
        progress(&format!("edits: filling {} messages", corpus.messages))?;
        let filled = mailbox::fill(endpoints, &format!("beside{run}"), corpus).await?;
        servers.settle().await?;
        let asked = ours::connect(session, endpoints, &filled.user).await?;
        let page = EDITED.min(filled.messages);
        ours::until_first_page(session, &asked, page, &filled.newest).await?;
        let mut edited = Edited::newest(session, &asked.id, page).await?;
        let mut taken = Vec::new();
        while ours::listed(session, &asked).await? < filled.messages {
            let edit = if taken.len().is_multiple_of(2) { Edit::Star } else { Edit::Move };
            taken.push(edited.edit(session, edit).await?);
            tokio::time::sleep(PAUSE).await;
        }
        seconds.push(asked.at.elapsed().as_secs_f64());
        progress(&format!("edits: {} beside a first synchronisation", taken.len()))?;
        times.take(&taken);
        ours::until_searchable(session, &asked, &filled.oldest_token).await?;
    }
    let what = format!("star or move during the first synchronisation of {} messages", corpus.messages);
    let mut figures = Vec::from(times.figures(&what, [None, Some("<= 100")]));
    figures.push(Figure::new("that first synchronisation, listed", "s", None, seconds));
    Ok(figures)
}
