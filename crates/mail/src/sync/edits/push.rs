//! Which commands the edits of a message want next.
//!
//! Only the first edit is looked at. Two that have no mailbox in common must wait for each other too: where a message is
//! now, only the server knows, and what follows it there may meet what comes after.

use crate::uid::Uid;

use super::super::merge::StoreChange;
use super::{Change, Edit, MailboxKey, Message, Shown, State, in_scope, is_in};

/// A command that an edit wants sent to one mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Index into [`Message::edits`].
    pub edit: usize,
    /// The mailbox to select.
    pub mailbox: MailboxKey,
    /// The message in it.
    pub uid: Uid,
    /// What it does.
    pub does: Does,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Does {
    /// STORE.
    Store(StoreChange),
    /// COPY.
    Copy {
        /// The target.
        to: MailboxKey,
    },
    /// MOVE, or COPY: then what the target has is proven before the original is removed.
    Move {
        /// The target.
        to: MailboxKey,
    },
    /// Out of the mailbox for good.
    Remove {
        /// The message goes because it stands here: that is proven first.
        stands_in: Option<MailboxKey>,
    },
}

/// How an edit that wants no command is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server has what was asked for.
    Done,
    /// There is nothing it could be done to, or the server does not take it.
    TakenBack,
}

/// What an edit wants.
enum Wish {
    Over(End),
    /// Nothing at present.
    Wait,
    Commands(Vec<(MailboxKey, Uid, Does)>),
}

impl Message {
    /// Ends every edit that is over without a command. Returns how many were done, and how many taken back.
    pub fn settle(&mut self) -> (usize, usize) {
        let mut ended = (0, 0);
        while let Some(Wish::Over(end)) = self.first() {
            match end {
                End::Done => ended.0 += 1,
                End::TakenBack => ended.1 += 1,
            }
            self.end(0, end);
        }
        ended
    }

    /// The commands wanted now; each may be sent by itself and in any order.
    #[must_use]
    pub fn commands(&self) -> Vec<Command> {
        let Some(Wish::Commands(wanted)) = self.first() else { return Vec::new() };
        wanted.into_iter().map(|(mailbox, uid, does)| Command { edit: 0, mailbox, uid, does }).collect()
    }

    /// The first edit, and its wish.
    fn first(&self) -> Option<Wish> {
        let places = self.shown_before(0);
        self.edits.first().map(|edit| self.wish(edit, &places))
    }

    fn wish(&self, edit: &Edit, places: &[Shown]) -> Wish {
        if places.is_empty() || matches!(edit.state, State::InDoubt | State::Copied | State::DoneUnseen) {
            // What is nowhere may turn up elsewhere; what was sent is looked for.
            return Wish::Wait;
        }
        match &edit.change {
            Change::Flags { change, scope } => {
                let open = in_scope(places, *scope).into_iter();
                let open: Vec<usize> = open
                    .filter(|at| places.get(*at).is_some_and(|p| !edit.done_in.contains(&p.mailbox)))
                    .collect();
                if open.is_empty() || change.is_empty() {
                    return Wish::Over(End::Done);
                }
                self.at(places, &open, || Does::Store(change.clone()))
            }
            Change::Copy { to, .. } if is_in(places, *to) => Wish::Over(End::Done),
            Change::Copy { from, to } => {
                let source: Vec<usize> = self.source(places, *from).into_iter().collect();
                self.at(places, &source, || Does::Copy { to: *to })
            }
            Change::Move { from, to } => {
                let sources = self.sources(places, *from, Some(*to));
                match (sources.is_empty(), is_in(places, *to)) {
                    (true, true) => Wish::Over(End::Done),
                    (true, false) => Wish::Over(End::TakenBack),
                    // What is expunged from a label may be deleted, by a setting of the user's. A move is only a move.
                    (false, true) if self.labels.are => self.at(places, &sources, || Does::Move { to: *to }),
                    (false, true) => self.at(places, &sources, || Does::Remove { stands_in: Some(*to) }),
                    (false, false) => {
                        let first = sources.get(..1).unwrap_or_default();
                        self.at(places, first, || Does::Move { to: *to })
                    }
                }
            }
            Change::Remove { from } => {
                let sources = self.sources(places, *from, None);
                if sources.is_empty() {
                    return Wish::Over(End::Done);
                }
                self.at(places, &sources, || Does::Remove { stands_in: None })
            }
        }
    }

    /// A command for each of these places whose UID is known.
    fn at(&self, places: &[Shown], which: &[usize], does: impl Fn() -> Does) -> Wish {
        let held = which.iter().filter_map(|at| self.server.get(places.get(*at)?.held?));
        Wish::Commands(held.filter_map(|held| Some((held.mailbox, held.uid?, does()))).collect())
    }
}
