//! A whole round.

use chrono::{DateTime, Utc};
use mail::sync::Depth;
use mail::uid::UidSet;

use super::link::{Link, Suspect};
use super::trouble::Reason;
use super::{Report, SyncContext, SyncError, edits, tree, trouble, visit};
use crate::platform::id::{MailboxId, RunId};
use crate::queue::job;
use crate::queue::lease::Lease;
use crate::sync::store::status::{self, AccountState};
use crate::sync::store::{Target, attempts};
use wire::imap::ImapError;
use wire::trouble::Trouble;

/// Connections lost in one round before it is given up: one mailbox that kills its connection must not keep the others
/// from being read, a server that kills every connection must not be hammered.
const MAX_RECONNECTS: usize = 6;
const SOME_FAILED: &str = "some mailboxes could not be read";

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
        SyncError::Imap(error) => error.trouble().code(),
        SyncError::Credentials(_) => Trouble::CredentialsUnusable.code(),
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
        link.batches.backfill = true;
        visit_all(link, &[mailbox], depth).await?;
        link.batches.backfill = false;
        if std::mem::take(&mut link.batches.called) {
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
    link.round.unfinished.clear();
    link.round.skip.clear();
    link.round.renumbered.clear();
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
    link.round.tree_is_fresh = true;
    visit_all(link, &due, depth).await?;
    // Edits of what has just got its UID, or was found elsewhere.
    if edits::wait(link).await? {
        edits::settle(link).await?;
        if std::mem::take(&mut link.round.astray) | std::mem::take(&mut link.round.target_missing) {
            link.round.skip.clear();
        }
        edits::send(link).await?;
    }
    link.round.tree_is_fresh = false;
    Ok(std::mem::take(&mut link.round.unfinished))
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
            let suspect = link.round.suspect.take().filter(|_| lost);
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
            if suspect.is_some() || cause.is_end_of_token() {
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
    let of_round = if suspect.alone { &mut link.round.left } else { &mut link.round.alone };
    of_round.entry(mailbox).or_default().insert(suspect.uid);
    if last && let Some(others) = link.round.alone.get(&mailbox) {
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
