//! What the planner looks at: the selected mailbox as the server describes it, our copy of it, and how much is
//! wanted of this visit.

use crate::capabilities::Capabilities;
use crate::flags::{Flags, Keywords};
use crate::modseq::ModSeq;
use crate::uid::{Uid, UidSet, UidValidity};

use super::Ready;

/// One selection of one mailbox.
#[derive(Debug, Clone, Default)]
pub struct ServerView {
    /// What the session can do; extensions found broken on this host are cleared by the driver.
    pub capabilities: Capabilities,
    /// The answer to SELECT.
    pub mailbox: ServerMailbox,
    /// What was read since, in this visit.
    pub seen: Seen,
}

/// The answer to SELECT. `exists` is kept current; the rest stays as it was answered, so that the checkpoint
/// never claims more than was looked at.
#[derive(Debug, Clone, Default)]
pub struct ServerMailbox {
    /// UIDVALIDITY; `None` when the server names none, which counts as a value of its own.
    pub uidvalidity: Option<UidValidity>,
    /// UIDNEXT; `None` when the server names none.
    pub uidnext: Option<u32>,
    /// Number of messages.
    pub exists: u32,
    /// HIGHESTMODSEQ; `None` for NOMODSEQ or silence.
    pub highestmodseq: Option<ModSeq>,
    /// Selected READ-ONLY.
    pub read_only: bool,
    /// PERMANENTFLAGS.
    pub permanent: PermanentFlags,
}

/// What PERMANENTFLAGS allows (RFC 9051 §7.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermanentFlags {
    /// System flags that last.
    pub flags: Flags,
    /// Keywords that last.
    pub keywords: Keywords,
    /// `\*`: any further keyword may be made.
    pub any_keyword: bool,
}

/// Without the response code everything lasts (RFC 9051 §6.3.2).
impl Default for PermanentFlags {
    fn default() -> Self {
        Self { flags: Flags::ALL, keywords: Keywords::new(), any_keyword: true }
    }
}

/// What this visit has read. Only answers that ended in a tagged OK belong here.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// All UIDs, by `UID SEARCH ALL`.
    pub listing: Option<UidSet>,
    /// All UIDs, by `UID FETCH 1:* (UID)`.
    pub second_listing: Option<UidSet>,
    /// Set once the changes were read; what VANISHED named, empty without QRESYNC.
    pub vanished: Option<UidSet>,
    /// The changes were read and there was none.
    pub silent: bool,
    /// UIDs whose flags were read one by one.
    pub flags_read: UidSet,
    /// UIDs whose contents were asked for, whether or not they came.
    pub asked: UidSet,
    /// An answer about flags lacked a message we hold, or named one we should hold and do not: whatever the numbers say,
    /// the listing decides.
    pub doubt: bool,
}

/// Our copy of the mailbox.
#[derive(Debug, Clone, Default)]
pub struct LocalView {
    /// How far the copy is vouched for.
    pub checkpoint: Checkpoint,
    /// UIDs that the server has in this generation, those included that our users' edits hide.
    pub known: UidSet,
    /// UIDs that could not be read before and are not due to be tried again. They are accounted for as if held.
    pub unreadable: UidSet,
    /// UIDs that are not kept here ([`crate::keep`]). They are accounted for as if held, and never asked for.
    pub outside: UidSet,
    /// UIDs that were being looked into when a process ended, or that the server failed to deliver: fetched one at a
    /// time, with nothing under way behind them.
    pub alone: UidSet,
    /// UIDs at which two processes ended: fetched one at a time too, and stored without being looked into.
    pub raw: UidSet,
    /// Whether placements of an older generation wait to be relinked.
    pub old_generation: bool,
    /// A user wants the whole mailbox compared, whatever its numbers say: a full visit is an audit then.
    pub read_anew: bool,
    /// What our users' edits want sent to this mailbox now, oldest edit first; one command for a message.
    pub ready: Vec<Ready>,
}

/// How far our copy of a mailbox is vouched for; the columns of its row. Default: never synced.
///
/// Every message with `tail_uid <= uid <= head_uid` is stored or was gone when it was looked for, and every
/// stored placement shows its state at `modseq` or later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Grows with each UIDVALIDITY.
    pub generation: i32,
    /// UIDVALIDITY of the UIDs we hold; 0 stands for a server that names none, `None` for never synced.
    pub uidvalidity: Option<UidValidity>,
    /// UIDNEXT when the mailbox was last settled; 0: never.
    pub uidnext: u32,
    /// No message up to this UID is new; 0: none looked at.
    pub head_uid: u32,
    /// The backfill stands here; 0: not begun, 1: complete.
    pub tail_uid: u32,
    /// See above; zero: unknown, every flag must be read.
    pub modseq: ModSeq,
    /// The server's number of messages when the mailbox was last settled.
    pub exists_seen: u32,
}

/// How much of a mailbox is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// New mail and local edits: what a waiting user or an IDLE response asks for.
    Head,
    /// Everything.
    Full,
    /// Everything, and UIDs and flags are compared even where the numbers agree.
    Audit,
}

