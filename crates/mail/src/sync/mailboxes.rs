//! The mailboxes of an account: which were created, renamed, deleted or made anew, and which to select in which
//! order.
//!
//! - `identity`: which listed mailbox is which of ours
//! - `contents`: whether two hold the same messages, by what a server tells of twenty

use std::collections::{HashMap, HashSet};

use crate::mailbox::{Role, is_inbox};
use crate::modseq::ModSeq;
use crate::uid::UidValidity;

use super::view::{Checkpoint, Depth, usable_modseq};

mod contents;
mod identity;

pub use contents::{Facts, Verdict, judge, sample};
use identity::{How, Pairs};

/// More mailboxes than this (or than a fifth) do not disappear on the word of one LIST.
const REMOVE_UNASKED: usize = 5;

/// One mailbox of the LIST response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListedMailbox {
    /// The name, byte for byte.
    pub wire_name: Vec<u8>,
    /// Hierarchy delimiter.
    pub delimiter: Option<char>,
    /// `\Noselect` or `\NonExistent` was among the attributes.
    pub noselect: bool,
    /// Subscribed.
    pub subscribed: bool,
    /// As [`crate::mailbox::assign_roles`] says.
    pub role: Option<Role>,
    /// MAILBOXID (RFC 8474).
    pub mailboxid: Option<String>,
    /// What STATUS said.
    pub status: StatusAnswer,
}

/// The answer to STATUS, which with LIST-STATUS may fail for one mailbox inside a LIST that succeeds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StatusAnswer {
    /// Nobody asked or nothing came: the mailbox is visited.
    #[default]
    None,
    /// NO: a phantom, or no right to read it. Not visited; what we hold stays.
    Refused,
    /// Its numbers.
    Numbers(StatusNumbers),
}

/// The numbers of a mailbox; each may be absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatusNumbers {
    /// MESSAGES
    pub messages: Option<u32>,
    /// UIDNEXT
    pub uidnext: Option<u32>,
    /// UIDVALIDITY
    pub uidvalidity: Option<UidValidity>,
    /// HIGHESTMODSEQ
    pub highestmodseq: Option<ModSeq>,
}

/// One mailbox as we have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalEntry {
    /// The name, byte for byte.
    pub wire_name: Vec<u8>,
    /// Hierarchy delimiter.
    pub delimiter: Option<char>,
    /// Whether it can be selected.
    pub selectable: bool,
    /// Subscribed.
    pub subscribed: bool,
    /// Its role.
    pub role: Option<Role>,
    /// MAILBOXID.
    pub mailboxid: Option<String>,
    /// How far it is synchronised.
    pub checkpoint: Checkpoint,
    /// Local edits, an older generation or an earlier failure wait here: visit it whatever its numbers.
    pub unfinished: bool,
    /// When it last received mail, in unix seconds; 0: never.
    pub active_at: i64,
}

/// A change to the rows of mailboxes. Numbers are indexes into the two slices given. Names may be swapped:
/// give all renamed rows a temporary name first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeWrite {
    /// Insert it.
    Create {
        /// Index
        listed: usize,
        /// Never synced; or, where the numbers say that there is nothing to read, all that a visit would have found.
        at: Checkpoint,
    },
    /// The row takes the listed name. It is proven to be the same mailbox: all that we hold of it stays true. With
    /// `relink` that is an inference: start a new generation too ([`Checkpoint::next_generation`] of the same UIDVALIDITY,
    /// which may have to tell once more who it is), and its messages are found again by their bytes.
    Rename {
        /// Index
        local: usize,
        /// Index
        listed: usize,
        /// See above.
        relink: bool,
    },
    /// Another mailbox of the same name: the row stays and starts a new generation, [`Checkpoint::next_generation`] of
    /// `None`.
    Recreate {
        /// Index
        local: usize,
        /// Index
        listed: usize,
    },
    /// Delimiter, selectability, subscription, role or MAILBOXID changed.
    Update {
        /// Index
        local: usize,
        /// Index
        listed: usize,
    },
    /// The server says that this name is no mailbox (any more): its placements go, the row stays, with the
    /// checkpoint of the next generation.
    Empty {
        /// Index
        local: usize,
    },
    /// The mailbox is gone, its placements with it.
    Remove {
        /// Index
        local: usize,
    },
}

