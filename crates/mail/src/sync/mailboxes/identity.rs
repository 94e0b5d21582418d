//! Which listed mailbox is which of ours: ids stay with the mailboxes, not with their names.
//!
//! MAILBOXID decides; else name and UIDVALIDITY together, which is how nearly all are known, without a look. Where the two
//! disagree, a listed mailbox with the UIDVALIDITY of one of ours is that one if it holds the same messages
//! ([`super::contents`]). What is neither proven nor disproven stays with its name, or, where that is gone, goes with its
//! UIDVALIDITY as an inference.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use crate::mailbox::is_inbox;
use crate::uid::UidValidity;

use super::{Candidate, ListedMailbox, LocalEntry, Verdict, name_key};

/// Listed mailboxes that one of ours is compared with, at most: some servers give all their mailboxes one UIDVALIDITY.
const LOOKS: usize = 3;

/// How one of ours and a listed one are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    SameName,
    Renamed { relink: bool },
    Recreated,
}

type Verdicts = HashMap<Candidate, Verdict>;

/// Which listed mailbox is which of ours; each of both at most once.
#[derive(Default)]
pub(super) struct Pairs {
    pub of_listed: HashMap<usize, (usize, How)>,
    pub of_local: HashMap<usize, usize>,
    /// The first listed of each name: some servers name a mailbox twice.
    pub first: HashSet<usize>,
    /// What has to be looked at before anything here holds.
    pub compare: Vec<Candidate>,
}

/// The two sides.
#[derive(Clone, Copy)]
struct Sides<'a> {
    listed: &'a [ListedMailbox],
    local: &'a [LocalEntry],
    verdicts: &'a Verdicts,
}

impl Sides<'_> {
    fn pair(&self, pair: Candidate) -> Option<(&LocalEntry, &ListedMailbox)> {
        self.local.get(pair.local).zip(self.listed.get(pair.listed))
    }

    /// Whether their MAILBOXIDs say that they are two.
    fn ids_differ(&self, pair: Candidate) -> bool {
        let ids =
            self.pair(pair).map(|(entry, mailbox)| (entry.mailboxid.as_ref(), mailbox.mailboxid.as_ref()));
        matches!(ids, Some((Some(ours), Some(theirs))) if ours != theirs)
    }

    fn verdict(&self, pair: Candidate) -> Option<Verdict> {
        self.verdicts.get(&pair).copied()
    }
}

/// Mailboxes of one UIDVALIDITY that are not paired yet.
struct Group {
    local: Vec<usize>,
    listed: Vec<usize>,
    /// No other mailbox has it.
    unique: bool,
}

impl Pairs {
    pub fn find(listed: &[ListedMailbox], local: &[LocalEntry], verdicts: &Verdicts) -> Self {
        let mut pairs = Self::default();
        let mut names: HashMap<Vec<u8>, usize> = HashMap::new();
        for (at, mailbox) in listed.iter().enumerate() {
            if let Entry::Vacant(free) = names.entry(name_key(&mailbox.wire_name)) {
                free.insert(at);
                pairs.first.insert(at);
            }
        }
        let sides = Sides { listed, local, verdicts };
        pairs.by_mailboxid(sides);
        pairs.by_name(&names, sides, true);
        if pairs.of_local.len() < local.len() {
            pairs.by_contents(sides);
            pairs.by_name(&names, sides, false);
            pairs.by_clues(sides);
            pairs.parents(sides);
        }
        pairs
    }

    /// Listed mailboxes whose names cannot be taken over while `kept` of ours stand.
    pub fn blocked(&self, kept: &[usize], listed: &[ListedMailbox], local: &[LocalEntry]) -> HashSet<usize> {
        let name = |at: &usize| local.get(*at).map(|entry| name_key(&entry.wire_name));
        let mut taken: HashSet<Vec<u8>> = kept.iter().filter_map(name).collect();
        let mut blocked = HashSet::new();
        loop {
            // One that does not get its new name keeps its old one from others.
            let new = self.of_listed.iter().find_map(|(at, (from, how))| {
                let wanted = listed.get(*at).map(|mailbox| name_key(&mailbox.wire_name))?;
                let renamed = matches!(how, How::Renamed { .. }) && !blocked.contains(at);
                (renamed && taken.contains(&wanted)).then_some((*at, *from))
            });
            let Some((at, from)) = new else { return blocked };
            blocked.insert(at);
            taken.extend(name(&from));
        }
    }

