//! New mail of INBOX, which a watcher has open: from EXISTS to rows on the watcher's own connection.
//!
//! Nothing is vouched for here but the head. UIDNEXT, counts and mod-sequence of the mailbox stay as they were settled, so
//! that the next round looks at it and finds deletions and flags.

use mail::sync::{Batch, Checkpoint};
use mail::uid::{Uid, UidSet};

use super::believed::look_for_twins;
use super::keep::judge;
use super::link::Link;
use super::visit::{Open, describe};
use super::{SyncContext, SyncError, fetch, guarded, take};
use crate::platform::id::{AccountId, TenantId};
use crate::queue::lease::Lease;
use crate::sync::store::{attempts, checkpoint, view};
use wire::imap::{Endpoint, Selected, Session};

/// More than these at once are a round's work.
const FEW: u64 = 100;

/// What [`fetch_new`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fresh {
    /// So many messages were stored.
    Stored(usize),
    /// INBOX is not what the rows describe (never read, or its UIDVALIDITY changed), or something is in the way: a round
    /// is needed.
    NeedsRound,
}

/// Stores what is newer than the newest message we have of INBOX, which `session` has open as `selected` says. Deletions
/// and flags are left to the next round.
///
/// # Errors
/// [`SyncError::Busy`] while a round is under way, which may have passed INBOX: ask for another. Any other [`SyncError`].
/// The session comes back in any case, usable or not.
pub async fn fetch_new(
    ctx: &SyncContext,
    (tenant, account): (TenantId, AccountId),
    (session, server): (Session, Endpoint),
    selected: &Selected,
) -> ((Session, Endpoint), Result<Fresh, SyncError>) {
    let lease = match take(ctx, tenant, account).await {
        Ok(lease) => lease,
        Err(error) => return ((session, server), Err(error)),
    };
    let mut link = Link::over(ctx, &lease, session, server);
    let result = guarded(ctx, &lease, read(&mut link, &lease, selected)).await;
    ((link.session, link.server), result)
}

async fn read(link: &mut Link<'_>, lease: &Lease, selected: &Selected) -> Result<Fresh, SyncError> {
    let mut tx = link.ctx.db.tenant(lease.tenant).await?;
    let Some((target, visit)) = view::head(&mut tx, lease.account).await? else {
        return Ok(Fresh::NeedsRound);
    };
    let left_over = attempts::left_over(&mut tx, lease, target.mailbox).await?;
    tx.release();
    let mut open = Open::of(target, b"INBOX".to_vec(), visit);
    open.server.mailbox = describe(selected);
    let at = open.local.checkpoint;
    if at.tail_uid == 0 || at.uidvalidity != Some(open.server.mailbox.epoch()) {
        return Ok(Fresh::NeedsRound);
    }
    let Some(first) = at.head_uid.checked_add(1).and_then(Uid::new) else { return Ok(Fresh::Stored(0)) };
    // The search looks at what the server has announced, and it has announced these.
    let above = link.session.uid_search_from(first).await?;
    let Some(last) = above.last() else { return Ok(Fresh::Stored(0)) };
    let in_the_way = open.local.delicate().union(&open.local.unreadable);
    if left_over
        || open.local.old_generation
        || above.len() > FEW
        || !above.intersection(&in_the_way).is_empty()
    {
        return Ok(Fresh::NeedsRound);
    }
    let then = Checkpoint { head_uid: last.get(), ..at };
    let mut uids: UidSet = above.difference(&open.local.known);
    if judge(link, &mut open, &uids).await? {
        uids = uids.difference(&open.local.outside);
    }
    if uids.is_empty() && !open.local.outside.is_empty() {
        let mut tx = lease.begin(&link.ctx.db).await?;
        checkpoint::write(&mut tx, &open.target, &then, open.server.mailbox.exists).await?;
        tx.commit().await?;
    } else if !uids.is_empty() {
        fetch::messages(link, &mut open, vec![Batch { uids, then, raw: false }]).await?;
        // Of INBOX only what is above the head was loaded.
        open.local.known = open.local.known.union(&open.twins);
        look_for_twins(link, &mut open).await?;
    }
    Ok(Fresh::Stored(link.report.created))
}
