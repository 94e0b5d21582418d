//! Modification sequences (RFC 7162 §3.1): the counter a CONDSTORE server bumps with every change.
//!
//! Only the number lives here. What to do when it runs backwards or is missing is the planner's decision.

use serde::{Deserialize, Serialize};

/// A mod-sequence value. Zero means "none known"; RFC 7162 allows 63 bits, but forged servers send 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModSeq(pub u64);

impl ModSeq {
    /// The value that stands for "no mod-sequence known".
    pub const ZERO: Self = Self(0);

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether no mod-sequence is known (a server says `HIGHESTMODSEQ 0` or `NOMODSEQ`).
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// For a signed 64-bit column: values beyond its range are held at the maximum, which a comparison treats
    /// as "newer than anything", so that a forged value costs a full round and never hides a change.
    #[must_use]
    pub const fn to_i64(self) -> i64 {
        if self.0 > i64::MAX as u64 { i64::MAX } else { self.0.cast_signed() }
    }

    /// From a signed 64-bit column; negative values, which we never write, count as none.
    #[must_use]
    pub const fn from_i64(value: i64) -> Self {
        if value < 0 { Self::ZERO } else { Self(value.cast_unsigned()) }
    }
}

impl From<u64> for ModSeq {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl std::fmt::Display for ModSeq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::ModSeq;

    #[test]
    fn a_forged_value_is_held_at_the_column_limit() {
        assert_eq!(ModSeq(u64::MAX).to_i64(), i64::MAX);
        assert_eq!(ModSeq(7).to_i64(), 7);
    }

    #[test]
    fn a_negative_column_value_counts_as_none() {
        assert!(ModSeq::from_i64(-1).is_zero());
        assert_eq!(ModSeq::from_i64(9), ModSeq(9));
    }
}
