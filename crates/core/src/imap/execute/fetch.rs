//! Messages from the server to rows: reader → channel → hashing and parsing on the blocking pool → gatherer, which stores
//! the bytes → writer, which stores the rows.
//!
//! Before anything is looked into, what was asked for is noted in a row of its own (`attempts`), while the server still
//! thinks about its answer; the row goes with the last of the messages.
//!
//! The stages run at once and every queue between them is bounded, so a slow database stops the reading of the socket.
//! A message's share of the memory budget is given back when its row is committed; whenever the reader falls silent, what
//! has come is committed, so that stages that wait for each other's memory always come loose.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mail::sync::{Batch, Checkpoint};
use mail::uid::{Uid, UidSet};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::round::{Link, Suspect};
use super::visit::{Open, is_refusal, words_of};
use super::{SyncContext, SyncError};
use crate::db::DbError;
use crate::failpoint;
use crate::id::TenantId;
use crate::imap::{FetchEvent, FetchedMessage, ImapError, MemoryBudget, Session};
use crate::lease::Lease;
use crate::sync_store::prepare::{Arrival, Options, Parse, prepare};
use crate::sync_store::{Prepared, Target, attempts, bytes, checkpoint, ingest};

/// Messages between the socket and the parsers.
const READ_AHEAD: usize = 64;
/// One parsing task: large enough that its scheduling does not matter, small enough to keep both ends busy.
const GROUP_MESSAGES: usize = 32;
const GROUP_BYTES: usize = 1 << 20;
/// Parsing tasks under way: more than one transaction takes, so that reading and parsing go on while it is written.
const GROUPS_AHEAD: usize = 8;
/// A batch with so many bytes sends them ahead of its rows. Below it, two transactions cost more than the wait.
const AHEAD_BYTES: usize = 1 << 20;
/// One transaction at most: rows beyond it are committed without a checkpoint. With 16 MiB a first synchronisation stood
/// still for a fifth of its time, reader and writer waiting for each other in turn; and each MiB here is several in memory.
const COMMIT_BYTES: usize = 4 << 20;
const COMMIT_MESSAGES: usize = 500;
/// A reader that brings nothing for so long may be waiting for memory that we hold.
const SILENCE: Duration = Duration::from_millis(50);
/// More new messages than these are indexed by a job: their sender did not wait for them a moment ago.
const INDEX_AT_ONCE: u64 = 200;

/// Parsed, with its share of the memory budget.
struct Ready {
    prepared: Prepared,
    _permit: Option<OwnedSemaphorePermit>,
}

enum Item {
    Group(JoinHandle<Vec<Ready>>),
    Answered(UidSet),
    Silence,
}

/// One transaction.
struct Load {
    ready: Vec<Ready>,
    /// What holds once they are stored.
    reached: Option<Checkpoint>,
    /// Nothing that was noted is still being looked into.
    last: bool,
}

