//! The short round that only brings our users' edits to the server, and the part of a whole one that does.

use std::time::Duration;

use mail::sync::Depth;

use super::link::Link;
use super::round::visit_all;
use super::trouble::Reason;
use super::{Report, SyncContext, SyncError, tree, trouble};
use crate::platform::db::DbError;
use crate::platform::id::MailboxId;
use crate::queue::job::{self, Job};
use crate::queue::lease::Lease;
use crate::sync::store::{edits, pending, status};

/// Local edits only: their mailboxes, and those they put messages into. Nothing while the account is in trouble and it is
/// not their turn: a round will bring them along.
pub(super) async fn push(ctx: &SyncContext, lease: &Lease) -> Result<Report, SyncError> {
    let mut tx = lease.begin(&ctx.db).await?;
    let nothing = pending::tree_changes(&mut tx, lease.account).await?.is_empty()
        && edits::mailboxes(&mut tx, lease.account).await?.is_empty()
        && edits::doubtful(&mut tx, lease.account).await?.is_empty();
    let wait = nothing || !status::edits_may_try(&mut tx, lease.account).await?;
    tx.commit().await?;
    if wait {
        return Ok(Report::default());
    }
    let result = all(ctx, lease).await;
    if let Err(error) = &result {
        trouble::record(ctx, lease, error, Reason::Edits).await?;
    }
    result
}

async fn all(ctx: &SyncContext, lease: &Lease) -> Result<Report, SyncError> {
    let mut link = Link::open(ctx, lease).await?;
    let result = work(&mut link).await;
    let Link { session, report, .. } = link;
    if session.is_usable() {
        session.logout().await;
    }
    result.map(|()| report)
}

async fn work(link: &mut Link<'_>) -> Result<(), SyncError> {
    let changed = tree::push(link).await?;
    link.report.pushed += changed;
    if changed > 0 {
        // A new mailbox has to be known to the server's numbers before anything is moved into it.
        tree::refresh(link, Depth::Head).await?;
    }
    look_into_doubts(link).await?;
    send(link).await?;
    if std::mem::take(&mut link.round.target_missing) {
        link.unselect().await?;
        tree::refresh(link, Depth::Head).await?;
        link.round.tree_is_fresh = true;
        link.round.skip.clear();
        send(link).await?;
    }
    if link.round.astray {
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        let round = Job::SyncAccount { account_id: link.lease.account };
        job::enqueue(&mut tx, &round, Duration::ZERO).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Sends what edits want, in the mailboxes they are for, and reads those they put messages into: what comes next may wait for
/// that. Again while anything is done.
pub(super) async fn send(link: &mut Link<'_>) -> Result<(), SyncError> {
    loop {
        let before = link.report.pushed;
        let waiting = edited(link).await?;
        visit_all(link, &waiting, Depth::Head).await?;
        let touched: Vec<MailboxId> = std::mem::take(&mut link.round.touched).into_iter().collect();
        visit_all(link, &touched, Depth::Head).await?;
        if std::mem::take(&mut link.round.unsure) {
            look_into_doubts(link).await?;
            link.round.astray |= wait(link).await?;
        }
        if link.report.pushed == before {
            return Ok(());
        }
        settle(link).await?;
    }
}

/// Whether any edit of the account waits.
pub(super) async fn wait(link: &Link<'_>) -> Result<bool, DbError> {
    let mut tx = link.ctx.db.tenant(link.lease.tenant).await?;
    crate::domain::edits::any(&mut tx, link.lease.account).await
}

/// Reads the mailboxes of transfers whose answer never came, or did not tell the UID: what was done is not done again.
/// Whether there were any.
pub(super) async fn look_into_doubts(link: &mut Link<'_>) -> Result<bool, SyncError> {
    let mut tx = link.ctx.db.tenant(link.lease.tenant).await?;
    let doubtful = edits::doubtful(&mut tx, link.lease.account).await?;
    drop(tx);
    visit_all(link, &doubtful, Depth::Full).await?;
    settle(link).await?;
    Ok(!doubtful.is_empty())
}

/// Ends what is over without a command, portion by portion.
pub(super) async fn settle(link: &Link<'_>) -> Result<(), SyncError> {
    let mut after = Some(0);
    while let Some(from) = after {
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        after = edits::settle(&mut tx, link.lease.account, from).await?;
        tx.commit().await?;
    }
    Ok(())
}

pub(super) async fn edited(link: &Link<'_>) -> Result<Vec<MailboxId>, DbError> {
    let mut tx = link.ctx.db.tenant(link.lease.tenant).await?;
    edits::mailboxes(&mut tx, link.lease.account).await
}
