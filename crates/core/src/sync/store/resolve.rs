//! Which row an arriving message belongs to: a pure decision over what the account already has of the same bytes, and under
//! the same id of the server's where it tells one ([`key_of`]).
//!
//! The cases, in order:
//! 0. on a server without UIDPLUS our user took it out of this mailbox, which keeps it as `\Deleted`, and UIDVALIDITY changed
//!    → what arrives as `\Deleted` is that one, and nothing else is: else what our user sees would be the one that goes;
//! 1. our own move or copy placed it in this mailbox and waits for its UID → that placement gets the UID;
//! 2. the mailbox had it before its UIDVALIDITY changed → that placement is carried over;
//! 3. the account has the message, but not in this mailbox (another one has it, or it went a moment ago, as in a move: of
//!    several the one that went last) → one more placement of it;
//! 4. otherwise a new message; a second identical copy in one mailbox is one too, over the same bytes.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A placement of a message with the same bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub id: Uuid,
    pub mailbox: Uuid,
    pub generation: i32,
    pub uid: Option<i64>,
    /// Our user does not see it: it stands there as `\Deleted`.
    pub marked: bool,
}

/// A message of the account with the same bytes.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub message: Uuid,
    /// Since when it is in no mailbox.
    pub gone: Option<DateTime<Utc>>,
    pub seats: Vec<Seat>,
    /// The server's id of it is the arrival's; else nobody told one of either.
    pub same_id: bool,
}

/// What arrivals and messages have in common: the bytes, and the server's own id.
pub(super) fn key_of(hash: &[u8], email_id: Option<&str>) -> Vec<u8> {
    [hash, email_id.unwrap_or_default().as_bytes()].concat()
}

/// What to do with one arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Give this placement of the message the UID.
    Seat { placement: Uuid, message: Uuid, marked: bool },
    /// Add a placement of the message; `revived`: it was in no mailbox.
    Place { message: Uuid, revived: bool },
    /// A message not seen before.
    New,
}

/// Decides for arrivals in order; no message gets two placements in this mailbox.
pub(super) struct Resolver {
    mailbox: Uuid,
    generation: i32,
    by_hash: HashMap<Vec<u8>, Vec<Candidate>>,
    used_seats: HashSet<Uuid>,
    used_messages: HashSet<Uuid>,
}

impl Resolver {
    pub fn new(mailbox: Uuid, generation: i32, mut by_hash: HashMap<Vec<u8>, Vec<Candidate>>) -> Self {
        // A message without an id was stored before the server told them: it is meant only where nobody else is.
        for candidates in by_hash.values_mut().filter(|list| list.iter().any(|c| c.same_id)) {
            candidates.retain(|c| c.same_id);
        }
        Self { mailbox, generation, by_hash, used_seats: HashSet::new(), used_messages: HashSet::new() }
    }

    /// `deleted`: it arrives as `\Deleted`.
    pub fn decide(&mut self, hash: &[u8], deleted: bool) -> Decision {
        let candidates = self.by_hash.get(hash).map(Vec::as_slice).unwrap_or_default();
        let here = || {
            candidates.iter().flat_map(|c| {
                c.seats.iter().filter(|s| s.mailbox == self.mailbox).map(move |s| (c.message, *s))
            })
        };
        let free = |seat: &Seat| !self.used_seats.contains(&seat.id);
        let is_earlier = |s: &Seat| s.uid.is_some() && s.generation != self.generation && free(s);
        let marked = here().find(|(_, s)| deleted && s.marked && is_earlier(s));
        let waiting = || here().find(|(_, s)| s.uid.is_none() && free(s));
        let earlier = || here().find(|(_, s)| !s.marked && is_earlier(s));
        if let Some((message, seat)) = marked.or_else(waiting).or_else(earlier) {
            self.used_seats.insert(seat.id);
            if !seat.marked {
                self.used_messages.insert(message);
            }
            return Decision::Seat { placement: seat.id, message, marked: seat.marked };
        }
        let elsewhere = |c: &&Candidate| {
            !self.used_messages.contains(&c.message)
                && c.seats.iter().all(|s| s.mailbox != self.mailbox || s.marked)
        };
        // Of several that left, the last is the likeliest to be on its way; of those that left together, the oldest.
        let gone =
            candidates.iter().rev().filter(|c| c.gone.is_some() && elsewhere(c)).max_by_key(|c| c.gone);
        if let Some(c) = gone.or_else(|| candidates.iter().find(elsewhere)) {
            let decision = Decision::Place { message: c.message, revived: c.gone.is_some() };
            self.used_messages.insert(c.message);
            return decision;
        }
        Decision::New
    }
}

