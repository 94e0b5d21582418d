//! Local edits to the server: one step of the planner, its confirmation recorded before the next.
//!
//! The only caller of the functions that move or delete messages on a server. A step that is repeated after a crash ends
//! as if it had been done once: STORE, MOVE and EXPUNGE by nature, COPY because its target is read before it is repeated.

use std::collections::HashMap;

use mail::flags::{Flags, Keywords};
use mail::sync::{Edit, ExpungeBy, Push, ServerWrite, StoreChange, TransferBy};
use mail::uid::{Uid, UidSet};

use super::round::Link;
use super::visit::{Heard, Open, apply_flags, is_refusal};
use super::{SyncError, trouble};
use crate::failpoint;
use crate::id::AccountId;
use crate::imap::{CopyUid, ImapError, StoreMode};
use crate::sync_store::view::EditRow;
use crate::sync_store::{pending, take_back, view};

/// The server has done as it was told, our rows do not know it yet.
const PUSHED: &str = "pushed-before-recorded";

/// Performs `push` and records what came of it. A refusal is recorded too and is no error; the edits are out of the view
/// afterwards in any case.
pub(super) async fn send(link: &mut Link<'_>, open: &mut Open, push: &Push) -> Result<(), SyncError> {
    let rows: Vec<EditRow> = push.edits.iter().filter_map(|at| open.rows.get(*at).copied()).collect();
    let uids: Vec<Uid> =
        push.edits.iter().filter_map(|at| open.local.edits.get(*at).map(|e| e.uid)).collect();
    match perform(link, open, &push.write, &rows, &uids).await {
        Ok(()) => link.report.pushed += push.edits.len(),
        Err(SyncError::Imap(ImapError::Protocol(_)))
            if link.session.is_usable() && does_without(link, open, &push.write) =>
        {
            // A part of it may be done and recorded.
            let mut tx = link.ctx.db.tenant(link.lease.tenant).await?;
            (open.local.edits, open.rows) = view::edits(&mut tx, &open.target).await?;
            return Ok(());
        }
        // Without the extension it may go: the visit is made again.
        Err(error) if link.session.broke_promise() => return Err(error),
        Err(SyncError::Imap(error)) if is_refusal(&error) && link.session.is_usable() => {
            refused(link, open, &push.write, &rows, &error).await?;
            if !matches!(push.write, ServerWrite::Store { .. }) {
                // Nor what was asked of these messages afterwards: a copy that was not made is no reason to delete.
                let left = |edit: &Edit| uids.contains(&edit.uid);
                let edits = open.local.edits.iter().enumerate();
                let later: Vec<usize> = edits.filter(|(_, e)| left(e)).map(|(at, _)| at).collect();
                open.forget_edits(&later);
                return Ok(());
            }
        }
        Err(error) => return Err(error),
    }
    open.forget_edits(&push.edits);
    Ok(())
}

/// Forgets the extension `write` made use of, which the server offered and does not understand. Whether there was one.
fn does_without(link: &mut Link<'_>, open: &mut Open, write: &ServerWrite) -> bool {
    let (moves, expunges) = match write {
        ServerWrite::Move { by: TransferBy::Move, .. } => (true, false),
        ServerWrite::Move { by: TransferBy::Copy(ExpungeBy::UidExpunge), .. }
        | ServerWrite::Expunge { by: ExpungeBy::UidExpunge, .. } => (false, true),
        _ => (false, false),
    };
    link.session.restrict(|c| {
        c.move_ &= !moves;
        c.uidplus &= !expunges;
    });
    open.server.capabilities = link.session.capabilities().clone();
    moves || expunges
}

async fn perform(
    link: &mut Link<'_>,
    open: &mut Open,
    write: &ServerWrite,
    rows: &[EditRow],
    of_rows: &[Uid],
) -> Result<(), SyncError> {
    match write {
        ServerWrite::Store { uids, change } => store(link, open, uids, change, (rows, of_rows)).await,
        ServerWrite::Copy { uids, target } => {
            let told = copy(link, uids, target, rows).await?;
            failpoint::pass(PUSHED);
            let mut tx = link.lease.begin(&link.ctx.db).await?;
            arrived(&mut tx, link.lease.account, rows, of_rows, told.as_ref()).await?;
            let changes: Vec<_> = rows.iter().filter_map(|r| r.change).collect();
            pending::done(&mut tx, &changes).await?;
            tx.commit().await?;
            link.touched.extend(rows.iter().filter_map(|r| r.target_mailbox));
            Ok(())
        }
        ServerWrite::Move { uids, target, by: TransferBy::Move } => {
            let told = link.session.uid_move(uids, target).await?;
            failpoint::pass(PUSHED);
            let mut tx = link.lease.begin(&link.ctx.db).await?;
            arrived(&mut tx, link.lease.account, rows, of_rows, told.as_ref()).await?;
            pending::confirm_gone(&mut tx, link.lease.account, rows).await?;
            tx.commit().await?;
            open.local.known = open.local.known.difference(uids);
            link.touched.extend(rows.iter().filter_map(|r| r.target_mailbox));
            Ok(())
        }
        ServerWrite::Move { uids, target, by: TransferBy::Copy(by) } => {
            let told = copy(link, uids, target, rows).await?;
            failpoint::pass(PUSHED);
            let mut tx = link.lease.begin(&link.ctx.db).await?;
            arrived(&mut tx, link.lease.account, rows, of_rows, told.as_ref()).await?;
            pending::copied(&mut tx, rows).await?;
            tx.commit().await?;
            link.touched.extend(rows.iter().filter_map(|r| r.target_mailbox));
            expunge(link, open, uids, *by, rows).await
        }
        ServerWrite::Expunge { uids, by } => expunge(link, open, uids, *by, rows).await,
    }
}

