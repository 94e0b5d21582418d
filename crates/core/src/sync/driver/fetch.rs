//! Messages from the server to rows: reader → channel → hashing and parsing on the blocking pool → gatherer, which stores
//! the bytes → writer, which stores the rows.
//!
//! Before anything is looked into, it is noted in a row of its own (`attempts`), a lot of batches at a time, the first while
//! the server still thinks about its answer; the row goes with the last of the messages.
//!
//! The stages run at once and every queue between them is bounded, so a slow database stops the reading of the socket.
//! A message's share of the memory budget is given back when its row is committed; whenever the reader falls silent, what
//! has come is committed, so that stages that wait for each other's memory always come loose.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mail::sync::{Batch, Checkpoint};
use mail::uid::{Uid, UidSet};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::link::{Link, Suspect};
use super::lots::{self, Asked, Notes, Stock};
use super::visit::Open;
use super::{SyncContext, SyncError};
use crate::platform::db::DbError;
use crate::platform::failpoint;
use crate::platform::id::TenantId;
use crate::queue::job;
use crate::queue::lease::Lease;
use crate::sync::measured;
use crate::sync::store::ingest::{self, Age};
use crate::sync::store::prepare::{Arrival, Options, Parse, prepare};
use crate::sync::store::{Prepared, Target, attempts, bytes, checkpoint};
use wire::imap::{FetchEvent, FetchedMessage};

/// Messages between the socket and the parsers.
const READ_AHEAD: usize = 64;
/// One parsing task: large enough that its scheduling does not matter, small enough to keep both ends busy.
const GROUP_MESSAGES: usize = 32;
/// The same for new mail, a few messages for which somebody waits: both processors have part in them.
const GROUP_FRESH: usize = 8;
const GROUP_BYTES: usize = 1 << 20;
/// Parsing tasks under way: more than one transaction takes, so that reading and parsing go on while it is written.
const GROUPS_AHEAD: usize = 8;
/// A batch with so many bytes sends them ahead of its rows. Below it, two transactions cost more than the wait.
const AHEAD_BYTES: usize = 1 << 20;
/// New mail sends so many bytes ahead while the rest is still read, for nothing else is written meanwhile.
const AHEAD_FRESH: usize = 512 << 10;
/// One transaction at most: rows beyond it are committed without a checkpoint. With 16 MiB a first synchronisation stood
/// still for a fifth of its time, reader and writer waiting for each other in turn; and each MiB here is several in memory.
const COMMIT_BYTES: usize = 4 << 20;
const COMMIT_MESSAGES: usize = 500;
/// The same while our user is at the account: what they ask for waits for the transaction under way.
const COMMIT_IN_USE: usize = 100;
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
    /// What has come is to be stored.
    HandOn,
}

/// One transaction.
struct Load {
    ready: Vec<Ready>,
    /// Whose bytes are stored already.
    ahead: bytes::New,
    /// What holds once they are stored.
    reached: Option<Checkpoint>,
    /// Nothing that was noted is still being looked into.
    last: bool,
}

