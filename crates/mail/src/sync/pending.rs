//! What our users' edits want of the selected mailbox, as commands: which go together, how, and which part of an edit the
//! server could not keep. What each edit wants is decided in [`super::edits`].

use crate::flags::{Flags, Keywords};
use crate::uid::{Uid, UidSet};

use super::merge::StoreChange;
use super::plan::{Plan, Write};
use super::view::{LocalView, PermanentFlags, ServerView};

/// Messages per command: small enough that a refusal or a lost connection leaves little in doubt.
const UIDS_PER_PUSH: usize = 500;

/// A command that an edit of one message wants sent to the selected mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// The message.
    pub uid: Uid,
    /// The command.
    pub kind: ReadyKind,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadyKind {
    /// Flags or keywords.
    Store(StoreChange),
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
    Remove {
        /// The message goes because it stands in this mailbox, which is proven first.
        stands_in: Option<Vec<u8>>,
    },
}

/// Commands that one step sends together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Indexes into [`LocalView::ready`], ascending: what a success confirms.
    pub ready: Vec<usize>,
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
    /// `UID MOVE` (RFC 6851) to another mailbox.
    Move {
        /// The messages.
        uids: UidSet,
        /// Its name as on the wire.
        target: Vec<u8>,
    },
    /// `UID COPY`, for a copy or as the first half of a move. Record that it is sent before: doing it twice doubles mail.
    Copy {
        /// The messages.
        uids: UidSet,
        /// Its name as on the wire.
        target: Vec<u8>,
    },
    /// For good.
    Remove {
        /// The messages.
        uids: UidSet,
        /// How.
        by: ExpungeBy,
        /// Where each of them is proven to stand before it goes.
        stands_in: Option<Vec<u8>>,
    },
}

/// How a message is deleted. There is no bare EXPUNGE here: it would take what others have marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpungeBy {
    /// `UID STORE +FLAGS.SILENT (\Deleted)`, then `UID EXPUNGE` (RFC 4315).
    UidExpunge,
    /// `UID STORE +FLAGS.SILENT (\Deleted)` and no more; the placement stays hidden on our side.
    Mark,
}

/// The next commands to send, or the next part of an edit to take back. Nothing is sent to a mailbox selected read-only.
#[must_use]
pub fn next_push(server: &ServerView, local: &LocalView) -> Option<Plan> {
    if server.mailbox.read_only {
        return None;
    }
    let first = local.ready.first()?;
    let permanent = &server.mailbox.permanent;
    if let ReadyKind::Store(change) = &first.kind {
        let keep = storable(change, permanent);
        if keep != *change {
            let writes = vec![Write::TakeBack { ready: 0, keep }];
            return Some(Plan::Record { writes, checkpoint: None });
        }
    }
    let (mut ready, mut uids) = (Vec::new(), UidSet::new());
    for (index, other) in local.ready.iter().enumerate() {
        if ready.len() < UIDS_PER_PUSH && first.kind == other.kind {
            ready.push(index);
            uids.insert(other.uid);
        }
    }
    let by = if server.capabilities.uidplus { ExpungeBy::UidExpunge } else { ExpungeBy::Mark };
    let write = match &first.kind {
        ReadyKind::Store(change) => ServerWrite::Store { uids, change: change.clone() },
        ReadyKind::Move { target } if server.capabilities.move_ => {
            ServerWrite::Move { uids, target: target.clone() }
        }
        ReadyKind::Move { target } | ReadyKind::Copy { target } => {
            ServerWrite::Copy { uids, target: target.clone() }
        }
        ReadyKind::Remove { stands_in } => ServerWrite::Remove { uids, by, stands_in: stands_in.clone() },
    };
    Some(Plan::Send(Push { ready, write }))
}

