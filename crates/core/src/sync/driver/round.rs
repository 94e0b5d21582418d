//! A whole round.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use mail::sync::{Checkpoint, Depth, Policy};
use mail::uid::{Uid, UidSet};
use tokio::time::Instant;

use super::trouble::Reason;
use super::{Report, SyncContext, SyncError, edits, enter, forgo, tree, trouble, visit};
use crate::platform::id::{MailboxId, RunId};
use crate::queue::job;
use crate::queue::lease::Lease;
use crate::sync::store::status::{self, AccountState};
use crate::sync::store::{Target, attempts};
use wire::imap::{Endpoint, ImapError, Session};

/// Connections lost in one round before it is given up: one mailbox that kills its connection must not keep the others
/// from being read, a server that kills every connection must not be hammered.
const MAX_RECONNECTS: usize = 6;
/// What one batch of old mail should take: a user's request waits for those under way.
const BATCH_TIME: Duration = Duration::from_millis(250);
/// The first page takes mostly the time of asking for it: more come in a given time when more are asked for.
const AFTER_FIRST_PAGE: u32 = 4;
/// Batches in one go once the speed of old mail is known. Each time the pipeline runs empty costs a tenth of a second.
const MANY_BATCHES: usize = 64;
/// Who has asked for something so lately will do so again.
const IN_USE: Duration = Duration::from_secs(30);
const SOME_FAILED: &str = "some mailboxes could not be read";

/// A round's way to the server and what it has done so far.
pub(super) struct Link<'a> {
    pub ctx: &'a SyncContext,
    pub lease: &'a Lease,
    pub session: Session,
    /// Where the session leads.
    pub server: Endpoint,
    pub report: Report,
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
    /// Old mail is read now.
    pub backfill: bool,
    /// Reading it was interrupted: something else was asked for.
    pub called: bool,
    /// When that was the last time.
    called_at: Option<Instant>,
    /// Mailboxes whose old mail is left for later.
    pub unfinished: Vec<MailboxId>,
    /// Mailboxes of which the listing knows that they have another UIDVALIDITY.
    pub renumbered: BTreeSet<MailboxId>,
    /// Messages of one command of old mail, once anything was read.
    batch: Option<u32>,
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
        let (session, server) = Box::pin(enter(ctx, lease.tenant, lease.account)).await?;
        Ok(Self::over(ctx, lease, session, server))
    }

    pub fn over(ctx: &'a SyncContext, lease: &'a Lease, session: Session, server: Endpoint) -> Self {
        Self {
            ctx,
            lease,
            session,
            server,
            report: Report::default(),
            touched: BTreeSet::new(),
            skip: HashSet::new(),
            astray: false,
            unsure: false,
            target_missing: false,
            tree_is_fresh: false,
            suspect: None,
            alone: HashMap::new(),
            left: HashMap::new(),
            backfill: false,
            called: false,
            called_at: None,
            unfinished: Vec::new(),
            renumbered: BTreeSet::new(),
            batch: None,
            measured: false,
            settled: false,
        }
    }

    /// A new connection for one that was lost.
    pub async fn reopen(&mut self) -> Result<(), SyncError> {
        (self.session, self.server) =
            Box::pin(enter(self.ctx, self.lease.tenant, self.lease.account)).await?;
        Ok(())
    }

    /// See [`forgo`].
    pub async fn forgo(&mut self, error: ImapError) -> Result<(), SyncError> {
        Box::pin(forgo(self.ctx, self.lease.tenant, &self.server, &mut self.session, error)).await
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
        if depth != Depth::Head && at.tail_uid > 1 && !self.backfill && !self.unfinished.contains(&mailbox) {
            self.unfinished.push(mailbox);
        }
    }

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
            let batch = (in_time as u32).saturating_mul(factor).clamp(1, Policy::default().batch);
            self.settled = self.backfill && self.batch.is_some_and(|before| batch <= before + before / 2);
            self.batch = Some(batch);
            self.measured |= self.backfill;
        }
    }

    /// The sizes of a visit.
    pub fn policy(&self, depth: Depth) -> Policy {
        let mut policy = Policy { depth, backfill: self.backfill, ..Policy::default() };
        if let Some(batch) = self.batch.filter(|_| self.backfill) {
            policy.batch = batch;
            if self.settled {
                policy.batches_ahead = MANY_BATCHES;
            }
        }
        policy
    }
}

/// What a row of `sync_runs` stands for.
#[derive(Clone, Copy)]
enum Part {
    Changes,
    OldMail,
}

/// Which row of `sync_runs` stands for what is done now.
struct Record {
    run: RunId,
    started: DateTime<Utc>,
    failed_before: usize,
}

