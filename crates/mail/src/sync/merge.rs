//! Flags and keywords of a placement, and changes of them.

use crate::flags::{Flags, Keywords};

/// Flags and keywords of one placement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlagState {
    /// System flags.
    pub flags: Flags,
    /// Everything else.
    pub keywords: Keywords,
}

/// What turns one state into another, as STORE says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct StoreChange {
    /// For `+FLAGS.SILENT`.
    pub add: Flags,
    /// For `-FLAGS.SILENT`.
    pub remove: Flags,
    /// For `+FLAGS.SILENT`.
    pub add_keywords: Keywords,
    /// For `-FLAGS.SILENT`.
    pub remove_keywords: Keywords,
}

impl StoreChange {
    /// Whether there is nothing to tell.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.add.is_empty()
            && self.remove.is_empty()
            && self.add_keywords.is_empty()
            && self.remove_keywords.is_empty()
    }
}
