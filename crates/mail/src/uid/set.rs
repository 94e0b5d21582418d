//! Sets of UIDs as sorted, disjoint, non-touching ranges, and the IMAP notation for them (RFC 9051
//! `sequence-set`, without `*`: no response carries one, and in a request it means something else).

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::Uid;

/// More ranges than this in one text is an attack or a broken server: 16 MB of ranges for one mailbox.
const MAX_RANGES: usize = 1_000_000;

/// A set of UIDs, stored as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UidSet {
    /// Inclusive, ascending, with a gap of at least one between neighbours.
    ranges: Vec<(u32, u32)>,
}

/// Why a text is not a set of UIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseUidSetError {
    /// An item is not a number from 1 to 4294967295 or a range of two such numbers.
    #[error("malformed UID set")]
    Malformed,
    /// More ranges, or more single numbers where they are listed one by one, than accepted.
    #[error("UID set has too many parts")]
    TooLarge,
}

impl UidSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// All UIDs from `first` to `last`, in either order, both included.
    #[must_use]
    pub fn range(first: Uid, last: Uid) -> Self {
        let (a, b) = (first.get().min(last.get()), first.get().max(last.get()));
        Self { ranges: vec![(a, b)] }
    }

    /// Reads the IMAP notation (`1:5,9`); ranges may be reversed, overlap and repeat. An empty text is the
    /// empty set. Time and memory grow with the text, never with the size of the ranges.
    ///
    /// # Errors
    /// [`ParseUidSetError`] for anything else, `*` and zero included.
    pub fn parse(text: &str) -> Result<Self, ParseUidSetError> {
        if text.is_empty() {
            return Ok(Self::new());
        }
        let mut ranges = Vec::new();
        for item in text.split(',') {
            if ranges.len() >= MAX_RANGES {
                return Err(ParseUidSetError::TooLarge);
            }
            let (a, b) = parse_item(item)?;
            ranges.push((a.min(b), a.max(b)));
        }
        Ok(Self::from_ranges(ranges))
    }

    fn from_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match merged.last_mut() {
                Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Self { ranges: merged }
    }

    /// Number of UIDs (up to 2³²−1).
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|&(a, b)| u64::from(b - a) + 1).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether `uid` belongs to the set. Logarithmic.
    #[must_use]
    pub fn contains(&self, uid: Uid) -> bool {
        let n = uid.get();
        self.ranges.binary_search_by(|&(a, b)| position(a, b, n)).is_ok()
    }

    /// The smallest UID.
    #[must_use]
    pub fn first(&self) -> Option<Uid> {
        self.ranges.first().and_then(|r| Uid::new(r.0))
    }

    /// The largest UID.
    #[must_use]
    pub fn last(&self) -> Option<Uid> {
        self.ranges.last().and_then(|r| Uid::new(r.1))
    }

    /// The ranges, ascending, both ends included.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = (Uid, Uid)> + '_ {
        self.ranges.iter().filter_map(|&(a, b)| Some((Uid::new(a)?, Uid::new(b)?)))
    }

    /// Every UID, ascending (`.rev()` for newest first). May yield four billion: bound it with `take` unless
    /// the set was built from something bounded.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Uid> + '_ {
        self.ranges.iter().flat_map(|&(a, b)| a..=b).filter_map(Uid::new)
    }

    /// Adds a UID; says whether it was new. Constant at the end, linear in ranges elsewhere.
    pub fn insert(&mut self, uid: Uid) -> bool {
        let n = uid.get();
        let Err(at) = self.ranges.binary_search_by(|&(a, b)| position(a, b, n)) else { return false };
        let joins_next = self.ranges.get(at).is_some_and(|r| n.checked_add(1) == Some(r.0));
        let before = at.checked_sub(1).filter(|&i| self.ranges.get(i).is_some_and(|r| r.1 + 1 == n));
        match (before, joins_next) {
            (Some(i), true) => {
                let end = self.ranges.remove(at).1;
                if let Some(r) = self.ranges.get_mut(i) {
                    r.1 = end;
                }
            }
            (Some(i), false) => {
                if let Some(r) = self.ranges.get_mut(i) {
                    r.1 = n;
                }
            }
            (None, true) => {
                if let Some(r) = self.ranges.get_mut(at) {
                    r.0 = n;
                }
            }
            (None, false) => self.ranges.insert(at, (n, n)),
        }
        true
    }

    /// Adds all UIDs from `first` to `last`, both included, in either order.
    pub fn insert_range(&mut self, first: Uid, last: Uid) {
        *self = self.union(&Self::range(first, last));
    }

    /// Takes a UID out; says whether it was there.
    pub fn remove(&mut self, uid: Uid) -> bool {
        let n = uid.get();
        let Ok(at) = self.ranges.binary_search_by(|&(a, b)| position(a, b, n)) else { return false };
        let Some(&(a, b)) = self.ranges.get(at) else { return false };
        let left = (a < n).then(|| (a, n - 1));
        let right = (n < b).then(|| (n + 1, b));
        self.ranges.splice(at..=at, left.into_iter().chain(right));
        true
    }

    /// UIDs in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::from_ranges(self.ranges.iter().chain(&other.ranges).copied().collect())
    }

    /// UIDs of this set that are not in `other`. Linear in ranges.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut out = Vec::new();
        let mut cuts = other.ranges.iter().copied().peekable();
        for &(start, end) in &self.ranges {
            let mut from = start;
            let mut swallowed = false;
            while let Some(&(a, b)) = cuts.peek() {
                if b < from {
                    cuts.next();
                    continue;
                }
                if a > end {
                    break;
                }
                if a > from {
                    out.push((from, a - 1));
                }
                if b >= end {
                    swallowed = true;
                    break;
                }
                from = b + 1;
                cuts.next();
            }
            if !swallowed {
                out.push((from, end));
            }
        }
        Self { ranges: out }
    }

    /// UIDs in both sets. Linear in ranges.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut out, mut left, mut right) = (Vec::new(), self.ranges.iter(), other.ranges.iter());
        let (mut l, mut r) = (left.next(), right.next());
        while let (Some(&(a, b)), Some(&(c, d))) = (l, r) {
            if a.max(c) <= b.min(d) {
                out.push((a.max(c), b.min(d)));
            }
            if b < d {
                l = left.next();
            } else {
                r = right.next();
            }
        }
        Self { ranges: out }
    }

    /// Splits off up to `count` of the largest UIDs and returns them: how a backfill takes its next batch.
    #[must_use]
    pub fn take_newest(&mut self, count: u32) -> Self {
        let mut taken = Vec::new();
        let mut left = count;
        while left > 0 {
            let Some((a, b)) = self.ranges.pop() else { break };
            let size = b - a;
            if size < left {
                taken.push((a, b));
                left -= size + 1;
            } else {
                let from = b - (left - 1);
                taken.push((from, b));
                self.ranges.push((a, from - 1));
                left = 0;
            }
        }
        taken.reverse();
        Self { ranges: taken }
    }

    /// The IMAP notation in pieces of at most `max_bytes` each, so that a command line stays within what
    /// servers accept (8,000 is safe). Empty for the empty set.
    #[must_use]
    pub fn to_chunks(&self, max_bytes: usize) -> Vec<String> {
        let mut chunks: Vec<String> = Vec::new();
        for &(a, b) in &self.ranges {
            let mut item = a.to_string();
            if b > a {
                let _ = write!(item, ":{b}");
            }
            match chunks.last_mut() {
                Some(chunk) if chunk.len() + 1 + item.len() <= max_bytes => {
                    chunk.push(',');
                    chunk.push_str(&item);
                }
                _ => chunks.push(item),
            }
        }
        chunks
    }
}

