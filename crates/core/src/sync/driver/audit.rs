//! The daily audit: every mailbox compared with the server though its numbers say that nothing has changed.
//!
//! What it then finds is a defect of ours, so it is repaired, counted in the mailbox's row and told in the log. What has
//! changed on the server since the last round is no defect: the mailbox is brought up to date in the ordinary way first, and
//! nothing is counted in one that never rests.
//!
//! It is the least urgent work there is. It gives the account up between mailboxes, and within one as soon as anybody waits
//! for it; what it has not reached is left for its next turn.

use std::time::Duration;

use mail::sync::{Depth, is_settled};

use super::link::Link;
use super::visit::{self, Open, is_refusal};
use super::{SyncContext, SyncError, guarded, take};
use crate::connect::imap::connect;
use crate::platform::id::{AccountId, MailboxId, TenantId};
use crate::queue::lease::Lease;
use crate::sync::store::{Target, attempts, audit, vanish};
use wire::imap::{Endpoint, Session};

/// Looks at a mailbox that keeps changing under our eyes.
const MAX_LOOKS: usize = 3;
/// How soon the audit notices that somebody waits for the account.
const LOOK_ROUND: Duration = Duration::from_millis(500);

/// What [`audit_account`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Audited {
    /// Mailboxes that were compared.
    pub mailboxes: usize,
    /// What was repaired in them that no change explains.
    pub repairs: u64,
    /// Nothing is left to compare; otherwise it made room for others.
    pub done: bool,
}

/// A session and the server it leads to.
type Way = (Session, Endpoint);

/// What became of one turn.
enum Turn {
    Compared(Option<Box<Way>>, u64),
    Nothing,
    MadeRoom,
}

/// Audits the mailboxes of an account that are due, for `slice` at most (a mailbox that was begun is brought to its end).
///
/// # Errors
/// [`SyncError`]; what was repaired until then stays.
pub async fn audit_account(
    ctx: &SyncContext,
    tenant: TenantId,
    account: AccountId,
    slice: Duration,
) -> Result<Audited, SyncError> {
    let end = tokio::time::Instant::now() + slice;
    let mut audited = Audited::default();
    let mut session = None;
    while tokio::time::Instant::now() < end {
        let lease = take(ctx, tenant, account).await?;
        match guarded(ctx, &lease, turn(ctx, &lease, session.take())).await? {
            Turn::Compared(kept, repairs) => {
                session = kept.map(|kept| *kept);
                audited.mailboxes += 1;
                audited.repairs += repairs;
            }
            Turn::MadeRoom => break,
            Turn::Nothing => {
                audited.done = true;
                break;
            }
        }
    }
    if let Some((session, _)) = session {
        session.logout().await;
    }
    Ok(audited)
}

async fn turn(ctx: &SyncContext, lease: &Lease, session: Option<Way>) -> Result<Turn, SyncError> {
    let mut tx = ctx.db.tenant(lease.tenant).await?;
    let waits = audit::somebody_waits(&mut tx, lease.account).await?;
    let next = audit::next(&mut tx, lease.account).await?;
    tx.release();
    if waits {
        return Ok(Turn::MadeRoom);
    }
    let Some(mailbox) = next else {
        sweep(ctx, lease).await?;
        return Ok(Turn::Nothing);
    };
    tokio::select! {
        turn = one(ctx, lease, session, mailbox) => turn,
        waited = wait_for_somebody(ctx, lease) => {
            waited?;
            // What was being fetched was given up for others, not by a process that died over it.
            let mut tx = lease.begin(&ctx.db).await?;
            attempts::end_all(&mut tx, lease).await?;
            tx.commit().await?;
            Ok(Turn::MadeRoom)
        }
    }
}