    fn put(&mut self, pair: Candidate, how: How) {
        if !self.of_listed.contains_key(&pair.listed) && !self.of_local.contains_key(&pair.local) {
            self.of_listed.insert(pair.listed, (pair.local, how));
            self.of_local.insert(pair.local, pair.listed);
        }
    }

    fn open_local(&self, sides: Sides<'_>) -> Vec<usize> {
        (0..sides.local.len()).filter(|at| !self.of_local.contains_key(at)).collect()
    }

    fn open_listed(&self, sides: Sides<'_>) -> Vec<usize> {
        let free = |at: &usize| self.first.contains(at) && !self.of_listed.contains_key(at);
        (0..sides.listed.len()).filter(free).collect()
    }

    fn by_mailboxid(&mut self, sides: Sides<'_>) {
        let local = sides.local;
        let ids: HashMap<&str, usize> =
            local.iter().enumerate().filter_map(|(at, e)| Some((e.mailboxid.as_deref()?, at))).collect();
        for listed in self.open_listed(sides) {
            let Some(mailbox) = sides.listed.get(listed) else { continue };
            let from = mailbox.mailboxid.as_deref().and_then(|id| ids.get(id)).copied();
            if let Some((from, entry)) = from.and_then(|from| Some((from, local.get(from)?))) {
                let same = name_key(&entry.wire_name) == name_key(&mailbox.wire_name);
                let how = if same { How::SameName } else { How::Renamed { relink: false } };
                self.put(Candidate { local: from, listed }, how);
            }
        }
    }

    /// `agreeing`: only those whose UIDVALIDITY does not speak against it.
    fn by_name(&mut self, names: &HashMap<Vec<u8>, usize>, sides: Sides<'_>, agreeing: bool) {
        for (from, entry) in sides.local.iter().enumerate() {
            let Some(&listed) = names.get(&name_key(&entry.wire_name)) else { continue };
            let Some(mailbox) = sides.listed.get(listed) else { continue };
            let pair = Candidate { local: from, listed };
            let other = sides.ids_differ(pair);
            if !agreeing || (!other && numbers_agree(entry, mailbox)) {
                self.put(pair, if other { How::Recreated } else { How::SameName });
            }
        }
    }

    /// Those whose name and UIDVALIDITY disagree: what is proven, and what has to be looked at. Of those that hold nothing
    /// the numbers decide.
    fn by_contents(&mut self, sides: Sides<'_>) {
        for group in self.groups(sides) {
            let ranked = ranked(&group, sides);
            for (pair, _) in &ranked {
                let proven = match sides.verdict(*pair) {
                    Some(Verdict::Same) => true,
                    Some(Verdict::Alike) => group.unique,
                    _ => false,
                };
                if proven {
                    self.put(*pair, How::Renamed { relink: false });
                }
            }
            let mut looks: HashMap<usize, usize> = HashMap::new();
            for (pair, _) in ranked.iter().filter(|(pair, _)| sides.verdict(*pair).is_some()) {
                *looks.entry(pair.local).or_default() += 1;
            }
            let mut asked = HashSet::new();
            for (pair, _) in ranked {
                let Some((entry, mailbox)) = sides.pair(pair) else { continue };
                let is_open =
                    !self.of_local.contains_key(&pair.local) && !self.of_listed.contains_key(&pair.listed);
                if !is_open {
                    continue;
                }
                let verdict = sides.verdict(pair);
                if holds_nothing(entry) || verdict == Some(Verdict::Nothing) {
                    if group.unique {
                        self.put(pair, inferred(entry, mailbox));
                    }
                } else if verdict.is_none()
                    && mailbox.numbers().messages != Some(0)
                    && looks.get(&pair.local).is_none_or(|looks| *looks < LOOKS)
                    // One look at each of them at a time: what it proves may spare the others.
                    && !asked.contains(&(true, pair.local))
                    && !asked.contains(&(false, pair.listed))
                {
                    asked.extend([(true, pair.local), (false, pair.listed)]);
                    self.compare.push(pair);
                }
            }
        }
    }

