//! Our users' edits to the server: one step of the planner, recorded as about to be sent before, and with its answer before
//! the next.
//!
//! The only caller of the functions that move or delete messages on a server. A step that is repeated after a crash ends
//! as if it had been done once: STORE and EXPUNGE by nature, MOVE and COPY because what is in doubt is looked for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use mail::flags::{Flags, Keywords};
use mail::sync::edits::{Does, MailboxKey};
use mail::sync::{ExpungeBy, Push, ServerWrite, StoreChange};
use mail::uid::{Uid, UidSet};

use super::link::Link;
use super::visit::{Open, apply_flags, is_refusal};
use super::{SyncError, trouble};
use crate::domain::edits::{key, mailbox};
use crate::platform::failpoint;
use crate::sync::store::edits::{self, Done, Sending};
use wire::imap::{CopyUid, ImapError, Proof, StoreMode, Uids};

/// The server has done as it was told, our rows do not know it yet.
const PUSHED: &str = "pushed-before-recorded";

/// Sends `push` and records what came of it. A refusal is recorded too and is no error; what was sent is out of the view
/// afterwards in any case.
pub(super) async fn send(link: &mut Link<'_>, open: &mut Open, push: &Push) -> Result<(), SyncError> {
    let mut rows: Vec<Sending> = push.ready.iter().filter_map(|at| open.rows.get(*at).cloned()).collect();
    open.forget_edits(&push.ready);
    open.sent = true;
    let mut marked = BTreeSet::new();
    if !matches!(push.write, ServerWrite::Store { .. }) {
        // What another client took away first is not there to be moved or removed, and OK says nothing of it.
        (rows, marked) = present(link, rows).await?;
    }
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    let rows = edits::begin(&mut tx, &open.target, &rows).await?;
    tx.commit().await?;
    if rows.is_empty() {
        return Ok(());
    }
    match perform(link, open, &push.write, &marked, &rows).await {
        Ok(()) => link.report.pushed += rows.len(),
        // Offered and not understood: the planner finds another way.
        Err(SyncError::Imap(ImapError::Protocol(_)))
            if link.session.is_usable() && does_without(link, open, &push.write) =>
        {
            let mut tx = link.lease.begin(&link.ctx.db).await?;
            edits::not_done(&mut tx, link.lease.account, &rows).await?;
            tx.commit().await?;
        }
        // Without the extension it may go: the visit is made again.
        Err(error) if link.session.broke_promise() => return Err(error),
        Err(SyncError::Imap(error)) if is_refusal(&error) && link.session.is_usable() => {
            refused(link, open, &rows, &error).await?;
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Forgets the extension `write` made use of, which the server offered and does not understand. Whether there was one.
fn does_without(link: &mut Link<'_>, open: &mut Open, write: &ServerWrite) -> bool {
    let (moves, expunges) = match write {
        ServerWrite::Move { .. } => (true, false),
        ServerWrite::Remove { by: ExpungeBy::UidExpunge, .. } => (false, true),
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
    marked: &BTreeSet<Uid>,
    rows: &[Sending],
) -> Result<(), SyncError> {
    let uids = &set_of(rows);
    match write {
        ServerWrite::Store { change, .. } => store(link, open, uids, change, rows).await,
        ServerWrite::Copy { target, .. } => {
            mark(link, StoreMode::Remove, marked, rows).await?;
            let told = link.session.uid_copy(uids, target).await;
            failpoint::pass(PUSHED);
            let done = match told {
                Ok(told) => transferred(link, open, rows, told.as_ref(), false).await,
                Err(error) => Err(error.into()),
            };
            // What stays here is as another client left it. Where that fails, a message too many is kept.
            if link.session.is_usable() {
                let stay: Vec<Sending> =
                    rows.iter().filter(|r| matches!(r.does, Does::Copy { .. })).cloned().collect();
                mark(link, StoreMode::Add, marked, &stay).await.ok();
            }
            done
        }
        ServerWrite::Move { target, .. } => {
            mark(link, StoreMode::Remove, marked, rows).await?;
            let told = link.session.uid_move(uids, target).await?;
            failpoint::pass(PUSHED);
            transferred(link, open, rows, told.as_ref(), true).await
        }
        ServerWrite::Remove { by, stands_in, .. } => {
            let rows = match stands_in {
                Some(name) => prove(link, open, rows, name).await?,
                None => rows.to_vec(),
            };
            remove(link, open, *by, &rows).await
        }
    }
}

/// Sets `\Deleted` at, or takes it from, those of `rows` that were found `marked`. COPY and MOVE take the mark along (RFC 9051
/// §6.4.7), and what our user put somewhere shall not be gone with the next EXPUNGE there. It may be our own mark, of a removal
/// whose answer was lost.
async fn mark(
    link: &mut Link<'_>,
    mode: StoreMode,
    marked: &BTreeSet<Uid>,
    rows: &[Sending],
) -> Result<(), ImapError> {
    let uids: BTreeSet<Uid> = rows.iter().map(|r| r.uid).filter(|uid| marked.contains(uid)).collect();
    if uids.is_empty() {
        return Ok(());
    }
    let uids: UidSet = uids.into_iter().collect();
    link.session.store(&uids, mode, (Flags::DELETED, &Keywords::new()), None).await.map(drop)
}

/// Those of `rows` whose message the server has in the open mailbox at this moment, and which UIDs of them are marked
/// `\Deleted`. The others went, most likely to another mailbox: a round finds where.
async fn present(
    link: &mut Link<'_>,
    rows: Vec<Sending>,
) -> Result<(Vec<Sending>, BTreeSet<Uid>), SyncError> {
    let there = look_for(link, &rows).await?;
    let (present, absent): (Vec<_>, Vec<_>) = rows.into_iter().partition(|r| there.contains_key(&r.uid));
    link.round.astray |= !absent.is_empty();
    link.round.skip.extend(absent.iter().map(|r| r.edit));
    let marked = |(uid, flags): (Uid, Flags)| flags.contains(Flags::DELETED).then_some(uid);
    Ok((present, there.into_iter().filter_map(marked).collect()))
}

/// What the server has of `rows` in the open mailbox at this moment.
async fn look_for(link: &mut Link<'_>, rows: &[Sending]) -> Result<BTreeMap<Uid, Flags>, SyncError> {
    let mut there = BTreeMap::new();
    if rows.is_empty() {
        return Ok(there);
    }
    // Only NOOP has the server look anew: until then Dovecot shows what is gone (2.3.19).
    link.session.noop().await?;
    link.session.fetch_flags(Uids::Set(&set_of(rows)), None, |f| _ = there.insert(f.uid, f.flags)).await?;
    Ok(there)
}

async fn store(
    link: &mut Link<'_>,
    open: &Open,
    uids: &UidSet,
    change: &StoreChange,
    rows: &[Sending],
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
    // Dovecot (2.3.19) stores flags, and says so, in a message that another client's MOVE has copied and not yet expunged: the
    // copy does not have them.
    link.session.noop().await?;
    let told: BTreeSet<Uid> = match link.session.has_heard_of_gone() {
        true => BTreeSet::new(),
        false => results.iter().map(|f| f.uid).collect(),
    };
    let (told, others): (Vec<_>, Vec<_>) = rows.iter().cloned().partition(|r| told.contains(&r.uid));
    let there = told.into_iter().chain(present(link, others).await?.0);
    // Those it left alone wait for the next round, which reads what they have there.
    let (left_alone, stored): (Vec<_>, Vec<_>) = there.partition(|r| modified.contains(r.uid));
    link.round.skip.extend(left_alone.iter().map(|r| r.edit));
    let stored: Vec<(Sending, Done)> = stored.into_iter().map(|r| (r, Done::Stored)).collect();
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    edits::record(&mut tx, &open.target, &stored).await?;
    tx.commit().await?;
    // What the server says it has now is the last word: it may have dropped a keyword or folded its spelling.
    let last = results.into_iter().filter(|f| uids.contains(f.uid)).map(|f| (f.uid, f)).collect();
    apply_flags(link, open, last).await.map(drop)
}

/// Records a COPY or MOVE that was done, with the UIDs it told that can be so.
///
/// OK says nothing of what another client took away first. A message without such a UID was copied if its original still
/// stands there, and not moved, whatever the server says; else it stays in doubt until both mailboxes were read.
async fn transferred(
    link: &mut Link<'_>,
    open: &mut Open,
    rows: &[Sending],
    told: Option<&CopyUid>,
    moved: bool,
) -> Result<(), SyncError> {
    let to = rows.iter().find_map(|r| target_of(&r.does)).map(mailbox);
    let mut tx = link.ctx.db.tenant(link.lease.tenant).await?;
    let (mut credible, mut standing) = (HashSet::new(), HashMap::new());
    if let (Some(told), Some(to)) = (told, to) {
        credible = edits::credible(&mut tx, to, told.uidvalidity.get(), &told.dest).await?;
        // A number that is not new is the message's own, where it stood in the target before: All Mail of Gmail has it.
        let before = edits::standing(&mut tx, link.lease.account, rows, key(to)).await?;
        standing.extend(rows.iter().zip(before).filter_map(|(row, uid)| Some((row.uid, uid?))));
    }
    drop(tx);
    let told = told.into_iter().flat_map(CopyUid::pairs);
    let pairs: HashMap<Uid, Uid> =
        told.filter(|(old, new)| credible.contains(new) || standing.get(old) == Some(new)).collect();
    let (told_of, untold): (Vec<_>, Vec<_>) = rows.iter().cloned().partition(|r| pairs.contains_key(&r.uid));
    let there = look_for(link, &untold).await?;
    let (standing, unsure): (Vec<_>, Vec<_>) = untold.into_iter().partition(|r| there.contains_key(&r.uid));
    link.round.unsure |= !unsure.is_empty();
    let copied = if moved {
        open.local.known = open.local.known.difference(&set_of(&told_of));
        if !standing.is_empty() {
            refused(link, open, &standing, &ImapError::refused("confirmed, and not done")).await?;
        }
        Vec::new()
    } else {
        standing
    };
    let done: Vec<(Sending, Done)> = told_of
        .into_iter()
        .chain(copied)
        .map(|row| {
            let done = Done::Transferred { uid: pairs.get(&row.uid).copied(), moved };
            (row, done)
        })
        .collect();
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    edits::record(&mut tx, &open.target, &done).await?;
    tx.commit().await?;
    link.round.touched.extend(to);
    Ok(())
}

const fn target_of(does: &Does) -> Option<MailboxKey> {
    match does {
        Does::Copy { to } | Does::Move { to } => Some(*to),
        Does::Remove { stands_in } => *stands_in,
        Does::Store(_) => None,
    }
}

/// Those of `rows` whose message stands in the mailbox `name`: what the server has under the UID there has the size and the
/// header of the original. The others are not where our rows have them, and stay where they are.
async fn prove(
    link: &mut Link<'_>,
    open: &mut Open,
    rows: &[Sending],
    name: &[u8],
) -> Result<Vec<Sending>, SyncError> {
    let Some(to) = rows.iter().find_map(|r| target_of(&r.does)) else { return Ok(Vec::new()) };
    let mut tx = link.ctx.db.tenant(link.lease.tenant).await?;
    let standing = edits::standing(&mut tx, link.lease.account, rows, to).await?;
    drop(tx);
    let pairs: Vec<(Sending, Uid)> =
        rows.iter().cloned().zip(standing).filter_map(|(row, uid)| Some((row, uid?))).collect();
    let mut copies: Vec<Uid> = pairs.iter().map(|(_, uid)| *uid).collect();
    copies.sort_unstable();
    let here = link.session.proofs(&set_of(rows)).await?;
    link.session.select(name, None, true).await?;
    let there: BTreeMap<Uid, Proof> = link.session.proofs(&copies.into_iter().collect()).await?;
    reselect(link, open).await?;
    let stands = |(row, uid): &(Sending, Uid)| match (here.get(&row.uid), there.get(uid)) {
        (Some(original), Some(copy)) => original == copy,
        // It went meanwhile: there is nothing to remove, and nothing is.
        (None, copy) => copy.is_some(),
        (Some(_), None) => false,
    };
    let (proven, others): (Vec<_>, Vec<_>) = pairs.into_iter().partition(stands);
    if !others.is_empty() {
        tracing::warn!(account_id = %link.lease.account, messages = others.len(), "not where they should be; kept");
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        edits::disprove(&mut tx, link.lease.account, &others, to).await?;
        // Counted, so that a server of which nothing can be proven is not sent the same again for ever.
        let rows: Vec<Sending> = others.into_iter().map(|(row, _)| row).collect();
        let error = ImapError::refused("the copy is not the original");
        edits::refuse(&mut tx, &open.target, &rows, &trouble::cause_of(&error)).await?;
        tx.commit().await?;
        link.round.skip.extend(rows.iter().map(|row| row.edit));
    }
    Ok(proven.into_iter().map(|(row, _)| row).collect())
}

fn set_of(rows: &[Sending]) -> UidSet {
    rows.iter().map(|r| r.uid).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Opens the mailbox of the visit again, after a look into another.
async fn reselect(link: &mut Link<'_>, open: &mut Open) -> Result<(), SyncError> {
    let selected = link.session.select(&open.name, None, false).await?;
    let now = super::visit::describe(&selected);
    if now.epoch_differs(&open.local.checkpoint) {
        return Err(ImapError::protocol("another mailbox under the name of the one that was open").into());
    }
    open.news |= now.exists > open.server.mailbox.exists;
    open.server.note_exists(now.exists);
    Ok(())
}

/// The only function that deletes messages on a server, and only those our user deleted, or moved to where they are proven
/// to be.
async fn remove(
    link: &mut Link<'_>,
    open: &mut Open,
    by: ExpungeBy,
    rows: &[Sending],
) -> Result<(), SyncError> {
    if rows.is_empty() {
        return Ok(());
    }
    let uids = set_of(rows);
    link.session.store(&uids, StoreMode::Add, (Flags::DELETED, &Keywords::new()), None).await?;
    // What another client took away in between was not removed by us, and may stand elsewhere.
    link.session.noop().await?;
    let rows = match link.session.has_heard_of_gone() {
        true => present(link, rows.to_vec()).await?.0,
        false => rows.to_vec(),
    };
    let uids = set_of(&rows);
    let marked = by == ExpungeBy::Mark;
    if !marked && !rows.is_empty() {
        link.session.uid_expunge(&uids).await?;
        open.local.known = open.local.known.difference(&uids);
    }
    failpoint::pass(PUSHED);
    let done: Vec<(Sending, Done)> = rows.iter().map(|row| (row.clone(), Done::Removed { marked })).collect();
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    edits::record(&mut tx, &open.target, &done).await?;
    Ok(tx.commit().await?)
}

async fn refused(
    link: &mut Link<'_>,
    open: &Open,
    rows: &[Sending],
    error: &ImapError,
) -> Result<(), SyncError> {
    link.round.skip.extend(rows.iter().map(|row| row.edit));
    if matches!(error, ImapError::NoSuchMailbox(_)) && !link.round.tree_is_fresh {
        // Another client may have renamed it: it is looked for before that counts as a refusal.
        link.round.target_missing = true;
        let mut tx = link.lease.begin(&link.ctx.db).await?;
        edits::not_done(&mut tx, link.lease.account, rows).await?;
        return Ok(tx.commit().await?);
    }
    let cause = trouble::cause_of(error);
    tracing::info!(account_id = %link.lease.account, mailbox_id = %open.target.mailbox, code = cause.code, "the server refused an edit");
    let mut tx = link.lease.begin(&link.ctx.db).await?;
    edits::refuse(&mut tx, &open.target, rows, &cause).await?;
    Ok(tx.commit().await?)
}