/// The change without what PERMANENTFLAGS does not let last.
fn storable(change: &StoreChange, permanent: &PermanentFlags) -> StoreChange {
    let lasting = |flags: Flags| flags.intersection(permanent.flags);
    let kept = |keywords: &Keywords| match permanent.any_keyword {
        true => keywords.clone(),
        false => Keywords::from_wire(keywords.iter().filter(|k| permanent.keywords.contains(k))),
    };
    StoreChange {
        add: lasting(change.add),
        remove: lasting(change.remove),
        add_keywords: kept(&change.add_keywords),
        remove_keywords: kept(&change.remove_keywords),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::Capabilities;

    fn uid(n: u32) -> Uid {
        Uid::new(n).unwrap()
    }

    fn store(n: u32, add: Flags, keywords: &[&str]) -> Ready {
        let change =
            StoreChange { add, add_keywords: Keywords::from_wire(keywords), ..StoreChange::default() };
        Ready { uid: uid(n), kind: ReadyKind::Store(change) }
    }

    fn server(capabilities: &str) -> ServerView {
        ServerView { capabilities: Capabilities::parse(capabilities.split(' ')), ..ServerView::default() }
    }

    fn next(server: &ServerView, ready: Vec<Ready>) -> Option<Plan> {
        next_push(server, &LocalView { ready, ..LocalView::default() })
    }

    #[test]
    fn edits_with_the_same_difference_go_in_one_store() {
        let ready =
            vec![store(5, Flags::SEEN, &[]), store(6, Flags::NONE, &["x"]), store(9, Flags::SEEN, &[])];
        let Some(Plan::Send(push)) = next(&server("IMAP4rev1"), ready) else { panic!("no push") };
        assert_eq!(push.ready, [0, 2]);
        let change = StoreChange { add: Flags::SEEN, ..StoreChange::default() };
        assert_eq!(push.write, ServerWrite::Store { uids: UidSet::parse("5,9").unwrap(), change });
    }

    #[test]
    fn a_keyword_the_server_cannot_keep_is_reverted() {
        let mut server = server("IMAP4rev1");
        server.mailbox.permanent =
            PermanentFlags { flags: Flags::SEEN, keywords: Keywords::from_wire(["ok"]), any_keyword: false };
        let wanted = store(5, Flags::SEEN | Flags::FLAGGED, &["ok", "new"]);
        let ReadyKind::Store(keep) = store(5, Flags::SEEN, &["ok"]).kind else { panic!() };
        let reverted = Plan::Record { writes: vec![Write::TakeBack { ready: 0, keep }], checkpoint: None };
        assert_eq!(next(&server, vec![wanted]), Some(reverted));
        assert!(matches!(next(&server, vec![store(5, Flags::SEEN, &["ok"])]), Some(Plan::Send(_))));
    }

    #[test]
    fn a_read_only_mailbox_is_sent_nothing() {
        let mut server = server("IMAP4rev1");
        server.mailbox.read_only = true;
        let ready = Ready { uid: uid(1), kind: ReadyKind::Remove { stands_in: None } };
        assert_eq!(next(&server, vec![ready]), None);
    }

    #[test]
    fn without_uidplus_a_move_leaves_deleted_standing() {
        let write = |capabilities: &str, kind: ReadyKind| match next(
            &server(capabilities),
            vec![Ready { uid: uid(1), kind }],
        ) {
            Some(Plan::Send(Push { write, .. })) => write,
            other => panic!("{other:?}"),
        };
        let moved = || ReadyKind::Move { target: b"Archive".to_vec() };
        let removed = || ReadyKind::Remove { stands_in: Some(b"Archive".to_vec()) };
        assert!(matches!(write("IMAP4rev1 MOVE", moved()), ServerWrite::Move { .. }));
        assert!(matches!(write("IMAP4rev1 UIDPLUS", moved()), ServerWrite::Copy { .. }));
        let by = |write| match write {
            ServerWrite::Remove { by, stands_in: Some(_), .. } => by,
            other => panic!("{other:?}"),
        };
        assert_eq!(by(write("IMAP4rev1 UIDPLUS", removed())), ExpungeBy::UidExpunge);
        assert_eq!(by(write("IMAP4rev1", removed())), ExpungeBy::Mark);
    }

    #[test]
    fn moves_are_grouped_by_their_target() {
        let moved = |n, target: &str| Ready { uid: uid(n), kind: ReadyKind::Move { target: target.into() } };
        let Some(Plan::Send(push)) = next(&server("MOVE"), vec![moved(1, "A"), moved(2, "B"), moved(3, "A")])
        else {
            panic!("no push")
        };
        assert_eq!(push.ready, [0, 2]);
    }
}
