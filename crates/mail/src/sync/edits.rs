//! Our users' edits of one message: a list in the order they were asked for, laid over what the server has.
//!
//! - here: what an edit is, and [`Message::visible`], the fold: what clients are shown
//! - `push`: which command an edit wants next, and which edits are over
//! - `outcome`: what the answer to a command, or reading the server, makes of the list
//!
//! Three kinds of facts, one writer each. Reading the server and its answers to our commands write [`Held`]. Our users
//! write [`Edit`]s. What is visible is computed, never written by anybody.
//!
//! # Rules
//!
//! | rule | test |
//! | --- | --- |
//! | edits take effect in the order they were asked for | `a_star_a_move_and_no_star_end_without_a_star`, `edits_wait_for_each_other_whatever_their_mailboxes` |
//! | neighbours that change flags in one scope are one edit, unless a command for the first is under way | `neighbours_of_one_scope_are_one_edit_until_the_first_is_sent` |
//! | flags of one mailbox stay in it; flags follow a message that left it | `a_flag_of_one_mailbox_does_not_reach_a_copy`, `flags_follow_a_message_that_another_client_moved` |
//! | a move from all mailboxes ends in its target alone | `a_move_from_everywhere_ends_in_its_target_alone` |
//! | a move out of a mailbox the message left has nothing to move | `a_move_out_of_a_mailbox_the_message_has_left_is_taken_back` |
//! | All Mail is left alone while there is another place | `all_mail_is_left_alone_while_there_is_another_place` |
//! | a message that the server has nowhere is shown nowhere, and its edits sleep | `edits_of_a_message_that_is_nowhere_sleep_and_wake` |
//! | unless a transfer in doubt explains it | `a_transfer_in_doubt_shows_its_message_where_it_puts_it` |
//! | a copy comes before the removal that rests on it | `a_removal_waits_for_the_copy_before_it` |
//! | a transfer that is taken back takes back the removals that rested on it | `a_removal_is_taken_back_with_the_copy_it_rested_on`, `only_the_removal_that_leaves_nothing_is_taken_back_with_what_it_rested_on` |
//! | a transfer in doubt is decided by looking | `what_is_in_doubt_is_decided_by_looking` |
//! | a copy whose UID nobody told is not made again | `a_copy_that_was_made_unseen_is_never_made_again` |
//! | a transfer whose UID nobody told was done only if it is seen | `a_transfer_whose_uid_nobody_told_is_over_only_where_it_is_seen` |
//! | of a move out of several mailboxes, the rest waits until it is seen where the first stands | `the_rest_of_a_move_waits_until_it_is_seen_where_the_first_stands` |
//! | flags were stored in a placement, not in its mailbox | `what_comes_into_a_mailbox_anew_has_none_of_the_flags_stored_there` |
//! | what is left `\Deleted` is hidden until somebody unmarks it | `what_is_left_marked_is_hidden_and_in_nobodys_way`, `what_an_unanswered_removal_left_deleted_is_ours` |
//! | where mailboxes are labels, a place is left by moving, and flags are stored once | `of_labels_one_is_left_by_moving_and_flags_are_stored_once` |
//! | there, what goes to Trash has left everything, and is expunged there alone | `what_goes_to_the_trash_of_a_store_of_labels_has_left_everything` |
//! | all of them, against everybody, in any order | `what_our_user_asks_for_holds_against_everybody` |

#[cfg(test)]
mod model;
mod outcome;
mod push;
#[cfg(test)]
mod tests;

pub use outcome::Resolved;
pub use push::{Command, Does, End};

use crate::uid::Uid;

use super::merge::{FlagState, StoreChange};

/// A mailbox, whatever it is called: the number of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxKey(pub u128);

/// Which placements of a message are meant, at that point of the fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every one.
    All,
    /// Those in this mailbox.
    In(MailboxKey),
}

/// What our user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Flags and keywords set and cleared.
    Flags {
        /// What is set and cleared.
        change: StoreChange,
        /// Where.
        scope: Scope,
    },
    /// Also into another mailbox.
    Copy {
        /// Whose flags go along; any other when the message has left it.
        from: MailboxKey,
        /// The target.
        to: MailboxKey,
    },
    /// Into `to`, out of `from`.
    Move {
        /// What is left.
        from: Scope,
        /// The target.
        to: MailboxKey,
    },
    /// Out of `from`, for good.
    Remove {
        /// What is left.
        from: Scope,
    },
}