/// Fetches and stores `batches`, each with its checkpoint, and tells the view.
pub(super) async fn messages(
    link: &mut Link<'_>,
    open: &mut Open,
    batches: Vec<Batch>,
) -> Result<(), SyncError> {
    let before = open.local.checkpoint;
    let wanted: u64 = batches.iter().map(|b| b.uids.len()).sum();
    let fresh = batches.iter().any(|b| b.then.head_uid != before.head_uid);
    let config = &link.ctx.config;
    let index = config.parse_enabled && config.parse_index_text && fresh && wanted <= INDEX_AT_ONCE;
    let parse = match batches.iter().any(|b| b.raw) {
        true => Parse::Never,
        false if config.parse_enabled => Parse::Now,
        false => Parse::Not,
    };
    let options = Options { parse, index };
    let sets: Vec<UidSet> = batches.iter().map(|b| b.uids.clone()).collect();
    let all = sets.iter().fold(UidSet::new(), |all, set| all.union(set));
    open.server.seen.asked = open.server.seen.asked.union(&all);
    let in_the_way = open.local.delicate().intersection(&all);
    let (out, inbox) = mpsc::channel(READ_AHEAD);
    let (groups_out, groups_in) = mpsc::channel(GROUPS_AHEAD);
    let (loads_out, loads_in) = mpsc::channel(1);
    let gatherer = Gatherer {
        ctx: link.ctx,
        tenant: link.lease.tenant,
        target: open.target,
        fresh,
        batches: batches.into_iter().map(|b| (b.uids, b.then)).collect(),
        next: 0,
        waiting: Vec::new(),
        bytes: 0,
        out: loads_out,
    };
    let writer = Writer {
        ctx: link.ctx,
        lease: link.lease,
        target: open.target,
        exists: open.server.mailbox.exists,
        durable: fresh,
        in_the_way: in_the_way.clone(),
        noted: true,
        stored: Stored { known: UidSet::new(), at: None, created: 0 },
    };
    let mut refused = Refused::default();
    let memory = if fresh { &link.ctx.fresh_memory } else { &link.ctx.memory };
    let (read, noted, unanswered, stored) = tokio::join!(
        read(&mut link.session, memory, sets, out, &mut refused),
        group((link.ctx, options, fresh), note(link.ctx, link.lease, open.target, all), inbox, groups_out),
        gatherer.run(groups_in),
        writer.run(loads_in),
    );
    let (unanswered, stored) = match (unanswered, stored) {
        (Ok(unanswered), Ok(stored)) => (unanswered, stored),
        (_, Err(error)) | (Err(error), _) => return Err(give_up(link, open, error).await),
    };
    noted?;
    link.report.created += stored.created;
    open.local.known = open.local.known.union(&stored.known);
    open.local.forget(&stored.known);
    open.local.checkpoint = stored.at.unwrap_or(before);
    if !refused.uids.is_empty() {
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        attempts::refused(&mut tx, &open.target, &refused.uids, &refused.words).await?;
        tx.commit().await?;
        open.local.forget(&refused.uids);
        open.local.unreadable = open.local.unreadable.union(&refused.uids);
    }
    if read.is_err() {
        let suspect = |uid| Suspect { target: open.target, uid, alone: in_the_way.contains(uid) };
        // The first that was asked for and did not come: servers answer in order.
        link.suspect = unanswered.difference(&stored.known).first().map(suspect);
    }
    Ok(read?)
}

async fn note(ctx: &SyncContext, lease: &Lease, target: Target, uids: UidSet) -> Result<(), SyncError> {
    let mut tx = lease.begin(&ctx.db).await?;
    tx.relax_durability().await?;
    attempts::begin(&mut tx, lease, &target, &uids).await?;
    Ok(tx.commit().await?)
}

/// The rows could not be written. A database that is away is no message's fault; a panic, or a statement it refuses, may
/// be: then the note stays, and the next round takes these messages one at a time.
async fn give_up(link: &Link<'_>, open: &Open, error: SyncError) -> SyncError {
    if matches!(error, SyncError::Db(DbError::Unavailable(_))) {
        let taken_back = async {
            let mut tx = link.lease.begin(&link.ctx.db).await?;
            attempts::end(&mut tx, link.lease, &open.target).await?;
            Ok::<_, SyncError>(tx.commit().await?)
        };
        if let Err(error) = taken_back.await {
            tracing::debug!(%error, "the messages under way stay noted");
        }
    }
    error
}

/// Messages the server refused when asked for each alone, and its words about the last.
#[derive(Default)]
struct Refused {
    uids: UidSet,
    words: String,
}

