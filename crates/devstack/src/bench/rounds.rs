//! Rounds of accounts that are here already: nothing new in a large mailbox, nothing new in many, and a few hundred changes.
//!
//! Nothing watches these accounts, and no round is due by itself: a round finds whatever there is, as mbsync does.

use std::collections::HashSet;

use anyhow::{Result, bail};
use devstack::{Endpoints, Stack};
use tokio::task::spawn_blocking;

use super::figure::Figure;
use super::mailbox::{self, Corpus, Filled};
use super::mbsync::Mbsync;
use super::process::Servers;
use super::{Plan, imap, ours, progress};
use crate::product::{Product, Session};

const SETTINGS: [(&str, &str); 2] = [("IMAP_IDLE_ENABLED", "false"), ("SYNC_INTERVAL_SECONDS", "86400")];

/// One of these is over in no time, so each run has more.
const ROUNDS_OF_A_RUN: usize = 4;
const MAILBOXES: usize = 200;
const MESSAGES_OF_EACH: usize = 20;

/// What another client does between two rounds.
#[derive(Clone, Copy)]
struct Changes {
    new: usize,
    flagged: usize,
    expunged: usize,
}

/// An account and mbsync's copy of the same, both up to date.
struct Pair {
    user: String,
    messages: usize,
    account_id: String,
    peer: Mbsync,
}

/// Milliseconds of ours and of mbsync.
#[derive(Default)]
struct Taken {
    ours: Vec<f64>,
    mbsync: Vec<f64>,
}

pub(super) async fn measure(stack: &Stack, plan: &Plan) -> Result<Vec<Figure>> {
    let endpoints = stack.endpoints();
    let product = Product::start_with(stack, &plan.listen, &SETTINGS).await?;
    let session = product.log_in().await?;
    let servers = Servers::of(endpoints, &product)?;
    let corpus = Corpus { messages: plan.scaled(20_000), size: None };
    progress(&format!("rounds: filling {} messages and {MAILBOXES} mailboxes", corpus.messages))?;
    let large = mailbox::fill(endpoints, "large", corpus).await?;
    let many = mailbox::fill_many(endpoints, "many", MAILBOXES, MESSAGES_OF_EACH).await?;
    let mut large = Pair::new(endpoints, &session, large, "INBOX").await?;
    let many = Pair::new(endpoints, &session, many, "*").await?;
    servers.settle().await?;
    progress("rounds: nothing new in many messages")?;
    let quiet = large.rounds(&session, plan.runs * ROUNDS_OF_A_RUN).await?;
    progress("rounds: nothing new in many mailboxes")?;
    let of_many = many.rounds(&session, plan.runs * ROUNDS_OF_A_RUN).await?;

    let changes = Changes { new: plan.scaled(100), flagged: plan.scaled(100), expunged: plan.scaled(50) };
    let mut changed = Taken::default();
    for run in 0..plan.runs {
        progress(&format!("rounds: changes {} of {}", run + 1, plan.runs))?;
        large.change(endpoints, run, changes).await?;
        servers.settle().await?;
        mailbox::flush().await?;
        large.turn(&session, run, &mut changed).await?;
    }
    product.stop(stack).await;
    let Changes { new, flagged, expunged } = changes;
    let mut figures = quiet.figures(&format!("nothing new in {}", corpus.messages), "<= 50");
    figures.extend(of_many.figures(&format!("nothing new in {MAILBOXES} mailboxes"), "<= 50"));
    let what = format!("{new} new, {flagged} flags, {expunged} expunged in {}", corpus.messages);
    figures.extend(changed.figures(&what, "<= 300"));
    Ok(figures)
}

impl Pair {
    async fn new(endpoints: &Endpoints, session: &Session, filled: Filled, patterns: &str) -> Result<Self> {
        let asked = ours::connect(session, endpoints, &filled.user).await?;
        ours::until_listed(session, &asked, filled.messages).await?;
        if !filled.oldest_token.is_empty() {
            ours::until_searchable(session, &asked, &filled.oldest_token).await?;
        }
        let peer = Mbsync::new(endpoints, &filled.user, patterns, true)?;
        peer.pull(filled.messages).await?;
        Ok(Self { user: filled.user, messages: filled.messages, account_id: asked.id, peer })
    }

    /// Rounds while nobody changes anything.
    async fn rounds(&self, session: &Session, count: usize) -> Result<Taken> {
        let mut taken = Taken::default();
        // Thrown away: the first of a kind plans its statements and finds nothing in any cache.
        self.turn(session, 0, &mut Taken::default()).await?;
        for n in 0..count {
            self.turn(session, n, &mut taken).await?;
        }
        Ok(taken)
    }

    /// Both once; who is first changes.
    async fn turn(&self, session: &Session, n: usize, taken: &mut Taken) -> Result<()> {
        let mut turns = [true, false];
        if n % 2 == 1 {
            turns.reverse();
        }
        for ours in turns {
            if ours {
                taken.ours.push(ours::round(session, &self.account_id, self.messages).await?);
            } else {
                taken.mbsync.push(self.peer.pull(self.messages).await?.seconds * 1000.0);
            }
        }
        Ok(())
    }

    /// What another client does; neither is told of it.
    async fn change(&mut self, endpoints: &Endpoints, run: usize, changes: Changes) -> Result<()> {
        let (stack, user) = (endpoints.clone(), self.user.clone());
        spawn_blocking(move || change(&stack, &user, run, changes)).await??;
        self.messages = self.messages + changes.new - changes.expunged;
        Ok(())
    }
}

/// One command for each flag and each new message, as people do it; the messages lie all over the mailbox, and every
/// command changes something.
fn change(endpoints: &Endpoints, user: &str, run: usize, changes: Changes) -> Result<()> {
    let mut client = imap::Client::open(endpoints, user)?;
    let uids = client.search("ALL")?;
    let flagged: HashSet<u32> = client.search("FLAGGED")?.into_iter().collect();
    let step = (uids.len() / (changes.flagged + changes.expunged).max(1)).max(1);
    let mut picked = uids.iter().skip(run % step).step_by(step);
    for uid in picked.by_ref().take(changes.flagged) {
        let sign = if flagged.contains(uid) { '-' } else { '+' };
        client.command(&format!("UID STORE {uid} {sign}FLAGS.SILENT (\\Flagged)"))?;
    }
    let gone: Vec<String> = picked.take(changes.expunged).map(u32::to_string).collect();
    if gone.len() < changes.expunged {
        bail!("{} messages are too few to change", uids.len());
    }
    client.command(&format!("UID STORE {} +FLAGS.SILENT (\\Deleted)", gone.join(",")))?;
    client.command("EXPUNGE")?;
    let new = Corpus { messages: changes.new, size: None };
    for message in new.generator(&format!("changes{run}")).to(user).messages(changes.new) {
        client.append(&message.bytes)?;
    }
    Ok(())
}

impl Taken {
    fn figures(self, what: &str, to_reach: &'static str) -> Vec<Figure> {
        let ratios = self.mbsync.iter().zip(&self.ours).map(|(theirs, ours)| theirs / ours).collect();
        vec![
            Figure::new(&format!("round, {what}"), "ms", Some(to_reach), self.ours),
            Figure::new("mbsync, the same", "ms", None, self.mbsync),
            Figure::new("times as fast as mbsync", "ratio", None, ratios),
        ]
    }
}
