//! Which messages to fetch and which of ours are gone: new mail, removals, repair and backfill, in this order.

use crate::uid::{Uid, UidSet};

use super::plan::{Batch, ListBy, Plan, ServerRead, Write, advance, closed};
use super::view::{Checkpoint, Depth, LocalView, Policy, ServerView, within};

/// Removing more than this many placements, or than a fifth of them, on the word of one listing would make a
/// truncated answer a catastrophe; below it a wrong removal costs fetching a few messages again.
const REMOVE_UNASKED: u64 = 50;

/// Messages above the head, oldest first, so that the head only ever moves over what is stored.
pub(super) fn new_mail(server: &ServerView, local: &LocalView, policy: &Policy) -> Option<Plan> {
    let at = local.checkpoint;
    // Lower than what we hold is as good as none: the listing decides.
    let uidnext = server.mailbox.uidnext.filter(|next| *next > at.head_uid);
    let told = uidnext.map_or(at.head_uid, |next| next - 1);
    let (wanted, head) = match listed(server) {
        Some(listing) => {
            let last = listing.last().map_or(0, Uid::get);
            (within(&listing, at.above_head()), told.max(last))
        }
        None if uidnext.is_some() && told - at.head_uid <= policy.batch => {
            (closed(at.head_uid + 1, told).map_or_else(UidSet::new, |(a, b)| UidSet::range(a, b)), told)
        }
        None => return Some(Plan::Read(ServerRead::List(ListBy::Search))),
    };
    if head == at.head_uid {
        return None;
    }
    if short(server) && server.seen.second_listing.is_none() {
        // The head must not move over mail that a truncated listing left out.
        return Some(Plan::Read(ServerRead::List(ListBy::Fetch)));
    }
    let wanted = not_yet_read(&wanted, server, local);
    let mut batches = Vec::new();
    let mut rest = wanted.iter().peekable();
    while rest.peek().is_some() && batches.len() < policy.batches_ahead.max(1) {
        let uids: UidSet = rest.by_ref().take(size(policy.batch)).collect();
        let reached = if rest.peek().is_none() { head } else { uids.last().map_or(at.head_uid, Uid::get) };
        batches.push(Batch {
            uids,
            then: Checkpoint { head_uid: reached, ..at },
            relink: local.old_generation,
        });
    }
    if batches.is_empty() {
        return Some(advance(Checkpoint { head_uid: head, ..at }));
    }
    Some(Plan::Read(ServerRead::Messages(batches)))
}

/// Placements the server has no more.
pub(super) fn removals(server: &ServerView, local: &LocalView, policy: &Policy) -> Option<Plan> {
    let seen = &server.seen;
    let vanished = seen.vanished.clone().unwrap_or_default();
    let Some(listing) = &seen.listing else {
        let gone = local.known.intersection(&vanished);
        if policy.depth == Depth::Audit
            || needs_proof(&gone, local)
            || (local.checkpoint.tail_uid == 1
                && held_without(local, &gone) != u64::from(server.mailbox.exists))
        {
            return Some(Plan::Read(ServerRead::List(ListBy::Search)));
        }
        return remove(gone);
    };
    let missing = local.known.difference(listing);
    let Some(second) = &seen.second_listing else {
        let unproven = missing.difference(&vanished);
        let matters = !unproven.is_empty() || local.checkpoint.tail_uid == 1;
        if (short(server) && matters) || needs_proof(&unproven, local) {
            return Some(Plan::Read(ServerRead::List(ListBy::Fetch)));
        }
        return remove(missing);
    };
    let missing = missing.difference(second);
    if needs_proof(&missing, local) && contradicted(server) {
        return None;
    }
    remove(missing)
}

/// Both listings lack many messages that EXISTS counts. A few are no contradiction: there are servers that
/// count what they do not list.
fn contradicted(server: &ServerView) -> bool {
    let (Some(first), Some(second)) = (&server.seen.listing, &server.seen.second_listing) else {
        return false;
    };
    let exists = u64::from(server.mailbox.exists);
    exists.saturating_sub(first.union(second).len()) > REMOVE_UNASKED.max(exists / 5)
}

fn needs_proof(gone: &UidSet, local: &LocalView) -> bool {
    gone.len() > REMOVE_UNASKED.max(local.known.len() / 5)
}

fn remove(gone: UidSet) -> Option<Plan> {
    (!gone.is_empty()).then(|| Plan::Record { writes: vec![Write::Remove(gone)], checkpoint: None })
}

/// How many messages of the server's we account for once `gone` is removed.
pub(super) fn held_without(local: &LocalView, gone: &UidSet) -> u64 {
    local.known.difference(gone).union(&local.unreadable).len()
}

/// Messages inside what we vouch for that we do not hold: lost by an error, ours or the server's.
pub(super) fn repair(server: &ServerView, local: &LocalView, policy: &Policy) -> Option<Plan> {
    let listing = listed(server)?;
    let mut absent = not_yet_read(&within(&listing, local.checkpoint.window()), server, local);
    let uids = absent.take_newest(policy.batch.max(1));
    let batch = Batch { uids, then: local.checkpoint, relink: local.old_generation };
    (!batch.uids.is_empty()).then(|| Plan::Read(ServerRead::Messages(vec![batch])))
}

/// Messages below the tail, newest first.
pub(super) fn backfill(server: &ServerView, local: &LocalView, policy: &Policy) -> Option<Plan> {
    let at = local.checkpoint;
    if at.tail_uid <= 1 {
        return None;
    }
    let Some(listing) = listed(server) else {
        return Some(Plan::Read(ServerRead::List(ListBy::Search)));
    };
    let mut rest = not_yet_read(&within(&listing, at.below_tail()), server, local);
    let untouched = at.tail_uid > at.head_uid;
    let mut batches: Vec<Batch> = Vec::new();
    while !rest.is_empty() && batches.len() < policy.batches_ahead.max(1) {
        let first = untouched && batches.is_empty();
        let uids = rest.take_newest(if first { policy.first_batch.max(1) } else { policy.batch.max(1) });
        let tail_uid = if rest.is_empty() { 1 } else { uids.first().map_or(1, Uid::get) };
        batches.push(Batch { uids, then: Checkpoint { tail_uid, ..at }, relink: local.old_generation });
    }
    if batches.is_empty() {
        return Some(advance(Checkpoint { tail_uid: 1, ..at }));
    }
    Some(Plan::Read(ServerRead::Messages(batches)))
}

/// What any listing of this visit named.
fn listed(server: &ServerView) -> Option<UidSet> {
    let (first, second) = (server.seen.listing.as_ref()?, server.seen.second_listing.as_ref());
    Some(second.map_or_else(|| first.clone(), |second| first.union(second)))
}

/// A listing shorter than EXISTS may lack what is there, for removals and for additions alike.
fn short(server: &ServerView) -> bool {
    server.seen.listing.as_ref().is_some_and(|listing| listing.len() < u64::from(server.mailbox.exists))
}

fn not_yet_read(uids: &UidSet, server: &ServerView, local: &LocalView) -> UidSet {
    uids.difference(&local.known).difference(&local.unreadable).difference(&server.seen.asked)
}

fn size(batch: u32) -> usize {
    usize::try_from(batch.max(1)).unwrap_or(usize::MAX)
}