/// Fetches and stores `batches`, each with its checkpoint, and tells the view. Old mail makes way for what the account is
/// asked meanwhile: then the rest is not read. Returns how many were asked for.
pub(super) async fn messages(
    link: &mut Link<'_>,
    open: &mut Open,
    batches: Vec<Batch>,
) -> Result<u64, SyncError> {
    if let [batch] = &batches[..]
        && lots::is_left(link, open, batch).await?
    {
        return pass_over(link, open, batch).await;
    }
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
    let lots = lots::of(&batches);
    let all = lots.iter().fold(UidSet::new(), |all, lot| all.union(&lots::union(lot)));
    let in_the_way = open.local.delicate().intersection(&all);
    let called = AtomicBool::new(false);
    let (out, inbox) = mpsc::channel(READ_AHEAD);
    let (groups_out, groups_in) = mpsc::channel(GROUPS_AHEAD);
    let (loads_out, loads_in) = mpsc::channel(1);
    // The first page of a mailbox is as old as the rest of it, unless the mailbox is a new one in an account that was here.
    let first = before.head_uid == 0 && before.uidnext == 0;
    let age = link.age(fresh, first).await?;
    let gatherer = Gatherer::new(link, open.target, fresh, batches, loads_out);
    let writer = Writer {
        ctx: link.ctx,
        lease: link.lease,
        target: open.target,
        exists: open.server.mailbox.exists,
        durable: fresh,
        age,
        called: link.batches.backfill.then_some(&called),
        in_the_way: in_the_way.clone(),
        noted: true,
        stored: Stored { known: UidSet::new(), at: None, created: 0, twins: UidSet::new() },
    };
    let mut asked = Asked::nothing(&called);
    let notes = Notes::new(link.ctx, link.lease, open.target, &lots);
    let memory = if fresh { &link.ctx.fresh_memory } else { &link.ctx.memory };
    let (db, rooms) = (&link.ctx.db, &link.ctx.rooms);
    let stock = Stock { db, tenant: link.lease.tenant, target: open.target, memory, rooms };
    let (read, noted, unanswered, stored) = tokio::join!(
        lots::read(&mut link.session, &stock, &lots, out, &mut asked),
        group((link.ctx, options, fresh), notes, inbox, groups_out),
        gatherer.run(groups_in),
        writer.run(loads_in),
    );
    let Asked { uids: asked, refused, words, .. } = asked;
    link.batches.note_call(called.load(Ordering::Relaxed));
    open.server.seen.asked = open.server.seen.asked.union(&asked);
    let (unanswered, stored) = match (unanswered, stored) {
        (Ok(unanswered), Ok(stored)) => (unanswered, stored),
        (_, Err(error)) | (Err(error), _) => return Err(give_up(link, open, error).await),
    };
    noted?;
    link.report.created += stored.created;
    open.local.known = open.local.known.union(&stored.known);
    open.local.forget(&stored.known);
    open.local.checkpoint = stored.at.unwrap_or(before);
    open.twins = open.twins.union(&stored.twins);
    if !refused.is_empty() {
        leave_out(link, open, &refused, &words).await?;
    }
    if read.is_err() {
        let suspect = |uid| Suspect { target: open.target, uid, alone: in_the_way.contains(uid) };
        // The first that was asked for and did not come: servers answer in order.
        link.round.suspect = unanswered.intersection(&asked).difference(&stored.known).first().map(suspect);
    }
    read?;
    Ok(asked.len())
}

async fn leave_out(link: &Link<'_>, open: &mut Open, refused: &UidSet, words: &str) -> Result<(), SyncError> {
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    attempts::refused(&mut tx, &open.target, refused, words).await?;
    tx.commit().await?;
    open.local.forget(refused);
    open.local.unreadable = open.local.unreadable.union(refused);
    Ok(())
}

/// Goes past a message that is left to the next round, as if it had been asked for and had not come.
async fn pass_over(link: &Link<'_>, open: &mut Open, batch: &Batch) -> Result<u64, SyncError> {
    open.server.seen.asked = open.server.seen.asked.union(&batch.uids);
    if open.local.checkpoint != batch.then {
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        checkpoint::write(&mut tx, &open.target, &batch.then, open.server.mailbox.exists).await?;
        tx.commit().await?;
        open.local.checkpoint = batch.then;
    }
    Ok(0)
}

