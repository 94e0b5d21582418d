//! The order of decisions for one selected mailbox, and the vocabulary the driver is told them in.

use crate::uid::{Uid, UidSet};

use super::view::{Checkpoint, Depth, LocalView, Policy, ServerView};
use super::{Push, flags, messages, next_push, uidvalidity};

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Ask the server.
    Read(ServerRead),
    /// Commit the writes and, where there is one, the checkpoint, in one transaction.
    Record {
        /// In this order.
        writes: Vec<Write>,
        /// All columns of the checkpoint, or none.
        checkpoint: Option<Checkpoint>,
    },
    /// Tell the server what our users did.
    Send(Push),
    /// Nothing is left to do in this visit.
    Done,
}

/// A question to the server. A variant says which command, and where its result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerRead {
    /// The contents of messages. Batches are committed in their order: rows first or together, the checkpoint
    /// in the transaction of the last rows. A UID may be missing from the answer. Afterwards the UIDs of all
    /// batches go to [`Seen::asked`](super::Seen::asked), those stored to [`LocalView::known`] and out of the sets of
    /// those that were in the way ([`LocalView::forget`]), and the last checkpoint to [`LocalView::checkpoint`].
    Messages(Vec<Batch>),
    /// Every UID. The result goes to [`Seen::listing`](super::Seen::listing) or
    /// [`Seen::second_listing`](super::Seen::second_listing).
    List(ListBy),
    /// `UID FETCH 1:* (FLAGS) (CHANGEDSINCE since [VANISHED])`. Rows of known UIDs are merged into their
    /// placements as they come ([`super::merge`]); the UIDs of VANISHED, or an empty set, go to
    /// [`Seen::vanished`](super::Seen::vanished), and whether there was neither to
    /// [`Seen::silent`](super::Seen::silent).
    Changes {
        /// The stored mod-sequence.
        since: crate::modseq::ModSeq,
        /// Whether to ask for VANISHED (QRESYNC is enabled).
        vanished: bool,
    },
    /// `UID FETCH uids (FLAGS)`. Rows are merged as above; all the UIDs, answered or not, go to
    /// [`Seen::flags_read`](super::Seen::flags_read).
    Flags {
        /// All of them known.
        uids: UidSet,
    },
}

/// Messages that are fetched by one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Never empty.
    pub uids: UidSet,
    /// What holds once they are stored.
    pub then: Checkpoint,
    /// Store the bytes without looking into them.
    pub raw: bool,
}

/// How all UIDs are listed. Two ways, because a server that errs in one seldom errs alike in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListBy {
    /// `UID SEARCH ALL`, by ESEARCH where offered.
    Search,
    /// `UID FETCH 1:* (UID)`.
    Fetch,
}

/// A change to our rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// The UIDs of the placements mean nothing any more: they become the older generation, to be relinked.
    /// Afterwards `known`, `unreadable`, `alone`, `raw` and [`Seen`](super::Seen) are empty and `old_generation` is set
    /// if there are any; what edits want refers to UIDs, so it is loaded anew. One `mailbox.reset` event.
    NewGeneration,
    /// The older generation's placements that nobody claimed are gone.
    DropOldGeneration,
    /// These placements are gone from the mailbox.
    Remove(UidSet),
    /// The server no longer lists these that were in the way: what was counted about them is forgotten
    /// ([`LocalView::forget`]).
    Forget(UidSet),
    /// The server cannot keep a part of an edit of flags. Afterwards the change it wants is `keep`, and what it wants goes
    /// out of the view when that is empty.
    TakeBack {
        /// Index into [`LocalView::ready`].
        ready: usize,
        /// What is left of the change.
        keep: super::StoreChange,
    },
}

/// Decides the next step. See [`super`] for the loop around it.
#[must_use]
pub fn plan(server: &ServerView, local: &LocalView, policy: &Policy) -> Plan {
    uidvalidity::begin(server, local)
        .or_else(|| messages::new_mail(server, local, policy))
        .or_else(|| next_push(server, local))
        .or_else(|| (policy.depth == Depth::Head).then_some(Plan::Done))
        .or_else(|| flags::refresh(server, local, policy))
        .or_else(|| messages::removals(server, local, policy))
        .or_else(|| messages::forget(server, local))
        .or_else(|| messages::repair(server, local, policy))
        .or_else(|| messages::backfill(server, local, policy))
        .or_else(|| finish(server, local))
        .unwrap_or(Plan::Done)
}

/// Whether the server's numbers say that our copy is what it has: what differs all the same is a defect, ours or its. Never
/// while the copy is incomplete, or something waits to be pushed or fetched.
#[must_use]
pub fn is_settled(server: &ServerView, local: &LocalView) -> bool {
    let (mailbox, at) = (&server.mailbox, &local.checkpoint);
    at.tail_uid == 1
        && !local.old_generation
        && local.ready.is_empty()
        && local.delicate().is_empty()
        && at.uidvalidity == Some(mailbox.epoch())
        && at.uidnext != 0
        && mailbox.uidnext == Some(at.uidnext)
        && mailbox.exists == at.exists_seen
        && mailbox.usable_modseq().unwrap_or_default() == at.modseq
}

/// Everything was looked at: say so. `exists_seen` is what we account for, so that a server that counts more
/// than it shows differs from it in the next STATUS and is looked at again.
fn finish(server: &ServerView, local: &LocalView) -> Option<Plan> {
    if local.old_generation {
        return Some(Plan::Record { writes: vec![Write::DropOldGeneration], checkpoint: None });
    }
    let held = messages::held_without(local, &UidSet::new());
    let settled = Checkpoint {
        uidnext: server.mailbox.uidnext.unwrap_or(0),
        modseq: server.mailbox.usable_modseq().unwrap_or_default(),
        exists_seen: u32::try_from(held).unwrap_or(u32::MAX),
        ..local.checkpoint
    };
    (settled != local.checkpoint).then(|| advance(settled))
}

/// A checkpoint alone.
pub(super) fn advance(checkpoint: Checkpoint) -> Plan {
    Plan::Record { writes: Vec::new(), checkpoint: Some(checkpoint) }
}

/// A closed range, or nothing when it is empty.
pub(super) fn closed(first: u32, last: u32) -> Option<(Uid, Uid)> {
    let bounds = (Uid::new(first)?, Uid::new(last)?);
    (bounds.0 <= bounds.1).then_some(bounds)
}