/// What [`plan_tree`] decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreePlan {
    /// In this order, in one transaction.
    pub writes: Vec<TreeWrite>,
    /// What to select, in this order: indexes into `listed`.
    pub visits: Vec<usize>,
    /// Many mailboxes are missing. Nothing else was decided, since any other change may count on their names being free:
    /// list again and plan with `confirmed`.
    pub needs_second_listing: bool,
    /// Whether these hold the same messages decides who is who. Nothing else was decided: look ([`sample`], [`judge`]) and
    /// plan again with the verdicts. Each pair is asked about once, three for each of ours at most.
    pub compare: Vec<Candidate>,
    /// Mailboxes of ours that stay what they are and have another UIDVALIDITY: indexes into `local`. Of others that a visit
    /// finds so, the listing did not know.
    pub renumbered: Vec<usize>,
}

/// One of ours and a listed one that may be the same mailbox: indexes into the two slices given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Candidate {
    /// Index
    pub local: usize,
    /// Index
    pub listed: usize,
}

/// What is known beyond a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// It is the second listing in a row.
    pub confirmed: bool,
    /// What became of [`TreePlan::compare`].
    pub verdicts: HashMap<Candidate, Verdict>,
}

impl LocalEntry {
    /// Whether there is anything to take back when the server says that it is no mailbox: its numbers, or messages of an
    /// older generation whose new one was never read.
    #[must_use]
    pub fn holds_anything(&self) -> bool {
        self.checkpoint.uidvalidity.is_some() || self.active_at > 0
    }
}

impl ListedMailbox {
    /// Whether it can be selected as far as the server told.
    #[must_use]
    pub fn selectable(&self) -> bool {
        !self.noselect && self.status != StatusAnswer::Refused
    }

    /// The checkpoint of a mailbox that is empty and of which nothing is held: it need not be opened. Not where UIDVALIDITY
    /// or UIDNEXT is missing or 0, which leaves nothing to know the next message by. A mod-sequence is not needed: without
    /// one nothing is claimed about flags, and the first message brings a visit.
    fn empty_at(&self) -> Option<Checkpoint> {
        let numbers = self.numbers();
        let uidvalidity = numbers.uidvalidity.filter(|v| v.get() != 0)?;
        let uidnext = numbers.uidnext.filter(|next| *next > 0)?;
        (self.selectable() && numbers.messages == Some(0)).then(|| Checkpoint {
            uidvalidity: Some(uidvalidity),
            uidnext,
            head_uid: uidnext - 1,
            tail_uid: 1,
            modseq: usable_modseq(numbers.highestmodseq).unwrap_or_default(),
            ..Checkpoint::default()
        })
    }

    fn numbers(&self) -> StatusNumbers {
        match self.status {
            StatusAnswer::Numbers(numbers) => numbers,
            StatusAnswer::None | StatusAnswer::Refused => StatusNumbers::default(),
        }
    }
}

/// Compares a LIST (ended by a tagged OK) with our tree. `Depth::Audit` visits every mailbox.
#[must_use]
pub fn plan_tree(
    listed: &[ListedMailbox],
    local: &[LocalEntry],
    depth: Depth,
    findings: &Findings,
) -> TreePlan {
    let pairs = Pairs::find(listed, local, &findings.verdicts);
    let missing: Vec<usize> = (0..local.len()).filter(|at| !pairs.of_local.contains_key(at)).collect();
    let credible = listed.iter().any(|m| is_inbox(&m.wire_name));
    let many = missing.len() > REMOVE_UNASKED.max(local.len() / 5);
    if credible && many && !findings.confirmed {
        return TreePlan { needs_second_listing: true, ..TreePlan::default() };
    }
    if !pairs.compare.is_empty() {
        return TreePlan { compare: pairs.compare, ..TreePlan::default() };
    }
    let mut plan = TreePlan::default();
    let mut blocked = HashSet::new();
    if credible {
        plan.writes.extend(missing.iter().map(|&local| TreeWrite::Remove { local }));
    } else {
        blocked = pairs.blocked(&missing, listed, local);
    }
    for (at, mailbox) in listed.iter().enumerate() {
        let Some(&(from, how)) = pairs.of_listed.get(&at) else {
            if pairs.first.contains(&at) {
                let empty = mailbox.empty_at().filter(|_| depth != Depth::Audit);
                plan.writes.push(TreeWrite::Create { listed: at, at: empty.unwrap_or_default() });
            }
            continue;
        };
        let Some(entry) = local.get(from).filter(|_| !blocked.contains(&at)) else { continue };
        match how {
            How::SameName => {}
            How::Renamed { relink } => {
                plan.writes.push(TreeWrite::Rename { local: from, listed: at, relink })
            }
            How::Recreated => plan.writes.push(TreeWrite::Recreate { local: from, listed: at }),
        }
        if differs(mailbox, entry) {
            plan.writes.push(TreeWrite::Update { local: from, listed: at });
        }
        if mailbox.noselect && entry.holds_anything() {
            plan.writes.push(TreeWrite::Empty { local: from });
        }
        let numbers = (mailbox.numbers().uidvalidity, entry.checkpoint.uidvalidity);
        if matches!(numbers, (Some(told), Some(ours)) if told != ours) {
            plan.renumbered.push(from);
        }
    }
    plan.visits = visits(listed, local, &pairs, depth);
    plan
}

