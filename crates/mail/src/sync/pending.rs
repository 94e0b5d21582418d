//! What our users changed here, as commands: which edits go together, by which command, and which part of an
//! edit the server could not keep.

use crate::flags::{Flags, Keywords};
use crate::uid::{Uid, UidSet};

use super::merge::{FlagState, StoreChange, diff};
use super::plan::{Plan, Write};
use super::view::{LocalView, PermanentFlags, ServerView};

/// Messages per command: small enough that a refusal or a lost connection leaves little in doubt.
const UIDS_PER_PUSH: usize = 500;

/// One unconfirmed change of one placement in the selected mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The placement.
    pub uid: Uid,
    /// The change.
    pub kind: EditKind,
}

/// What an edit does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EditKind {
    /// Flags or keywords.
    Flags {
        /// What the server last confirmed.
        base: FlagState,
        /// What we show.
        local: FlagState,
    },
    /// To another mailbox.
    Move {
        /// Its name as on the wire.
        target: Vec<u8>,
    },
    /// Also into another mailbox.
    Copy {
        /// Its name as on the wire.
        target: Vec<u8>,
    },
    /// Out of the mailbox, for good.
    Expunge,
}

/// Edits that one step tells the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Indexes into [`LocalView::edits`], ascending: what a success confirms.
    pub edits: Vec<usize>,
    /// The step.
    pub write: ServerWrite,
}

/// A change on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerWrite {
    /// `UID STORE +FLAGS.SILENT` and `-FLAGS.SILENT`, each where there is something in it. Only differences are
    /// sent, never whole states, so a flag somebody else sets meanwhile stays.
    Store {
        /// The messages.
        uids: UidSet,
        /// What to add and to remove.
        change: StoreChange,
    },
    /// To another mailbox.
    Move {
        /// The messages.
        uids: UidSet,
        /// Its name as on the wire.
        target: Vec<u8>,
        /// How.
        by: TransferBy,
    },
    /// `UID COPY`.
    Copy {
        /// The messages.
        uids: UidSet,
        /// Its name as on the wire.
        target: Vec<u8>,
    },
    /// For good.
    Expunge {
        /// The messages.
        uids: UidSet,
        /// How.
        by: ExpungeBy,
    },
}

/// How a message is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferBy {
    /// `UID MOVE` (RFC 6851).
    Move,
    /// `UID COPY`, then as the expunge says. Record the copy before the rest: doing it twice doubles mail.
    Copy(ExpungeBy),
}

/// How a message is deleted. There is no bare EXPUNGE here: it would take what others have marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpungeBy {
    /// `UID STORE +FLAGS.SILENT (\Deleted)`, then `UID EXPUNGE` (RFC 4315).
    UidExpunge,
    /// `UID STORE +FLAGS.SILENT (\Deleted)` and no more; the placement stays hidden on our side.
    Mark,
}

/// The next edits to push, or to take back. Nothing is sent to a mailbox selected read-only.
#[must_use]
pub fn next_push(server: &ServerView, local: &LocalView) -> Option<Plan> {
    if server.mailbox.read_only {
        return None;
    }
    let first = local.edits.first()?;
    let permanent = &server.mailbox.permanent;
    if let EditKind::Flags { base, local: wanted } = &first.kind {
        let keep = storable(base, wanted, permanent);
        if keep != *wanted {
            let writes = vec![Write::Revert { edit: 0, keep }];
            return Some(Plan::Record { writes, checkpoint: None });
        }
    }
    let mut edits = Vec::new();
    let (mut uids, mut waiting) = (UidSet::new(), UidSet::new());
    for (index, edit) in local.edits.iter().enumerate() {
        // What is asked of one message is done in that order: one that is copied and then deleted is to be somewhere.
        if edits.len() < UIDS_PER_PUSH && goes_with(first, edit, permanent) && !waiting.contains(edit.uid) {
            edits.push(index);
            uids.insert(edit.uid);
        } else {
            waiting.insert(edit.uid);
        }
    }
    let delete = if server.capabilities.uidplus { ExpungeBy::UidExpunge } else { ExpungeBy::Mark };
    let write = match &first.kind {
        EditKind::Flags { base, local } => ServerWrite::Store { uids, change: diff(base, local) },
        EditKind::Move { target } => {
            let by = if server.capabilities.move_ { TransferBy::Move } else { TransferBy::Copy(delete) };
            ServerWrite::Move { uids, target: target.clone(), by }
        }
        EditKind::Copy { target } => ServerWrite::Copy { uids, target: target.clone() },
        EditKind::Expunge => ServerWrite::Expunge { uids, by: delete },
    };
    Some(Plan::Send(Push { edits, write }))
}

fn goes_with(first: &Edit, other: &Edit, permanent: &PermanentFlags) -> bool {
    match (&first.kind, &other.kind) {
        (EditKind::Flags { base, local }, EditKind::Flags { base: other_base, local: other_local }) => {
            diff(base, local) == diff(other_base, other_local)
                && storable(other_base, other_local, permanent) == *other_local
        }
        (one, another) => one == another,
    }
}