    fn groups(&self, sides: Sides<'_>) -> Vec<Group> {
        let (open_local, open_listed) = (self.open_local(sides), self.open_listed(sides));
        if open_local.is_empty() || open_listed.is_empty() {
            return Vec::new();
        }
        let ours = |at: usize| sides.local.get(at).and_then(epoch_of);
        let theirs = |at: usize| sides.listed.get(at).filter(|m| m.selectable()).and_then(epoch_told);
        let mut groups: BTreeMap<u32, Group> = BTreeMap::new();
        for (at, epoch) in open_local.into_iter().filter_map(|at| Some((at, ours(at)?))) {
            let new = || Group { local: Vec::new(), listed: Vec::new(), unique: true };
            groups.entry(epoch.get()).or_insert_with(new).local.push(at);
        }
        for (at, epoch) in open_listed.into_iter().filter_map(|at| Some((at, theirs(at)?))) {
            if let Some(group) = groups.get_mut(&epoch.get()) {
                group.listed.push(at);
            }
        }
        groups.retain(|_, group| !group.listed.is_empty());
        for (epoch, count) in counts((0..sides.local.len()).filter_map(ours))
            .into_iter()
            .chain(counts(self.first.iter().copied().filter_map(theirs)))
        {
            if let Some(group) = groups.get_mut(&epoch) {
                group.unique &= count == 1;
            }
        }
        groups.into_values().collect()
    }

    /// A name that is gone and a new one with the same UIDVALIDITY, when they are the only such pair, or the
    /// only one of that UIDVALIDITY whose counts or whose last part of the name agree too.
    fn by_clues(&mut self, sides: Sides<'_>) {
        for clue in [Clue::Counts, Clue::LastPart, Clue::UidValidity] {
            let (open_local, open_listed) = (self.open_local(sides), self.open_listed(sides));
            if open_local.is_empty() || open_listed.is_empty() {
                return;
            }
            let mut by_clue: HashMap<ClueKey, (Vec<usize>, Vec<usize>)> = HashMap::new();
            for at in open_local {
                if let Some(key) = sides.local.get(at).and_then(|entry| clue.of_local(entry)) {
                    by_clue.entry(key).or_default().0.push(at);
                }
            }
            for at in open_listed {
                if let Some(key) = sides.listed.get(at).and_then(|mailbox| clue.of_listed(mailbox)) {
                    by_clue.entry(key).or_default().1.push(at);
                }
            }
            for (ours, theirs) in by_clue.into_values() {
                let ([local], [listed]) = (ours.as_slice(), theirs.as_slice()) else { continue };
                let pair = Candidate { local: *local, listed: *listed };
                let disproven = sides.ids_differ(pair) || sides.verdict(pair) == Some(Verdict::Other);
                if let Some((entry, mailbox)) = sides.pair(pair).filter(|_| !disproven) {
                    self.put(pair, inferred(entry, mailbox));
                }
            }
        }
    }

    /// A parent that cannot be selected has no numbers: it went where most of those below it went, if these kept their
    /// names below it.
    fn parents(&mut self, sides: Sides<'_>) {
        let ours: HashMap<&[u8], usize> = self
            .open_local(sides)
            .into_iter()
            .filter_map(|at| Some((sides.local.get(at).filter(|e| !e.selectable)?.wire_name.as_slice(), at)))
            .collect();
        let theirs: HashMap<&[u8], usize> = self
            .open_listed(sides)
            .into_iter()
            .filter_map(|at| {
                Some((sides.listed.get(at).filter(|m| !m.selectable())?.wire_name.as_slice(), at))
            })
            .collect();
        if ours.is_empty() || theirs.is_empty() {
            return;
        }
        let mut votes: BTreeMap<Candidate, usize> = BTreeMap::new();
        let renamed = self.of_listed.iter().filter(|(_, (_, how))| matches!(how, How::Renamed { .. }));
        for (&listed, &(local, _)) in renamed {
            let Some((entry, mailbox)) = sides.pair(Candidate { local, listed }) else { continue };
            let (mut old, mut new) = (entry.wire_name.as_slice(), mailbox.wire_name.as_slice());
            while let (Some((above, last)), Some((above_now, last_now))) =
                (split(old, entry.delimiter), split(new, mailbox.delimiter))
            {
                if last != last_now {
                    break;
                }
                if let (Some(&local), Some(&listed)) = (ours.get(above), theirs.get(above_now)) {
                    *votes.entry(Candidate { local, listed }).or_default() += 1;
                }
                (old, new) = (above, above_now);
            }
        }
        let mut votes: Vec<(Candidate, usize)> = votes.into_iter().collect();
        votes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (pair, _) in votes {
            self.put(pair, How::Renamed { relink: false });
        }
    }
}

/// Whether the UIDVALIDITY does not speak against a name. INBOX is what has that name, whatever its number: renamed, it
/// stays and loses its messages (RFC 9051 §6.3.6).
fn numbers_agree(entry: &LocalEntry, mailbox: &ListedMailbox) -> bool {
    match (epoch_of(entry), mailbox.numbers().uidvalidity) {
        _ if is_inbox(&entry.wire_name) => true,
        (Some(ours), Some(theirs)) => ours == theirs,
        // What had a number and cannot be opened may be another's parent by now.
        (Some(_), None) => mailbox.selectable(),
        (None, _) => true,
    }
}