/// The sizes of a visit.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How much is wanted.
    pub depth: Depth,
    /// Whether old mail is wanted; without it a mailbox is filled with its first page and everything else is done.
    pub backfill: bool,
    /// UIDs per FETCH of contents; 200 to 1,000 saturate Dovecot.
    pub batch: u32,
    /// UIDs of the very first batch, so that the first page of a new account appears at once.
    pub first_batch: u32,
    /// Batches handed out together, for two commands in flight; between two such the pipeline runs empty.
    pub batches_ahead: usize,
    /// UIDs per FETCH of flags.
    pub flags_batch: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            depth: Depth::Full,
            backfill: true,
            batch: 500,
            first_batch: 50,
            batches_ahead: 8,
            flags_batch: 20_000,
        }
    }
}

impl ServerView {
    /// An untagged EXISTS. When it grew, where the new UIDs end is unknown and a listing is planned; a driver
    /// that has asked for the few above the head (`UID SEARCH UID n:*`) may set `uidnext` afterwards instead.
    pub fn note_exists(&mut self, exists: u32) {
        if exists > self.mailbox.exists {
            self.mailbox.uidnext = None;
            self.seen.listing = None;
            self.seen.second_listing = None;
        }
        self.mailbox.exists = exists;
    }

    /// Untagged EXPUNGE (one each) or VANISHED without EARLIER. Which placements are gone is found by the
    /// count, in this visit or the next.
    pub const fn note_removed(&mut self, messages: u32) {
        self.mailbox.exists = self.mailbox.exists.saturating_sub(messages);
    }
}

impl LocalView {
    /// Whether UIDs and flags are compared even where the numbers agree.
    #[must_use]
    pub fn is_audited(&self, policy: &Policy) -> bool {
        match policy.depth {
            Depth::Head => false,
            Depth::Full => self.read_anew,
            Depth::Audit => true,
        }
    }

    /// UIDs that the server has and we need not ask for.
    #[must_use]
    pub fn accounted(&self) -> UidSet {
        self.known.union(&self.unreadable).union(&self.outside)
    }

    /// UIDs that may end the process or the connection.
    #[must_use]
    pub fn delicate(&self) -> UidSet {
        self.alone.union(&self.raw)
    }

    /// Takes UIDs out of the sets of those that were in the way: they are stored now, or gone.
    pub fn forget(&mut self, uids: &UidSet) {
        for set in [&mut self.unreadable, &mut self.outside, &mut self.alone, &mut self.raw] {
            *set = set.difference(uids);
        }
    }
}

impl ServerMailbox {
    /// The UIDVALIDITY to compare and store.
    #[must_use]
    pub fn epoch(&self) -> UidValidity {
        self.uidvalidity.unwrap_or(UidValidity(0))
    }

    /// Whether the UIDs mean something else than those of a copy at `at`, or nothing was copied yet.
    #[must_use]
    pub fn epoch_differs(&self, at: &Checkpoint) -> bool {
        at.uidvalidity != Some(self.epoch())
    }

    /// A mod-sequence that can be stored and compared: neither zero nor beyond the 63 bits of RFC 7162.
    #[must_use]
    pub fn usable_modseq(&self) -> Option<ModSeq> {
        usable_modseq(self.highestmodseq)
    }
}

/// As [`ServerMailbox::usable_modseq`] says.
pub(super) fn usable_modseq(highestmodseq: Option<ModSeq>) -> Option<ModSeq> {
    highestmodseq.filter(|m| (1..i64::MAX as u64).contains(&m.get()))
}

impl Checkpoint {
    /// Where a new generation begins: nothing is vouched for. Also what [`super::TreeWrite::Recreate`] and a
    /// rename with `relink` store (the one of `None`, the other of the number it has).
    #[must_use]
    pub fn next_generation(&self, uidvalidity: Option<UidValidity>) -> Self {
        Self { generation: self.generation.saturating_add(1), uidvalidity, ..Self::default() }
    }

    /// Those of `uids` that are vouched for.
    #[must_use]
    pub fn within_window(&self, uids: &UidSet) -> UidSet {
        within(uids, self.window())
    }

    /// The UIDs newer than the head.
    #[must_use]
    pub(super) fn above_head(&self) -> Option<(Uid, Uid)> {
        Some((Uid::new(self.head_uid.checked_add(1)?)?, Uid::MAX))
    }

    /// The UIDs the backfill has not reached.
    #[must_use]
    pub(super) fn below_tail(&self) -> Option<(Uid, Uid)> {
        Some((Uid::MIN, Uid::new(self.tail_uid.checked_sub(1)?)?))
    }

    /// The UIDs vouched for.
    #[must_use]
    pub(super) fn window(&self) -> Option<(Uid, Uid)> {
        let (tail, head) = (Uid::new(self.tail_uid)?, Uid::new(self.head_uid)?);
        (tail <= head).then_some((tail, head))
    }
}

/// The UIDs of `set` within `bounds`.
pub(super) fn within(set: &UidSet, bounds: Option<(Uid, Uid)>) -> UidSet {
    bounds.map_or_else(UidSet::new, |(first, last)| set.intersection(&UidSet::range(first, last)))
}
