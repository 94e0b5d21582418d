//! Message numbers that stay: UID, UIDVALIDITY (RFC 9051 §2.3.1.1) and sets of UIDs.
//!
//! A [`UidSet`] is kept as ranges. A server may name four billion UIDs in ten bytes (`1:4294967295`), so
//! nothing here ever expands a range, and whoever iterates decides how far.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

pub use self::set::{ParseUidSetError, UidSet, parse_ordered};

mod set;

/// A UID: never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(NonZeroU32);

impl Uid {
    /// The smallest UID.
    pub const MIN: Self = Self(NonZeroU32::MIN);
    /// The largest UID the protocol can write.
    pub const MAX: Self = Self(NonZeroU32::MAX);

    /// `None` for zero.
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        match NonZeroU32::new(value) {
            Some(v) => Some(Self(v)),
            None => None,
        }
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The UID after this one; `None` at the end of the number space.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        match self.0.checked_add(1) {
            Some(v) => Some(Self(v)),
            None => None,
        }
    }

    /// The UID before this one; `None` before 1.
    #[must_use]
    pub const fn prev(self) -> Option<Self> {
        Self::new(self.get() - 1)
    }
}

impl std::fmt::Display for Uid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Uid> for u32 {
    fn from(uid: Uid) -> Self {
        uid.get()
    }
}

impl From<Uid> for i64 {
    fn from(uid: Uid) -> Self {
        Self::from(uid.get())
    }
}

/// The number was zero, negative or above 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UID: {0}")]
pub struct NotAUid(pub i64);

impl TryFrom<u32> for Uid {
    type Error = NotAUid;

    fn try_from(value: u32) -> Result<Self, NotAUid> {
        Self::new(value).ok_or(NotAUid(i64::from(value)))
    }
}

impl TryFrom<i64> for Uid {
    type Error = NotAUid;

    fn try_from(value: i64) -> Result<Self, NotAUid> {
        u32::try_from(value).ok().and_then(Self::new).ok_or(NotAUid(value))
    }
}

/// The generation number of a mailbox's UIDs. Only equality means anything: some servers lower it.
/// Zero is kept as sent (a broken server), because comparing it still works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UidValidity(pub u32);

impl UidValidity {
    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl From<UidValidity> for i64 {
    fn from(value: UidValidity) -> Self {
        Self::from(value.0)
    }
}

impl TryFrom<i64> for UidValidity {
    type Error = std::num::TryFromIntError;

    fn try_from(value: i64) -> Result<Self, Self::Error> {
        u32::try_from(value).map(Self)
    }
}

impl std::fmt::Display for UidValidity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Uid;

    #[test]
    fn zero_is_no_uid() {
        assert!(Uid::new(0).is_none());
        assert!(Uid::try_from(0i64).is_err());
        assert!(Uid::try_from(-1i64).is_err());
        assert!(Uid::try_from(4_294_967_296i64).is_err());
        assert_eq!(Uid::try_from(4_294_967_295i64), Ok(Uid::MAX));
    }

    #[test]
    fn neighbours_end_at_the_edges_of_the_number_space() {
        assert_eq!(Uid::MIN.prev(), None);
        assert_eq!(Uid::MAX.next(), None);
        assert_eq!(Uid::MIN.next().and_then(Uid::prev), Some(Uid::MIN));
    }
}