/// How far an edit is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing was sent, or what was sent may be sent again and nobody else's edit may join it: see [`State::Sent`].
    Open,
    /// A STORE for it was sent or is about to be: later edits do not merge into it.
    Sent,
    /// A transfer was sent or is about to be, and nobody knows whether it was done: it is not sent again before the source
    /// and the target were looked at.
    InDoubt,
    /// Of a move by COPY, the copy was made, and its UID was not told.
    Copied,
    /// The copy was made, and its UID was not told: it is never made again.
    DoneUnseen,
}

/// One edit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The number of its row; 0 for one that has none yet.
    pub id: i64,
    /// What was asked for.
    pub change: Change,
    /// How far it is.
    pub state: State,
    /// Of flags: mailboxes in which the server has stored them.
    pub done_in: Vec<MailboxKey>,
    /// Of a transfer or a removal that was sent: out of which mailbox.
    pub sent_from: Option<MailboxKey>,
    /// Of a transfer that was sent: the flags that went along.
    pub carried: FlagState,
}

impl Edit {
    /// An edit that was just asked for.
    #[must_use]
    pub fn new(change: Change) -> Self {
        Self {
            id: 0,
            change,
            state: State::Open,
            done_in: Vec::new(),
            sent_from: None,
            carried: FlagState::default(),
        }
    }

    /// The mailbox a transfer leads to.
    #[must_use]
    pub const fn target(&self) -> Option<MailboxKey> {
        match self.change {
            Change::Copy { to, .. } | Change::Move { to, .. } => Some(to),
            Change::Flags { .. } | Change::Remove { .. } => None,
        }
    }

    /// Whether the message may stand in the target though no row of the server's says so.
    const fn explains(&self) -> bool {
        matches!(self.state, State::InDoubt | State::Copied | State::DoneUnseen)
    }
}

/// A placement that the server has, as it was last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The number of its row; `None` for one that has none yet.
    pub row: Option<u128>,
    /// Where it is.
    pub mailbox: MailboxKey,
    /// Its UID; `None`: of an earlier UIDVALIDITY, and not found again yet.
    pub uid: Option<Uid>,
    /// As the server has them.
    pub flags: FlagState,
    /// Our user deleted it, and the server, without UIDPLUS, keeps it as `\Deleted` until somebody expunges it.
    pub marked: bool,
}

/// What is known of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Where the server has it.
    pub server: Vec<Held>,
    /// What our user wants of it, oldest first.
    pub edits: Vec<Edit>,
    /// The mailbox that shows all mail of the account (Gmail's): being there is no place of its own.
    pub all_mail: Option<MailboxKey>,
    /// What is particular where mailboxes are labels of one store (Gmail).
    pub labels: Labels,
}

/// Mailboxes as labels: a message has its flags once, and a place is left by moving.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// Whether they are.
    pub are: bool,
    /// Trash and Junk: what goes there has left all other mailboxes, All Mail too. Expunging has an end only there.
    pub bins: Vec<MailboxKey>,
}

impl Labels {
    /// Whether a message that goes there is nowhere else.
    #[must_use]
    pub fn takes_all(&self, to: MailboxKey) -> bool {
        self.are && self.bins.contains(&to)
    }
}

/// A placement as clients are shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Where.
    pub mailbox: MailboxKey,
    /// With these flags.
    pub flags: FlagState,
    /// The placement of [`Message::server`] it is; `None`: an edit puts it there.
    pub held: Option<usize>,
    /// The placement of [`Message::server`] whose dates it has.
    pub like: Option<usize>,
}

impl Message {
    /// What clients are shown: the server's placements with every edit applied in order. At most one in a mailbox, unless
    /// the server has two there.
    #[must_use]
    pub fn visible(&self) -> Vec<Shown> {
        self.shown_before(self.edits.len())
    }

    /// What the edit of this number meets.
    fn shown_before(&self, edit: usize) -> Vec<Shown> {
        let mut places: Vec<Shown> = self
            .server
            .iter()
            .enumerate()
            .filter(|(_, held)| !held.marked)
            .map(|(at, held)| Shown {
                mailbox: held.mailbox,
                flags: held.flags.clone(),
                held: Some(at),
                like: Some(at),
            })
            .collect();
        for edit in self.edits.iter().take(edit) {
            self.apply(edit, &mut places);
        }
        places
    }

