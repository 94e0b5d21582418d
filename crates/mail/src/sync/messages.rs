//! Which messages to fetch and which of ours are gone: new mail, removals, repair and backfill, in this order.

use crate::uid::{Uid, UidSet};

use super::plan::{Batch, ListBy, Plan, ServerRead, Write, advance, closed};
use super::view::{Checkpoint, LocalView, Policy, ServerView, within};

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
    let portions = Portions { local, policy, from: End::Oldest, first: policy.batch };
    let batches = portions.of(not_yet_read(&wanted, server, local), |uids, rest| {
        let reached = if rest.is_empty() { head } else { uids.last().map_or(at.head_uid, Uid::get) };
        Checkpoint { head_uid: reached, ..at }
    });
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
        if local.is_audited(policy)
            || seen.doubt
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
    local.known.difference(gone).union(&local.unreadable).union(&local.outside).len()
}

/// Messages that were in the way, or are not kept, and that the server no longer has. A listing that lacks others may lack these too.
pub(super) fn forget(server: &ServerView, local: &LocalView) -> Option<Plan> {
    let listing = listed(server).filter(|all| all.len() >= u64::from(server.mailbox.exists))?;
    let gone = local.delicate().union(&local.unreadable).union(&local.outside).difference(&listing);
    (!gone.is_empty()).then(|| Plan::Record { writes: vec![Write::Forget(gone)], checkpoint: None })
}

/// Messages inside what we vouch for that we do not hold: lost by an error, ours or the server's, or left out before and
/// due to be tried again.
pub(super) fn repair(server: &ServerView, local: &LocalView, policy: &Policy) -> Option<Plan> {
    let window = local.checkpoint.window();
    let Some(listing) = listed(server) else {
        let due = not_yet_read(&within(&local.delicate(), window), server, local);
        return (!due.is_empty()).then_some(Plan::Read(ServerRead::List(ListBy::Search)));
    };
    let absent = not_yet_read(&within(&listing, window), server, local);
    let portions = Portions { local, policy, from: End::Newest, first: policy.batch };
    let mut batches = portions.of(absent, |_, _| local.checkpoint);
    batches.truncate(1);
    (!batches.is_empty()).then_some(Plan::Read(ServerRead::Messages(batches)))
}

/// Messages below the tail, newest first.
pub(super) fn backfill(server: &ServerView, local: &LocalView, policy: &Policy) -> Option<Plan> {
    let at = local.checkpoint;
    if at.tail_uid <= 1 {
        return None;
    }
    let begun = at.tail_uid <= at.head_uid;
    if begun && !policy.backfill {
        // Not settled either: what the checkpoint would claim then is not here.
        return Some(Plan::Done);
    }
    let Some(listing) = listed(server) else {
        return Some(Plan::Read(ServerRead::List(ListBy::Search)));
    };
    let first = if begun { policy.batch } else { policy.first_batch };
    let portions = Portions { local, policy, from: End::Newest, first };
    let mut batches =
        portions.of(not_yet_read(&within(&listing, at.below_tail()), server, local), |uids, rest| {
            let tail_uid = if rest.is_empty() { 1 } else { uids.first().map_or(1, Uid::get) };
            Checkpoint { tail_uid, ..at }
        });
    if !policy.backfill {
        batches.truncate(1);
    }
    if batches.is_empty() {
        return Some(advance(Checkpoint { tail_uid: 1, ..at }));
    }
    Some(Plan::Read(ServerRead::Messages(batches)))
}

/// Where a batch is taken from what is wanted.
#[derive(Clone, Copy)]
enum End {
    Oldest,
    Newest,
}

/// How what is wanted is divided into batches.
struct Portions<'a> {
    local: &'a LocalView,
    policy: &'a Policy,
    from: End,
    /// UIDs of the first batch.
    first: u32,
}

impl Portions<'_> {
    /// The next batches of `rest`; `then` is told the UIDs of one and those left. A delicate UID is the only one of its
    /// batch and its batch the only one: if the process ends there, nothing else is suspected.
    fn of(&self, mut rest: UidSet, then: impl Fn(&UidSet, &UidSet) -> Checkpoint) -> Vec<Batch> {
        let delicate = rest.intersection(&self.local.delicate());
        let mut batches: Vec<Batch> = Vec::new();
        while batches.len() < self.policy.batches_ahead.max(1) {
            let count = if batches.is_empty() { self.first } else { self.policy.batch };
            let Some(next) = self.end_of(&rest) else { break };
            let single = delicate.contains(next);
            if single && !batches.is_empty() {
                break;
            }
            let uids =
                if single { UidSet::range(next, next) } else { self.take(&rest, &delicate, count.max(1)) };
            rest = rest.difference(&uids);
            batches.push(Batch { then: then(&uids, &rest), uids, raw: self.local.raw.contains(next) });
            if single {
                break;
            }
        }
        batches
    }

    fn end_of(&self, set: &UidSet) -> Option<Uid> {
        match self.from {
            End::Oldest => set.first(),
            End::Newest => set.last(),
        }
    }

    /// Up to `count` from the end, as far as the next delicate one.
    fn take(&self, rest: &UidSet, delicate: &UidSet, count: u32) -> UidSet {
        let bounds = self.end_of(delicate).and_then(|stop| match self.from {
            End::Oldest => Some((Uid::MIN, stop.prev()?)),
            End::Newest => Some((stop.next()?, Uid::MAX)),
        });
        let mut calm = if bounds.is_some() { within(rest, bounds) } else { rest.clone() };
        match self.from {
            End::Oldest => calm.iter().take(size(count)).collect(),
            End::Newest => calm.take_newest(count),
        }
    }
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
    uids.difference(&local.accounted()).difference(&server.seen.asked)
}

fn size(batch: u32) -> usize {
    usize::try_from(batch).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