/// The rows could not be written. A database that is away is no message's fault; a panic, or a statement it refuses, may
/// be: then the note stays, and the next round takes these messages one at a time.
async fn give_up(link: &Link<'_>, open: &Open, error: SyncError) -> SyncError {
    if matches!(error, SyncError::Db(DbError::Unavailable(_) | DbError::Busy(_))) {
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

/// Gathers messages into groups and sends them to be parsed, in order, once they are noted.
async fn group(
    (ctx, options, fresh): (&SyncContext, Options, bool),
    mut notes: Notes<'_>,
    mut inbox: mpsc::Receiver<FetchEvent>,
    out: mpsc::Sender<Item>,
) -> Result<(), SyncError> {
    notes.next().await?;
    let most = if fresh { GROUP_FRESH } else { GROUP_MESSAGES };
    let mut gathered: Vec<FetchedMessage> = Vec::new();
    let mut bytes = 0;
    let mut ended = false;
    while !ended {
        let mut items = Vec::new();
        match timeout(SILENCE, inbox.recv()).await {
            Ok(Some(FetchEvent::Message(message))) => {
                notes.cover(message.uid).await?;
                bytes += message.raw.len();
                gathered.push(*message);
                if gathered.len() < most && bytes < GROUP_BYTES {
                    continue;
                }
            }
            Ok(Some(FetchEvent::BatchDone { requested, .. })) => items.push(Item::Answered(requested)),
            Ok(None) => ended = true,
            Err(_) => items.push(Item::HandOn),
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
                let (arrival, _permit) = Arrival::of(m, now);
                Ready { prepared: prepare(arrival, options), _permit }
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
    /// How many of those that wait have had their bytes sent ahead, and which were new.
    sent: usize,
    ahead: bytes::New,
    /// Messages of a transaction.
    most: usize,
    /// What holds once all that waits is stored.
    reached: Option<Checkpoint>,
    out: mpsc::Sender<Load>,
}

impl<'a> Gatherer<'a> {
    fn new(
        link: &Link<'a>,
        target: Target,
        fresh: bool,
        batches: Vec<Batch>,
        out: mpsc::Sender<Load>,
    ) -> Self {
        Self {
            ctx: link.ctx,
            tenant: link.lease.tenant,
            target,
            fresh,
            batches: batches.into_iter().map(|b| (b.uids, b.then)).collect(),
            next: 0,
            waiting: Vec::new(),
            bytes: 0,
            sent: 0,
            ahead: bytes::New::default(),
            most: if link.batches.is_in_use() { COMMIT_IN_USE } else { COMMIT_MESSAGES },
            reached: None,
            out,
        }
    }

    /// Returns what was not answered of the first batch that is incomplete.
    async fn run(mut self, mut items: mpsc::Receiver<Item>) -> Result<UidSet, SyncError> {
        loop {
            // Batches that are complete while the writer is busy share a transaction: what a command asks for follows the
            // speed of the server, what a transaction takes that of the database.
            let item = tokio::select! {
                biased;
                Ok(_) = self.out.reserve(), if self.reached.is_some() => Some(Item::HandOn),
                item = items.recv() => item,
            };
            match item {
                Some(Item::Group(parsing)) => {
                    // The only way to fail is a panic, which the parser catches and which counts as a death of what
                    // is noted, or the end of the process.
                    let ready = parsing.await.map_err(|_| SyncError::Stopped)?;
                    self.bytes += ready.iter().map(|r| r.prepared.raw.len()).sum::<usize>();
                    // A batch of which all came is complete, though its tagged line may be far behind: Dovecot sends
                    // the messages of the next command first.
                    let mut uids: Vec<Uid> = ready.iter().map(|r| r.prepared.uid).collect();
                    uids.sort_unstable();
                    self.waiting.extend(ready);
                    self.answered(&uids.into_iter().collect());
                    if self.bytes >= COMMIT_BYTES || self.waiting.len() >= self.most {
                        self.hand_on(false).await;
                    } else if self.fresh {
                        self.send_ahead(AHEAD_FRESH).await;
                    }
                }
                Some(Item::Answered(uids)) => self.answered(&uids),
                Some(Item::HandOn) => self.hand_on(false).await,
                None => break,
            }
            if self.out.is_closed() {
                // The writer failed, and says why.
                break;
            }
        }
        // The reader ended early: what came is whole and true, only nothing vouches for the rest.
        self.hand_on(true).await;
        Ok(self.batches.get(self.next).map(|(open, _)| open.clone()).unwrap_or_default())
    }

    /// These came, or their command was answered without them; every batch that is complete now, and all before it, gets
    /// its checkpoint.
    fn answered(&mut self, uids: &UidSet) {
        for (open, _) in self.batches.iter_mut().skip(self.next) {
            *open = open.difference(uids);
        }
        while let Some((open, then)) = self.batches.get(self.next)
            && open.is_empty()
        {
            self.reached = Some(*then);
            self.next += 1;
        }
    }

    async fn hand_on(&mut self, ended: bool) {
        let reached = self.reached.take();
        let last = ended || self.next == self.batches.len();
        if self.waiting.is_empty() && reached.is_none() && !last {
            return;
        }
        // What was begun while the rest was read is not worth a transaction of its own for a few more.
        let least = if self.sent > 0 { AHEAD_FRESH } else { AHEAD_BYTES };
        self.send_ahead(least).await;
        let ready = std::mem::take(&mut self.waiting);
        let ahead = std::mem::take(&mut self.ahead);
        (self.bytes, self.sent) = (0, 0);
        let _ = self.out.send(Load { ready, ahead, reached, last }).await;
    }

    /// Stores the bytes of what waits, where they are so many at least.
    async fn send_ahead(&mut self, least: usize) {
        let unsent = self.waiting.get(self.sent..).unwrap_or_default();
        let messages: Vec<&Prepared> = unsent.iter().map(|r| &r.prepared).collect();
        if messages.iter().map(|p| p.raw.len()).sum::<usize>() < least {
            return;
        }
        let _place = place(self.ctx, self.fresh).await;
        let started = tokio::time::Instant::now();
        // What is wrong with the database the writer finds out, who knows what follows from it.
        match bytes::store_ahead(&self.ctx.db, self.tenant, &self.target, &messages).await {
            Ok(new) => {
                self.ahead.add(new);
                failpoint::pass("bytes-before-rows");
                tracing::debug!(
                    messages = messages.len(),
                    ms = started.elapsed().as_millis(),
                    "bytes stored"
                );
            }
            Err(error) => tracing::debug!(%error, "the bytes go with the rows"),
        }
        self.sent = self.waiting.len();
    }
}

/// What the writer committed.
struct Stored {
    known: UidSet,
    at: Option<Checkpoint>,
    created: usize,
    /// What may have been moved away and back.
    twins: UidSet,
}

struct Writer<'a> {
    ctx: &'a SyncContext,
    lease: &'a Lease,
    target: Target,
    exists: u32,
    durable: bool,
    age: Age,
    /// Set when something is asked for that goes before what is read here; nothing does when there is none.
    called: Option<&'a AtomicBool>,
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
        let Load { ready, ahead, reached, last } = load;
        let unnote = last && self.noted;
        if ready.is_empty() && reached.is_none() && !unnote {
            return Ok(());
        }
        let (batch, permits): (Vec<Prepared>, Vec<_>) =
            ready.into_iter().map(|r| (r.prepared, r._permit)).unzip();
        let _place = place(self.ctx, self.durable).await;
        let started = tokio::time::Instant::now();
        let mut tx = match self.durable {
            true => self.lease.begin(&self.ctx.db).await?,
            false => self.lease.begin_relaxed(&self.ctx.db).await?,
        };
        let done = ingest::ingest(&mut tx, &self.target, &batch, &ahead, self.age).await?;
        if let Some(at) = &reached {
            checkpoint::write(&mut tx, &self.target, at, self.exists).await?;
        }
        let mut uids: Vec<Uid> = batch.iter().map(|p| p.uid).collect();
        uids.sort_unstable();
        let uids = uids.into_iter().collect::<UidSet>().difference(&done.left_out);
        let settled = self.in_the_way.intersection(&uids);
        if !settled.is_empty() {
            attempts::forget(&mut tx, &self.target, &settled).await?;
        }
        if unnote {
            attempts::end(&mut tx, self.lease, &self.target).await?;
            self.noted = false;
        }
        let called = match self.called {
            Some(_) => job::take_over(&mut tx, self.target.account).await?,
            None => false,
        };
        failpoint::pass("fetched-before-commit");
        tx.commit().await?;
        if let Some(flag) = self.called.filter(|_| called) {
            flag.store(true, Ordering::Relaxed);
        }
        failpoint::pass("committed-batch");
        drop(permits);
        measured::stored(&batch, done.created, (self.age, self.ctx.clock.now()));
        tracing::debug!(mailbox_id = %self.target.mailbox, messages = batch.len(), created = done.created,
            settled = reached.is_some(), ms = started.elapsed().as_millis(), "batch stored");
        self.stored.known = self.stored.known.union(&uids);
        self.stored.created += done.created;
        self.stored.twins = self.stored.twins.union(&done.twins);
        self.stored.at = reached.or(self.stored.at);
        Ok(())
    }
}