/// Reads all sets. A server that refuses a whole command may do so for one message in it: then they are asked for one by
/// one, and those it still refuses count as answered without a message.
async fn read(
    session: &mut Session,
    memory: &MemoryBudget,
    sets: Vec<UidSet>,
    out: mpsc::Sender<FetchEvent>,
    refused: &mut Refused,
) -> Result<(), ImapError> {
    let Err(error) = session.fetch_bodies(sets.clone(), memory, &out).await else { return Ok(()) };
    if !is_refusal(&error) || !session.is_usable() {
        return Err(error);
    }
    for uid in sets.iter().flat_map(UidSet::iter) {
        let one = UidSet::range(uid, uid);
        match session.fetch_bodies([one.clone()], memory, &out).await {
            Ok(()) => {}
            Err(error) if is_refusal(&error) && session.is_usable() => {
                refused.uids.insert(uid);
                refused.words = words_of(&error);
                let nothing = FetchEvent::BatchDone { requested: one.clone(), missing: one };
                if out.send(nothing).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Gathers messages into groups and sends them to be parsed, in order, once they are noted.
async fn group(
    (ctx, options, fresh): (&SyncContext, Options, bool),
    noted: impl Future<Output = Result<(), SyncError>>,
    mut inbox: mpsc::Receiver<FetchEvent>,
    out: mpsc::Sender<Item>,
) -> Result<(), SyncError> {
    noted.await?;
    let mut gathered: Vec<FetchedMessage> = Vec::new();
    let mut bytes = 0;
    let mut ended = false;
    while !ended {
        let mut items = Vec::new();
        match timeout(SILENCE, inbox.recv()).await {
            Ok(Some(FetchEvent::Message(message))) => {
                bytes += message.raw.len();
                gathered.push(*message);
                if gathered.len() < GROUP_MESSAGES && bytes < GROUP_BYTES {
                    continue;
                }
            }
            Ok(Some(FetchEvent::BatchDone { requested, .. })) => items.push(Item::Answered(requested)),
            Ok(None) => ended = true,
            Err(_) => items.push(Item::Silence),
        }
        bytes = 0;
        if !gathered.is_empty() {
            let place = place(ctx, fresh).await;
            items.insert(0, Item::Group(parse(ctx, options, std::mem::take(&mut gathered), place)));
        }
        for item in items {
            if out.send(item).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A place to work in bulk. New mail takes none: what is held up by nothing else must not be by backfills. Never kept
/// while a server is waited for, so a slow one holds up nobody.
async fn place(ctx: &SyncContext, fresh: bool) -> Option<OwnedSemaphorePermit> {
    if fresh { None } else { Arc::clone(&ctx.work).acquire_owned().await.ok() }
}

fn parse(
    ctx: &SyncContext,
    options: Options,
    messages: Vec<FetchedMessage>,
    place: Option<OwnedSemaphorePermit>,
) -> JoinHandle<Vec<Ready>> {
    let now = ctx.clock.now();
    spawn_blocking(move || {
        let _place = place;
        messages
            .into_iter()
            .map(|m| {
                let arrival = Arrival {
                    uid: m.uid,
                    flags: m.flags,
                    keywords: m.keywords,
                    modseq: m.modseq.map_or(0, |n| n.to_i64()),
                    internal_date: m.internal_date.map_or(now, |d| d.to_utc()),
                    raw: m.raw,
                    oversized: m.oversized,
                };
                Ready { prepared: prepare(arrival, options), _permit: m.permit }
            })
            .collect()
    })
}

/// Makes transactions of what was parsed, and stores the bytes of large ones while the writer is at the rows of the one
/// before.
struct Gatherer<'a> {
    ctx: &'a SyncContext,
    tenant: TenantId,
    target: Target,
    fresh: bool,
    /// What of each batch is not answered yet, and what holds afterwards.
    batches: Vec<(UidSet, Checkpoint)>,
    /// The first batch without its checkpoint.
    next: usize,
    waiting: Vec<Ready>,
    bytes: usize,
    out: mpsc::Sender<Load>,
}

impl Gatherer<'_> {
    /// Returns what was not answered of the first batch that is incomplete.
    async fn run(mut self, mut items: mpsc::Receiver<Item>) -> Result<UidSet, SyncError> {
        while let Some(item) = items.recv().await {
            match item {
                Item::Group(parsing) => {
                    // The only way to fail is a panic, which the parser catches and which counts as a death of what
                    // is noted, or the end of the process.
                    let ready = parsing.await.map_err(|_| SyncError::Stopped)?;
                    self.bytes += ready.iter().map(|r| r.prepared.raw.len()).sum::<usize>();
                    // A batch of which all came is complete, though its tagged line may be far behind: Dovecot sends
                    // the messages of the next command first.
                    let mut uids: Vec<Uid> = ready.iter().map(|r| r.prepared.uid).collect();
                    uids.sort_unstable();
                    self.waiting.extend(ready);
                    self.answered(&uids.into_iter().collect()).await;
                    if self.bytes >= COMMIT_BYTES || self.waiting.len() >= COMMIT_MESSAGES {
                        self.hand_on(None, false).await;
                    }
                }
                Item::Answered(uids) => self.answered(&uids).await,
                Item::Silence => self.hand_on(None, false).await,
            }
            if self.out.is_closed() {
                // The writer failed, and says why.
                break;
            }
        }
        // The reader ended early: what came is whole and true, only nothing vouches for the rest.
        self.hand_on(None, true).await;
        Ok(self.batches.get(self.next).map(|(open, _)| open.clone()).unwrap_or_default())
    }

    /// These came, or their command was answered without them; every batch that is complete now, and all before it, gets
    /// its checkpoint.
    async fn answered(&mut self, uids: &UidSet) {
        for (open, _) in &mut self.batches {
            *open = open.difference(uids);
        }
        let mut reached = None;
        while let Some((open, then)) = self.batches.get(self.next)
            && open.is_empty()
        {
            reached = Some(*then);
            self.next += 1;
        }
        if reached.is_some() {
            self.hand_on(reached, self.next == self.batches.len()).await;
        }
    }

    async fn hand_on(&mut self, reached: Option<Checkpoint>, last: bool) {
        if self.waiting.is_empty() && reached.is_none() && !last {
            return;
        }
        let ready = std::mem::take(&mut self.waiting);
        if std::mem::take(&mut self.bytes) >= AHEAD_BYTES {
            let messages: Vec<&Prepared> = ready.iter().map(|r| &r.prepared).collect();
            let _place = place(self.ctx, self.fresh).await;
            let started = tokio::time::Instant::now();
            // What is wrong with the database the writer finds out, who knows what follows from it.
            match bytes::store_ahead(&self.ctx.db, self.tenant, &self.target, &messages).await {
                Ok(()) => {
                    failpoint::pass("bytes-before-rows");
                    tracing::debug!(
                        messages = messages.len(),
                        ms = started.elapsed().as_millis(),
                        "bytes stored"
                    );
                }
                Err(error) => tracing::debug!(%error, "the bytes go with the rows"),
            }
        }
        let _ = self.out.send(Load { ready, reached, last }).await;
    }
}

/// What the writer committed.
struct Stored {
    known: UidSet,
    at: Option<Checkpoint>,
    created: usize,
}

struct Writer<'a> {
    ctx: &'a SyncContext,
    lease: &'a Lease,
    target: Target,
    exists: u32,
    durable: bool,
    /// Of what was asked for, what has a row in `ingest_attempts`.
    in_the_way: UidSet,
    /// What was asked for is noted as being looked into.
    noted: bool,
    stored: Stored,
}

impl Writer<'_> {
    async fn run(mut self, mut loads: mpsc::Receiver<Load>) -> Result<Stored, SyncError> {
        while let Some(load) = loads.recv().await {
            self.commit(load).await?;
        }
        Ok(self.stored)
    }

    async fn commit(&mut self, load: Load) -> Result<(), SyncError> {
        let Load { ready, reached, last } = load;
        let unnote = last && self.noted;
        if ready.is_empty() && reached.is_none() && !unnote {
            return Ok(());
        }
        let (batch, permits): (Vec<Prepared>, Vec<_>) =
            ready.into_iter().map(|r| (r.prepared, r._permit)).unzip();
        let _place = place(self.ctx, self.durable).await;
        let started = tokio::time::Instant::now();
        let mut tx = self.lease.begin(&self.ctx.db).await?;
        if !self.durable {
            tx.relax_durability().await?;
        }
        let done = ingest::ingest(&mut tx, &self.target, &batch).await?;
        if let Some(at) = &reached {
            checkpoint::write(&mut tx, &self.target, at, self.exists).await?;
        }
        let mut uids: Vec<Uid> = batch.iter().map(|p| p.uid).collect();
        uids.sort_unstable();
        let uids: UidSet = uids.into_iter().collect();
        let settled = self.in_the_way.intersection(&uids);
        if !settled.is_empty() {
            attempts::forget(&mut tx, &self.target, &settled).await?;
        }
        if unnote {
            attempts::end(&mut tx, self.lease, &self.target).await?;
            self.noted = false;
        }
        failpoint::pass("fetched-before-commit");
        tx.commit().await?;
        failpoint::pass("committed-batch");
        drop(permits);
        tracing::debug!(mailbox_id = %self.target.mailbox, messages = batch.len(), created = done.created,
            settled = reached.is_some(), ms = started.elapsed().as_millis(), "batch stored");
        self.stored.known = self.stored.known.union(&uids);
        self.stored.created += done.created;
        self.stored.at = reached.or(self.stored.at);
        Ok(())
    }
}
