//! A round's way to the server, and what it bears in mind on the way.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use mail::sync::{Checkpoint, Depth, Policy};
use mail::uid::{Uid, UidSet};
use tokio::time::Instant;
use wire::imap::{Endpoint, ImapError, Session};

use super::{Report, SyncContext, SyncError};
use crate::connect::imap::{connect, forgo};
use crate::platform::id::MailboxId;
use crate::queue::lease::Lease;
use crate::sync::store::ingest::Age;
use crate::sync::store::{Target, status};

/// What one batch of old mail should take: a user's request waits for those under way.
const BATCH_TIME: Duration = Duration::from_millis(250);
/// The first page takes mostly the time of asking for it: more come in a given time when more are asked for.
const AFTER_FIRST_PAGE: u32 = 4;
/// Batches in one go once the speed of old mail is known. Each time the pipeline runs empty costs a tenth of a second.
const MANY_BATCHES: usize = 64;
/// Who has asked for something so lately will do so again.
const IN_USE: Duration = Duration::from_secs(30);

/// The connection of a round, and what was done over it so far.
pub(super) struct Link<'a> {
    pub ctx: &'a SyncContext,
    pub lease: &'a Lease,
    pub session: Session,
    /// Where the session leads.
    pub server: Endpoint,
    pub report: Report,
    pub round: Memory,
    pub batches: Batches,
}

/// What a round bears in mind between its visits.
#[derive(Default)]
pub(super) struct Memory {
    /// Mailboxes that local edits put messages into.
    pub touched: BTreeSet<MailboxId>,
    /// Edits that were refused, or whose message was not where we have it: not asked again before something else was read.
    pub skip: HashSet<i64>,
    /// A message that an edit was for is not where we have it: a round finds where it went.
    pub astray: bool,
    /// A transfer was answered without the UID of what it made: whether it was done is seen in its mailboxes.
    pub unsure: bool,
    /// The target of an edit is not there by the name we know.
    pub target_missing: bool,
    /// The server's tree was taken over since the link was opened: what is not there now is not there.
    pub tree_is_fresh: bool,
    /// The message that was due when the connection was lost.
    pub suspect: Option<Suspect>,
    /// Suspects of this round, asked for alone: once is an accident of the network.
    pub alone: HashMap<MailboxId, UidSet>,
    /// Those at which the line broke when they were asked for alone: left to the next round.
    pub left: HashMap<MailboxId, UidSet>,
    /// Mailboxes whose old mail is left for later.
    pub unfinished: Vec<MailboxId>,
    /// Mailboxes of which the listing knows that they have another UIDVALIDITY.
    pub renumbered: BTreeSet<MailboxId>,
}

/// How old mail is read: in batches as large as the way to the server is fast.
#[derive(Default)]
pub(super) struct Batches {
    /// Old mail is read now.
    pub backfill: bool,
    /// Reading it was interrupted: something else was asked for.
    pub called: bool,
    /// When that was the last time.
    called_at: Option<Instant>,
    /// Messages of one command of old mail, once anything was read.
    size: Option<u32>,
    /// Old mail itself was read: a few new messages say little about a fast server, and all of a slow one.
    measured: bool,
    /// Larger batches were not faster than the last ones by much.
    settled: bool,
}

/// A message that was due when the connection was lost. Dovecot ends the connection over one it cannot read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspect {
    pub target: Target,
    pub uid: Uid,
    /// It was asked for alone, after it had been in the way before.
    pub alone: bool,
}

impl<'a> Link<'a> {
    pub async fn open(ctx: &'a SyncContext, lease: &'a Lease) -> Result<Self, SyncError> {
        let (session, server) = Box::pin(connect(ctx, (lease.tenant, lease.account), ctx.haste)).await?;
        Ok(Self::over(ctx, lease, session, server))
    }

    pub fn over(ctx: &'a SyncContext, lease: &'a Lease, session: Session, server: Endpoint) -> Self {
        let (report, round, batches) = (Report::default(), Memory::default(), Batches::default());
        Self { ctx, lease, session, server, report, round, batches }
    }

    /// A new connection for one that was lost.
    pub async fn reopen(&mut self) -> Result<(), SyncError> {
        (self.session, self.server) =
            Box::pin(connect(self.ctx, (self.lease.tenant, self.lease.account), self.ctx.haste)).await?;
        Ok(())
    }

    /// See [`forgo`].
    pub async fn forgo(&mut self, error: ImapError) -> Result<(), SyncError> {
        Ok(Box::pin(forgo(self.ctx, self.lease.tenant, &self.server, &mut self.session, error)).await?)
    }

    /// Whether it was told that all mail of the account is here.
    pub async fn is_all_here(&self) -> Result<bool, SyncError> {
        let mut tx = self.ctx.db.tenant(self.lease.tenant).await?;
        let told = status::is_all_here(&mut tx, self.lease.account).await?;
        tx.release();
        Ok(told)
    }

    /// How old what is fetched now is: above the head (`fresh`), the first page of a mailbox (`first`).
    pub async fn age(&self, fresh: bool, first: bool) -> Result<Age, SyncError> {
        Ok(match (fresh, first) {
            (true, false) => Age::New,
            _ if !self.is_all_here().await? => Age::First,
            (true, true) => Age::New,
            (false, _) => Age::Old,
        })
    }

    /// Leaves the open mailbox.
    pub async fn unselect(&mut self) -> Result<(), SyncError> {
        match self.session.unselect().await {
            Err(error) => self.forgo(error).await,
            Ok(()) => Ok(()),
        }
    }

    /// Notes that old mail is left for later.
    pub fn note_backfill(&mut self, mailbox: MailboxId, depth: Depth, at: &Checkpoint) {
        let left = depth != Depth::Head && at.tail_uid > 1 && !self.batches.backfill;
        if left && !self.round.unfinished.contains(&mailbox) {
            self.round.unfinished.push(mailbox);
        }
    }
}

impl Batches {
    /// Notes that something else is asked for while old mail is read.
    pub fn note_call(&mut self, called: bool) {
        if called {
            (self.called, self.called_at) = (true, Some(Instant::now()));
        }
    }

    /// Whether our user was at the account a moment ago.
    pub fn is_in_use(&self) -> bool {
        self.called_at.is_some_and(|at| at.elapsed() < IN_USE)
    }

    /// Batches follow the speed of the whole way, so that a slow server does not keep a user waiting for a batch.
    pub fn note_speed(&mut self, messages: u64, took: Duration) {
        if messages > 0 && (self.backfill || !self.measured) {
            let in_time = messages as f64 / took.as_secs_f64().max(0.001) * BATCH_TIME.as_secs_f64();
            let factor = if self.backfill { 1 } else { AFTER_FIRST_PAGE };
            let size = (in_time as u32).saturating_mul(factor).clamp(1, Policy::default().batch);
            self.settled = self.backfill && self.size.is_some_and(|before| size <= before + before / 2);
            self.size = Some(size);
            self.measured |= self.backfill;
        }
    }

    /// The sizes of a visit.
    pub fn policy(&self, depth: Depth) -> Policy {
        let mut policy = Policy { depth, backfill: self.backfill, ..Policy::default() };
        if let Some(size) = self.size.filter(|_| self.backfill) {
            policy.batch = size;
            if self.settled {
                policy.batches_ahead = MANY_BATCHES;
            }
        }
        policy
    }
}