/// Unlike MOVE, a COPY that is sent again copies again: that it is under way is recorded first.
async fn copy(
    link: &mut Link<'_>,
    uids: &UidSet,
    target: &[u8],
    rows: &[EditRow],
) -> Result<Option<CopyUid>, SyncError> {
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    pending::copy_begins(&mut tx, rows).await?;
    tx.commit().await?;
    Ok(link.session.uid_copy(uids, target).await?)
}

async fn store(
    link: &mut Link<'_>,
    open: &Open,
    uids: &UidSet,
    change: &StoreChange,
    (rows, of_rows): (&[EditRow], &[Uid]),
) -> Result<(), SyncError> {
    let (mut results, mut modified) = (Vec::new(), UidSet::new());
    let steps = [
        (StoreMode::Add, change.add, &change.add_keywords),
        (StoreMode::Remove, change.remove, &change.remove_keywords),
    ];
    for (mode, flags, keywords) in steps {
        if !flags.is_empty() || !keywords.is_empty() {
            let outcome = link.session.store(uids, mode, (flags, keywords), None).await?;
            results.extend(outcome.results);
            modified = modified.union(&outcome.modified);
        }
    }
    failpoint::pass(PUSHED);
    // Those it left alone wait for the next round, which reads what they have there.
    let of_rows = rows.iter().zip(of_rows);
    let stored: Vec<EditRow> =
        of_rows.filter(|(_, uid)| !modified.contains(**uid)).map(|(r, _)| *r).collect();
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    pending::confirm_flags(&mut tx, &stored, change).await?;
    tx.commit().await?;
    // What the server says it has now is the last word: it may have dropped a keyword or folded its spelling.
    let mut heard = Heard::of(uids);
    results.into_iter().for_each(|f| heard.hear(f));
    apply_flags(link, open, heard.flags).await.map(drop)
}

/// The only function that deletes messages on a server, and only those our user deleted or moved away.
async fn expunge(
    link: &mut Link<'_>,
    open: &mut Open,
    uids: &UidSet,
    by: ExpungeBy,
    rows: &[EditRow],
) -> Result<(), SyncError> {
    link.session.store(uids, StoreMode::Add, (Flags::DELETED, &Keywords::new()), None).await?;
    if by == ExpungeBy::UidExpunge {
        link.session.uid_expunge(uids).await?;
    }
    failpoint::pass(PUSHED);
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    match by {
        ExpungeBy::UidExpunge => {
            pending::confirm_gone(&mut tx, link.lease.account, rows).await?;
            open.local.known = open.local.known.difference(uids);
        }
        ExpungeBy::Mark => pending::confirm_marked(&mut tx, rows).await?,
    }
    Ok(tx.commit().await?)
}

async fn arrived(
    tx: &mut crate::db::TenantTx,
    account: AccountId,
    rows: &[EditRow],
    of_rows: &[Uid],
    told: Option<&CopyUid>,
) -> Result<(), SyncError> {
    let Some(told) = told else { return Ok(()) };
    let pairs: HashMap<Uid, Uid> = told.pairs().collect();
    let arrivals: Vec<Option<Uid>> = of_rows.iter().map(|uid| pairs.get(uid).copied()).collect();
    pending::confirm_arrival(tx, account, rows, &arrivals, Some(told.uidvalidity.get())).await?;
    Ok(())
}

async fn refused(
    link: &mut Link<'_>,
    open: &Open,
    write: &ServerWrite,
    rows: &[EditRow],
    error: &ImapError,
) -> Result<(), SyncError> {
    let code = trouble::cause_of(error).code;
    tracing::info!(account_id = %link.lease.account, mailbox_id = %open.target.mailbox, code, "the server refused an edit");
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    match write {
        ServerWrite::Store { change, .. } => {
            pending::take_back_flags(&mut tx, open.target.account, rows, change).await?;
        }
        _ => take_back::refuse_edits(&mut tx, open.target.account, rows, code).await?,
    }
    Ok(tx.commit().await?)
}