impl Record {
    async fn begin(ctx: &SyncContext, lease: &Lease) -> Result<Self, SyncError> {
        let started = ctx.clock.now();
        let mut tx = lease.begin(&ctx.db).await?;
        let run = status::start_run(&mut tx, lease.account).await?;
        tx.commit().await?;
        Ok(Self { run, started, failed_before: 0 })
    }

    /// One part of the round is over and the next begins: the round that somebody asked for, if any did, or old mail, which
    /// stands for nobody's request. In one transaction: whoever looks finds the one running or the other.
    async fn go_on(&mut self, link: &Link<'_>, next_part: Part) -> Result<(), SyncError> {
        let next = link.ctx.clock.now();
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        let failed = link.report.failed > self.failed_before;
        if !failed {
            status::round_succeeded(&mut tx, link.lease.account, self.started).await?;
        }
        status::finish_run(&mut tx, self.run, failed.then_some(SOME_FAILED)).await?;
        self.run = match next_part {
            Part::Changes => status::start_run(&mut tx, link.lease.account).await?,
            Part::OldMail => {
                job::slow_down(&mut tx, link.lease.account).await?;
                status::start_own_run(&mut tx, link.lease.account).await?
            }
        };
        tx.commit().await?;
        (self.started, self.failed_before) = (next, link.report.failed);
        Ok(())
    }
}

/// A round over all mailboxes, recorded in `sync_runs` and in the account's state.
pub(super) async fn run(ctx: &SyncContext, lease: &Lease, depth: Depth) -> Result<Report, SyncError> {
    let mut record = Record::begin(ctx, lease).await?;
    let result = all(ctx, lease, depth, &mut record).await;
    match &result {
        Ok(report) => {
            let mut tx = lease.begin(&ctx.db).await?;
            if report.failed == 0 {
                status::round_succeeded(&mut tx, lease.account, record.started).await?;
            }
            status::set_account(&mut tx, lease.account, AccountState::Connected, None, None).await?;
            let failed = report.failed > record.failed_before;
            status::finish_run(&mut tx, record.run, failed.then_some(SOME_FAILED)).await?;
            tx.commit().await?;
        }
        Err(error) => fail(ctx, lease, record.run, error).await?,
    }
    result
}

async fn fail(ctx: &SyncContext, lease: &Lease, run: RunId, error: &SyncError) -> Result<(), SyncError> {
    if matches!(error, SyncError::Lost) {
        return Ok(());
    }
    trouble::record(ctx, lease, error, Reason::Round).await?;
    let mut tx = lease.begin(&ctx.db).await?;
    let code = match error {
        SyncError::Imap(error) => trouble::cause_of(error).code,
        SyncError::Credentials(_) => "credentials-unusable",
        _ => "internal",
    };
    status::finish_run(&mut tx, run, Some(code)).await?;
    if error.is_recorded() {
        // The job is not run again before the account's next turn, which may be a day away.
        status::fail_taken_over(&mut tx, lease.account, code).await?;
    }
    Ok(tx.commit().await?)
}

async fn all(
    ctx: &SyncContext,
    lease: &Lease,
    depth: Depth,
    record: &mut Record,
) -> Result<Report, SyncError> {
    let mut link = Link::open(ctx, lease).await?;
    // Only now: an account in trouble stays so, with its cause, until the server has let us in.
    let mut tx = lease.begin(&ctx.db).await?;
    status::set_account(&mut tx, lease.account, AccountState::Syncing, None, None).await?;
    tx.commit().await?;
    let result = work(&mut link, depth, record).await;
    let Link { session, report, .. } = link;
    if session.is_usable() {
        session.logout().await;
    }
    result.map(|()| report)
}

/// What changed and what is new first, then old mail; whatever the account is asked meanwhile goes before the next batch
/// of it, on the same connection.
async fn work(link: &mut Link<'_>, depth: Depth, record: &mut Record) -> Result<(), SyncError> {
    let mut rest = changes(link, depth).await?;
    if !rest.is_empty() {
        record.go_on(link, Part::OldMail).await?;
    }
    while let Some(mailbox) = rest.first().copied() {
        link.backfill = true;
        visit_all(link, &[mailbox], depth).await?;
        link.backfill = false;
        if std::mem::take(&mut link.called) {
            record.go_on(link, Part::Changes).await?;
            // The numbers of a mailbox that is open are those the session knows.
            link.unselect().await?;
            rest = changes(link, depth).await?;
            record.go_on(link, Part::OldMail).await?;
        } else {
            rest.remove(0);
        }
    }
    Ok(())
}

