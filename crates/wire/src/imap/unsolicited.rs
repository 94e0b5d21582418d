//! News that nobody asked for, and sets gathered from many responses, both within bounds.

use mail::uid::UidSet;

use super::flags::FetchedFlags;
use super::parse::Cursor;

/// Work that merging sets may cost one command, in range operations: about a second.
const MAX_SET_WORK: u64 = 20_000_000;

/// UIDs collected from many responses. Merging costs time in proportion to what is there already, and a
/// server may send millions of lines, so the work is bounded.
#[derive(Debug, Default)]
pub(super) struct Gone {
    pub set: UidSet,
    parts: u64,
    work: u64,
}

impl Gone {
    /// Whether something was left out.
    pub const fn is_exhausted(&self) -> bool {
        self.work > MAX_SET_WORK
    }

    /// Adds a set; false when that would be too much work, and then nothing more is added.
    pub fn absorb(&mut self, more: &UidSet) -> bool {
        let parts = more.ranges().count() as u64;
        let few = more.len() <= 64;
        self.work += if few { more.len() * (1 + self.parts / 1024) } else { self.parts + parts };
        self.parts += parts;
        if self.is_exhausted() {
            return false;
        }
        if few {
            self.set.extend(more.iter());
        } else {
            self.set = self.set.union(more);
        }
        true
    }
}

/// News that came without being asked for, since the last [`Session::take_unsolicited`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unsolicited {
    /// The number of messages in the selected mailbox, when it was announced.
    pub exists: Option<u32>,
    /// How many messages were expunged by sequence number (servers without QRESYNC).
    pub expunged: u64,
    /// UIDs that are gone (QRESYNC).
    pub vanished: UidSet,
    /// Flags that changed, in order of arrival.
    pub flags: Vec<FetchedFlags>,
    /// Something happened in another mailbox, or to the tree (NOTIFY).
    pub elsewhere: bool,
    /// Some flag change could not be kept (no UID in it, or too many): a full comparison is due.
    pub incomplete: bool,
}

impl Unsolicited {
    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// `VANISHED [(EARLIER)] set` (RFC 7162 §3.2.10): whether it is about the past, and which UIDs.
pub(super) fn read_vanished(mut cursor: Cursor) -> (bool, UidSet) {
    let first = cursor.value();
    let earlier = first.as_ref().is_some_and(|v| v.list().is_some());
    let set = if earlier { cursor.value() } else { first };
    (earlier, set.and_then(|v| v.text().and_then(|t| UidSet::parse(t).ok())).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use mail::uid::UidSet;

    use super::{Gone, MAX_SET_WORK, Unsolicited};

    fn set(text: &str) -> UidSet {
        UidSet::parse(text).unwrap()
    }

    #[test]
    fn sets_large_and_small_are_gathered() {
        let mut gone = Gone::default();
        for text in ["5", "1:4000000000", "", "4000000007,4000000009"] {
            assert!(gone.absorb(&set(text)));
        }
        assert_eq!(gone.set.to_string(), "1:4000000000,4000000007,4000000009");
    }

    #[test]
    fn gathering_stops_when_it_becomes_too_much_work() {
        let scattered: UidSet = (1..1000u32).filter_map(|n| mail::uid::Uid::new(n * 3)).collect();
        let mut gone = Gone::default();
        assert!(gone.absorb(&scattered));
        gone.work = MAX_SET_WORK - 5000;
        let taken = (0..100).filter(|_| gone.absorb(&set("1:5000"))).count();
        assert!((1..10).contains(&taken) && gone.is_exhausted());
        assert!(!gone.absorb(&set("9000")) && gone.set.len() == 5000);
    }

    #[test]
    fn nothing_is_no_news() {
        assert!(Unsolicited::default().is_empty());
    }
}
