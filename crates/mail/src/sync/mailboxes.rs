//! The mailboxes of an account: which were created, renamed, deleted or made anew, and which to select in which
//! order.

use std::collections::{HashMap, HashSet};

use crate::mailbox::{Role, is_inbox};
use crate::modseq::ModSeq;
use crate::uid::UidValidity;

use super::view::{Checkpoint, Depth, usable_modseq};

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
    /// The row takes the listed name. With `relink` that it is the same mailbox is an inference: start a new
    /// generation too ([`Checkpoint::next_generation`] of `None`), and the contents decide.
    Rename {
        /// Index
        local: usize,
        /// Index
        listed: usize,
        /// See above.
        relink: bool,
    },
    /// Another mailbox of the same name: the row stays and starts a new generation, as above.
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

/// Compares a LIST (ended by a tagged OK) with our tree. `confirmed`: it is the second listing in a row.
/// `Depth::Audit` visits every mailbox.
#[must_use]
pub fn plan_tree(listed: &[ListedMailbox], local: &[LocalEntry], depth: Depth, confirmed: bool) -> TreePlan {
    let pairs = Pairs::find(listed, local);
    let mut plan = TreePlan::default();
    let missing: Vec<usize> = (0..local.len()).filter(|at| !pairs.of_local.contains_key(at)).collect();
    let credible = listed.iter().any(|m| is_inbox(&m.wire_name));
    let many = missing.len() > REMOVE_UNASKED.max(local.len() / 5);
    if credible && many && !confirmed {
        return TreePlan { needs_second_listing: true, ..TreePlan::default() };
    }
    let mut kept: HashSet<Vec<u8>> = HashSet::new();
    if credible {
        plan.writes.extend(missing.iter().map(|&local| TreeWrite::Remove { local }));
    } else {
        kept.extend(missing.iter().filter_map(|at| Some(name_key(&local.get(*at)?.wire_name))));
    }
    for (at, mailbox) in listed.iter().enumerate() {
        let Some(&(from, how)) = pairs.of_listed.get(&at) else {
            if pairs.first.contains(&at) {
                let empty = mailbox.empty_at().filter(|_| depth != Depth::Audit);
                plan.writes.push(TreeWrite::Create { listed: at, at: empty.unwrap_or_default() });
            }
            continue;
        };
        let Some(entry) = local.get(from) else { continue };
        match how {
            How::SameName => {}
            // Two rows cannot have one name.
            How::Renamed { .. } if kept.contains(&name_key(&mailbox.wire_name)) => continue,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    SameName,
    Renamed { relink: bool },
    Recreated,
}

/// Which listed mailbox is which of ours; each of both at most once.
#[derive(Default)]
struct Pairs {
    of_listed: HashMap<usize, (usize, How)>,
    of_local: HashMap<usize, usize>,
    /// The first listed of each name: some servers name a mailbox twice.
    first: HashSet<usize>,
}

impl Pairs {
    fn find(listed: &[ListedMailbox], local: &[LocalEntry]) -> Self {
        let mut pairs = Self::default();
        let mut names: HashMap<Vec<u8>, usize> = HashMap::new();
        for (at, mailbox) in listed.iter().enumerate() {
            if let std::collections::hash_map::Entry::Vacant(free) = names.entry(name_key(&mailbox.wire_name))
            {
                free.insert(at);
                pairs.first.insert(at);
            }
        }
        pairs.by_mailboxid(listed, local);
        pairs.by_name(&names, listed, local);
        pairs.by_contents(listed, local);
        pairs
    }

    fn put(&mut self, listed: usize, local: usize, how: How) {
        if !self.of_listed.contains_key(&listed) && !self.of_local.contains_key(&local) {
            self.of_listed.insert(listed, (local, how));
            self.of_local.insert(local, listed);
        }
    }

    fn by_mailboxid(&mut self, listed: &[ListedMailbox], local: &[LocalEntry]) {
        let ids: HashMap<&str, usize> =
            local.iter().enumerate().filter_map(|(at, e)| Some((e.mailboxid.as_deref()?, at))).collect();
        for (at, mailbox) in
            listed.iter().enumerate().filter(|(at, _)| self.first.contains(at)).collect::<Vec<_>>()
        {
            let from = mailbox.mailboxid.as_deref().and_then(|id| ids.get(id)).copied();
            if let Some((from, entry)) = from.and_then(|from| Some((from, local.get(from)?))) {
                let same = name_key(&entry.wire_name) == name_key(&mailbox.wire_name);
                self.put(at, from, if same { How::SameName } else { How::Renamed { relink: false } });
            }
        }
    }

    fn by_name(&mut self, names: &HashMap<Vec<u8>, usize>, listed: &[ListedMailbox], local: &[LocalEntry]) {
        for (from, entry) in local.iter().enumerate() {
            let Some(&at) = names.get(&name_key(&entry.wire_name)) else { continue };
            let ids = (listed.get(at).and_then(|m| m.mailboxid.as_ref()), entry.mailboxid.as_ref());
            let other = matches!(ids, (Some(theirs), Some(ours)) if theirs != ours);
            self.put(at, from, if other { How::Recreated } else { How::SameName });
        }
    }

    /// A name that is gone and a new one with the same UIDVALIDITY, when they are the only such pair, or the
    /// only one of that UIDVALIDITY whose counts or whose last part of the name agree too.
    fn by_contents(&mut self, listed: &[ListedMailbox], local: &[LocalEntry]) {
        for clue in [Clue::Counts, Clue::LastPart, Clue::UidValidity] {
            let open_local =
                (0..local.len()).filter(|at| !self.of_local.contains_key(at)).collect::<Vec<_>>();
            let open_listed =
                self.first.iter().copied().filter(|at| !self.of_listed.contains_key(at)).collect::<Vec<_>>();
            let mut by_clue: HashMap<ClueKey, (Vec<usize>, Vec<usize>)> = HashMap::new();
            for at in open_local {
                if let Some(key) = local.get(at).and_then(|entry| clue.of_local(entry)) {
                    by_clue.entry(key).or_default().0.push(at);
                }
            }
            for at in open_listed {
                if let Some(key) = listed.get(at).and_then(|mailbox| clue.of_listed(mailbox)) {
                    by_clue.entry(key).or_default().1.push(at);
                }
            }
            for (ours, theirs) in by_clue.into_values() {
                if let ([from], [at]) = (ours.as_slice(), theirs.as_slice()) {
                    let pair = local.get(*from).zip(listed.get(*at));
                    let empty = pair.is_some_and(|(entry, mailbox)| is_empty_as_before(entry, mailbox));
                    // Of two that hold nothing it does not matter whether they are the same.
                    self.put(*at, *from, How::Renamed { relink: !empty });
                }
            }
        }
    }
}

/// Nothing was in it and nothing is, and what arrives gets a UID that was not given before.
fn is_empty_as_before(entry: &LocalEntry, mailbox: &ListedMailbox) -> bool {
    let (at, numbers) = (&entry.checkpoint, mailbox.numbers());
    at.tail_uid == 1
        && at.exists_seen == 0
        && numbers.messages == Some(0)
        && numbers.uidnext.is_some_and(|next| next >= at.uidnext)
}

/// INBOX is one mailbox in any case (RFC 9051 §5.1).
fn name_key(wire_name: &[u8]) -> Vec<u8> {
    if is_inbox(wire_name) { b"INBOX".to_vec() } else { wire_name.to_vec() }
}

#[derive(Debug, Clone, Copy)]
enum Clue {
    Counts,
    LastPart,
    UidValidity,
}

/// UIDVALIDITY and what the clue adds to it.
type ClueKey = (UidValidity, Option<(u32, u32)>, Option<Vec<u8>>);

impl Clue {
    fn of_local(self, entry: &LocalEntry) -> Option<ClueKey> {
        let at = &entry.checkpoint;
        // 0 stands for a server without UIDVALIDITY: it proves nothing.
        let epoch = at.uidvalidity.filter(|v| v.get() != 0)?;
        Some(match self {
            Self::Counts => (epoch, Some((at.uidnext, at.exists_seen)), None),
            Self::LastPart => (epoch, None, Some(last_part(&entry.wire_name, entry.delimiter))),
            Self::UidValidity => (epoch, None, None),
        })
    }

    fn of_listed(self, mailbox: &ListedMailbox) -> Option<ClueKey> {
        let numbers = mailbox.numbers();
        let epoch = numbers.uidvalidity.filter(|v| v.get() != 0)?;
        Some(match self {
            Self::Counts => (epoch, Some((numbers.uidnext?, numbers.messages?)), None),
            Self::LastPart => (epoch, None, Some(last_part(&mailbox.wire_name, mailbox.delimiter))),
            Self::UidValidity => (epoch, None, None),
        })
    }
}

fn last_part(wire_name: &[u8], delimiter: Option<char>) -> Vec<u8> {
    let delimiter = delimiter.and_then(|c| u8::try_from(c).ok());
    wire_name.rsplit(|b| Some(*b) == delimiter).next().unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests;