impl Resolver {
    /// UIDs under which this mailbox has messages with these bytes already. What has just arrived may be one of them that was
    /// moved away and back: whether the server still has it there tells.
    pub fn twins(&self, hash: &[u8]) -> impl Iterator<Item = i64> + '_ {
        let candidates = self.by_hash.get(hash).map(Vec::as_slice).unwrap_or_default();
        let seats = candidates.iter().flat_map(|c| &c.seats);
        seats.filter(|s| s.mailbox == self.mailbox && s.generation == self.generation).filter_map(|s| s.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Uuid = Uuid::from_u128(1);
    const THERE: Uuid = Uuid::from_u128(2);

    fn seat(id: u128, mailbox: Uuid, generation: i32, has_uid: bool) -> Seat {
        Seat { id: Uuid::from_u128(id), mailbox, generation, uid: has_uid.then_some(1), marked: false }
    }

    fn candidate(message: u128, gone: bool, seats: Vec<Seat>) -> Candidate {
        let gone = gone.then_some(DateTime::UNIX_EPOCH);
        Candidate { message: Uuid::from_u128(message), gone, seats, same_id: false }
    }

    fn resolver(candidates: Vec<Candidate>) -> Resolver {
        Resolver::new(HERE, 3, HashMap::from([(b"h".to_vec(), candidates)]))
    }

    #[test]
    fn a_message_of_another_mailbox_gets_one_more_placement_and_a_second_copy_is_new() {
        let mut r = resolver(vec![candidate(10, false, vec![seat(20, THERE, 1, true)])]);
        assert_eq!(r.decide(b"h", false), Decision::Place { message: Uuid::from_u128(10), revived: false });
        assert_eq!(r.decide(b"h", false), Decision::New);
        assert_eq!(r.decide(b"other", false), Decision::New);
    }

    #[test]
    fn our_own_move_is_linked_before_anything_else() {
        let mut r = resolver(vec![
            candidate(9, true, vec![]),
            candidate(10, false, vec![seat(20, THERE, 1, true), seat(21, HERE, 3, false)]),
        ]);
        let linked =
            Decision::Seat { placement: Uuid::from_u128(21), message: Uuid::from_u128(10), marked: false };
        assert_eq!(r.decide(b"h", false), linked);
        assert_eq!(r.decide(b"h", false), Decision::Place { message: Uuid::from_u128(9), revived: true });
    }

    #[test]
    fn after_a_new_uidvalidity_each_copy_keeps_its_own_row() {
        let mut r = resolver(vec![
            candidate(10, false, vec![seat(20, HERE, 2, true)]),
            candidate(11, false, vec![seat(21, HERE, 2, true)]),
        ]);
        assert!(
            matches!(r.decide(b"h", false), Decision::Seat { placement, .. } if placement == Uuid::from_u128(20))
        );
        assert!(
            matches!(r.decide(b"h", false), Decision::Seat { placement, .. } if placement == Uuid::from_u128(21))
        );
        assert_eq!(r.decide(b"h", false), Decision::New);
    }

    #[test]
    fn after_a_new_uidvalidity_what_our_user_took_away_and_what_came_back_do_not_change_places() {
        let goes = Seat { marked: true, ..seat(20, HERE, 2, true) };
        let message = Uuid::from_u128(10);
        let both = || vec![candidate(10, false, vec![goes, seat(21, HERE, 2, true)])];
        for [first, second] in [[true, false], [false, true]] {
            let mut r = resolver(both());
            for deleted in [first, second] {
                let placement = Uuid::from_u128(if deleted { 20 } else { 21 });
                let expected = Decision::Seat { placement, message, marked: deleted };
                assert_eq!(r.decide(b"h", deleted), expected);
            }
            assert_eq!(r.decide(b"h", true), Decision::New);
        }
        // Another client brought it back meanwhile.
        let mut r = resolver(vec![candidate(10, false, vec![goes])]);
        assert_eq!(r.decide(b"h", false), Decision::Place { message, revived: false });
    }

    #[test]
    fn a_message_that_just_left_is_preferred_over_one_that_is_still_elsewhere() {
        let mut r =
            resolver(vec![candidate(10, false, vec![seat(20, THERE, 1, true)]), candidate(11, true, vec![])]);
        assert_eq!(r.decide(b"h", false), Decision::Place { message: Uuid::from_u128(11), revived: true });
    }

    #[test]
    fn of_messages_that_left_the_last_one_comes_back_first() {
        let left = |message: u128, at: i64| Candidate {
            gone: DateTime::from_timestamp(at, 0),
            ..candidate(message, true, vec![])
        };
        let mut r = resolver(vec![left(10, 5), left(11, 7), left(12, 7), left(13, 6)]);
        let mut next = || match r.decide(b"h", false) {
            Decision::Place { message, revived: true } => message.as_u128(),
            other => panic!("{other:?}"),
        };
        assert_eq!([next(), next(), next(), next()], [11, 12, 13, 10]);
    }

    #[test]
    fn what_has_the_id_of_the_arrival_goes_before_what_has_none() {
        let old = candidate(10, false, vec![seat(20, THERE, 1, true)]);
        let same = Candidate { same_id: true, ..candidate(11, false, vec![seat(21, THERE, 1, true)]) };
        let mut r = resolver(vec![old.clone(), same]);
        assert_eq!(r.decide(b"h", false), Decision::Place { message: Uuid::from_u128(11), revived: false });
        assert_eq!(r.decide(b"h", false), Decision::New);
        let mut r = resolver(vec![old]);
        assert_eq!(r.decide(b"h", false), Decision::Place { message: Uuid::from_u128(10), revived: false });
        assert_ne!(key_of(b"h", None), key_of(b"h", Some("gm:1")));
    }

    #[test]
    fn a_copy_already_here_does_not_take_a_second_uid() {
        let mut r = resolver(vec![candidate(10, false, vec![seat(20, HERE, 3, true)])]);
        assert_eq!(r.decide(b"h", false), Decision::New);
        assert_eq!(r.twins(b"h").collect::<Vec<_>>(), [1]);
        assert_eq!(r.twins(b"other").count(), 0);
    }
}