fn differs(mailbox: &ListedMailbox, entry: &LocalEntry) -> bool {
    mailbox.delimiter != entry.delimiter
        || mailbox.selectable() != entry.selectable
        || mailbox.subscribed != entry.subscribed
        || mailbox.role != entry.role
        || (mailbox.mailboxid.is_some() && mailbox.mailboxid != entry.mailboxid)
}

fn visits(listed: &[ListedMailbox], local: &[LocalEntry], pairs: &Pairs, depth: Depth) -> Vec<usize> {
    let mut due: Vec<(u8, i64, usize)> = Vec::new();
    for (at, mailbox) in listed.iter().enumerate() {
        let pair = pairs.of_listed.get(&at);
        let entry = pair.and_then(|(from, _)| local.get(*from));
        let moved =
            pair.is_none_or(|(_, how)| !matches!(how, How::SameName | How::Renamed { relink: false }));
        let unchanged = depth != Depth::Audit
            && match entry {
                Some(entry) => !moved && unchanged(&mailbox.numbers(), entry),
                None => mailbox.empty_at().is_some(),
            };
        if pairs.first.contains(&at) && mailbox.selectable() && !unchanged {
            // A mailbox we know nothing of is the more active the more it has received in its life.
            let active = entry.map(|e| e.active_at).filter(|at| *at > 0);
            let received = mailbox.numbers().uidnext.map_or(0, i64::from);
            due.push((rank(mailbox), -active.unwrap_or(received), at));
        }
    }
    due.sort_unstable();
    due.into_iter().map(|(_, _, at)| at).collect()
}

fn rank(mailbox: &ListedMailbox) -> u8 {
    match mailbox.role {
        _ if is_inbox(&mailbox.wire_name) => 0,
        Some(Role::Inbox) => 0,
        Some(Role::Sent) => 1,
        Some(Role::Drafts) => 2,
        None | Some(Role::Archive) => 3,
        // The copies are stored already by the time it is read.
        Some(Role::All) => 4,
        Some(Role::Junk) => 5,
        Some(Role::Trash) => 6,
    }
}

/// Whether the numbers prove that nothing happened. Without a mod-sequence nothing proves that no flag changed, unless
/// there is no message to have one.
fn unchanged(numbers: &StatusNumbers, entry: &LocalEntry) -> bool {
    let at = &entry.checkpoint;
    let is_empty = at.exists_seen == 0 && numbers.messages == Some(0);
    at.tail_uid == 1
        && !entry.unfinished
        && (is_empty || (!at.modseq.is_zero() && numbers.highestmodseq == Some(at.modseq)))
        && numbers.messages == Some(at.exists_seen)
        && numbers.uidnext == Some(at.uidnext)
        && numbers.uidvalidity == at.uidvalidity
        && numbers.uidvalidity.is_some()
}

/// INBOX is one mailbox in any case (RFC 9051 §5.1).
fn name_key(wire_name: &[u8]) -> Vec<u8> {
    if is_inbox(wire_name) { b"INBOX".to_vec() } else { wire_name.to_vec() }
}

#[cfg(test)]
mod tests;