async fn wait_for_somebody(ctx: &SyncContext, lease: &Lease) -> Result<(), SyncError> {
    loop {
        tokio::time::sleep(LOOK_ROUND).await;
        let mut tx = ctx.db.tenant(lease.tenant).await?;
        let waits = audit::somebody_waits(&mut tx, lease.account).await?;
        tx.release();
        if waits {
            return Ok(());
        }
    }
}

async fn one(
    ctx: &SyncContext,
    lease: &Lease,
    session: Option<Way>,
    mailbox: MailboxId,
) -> Result<Turn, SyncError> {
    let (session, server) = match session {
        Some(way) => way,
        None => connect(ctx, (lease.tenant, lease.account), ctx.haste).await?,
    };
    let mut link = Link::over(ctx, lease, session, server);
    let repairs = match compare(&mut link, mailbox).await {
        Ok(repairs) => repairs,
        // The rounds tell why it cannot be read; it is not looked at again before tomorrow.
        Err(SyncError::Imap(error)) if is_refusal(&error) && link.session.is_usable() => Repairs::default(),
        Err(error) => return Err(error),
    };
    let mut tx = lease.begin(&ctx.db).await?;
    let target = Target { account: lease.account, mailbox, generation: 0 };
    let counts = audit::repair_counts(&mut tx, &target).await?;
    let all = repairs.total() + u64::from(counts);
    audit::done(&mut tx, &target, all).await?;
    tx.commit().await?;
    if all > 0 {
        tracing::warn!(account_id = %lease.account, mailbox_id = %mailbox, missing = repairs.missing, ghosts = repairs.ghosts,
            flags = repairs.flags, counts, "the audit repaired what no change on the server explains");
    }
    let usable = link.session.is_usable();
    Ok(Turn::Compared(usable.then(|| Box::new((link.session, link.server))), all))
}

/// What differed and no change explains.
#[derive(Debug, Clone, Copy, Default)]
struct Repairs {
    /// Messages of the server that were not here.
    missing: u64,
    /// Placements that the server does not have.
    ghosts: u64,
    /// Placements whose flags were others.
    flags: u64,
}

impl Repairs {
    const fn total(self) -> u64 {
        self.missing + self.ghosts + self.flags
    }
}

async fn compare(link: &mut Link<'_>, mailbox: MailboxId) -> Result<Repairs, SyncError> {
    for look in 1..=MAX_LOOKS {
        let Some(mut open) = visit::open(link, mailbox).await? else { break };
        if open.server.mailbox.epoch_differs(&open.local.checkpoint) {
            // All of it is to be read anew, which is a round's to do.
            break;
        }
        let settled = is_settled(&open.server, &open.local);
        if !settled && look < MAX_LOOKS {
            visit::steps(link, &mut open, Depth::Full).await?;
            visit::finish(link, &open, Depth::Full).await?;
            continue;
        }
        let before = open.local.clone();
        visit::steps(link, &mut open, Depth::Audit).await?;
        visit::finish(link, &open, Depth::Audit).await?;
        return Ok(if settled { differences(&open, &before) } else { Repairs::default() });
    }
    Ok(Repairs::default())
}

fn differences(open: &Open, before: &mail::sync::LocalView) -> Repairs {
    let after = &open.local;
    let accounted = before.accounted();
    let new = before.checkpoint.within_window(&after.known).difference(&accounted);
    // An expunge that was announced meanwhile may be what a missing message is about.
    let gone = before.known.difference(&after.known).len();
    Repairs { missing: new.len(), ghosts: if open.shrank { 0 } else { gone }, flags: open.corrected }
}

async fn sweep(ctx: &SyncContext, lease: &Lease) -> Result<(), SyncError> {
    loop {
        let mut tx = lease.begin(&ctx.db).await?;
        let swept = vanish::sweep_orphans(&mut tx, lease.account).await?;
        tx.commit().await?;
        if swept == 0 {
            return Ok(());
        }
        tracing::info!(account_id = %lease.account, swept, "bytes that no message refers to were removed");
    }
}