/// Where the range `a..=b` lies as seen from `n`, for a binary search.
fn position(a: u32, b: u32, n: u32) -> Ordering {
    if b < n {
        Ordering::Less
    } else if a > n {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}

fn parse_item(item: &str) -> Result<(u32, u32), ParseUidSetError> {
    let (a, b) = item.split_once(':').unwrap_or((item, item));
    Ok((parse_number(a)?, parse_number(b)?))
}

fn parse_number(text: &str) -> Result<u32, ParseUidSetError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseUidSetError::Malformed);
    }
    text.parse::<u32>().ok().filter(|&n| n > 0).ok_or(ParseUidSetError::Malformed)
}

/// Reads a set whose order means something (both halves of COPYUID, RFC 4315 §3): the UIDs one by one, as
/// written, each range ascending.
///
/// # Errors
/// [`ParseUidSetError::TooLarge`] as soon as there would be more than `limit`; nothing is expanded beyond it.
pub fn parse_ordered(text: &str, limit: usize) -> Result<Vec<Uid>, ParseUidSetError> {
    let mut out = Vec::new();
    for item in text.split(',') {
        let (a, b) = parse_item(item)?;
        let (a, b) = (a.min(b), a.max(b));
        let size = usize::try_from(b - a).unwrap_or(usize::MAX).saturating_add(1);
        if size > limit.saturating_sub(out.len()) {
            return Err(ParseUidSetError::TooLarge);
        }
        out.extend((a..=b).filter_map(Uid::new));
    }
    Ok(out)
}

