//! Flags that changed on two sides: the three-way merge, and the difference to tell the server.

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

/// What our user changed: from the value the server last confirmed to the one we show.
#[must_use]
pub fn diff(base: &FlagState, local: &FlagState) -> StoreChange {
    StoreChange {
        add: local.flags.difference(base.flags),
        remove: base.flags.difference(local.flags),
        add_keywords: local.keywords.difference(&base.keywords),
        remove_keywords: base.keywords.difference(&local.keywords),
    }
}

/// The value to show when the server says `server`: its own, with our user's unconfirmed changes on top, flag
/// by flag. The new base is `server` itself.
///
/// In SQL, for the system flags: `(server & ~(local # base)) | (local & (local # base))`.
#[must_use]
pub fn merge(base: &FlagState, local: &FlagState, server: &FlagState) -> FlagState {
    let ours = diff(base, local);
    FlagState {
        flags: server.flags.difference(ours.remove).union(ours.add),
        keywords: server.keywords.difference(&ours.remove_keywords).union(&ours.add_keywords),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state(bits: i16, keywords: &[&str]) -> FlagState {
        FlagState { flags: Flags::from_bits(bits), keywords: Keywords::from_wire(keywords) }
    }

    #[test]
    fn a_local_edit_survives_the_servers_old_value() {
        let base = state(0, &["a", "b"]);
        let local = state(1, &["a", "c"]);
        let server = state(4, &["a", "b", "d"]);
        assert_eq!(merge(&base, &local, &server), state(5, &["a", "c", "d"]));
    }

    #[test]
    fn the_difference_names_what_to_add_and_to_remove() {
        let change = diff(&state(1, &["a"]), &state(2, &["B"]));
        assert_eq!((change.add, change.remove), (Flags::ANSWERED, Flags::SEEN));
        assert_eq!(change.add_keywords.as_slice(), ["B"]);
        assert_eq!(change.remove_keywords.as_slice(), ["a"]);
        assert!(diff(&state(1, &["a"]), &state(1, &["A"])).is_empty());
    }

    fn any_state() -> impl Strategy<Value = FlagState> {
        (0i16..32, prop::collection::vec("[a-d]", 0..4)).prop_map(|(bits, keywords)| FlagState {
            flags: Flags::from_bits(bits),
            keywords: Keywords::from_wire(keywords),
        })
    }

    proptest! {
        #[test]
        fn without_local_edits_the_server_is_copied(base in any_state(), server in any_state()) {
            prop_assert_eq!(merge(&base, &base, &server), server);
        }

        #[test]
        fn without_news_from_the_server_the_edit_stands(base in any_state(), local in any_state()) {
            prop_assert_eq!(merge(&base, &local, &base), local);
        }

        #[test]
        fn what_was_pushed_and_comes_back_changes_nothing(base in any_state(), local in any_state(), server in any_state()) {
            let shown = merge(&base, &local, &server);
            prop_assert_eq!(merge(&server, &shown, &shown), shown);
        }

        #[test]
        fn the_sentence_for_sql_is_the_same_merge(base in 0i16..32, local in 0i16..32, server in 0i16..32) {
            let mask = local ^ base;
            let sql = (server & !mask) | (local & mask);
            prop_assert_eq!(merge(&state(base, &[]), &state(local, &[]), &state(server, &[])).flags.bits(), sql);
        }
    }
}