/// Everything but old mail. Returns the mailboxes of which old mail is left to read.
async fn changes(link: &mut Link<'_>, depth: Depth) -> Result<Vec<MailboxId>, SyncError> {
    link.unfinished.clear();
    link.skip.clear();
    link.renumbered.clear();
    link.report.pushed += tree::push(link).await?;
    // Most rounds have no edit to look after, and ask once before and once after.
    if edits::wait(link).await? {
        let doubtful = edits::look_into_doubts(link).await?;
        let waiting = edits::edited(link).await?;
        if doubtful || !waiting.is_empty() {
            visit_all(link, &waiting, Depth::Head).await?;
            link.unselect().await?;
        }
    }
    let due = tree::refresh(link, depth).await?;
    link.tree_is_fresh = true;
    visit_all(link, &due, depth).await?;
    // Edits of what has just got its UID, or was found elsewhere.
    if edits::wait(link).await? {
        edits::settle(link).await?;
        if std::mem::take(&mut link.astray) | std::mem::take(&mut link.target_missing) {
            link.skip.clear();
        }
        edits::send(link).await?;
    }
    link.tree_is_fresh = false;
    Ok(std::mem::take(&mut link.unfinished))
}

/// Visits mailboxes in order. One that fails keeps its cause, the others go on; a lost connection is opened again a few
/// times. What concerns the whole account ends the round. Returns those that were looked at to the end.
pub(super) async fn visit_all(
    link: &mut Link<'_>,
    mailboxes: &[MailboxId],
    depth: Depth,
) -> Result<Vec<MailboxId>, SyncError> {
    let mut looked_at = Vec::new();
    let mut reconnects = 0;
    for mailbox in mailboxes {
        loop {
            let error = match Box::pin(visit::visit(link, *mailbox, depth)).await {
                Ok(opened) => {
                    looked_at.extend(opened.then_some(*mailbox));
                    break;
                }
                Err(error) => error,
            };
            let SyncError::Imap(cause) = error else { return Err(error) };
            let cause = match link.forgo(cause).await {
                Ok(()) => continue,
                Err(SyncError::Imap(cause)) => cause,
                Err(error) => return Err(error),
            };
            if matches!(cause, ImapError::Throttled { .. } | ImapError::AuthRejected { .. }) {
                return Err(cause.into());
            }
            let lost = !link.session.is_usable();
            let suspect = link.suspect.take().filter(|_| lost);
            tracing::info!(account_id = %link.lease.account, mailbox_id = %mailbox,
                code = trouble::cause_of(&cause).code, suspect = suspect.is_some(), "mailbox failed");
            if let Some(suspect) = &suspect {
                set_aside(link, suspect, &cause, reconnects == MAX_RECONNECTS).await?;
            }
            if lost {
                reconnects += 1;
                if reconnects > MAX_RECONNECTS {
                    failed(link, *mailbox, &cause).await?;
                    return Err(cause.into());
                }
                link.reopen().await?;
            }
            if suspect.is_some() {
                continue;
            }
            failed(link, *mailbox, &cause).await?;
            link.report.failed += 1;
            break;
        }
    }
    Ok(looked_at)
}

/// A message at which the line broke is asked for once more, alone, then with the next round: lines break. Only the server's
/// word that it cannot deliver the message counts against it. `last`: this round ends here, and the next one shall not meet
/// its suspects one by one again.
async fn set_aside(
    link: &mut Link<'_>,
    suspect: &Suspect,
    cause: &ImapError,
    last: bool,
) -> Result<(), SyncError> {
    let mailbox = suspect.target.mailbox;
    let mut uids = UidSet::range(suspect.uid, suspect.uid);
    if suspect.alone && is_word_of_the_server(cause) {
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        attempts::refused(&mut tx, &suspect.target, &uids, &visit::words_of(cause)).await?;
        return Ok(tx.commit().await?);
    }
    let of_round = if suspect.alone { &mut link.left } else { &mut link.alone };
    of_round.entry(mailbox).or_default().insert(suspect.uid);
    if last && let Some(others) = link.alone.get(&mailbox) {
        uids = uids.union(others);
    }
    if suspect.alone || last {
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        attempts::broke_the_line(&mut tx, &suspect.target, &uids, &visit::words_of(cause)).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Dovecot (2.3 and 2.4) ends the connection over a message it cannot read, and says so: `* BYE FETCH failed: ...`.
fn is_word_of_the_server(cause: &ImapError) -> bool {
    matches!(cause, ImapError::Closed { bye: Some(text) } if text.to_ascii_lowercase().contains("fetch failed"))
}

async fn failed(link: &Link<'_>, mailbox: MailboxId, cause: &ImapError) -> Result<(), SyncError> {
    let target = Target { account: link.lease.account, mailbox, generation: 0 };
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    status::mailbox_failed(&mut tx, &target, &trouble::cause_of(cause)).await?;
    Ok(tx.commit().await?)
}