impl std::fmt::Display for UidSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, &(a, b)) in self.ranges.iter().enumerate() {
            if i > 0 {
                f.write_char(',')?;
            }
            write!(f, "{a}")?;
            if b > a {
                write!(f, ":{b}")?;
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for UidSet {
    type Err = ParseUidSetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for UidSet {
    type Error = ParseUidSetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<UidSet> for String {
    fn from(set: UidSet) -> Self {
        set.to_string()
    }
}

impl FromIterator<Uid> for UidSet {
    fn from_iter<I: IntoIterator<Item = Uid>>(uids: I) -> Self {
        Self::from_ranges(uids.into_iter().map(|u| (u.get(), u.get())).collect())
    }
}

impl Extend<Uid> for UidSet {
    fn extend<I: IntoIterator<Item = Uid>>(&mut self, uids: I) {
        *self = self.union(&uids.into_iter().collect());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{ParseUidSetError, UidSet, parse_ordered};
    use crate::uid::Uid;

    fn uid(n: u32) -> Uid {
        Uid::new(n).unwrap()
    }

    fn model(set: &UidSet) -> BTreeSet<u32> {
        set.iter().map(Uid::get).collect()
    }

    #[test]
    fn a_hostile_range_costs_nothing() {
        let set = UidSet::parse("1:4294967295,5,4294967295:1").unwrap();
        assert_eq!(set.len(), 4_294_967_295);
        assert_eq!(set.to_string(), "1:4294967295");
        assert!(set.contains(Uid::MAX));
        assert_eq!(parse_ordered("1:4294967295", 1000), Err(ParseUidSetError::TooLarge));
    }

    #[test]
    fn what_is_not_a_set_is_refused() {
        for text in ["0", "*", "1:*", "1,", ",1", "1:", ":1", "-1", "+1", "1 2", "4294967296", "1:2:3", "a"] {
            assert_eq!(UidSet::parse(text), Err(ParseUidSetError::Malformed), "{text}");
        }
        assert_eq!(UidSet::parse(""), Ok(UidSet::new()));
    }

    #[test]
    fn order_is_kept_where_it_means_something() {
        let uids: Vec<u32> = parse_ordered("7,3:5,1", 10).unwrap().into_iter().map(Uid::get).collect();
        assert_eq!(uids, [7, 3, 4, 5, 1]);
    }

    #[test]
    fn the_newest_are_taken_first() {
        let mut set = UidSet::parse("1:10,20,30:35").unwrap();
        assert_eq!(set.take_newest(8).to_string(), "10,20,30:35");
        assert_eq!(set.to_string(), "1:9");
        assert_eq!(set.take_newest(100).len(), 9);
        assert!(set.is_empty());
    }

    #[test]
    fn chunks_stay_within_their_size() {
        let set: UidSet = (1..2000).step_by(2).map(uid).collect();
        let chunks = set.to_chunks(50);
        assert!(chunks.iter().all(|c| c.len() <= 50));
        assert_eq!(UidSet::parse(&chunks.join(",")).unwrap(), set);
    }

    proptest! {
        #[test]
        fn operations_agree_with_a_plain_set(a in prop::collection::vec(1u32..60, 0..40),
                                             b in prop::collection::vec(1u32..60, 0..40), n in 1u32..60) {
            let (sa, sb): (BTreeSet<u32>, BTreeSet<u32>) = (a.iter().copied().collect(), b.iter().copied().collect());
            let mut x = UidSet::new();
            for &i in &a { x.insert(uid(i)); }
            let y: UidSet = b.iter().copied().map(uid).collect();
            prop_assert_eq!(model(&x), sa.clone());
            prop_assert_eq!(x.len(), sa.len() as u64);
            prop_assert_eq!(model(&x.union(&y)), &sa | &sb);
            prop_assert_eq!(model(&x.difference(&y)), &sa - &sb);
            prop_assert_eq!(model(&x.intersection(&y)), &sa & &sb);
            prop_assert_eq!(UidSet::parse(&x.to_string()).unwrap(), x.clone());
            let mut expected = sa;
            prop_assert_eq!(x.remove(uid(n)), expected.remove(&n));
            prop_assert_eq!(&UidSet::parse(&x.to_string()).unwrap(), &x);
            prop_assert_eq!(model(&x), expected);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC*") {
            let _ = UidSet::parse(&text);
            let _ = parse_ordered(&text, 100);
        }
    }
}
