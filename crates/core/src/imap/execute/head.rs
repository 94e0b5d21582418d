//! New mail of a mailbox that a watcher has open: from EXISTS to rows on the watcher's own connection.

use mail::sync::{Batch, Checkpoint};
use mail::uid::{Uid, UidSet};

use super::round::Link;
use super::visit::{Open, describe};
use super::{SyncContext, SyncError, fetch, guarded, take};
use crate::id::{AccountId, MailboxId, TenantId};
use crate::imap::{Selected, Session};
use crate::lease::Lease;
use crate::sync_store::{attempts, view};

/// What [`fetch_new`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// So many messages were stored.
    Stored(usize),
    /// The mailbox is not what the rows describe (never read, or its UIDVALIDITY changed): a round is needed.
    NeedsRound,
}

/// Stores what is newer than the newest message we have of `mailbox`, which `session` has open as `selected` says.
/// Deletions and flags are left to the next round.
///
/// # Errors
/// [`SyncError::Busy`] while a round is under way, which brings the mail itself; any other [`SyncError`]. The session
/// comes back in any case, usable or not.
pub async fn fetch_new(
    ctx: &SyncContext,
    (tenant, account): (TenantId, AccountId),
    mailbox: MailboxId,
    session: Session,
    selected: &Selected,
) -> (Session, Result<Fresh, SyncError>) {
    let lease = match take(ctx, tenant, account).await {
        Ok(lease) => lease,
        Err(error) => return (session, Err(error)),
    };
    let mut link = Link::over(ctx, &lease, session);
    let result = guarded(ctx, &lease, read(&mut link, &lease, mailbox, selected)).await;
    (link.session, result)
}

async fn read(
    link: &mut Link<'_>,
    lease: &Lease,
    mailbox: MailboxId,
    selected: &Selected,
) -> Result<Fresh, SyncError> {
    let mut tx = link.ctx.db.tenant(lease.tenant).await?;
    let left_over = attempts::left_over(&mut tx, lease, mailbox).await?;
    let found = view::visit(&mut tx, lease.account, mailbox).await?;
    drop(tx);
    let Some((target, visit)) = found else { return Ok(Fresh::NeedsRound) };
    let mut open = Open::of(target, visit);
    open.server.mailbox = describe(selected);
    let at = open.local.checkpoint;
    if at.tail_uid == 0 || at.uidvalidity != Some(open.server.mailbox.epoch()) {
        return Ok(Fresh::NeedsRound);
    }
    let Some(first) = at.head_uid.checked_add(1).and_then(Uid::new) else { return Ok(Fresh::Stored(0)) };
    // A closed range: `n:*` would name the newest message even when there is nothing new. The search looks at what the
    // server has announced, and it has announced these.
    let above = link.session.uid_search_all().await?.intersection(&UidSet::range(first, Uid::MAX));
    let Some(last) = above.last() else { return Ok(Fresh::Stored(0)) };
    let in_the_way = open.local.delicate().union(&open.local.unreadable);
    if left_over || !above.intersection(&in_the_way).is_empty() {
        return Ok(Fresh::NeedsRound);
    }
    let before = link.report.created;
    let then = Checkpoint { head_uid: last.get(), ..at };
    fetch::messages(link, &mut open, vec![Batch { uids: above, then, relink: false, raw: false }]).await?;
    Ok(Fresh::Stored(link.report.created - before))
}