/// The wanted state without what PERMANENTFLAGS does not let last.
fn storable(base: &FlagState, wanted: &FlagState, permanent: &PermanentFlags) -> FlagState {
    let change = diff(base, wanted);
    let fixed = |flags: Flags| flags.difference(permanent.flags);
    let refused: Keywords = if permanent.any_keyword {
        Keywords::new()
    } else {
        change.add_keywords.union(&change.remove_keywords).difference(&permanent.keywords)
    };
    if fixed(change.add).is_empty() && fixed(change.remove).is_empty() && refused.is_empty() {
        return wanted.clone();
    }
    let put_back = Keywords::from_wire(change.remove_keywords.iter().filter(|k| refused.contains(k)));
    FlagState {
        flags: wanted.flags.difference(fixed(change.add)).union(fixed(change.remove)),
        keywords: wanted.keywords.difference(&refused).union(&put_back),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::Capabilities;

    fn uid(n: u32) -> Uid {
        Uid::new(n).unwrap()
    }

    fn state(bits: i16, keywords: &[&str]) -> FlagState {
        FlagState { flags: Flags::from_bits(bits), keywords: Keywords::from_wire(keywords) }
    }

    fn flag_edit(n: u32, base: FlagState, local: FlagState) -> Edit {
        Edit { uid: uid(n), kind: EditKind::Flags { base, local } }
    }

    fn server(capabilities: &str) -> ServerView {
        ServerView { capabilities: Capabilities::parse(capabilities.split(' ')), ..ServerView::default() }
    }

    fn next(server: &ServerView, edits: Vec<Edit>) -> Option<Plan> {
        next_push(server, &LocalView { edits, ..LocalView::default() })
    }

    #[test]
    fn what_is_asked_of_one_message_is_done_in_that_order() {
        let work = || b"Work".to_vec();
        let edits = vec![
            Edit { uid: uid(5), kind: EditKind::Expunge },
            Edit { uid: uid(3), kind: EditKind::Copy { target: work() } },
            Edit { uid: uid(3), kind: EditKind::Expunge },
            Edit { uid: uid(7), kind: EditKind::Expunge },
        ];
        let Some(Plan::Send(push)) = next(&server("UIDPLUS"), edits) else { panic!() };
        assert_eq!(push.edits, [0, 3]);
        assert!(matches!(push.write, ServerWrite::Expunge { uids, .. } if !uids.contains(uid(3))));
    }

    #[test]
    fn edits_with_the_same_difference_go_in_one_store() {
        let edits = vec![
            flag_edit(5, state(0, &[]), state(1, &[])),
            flag_edit(6, state(4, &[]), state(4, &["x"])),
            flag_edit(9, state(2, &["k"]), state(3, &["k"])),
        ];
        let Some(Plan::Send(push)) = next(&server("IMAP4rev1"), edits) else { panic!("no push") };
        assert_eq!(push.edits, [0, 2]);
        let change = StoreChange { add: Flags::SEEN, ..StoreChange::default() };
        assert_eq!(push.write, ServerWrite::Store { uids: UidSet::parse("5,9").unwrap(), change });
    }

    #[test]
    fn a_keyword_the_server_cannot_keep_is_reverted() {
        let mut server = server("IMAP4rev1");
        server.mailbox.permanent =
            PermanentFlags { flags: Flags::SEEN, keywords: Keywords::from_wire(["ok"]), any_keyword: false };
        let edit = flag_edit(5, state(16, &["old"]), state(1 | 4, &["ok", "new"]));
        let keep = state(1 | 16, &["ok", "old"]);
        let reverted =
            Plan::Record { writes: vec![Write::Revert { edit: 0, keep: keep.clone() }], checkpoint: None };
        assert_eq!(next(&server, vec![edit]), Some(reverted));
        assert!(matches!(next(&server, vec![flag_edit(5, state(16, &["old"]), keep)]), Some(Plan::Send(_))));
    }

    #[test]
    fn a_read_only_mailbox_is_sent_nothing() {
        let mut server = server("IMAP4rev1");
        server.mailbox.read_only = true;
        assert_eq!(next(&server, vec![Edit { uid: uid(1), kind: EditKind::Expunge }]), None);
    }

    #[test]
    fn without_uidplus_a_move_leaves_deleted_standing() {
        let by = |capabilities: &str| {
            let edit = Edit { uid: uid(1), kind: EditKind::Move { target: b"Archive".to_vec() } };
            match next(&server(capabilities), vec![edit]) {
                Some(Plan::Send(Push { write: ServerWrite::Move { by, .. }, .. })) => by,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(by("IMAP4rev1 MOVE UIDPLUS"), TransferBy::Move);
        assert_eq!(by("IMAP4rev1 UIDPLUS"), TransferBy::Copy(ExpungeBy::UidExpunge));
        assert_eq!(by("IMAP4rev1"), TransferBy::Copy(ExpungeBy::Mark));
    }

    #[test]
    fn moves_are_grouped_by_their_target() {
        let edit = |n, target: &str| Edit { uid: uid(n), kind: EditKind::Move { target: target.into() } };
        let Some(Plan::Send(push)) = next(&server("MOVE"), vec![edit(1, "A"), edit(2, "B"), edit(3, "A")])
        else {
            panic!("no push")
        };
        assert_eq!(push.edits, [0, 2]);
    }
}