    fn apply(&self, edit: &Edit, places: &mut Vec<Shown>) {
        match &edit.change {
            Change::Flags { change, scope } => {
                for at in in_scope(places, *scope) {
                    if let Some(place) = places.get_mut(at).filter(|p| !edit.done_in.contains(&p.mailbox)) {
                        place.flags = change.apply(&place.flags);
                    }
                }
            }
            Change::Copy { from, to } => {
                let template = self.source(places, *from).and_then(|at| places.get(at)).cloned();
                put(places, edit, *to, template);
            }
            Change::Move { from, to } => {
                let sources = self.sources(places, *from, Some(*to));
                let template = sources.first().and_then(|at| places.get(*at)).cloned();
                put(places, edit, *to, template);
                leave(places, &sources);
            }
            Change::Remove { from } => {
                let sources = self.sources(places, *from, None);
                leave(places, &sources);
            }
        }
    }

    /// What a move to `to`, or a removal, takes away.
    fn sources(&self, places: &[Shown], from: Scope, to: Option<MailboxKey>) -> Vec<usize> {
        let is_all = |place: &Shown| Some(place.mailbox) == self.all_mail;
        let takes_all = to.is_some_and(|to| self.labels.takes_all(to));
        let from = match from {
            Scope::In(mailbox) if takes_all && is_in(places, mailbox) => Scope::All,
            from => from,
        };
        // A removal is out of everything: what stays in All Mail is not deleted.
        let spares_all =
            to.is_some() && !takes_all && from == Scope::All && places.iter().any(|p| !is_all(p));
        let meant = |place: &Shown| match from {
            Scope::All => Some(place.mailbox) != to && !(spares_all && is_all(place)),
            Scope::In(mailbox) => place.mailbox == mailbox && Some(mailbox) != to,
        };
        places.iter().enumerate().filter(|(_, place)| meant(place)).map(|(at, _)| at).collect()
    }

    /// What a copy is made of.
    fn source(&self, places: &[Shown], from: MailboxKey) -> Option<usize> {
        places
            .iter()
            .position(|p| p.mailbox == from)
            .or_else(|| places.iter().position(|p| Some(p.mailbox) != self.all_mail))
            .or_else(|| (!places.is_empty()).then_some(0))
    }
}

fn is_in(places: &[Shown], mailbox: MailboxKey) -> bool {
    places.iter().any(|p| p.mailbox == mailbox)
}

/// Those in the mailbox; all of them when the message has left it: flags follow a message to wherever it is.
fn in_scope(places: &[Shown], scope: Scope) -> Vec<usize> {
    let there = |mailbox| places.iter().enumerate().filter(move |(_, p)| p.mailbox == mailbox);
    match scope {
        Scope::In(mailbox) if there(mailbox).next().is_some() => there(mailbox).map(|(at, _)| at).collect(),
        Scope::All | Scope::In(_) => (0..places.len()).collect(),
    }
}

fn put(places: &mut Vec<Shown>, edit: &Edit, to: MailboxKey, template: Option<Shown>) {
    if is_in(places, to) || (template.is_none() && !edit.explains()) {
        return;
    }
    let like = template.as_ref().and_then(|t| t.like);
    let flags = match template {
        Some(template) if !edit.explains() => template.flags,
        _ => edit.carried.clone(),
    };
    places.push(Shown { mailbox: to, flags, held: None, like });
}

fn leave(places: &mut Vec<Shown>, sources: &[usize]) {
    let mut at = 0;
    places.retain(|_| {
        at += 1;
        !sources.contains(&(at - 1))
    });
}

impl StoreChange {
    /// What becomes of `state`.
    #[must_use]
    pub fn apply(&self, state: &FlagState) -> FlagState {
        FlagState {
            flags: state.flags.difference(self.remove).union(self.add),
            keywords: state.keywords.difference(&self.remove_keywords).union(&self.add_keywords),
        }
    }

    /// This change and then `later` as one: the later wins.
    #[must_use]
    pub fn then(&self, later: &Self) -> Self {
        Self {
            add: self.add.difference(later.remove).union(later.add),
            remove: self.remove.difference(later.add).union(later.remove),
            add_keywords: self.add_keywords.difference(&later.remove_keywords).union(&later.add_keywords),
            remove_keywords: self
                .remove_keywords
                .difference(&later.add_keywords)
                .union(&later.remove_keywords),
        }
    }
}