/// A number that may tell who a mailbox is. 0 stands for a server without UIDVALIDITY: it proves nothing.
fn epoch_of(entry: &LocalEntry) -> Option<UidValidity> {
    entry.checkpoint.uidvalidity.filter(|v| v.get() != 0 && !is_inbox(&entry.wire_name))
}

fn epoch_told(mailbox: &ListedMailbox) -> Option<UidValidity> {
    mailbox.numbers().uidvalidity.filter(|v| v.get() != 0 && !is_inbox(&mailbox.wire_name))
}

fn counts(epochs: impl Iterator<Item = UidValidity>) -> HashMap<u32, usize> {
    let mut counts = HashMap::new();
    for epoch in epochs {
        *counts.entry(epoch.get()).or_default() += 1;
    }
    counts
}

/// The pairs of a group that may be the same mailbox, the likeliest first.
fn ranked(group: &Group, sides: Sides<'_>) -> Vec<(Candidate, u8)> {
    let mut ranked = Vec::with_capacity(group.local.len() * group.listed.len());
    for &local in &group.local {
        let Some(entry) = sides.local.get(local) else { continue };
        let (at, last) = (&entry.checkpoint, last_part(&entry.wire_name, entry.delimiter));
        for &listed in &group.listed {
            let pair = Candidate { local, listed };
            let Some(mailbox) = sides.listed.get(listed).filter(|_| !sides.ids_differ(pair)) else {
                continue;
            };
            let numbers = mailbox.numbers();
            let counts = (numbers.uidnext, numbers.messages) == (Some(at.uidnext), Some(at.exists_seen));
            let named = last_part(&mailbox.wire_name, mailbox.delimiter) == last;
            ranked.push((pair, u8::from(!counts) * 2 + u8::from(!named)));
        }
    }
    ranked.sort_by_key(|(_, rank)| *rank);
    ranked
}

/// Nothing of this generation is here, so there is nothing to compare.
fn holds_nothing(entry: &LocalEntry) -> bool {
    let at = &entry.checkpoint;
    at.tail_uid == 0 || (at.tail_uid == 1 && at.exists_seen == 0)
}

/// Of two that hold nothing it does not matter whether they are the same.
fn inferred(entry: &LocalEntry, mailbox: &ListedMailbox) -> How {
    How::Renamed { relink: !is_empty_as_before(entry, mailbox) }
}

/// Nothing was in it and nothing is, and what arrives gets a UID that was not given before.
fn is_empty_as_before(entry: &LocalEntry, mailbox: &ListedMailbox) -> bool {
    let (at, numbers) = (&entry.checkpoint, mailbox.numbers());
    at.tail_uid == 1
        && at.exists_seen == 0
        && numbers.messages == Some(0)
        && numbers.uidnext.is_some_and(|next| next >= at.uidnext)
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
        let epoch = epoch_of(entry)?;
        Some(match self {
            Self::Counts => (epoch, Some((at.uidnext, at.exists_seen)), None),
            Self::LastPart => (epoch, None, Some(last_part(&entry.wire_name, entry.delimiter).to_vec())),
            Self::UidValidity => (epoch, None, None),
        })
    }

    fn of_listed(self, mailbox: &ListedMailbox) -> Option<ClueKey> {
        let numbers = mailbox.numbers();
        let epoch = epoch_told(mailbox)?;
        Some(match self {
            Self::Counts => (epoch, Some((numbers.uidnext?, numbers.messages?)), None),
            Self::LastPart => (epoch, None, Some(last_part(&mailbox.wire_name, mailbox.delimiter).to_vec())),
            Self::UidValidity => (epoch, None, None),
        })
    }
}

/// What is above the last part of a name, and that part; nothing at the top.
fn split(wire_name: &[u8], delimiter: Option<char>) -> Option<(&[u8], &[u8])> {
    let delimiter = u8::try_from(delimiter?).ok()?;
    let at = wire_name.iter().rposition(|b| *b == delimiter)?;
    Some((wire_name.get(..at)?, wire_name.get(at + 1..)?))
}

fn last_part(wire_name: &[u8], delimiter: Option<char>) -> &[u8] {
    split(wire_name, delimiter).map_or(wire_name, |(_, last)| last)
}
