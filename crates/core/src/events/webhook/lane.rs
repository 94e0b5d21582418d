//! A place in the log and what is settled beyond it: which events may be sent next, and how far everything is behind. Pure.
//!
//! Events of an account go out one after the other, in the order of the log; those of the tenant are an account of their own.
//! An event that waits for its next try holds up its account alone. What is settled beyond the place is bounded
//! ([`SETTLED_MAX`]): at that bound the oldest event alone goes on.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use chrono::{DateTime, Utc};

use crate::events::log::Entry;
use crate::platform::id::AccountId;

/// What may be settled beyond the place.
pub const SETTLED_MAX: usize = 1000;
/// Positions looked through at once: in a long log there may be nothing for an endpoint.
const RANGE: i64 = 10_000;
/// Events in hand that are not settled.
pub const OPEN_MAX: usize = 400;

/// An event in hand.
#[derive(Debug)]
pub struct Open {
    /// Its line of the log.
    pub entry: Entry,
    /// How often it was refused for itself.
    pub tries: i32,
    /// It failed before, so there is a row of it.
    pub known: bool,
    not_before: Option<DateTime<Utc>>,
}

/// A place in the log, with what is in hand beyond it.
#[derive(Debug)]
pub struct Lane {
    until: Option<i64>,
    read_to: i64,
    settled: BTreeSet<i64>,
    open: BTreeMap<i64, Open>,
    queues: HashMap<Option<AccountId>, VecDeque<i64>>,
    /// The first of each queue that is not on its way.
    fronts: BTreeSet<i64>,
    sending: BTreeSet<i64>,
}

impl Lane {
    /// At `position`, with what is settled beyond it; `until`: it ends there.
    #[must_use]
    pub fn new(position: i64, settled: &[i64], until: Option<i64>) -> Self {
        Self {
            until,
            read_to: position,
            settled: settled.iter().copied().filter(|at| *at > position).collect(),
            open: BTreeMap::new(),
            queues: HashMap::new(),
            fronts: BTreeSet::new(),
            sending: BTreeSet::new(),
        }
    }

    /// What is to be read next, if there is room: the positions after the first up to the second, and how many events.
    #[must_use]
    pub fn wants(&self, durable: i64) -> Option<((i64, i64), usize)> {
        let end = self.until.map_or(durable, |until| until.min(durable));
        // At the bound the oldest goes on alone: more could not be sent.
        let stuck = self.is_crowded() && !self.open.is_empty();
        let room = if stuck { 0 } else { OPEN_MAX.saturating_sub(self.open.len()) };
        let next = end.min(self.read_to.saturating_add(RANGE));
        (next > self.read_to && room > 0).then_some(((self.read_to, next), room))
    }

    /// Takes in what was read, which is all that is wanted up to `read_to`.
    pub fn add(&mut self, entries: impl IntoIterator<Item = Entry>, read_to: i64) {
        for entry in entries {
            let at = entry.position;
            if at <= self.read_to || self.settled.contains(&at) {
                continue;
            }
            let queue = self.queues.entry(entry.account_id).or_default();
            if queue.is_empty() {
                self.fronts.insert(at);
            }
            queue.push_back(at);
            self.open.insert(at, Open { entry, tries: 0, known: false, not_before: None });
        }
        self.read_to = self.read_to.max(read_to);
    }

    /// What is known of an event from before: how often it was refused, and when it may be tried.
    pub fn remember(&mut self, at: i64, tries: i32, not_before: Option<DateTime<Utc>>) {
        if let Some(open) = self.open.get_mut(&at) {
            (open.tries, open.known, open.not_before) = (tries, true, not_before);
        }
    }

    /// The event at this position, unless it is settled.
    #[must_use]
    pub fn open(&self, at: i64) -> Option<&Open> {
        self.open.get(&at)
    }

    /// Positions of events that may be sent now, the oldest first, at most so many.
    #[must_use]
    pub fn ready(&self, now: DateTime<Utc>, limit: usize) -> Vec<i64> {
        let oldest = self.open.keys().next();
        let crowded = self.is_crowded();
        let may = |at: &&i64| {
            let waits = self.open.get(at).and_then(|open| open.not_before).is_some_and(|then| then > now);
            !waits && (!crowded || oldest == Some(*at))
        };
        self.fronts.iter().filter(may).take(limit).copied().collect()
    }

    fn is_crowded(&self) -> bool {
        self.settled.len() + self.sending.len() >= SETTLED_MAX
    }

    /// Those, and what follows them in their queues: what is worth making ready.
    #[must_use]
    pub fn soon(&self, now: DateTime<Utc>, limit: usize) -> Vec<i64> {
        let mut soon = self.ready(now, limit);
        let waits = |at: &i64| self.open.get(at).and_then(|o| o.not_before).is_some_and(|then| then > now);
        let mut behind: Vec<i64> = Vec::new();
        for queue in self.queues.values().filter(|queue| queue.front().is_some_and(|at| !waits(at))) {
            behind.extend(queue.iter().skip(1).take(limit));
        }
        behind.sort_unstable();
        soon.extend(behind);
        soon.truncate(limit);
        soon
    }

    /// It is on its way.
    pub fn start(&mut self, at: i64) {
        if self.fronts.remove(&at) {
            self.sending.insert(at);
        }
    }

    /// It was taken or given up: its account goes on.
    pub fn settle(&mut self, at: i64) {
        let Some(open) = self.open.remove(&at) else { return };
        self.sending.remove(&at);
        self.fronts.remove(&at);
        let account = open.entry.account_id;
        if let Some(queue) = self.queues.get_mut(&account) {
            if queue.front() == Some(&at) {
                queue.pop_front();
            }
            match queue.front() {
                Some(next) if !self.sending.contains(next) => _ = self.fronts.insert(*next),
                Some(_) => {}
                None => _ = self.queues.remove(&account),
            }
        }
        self.settled.insert(at);
        self.settled = self.settled.split_off(&(self.position() + 1));
    }

    /// It was not taken: it may be sent again, at once or then.
    pub fn again(&mut self, at: i64, tries: i32, not_before: Option<DateTime<Utc>>) {
        if self.sending.remove(&at) {
            self.fronts.insert(at);
        }
        self.remember(at, tries, not_before);
    }

    /// Everything up to here is settled.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.open.keys().next().map_or(self.read_to, |oldest| oldest - 1)
    }

    /// What is settled beyond that.
    #[must_use]
    pub fn settled(&self) -> Vec<i64> {
        let position = self.position();
        self.settled.iter().copied().filter(|at| *at > position).collect()
    }

    /// Up to here the log was read.
    #[must_use]
    pub fn read_to(&self) -> i64 {
        self.read_to
    }

    /// When something may be sent that waits now; `None`: nothing waits.
    #[must_use]
    pub fn wake_at(&self) -> Option<DateTime<Utc>> {
        // At the bound of what is settled, the time of another one may have passed, and it may not be sent still.
        let those = if self.is_crowded() { 1 } else { usize::MAX };
        let oldest = self.open.keys().take(those).filter(|at| self.fronts.contains(at));
        oldest.filter_map(|at| self.open.get(at)?.not_before).min()
    }

    /// Whether nothing is left of a lane that ends.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.until.is_some_and(|until| self.read_to >= until) && self.open.is_empty()
    }

    /// Whether something is on its way.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        !self.sending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn entry(position: i64, account: u128) -> Entry {
        Entry {
            position,
            kind: "message.created".to_owned(),
            account_id: (account > 0).then(|| AccountId(Uuid::from_u128(account))),
            object_id: None,
            thread_id: None,
            thread_shown: None,
            backfill: false,
            data: json!({}),
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    fn lane(accounts: &[u128]) -> Lane {
        let mut lane = Lane::new(0, &[], None);
        let entries = accounts.iter().zip(1..).map(|(account, at)| entry(at, *account));
        lane.add(entries, accounts.len() as i64);
        lane
    }

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    #[test]
    fn accounts_go_beside_each_other_and_each_in_order() {
        let mut lane = lane(&[1, 1, 2, 0, 2, 0]);
        assert_eq!(lane.ready(NOW, 8), [1, 3, 4]);
        assert_eq!(lane.soon(NOW, 5), [1, 3, 4, 2, 5]);
        for at in [1, 3, 4] {
            lane.start(at);
        }
        assert_eq!(lane.ready(NOW, 8), [] as [i64; 0]);
        lane.settle(3);
        assert_eq!((lane.position(), lane.settled(), lane.ready(NOW, 8)), (0, vec![3], vec![5]));
        lane.settle(1);
        assert_eq!((lane.position(), lane.settled(), lane.ready(NOW, 8)), (1, vec![3], vec![2, 5]));
        lane.start(2);
        lane.settle(2);
        lane.settle(4);
        assert_eq!((lane.position(), lane.settled()), (4, vec![]));
        for at in [5, 6] {
            lane.start(at);
            lane.settle(at);
        }
        assert_eq!((lane.position(), lane.settled(), lane.wants(6)), (6, vec![], None));
        lane.add([entry(9, 1)], 10);
        assert_eq!(lane.position(), 8, "it never goes back");
    }

    #[test]
    fn an_event_that_waits_holds_up_its_account_alone() {
        let mut lane = lane(&[1, 1, 2]);
        lane.start(1);
        let then = NOW + TimeDelta::minutes(1);
        lane.again(1, 1, Some(then));
        assert_eq!((lane.ready(NOW, 8), lane.soon(NOW, 8)), (vec![3], vec![3]));
        lane.start(3);
        lane.settle(3);
        assert_eq!((lane.position(), lane.settled(), lane.wake_at()), (0, vec![3], Some(then)));
        assert_eq!((lane.ready(then, 8), lane.soon(then, 8)), (vec![1], vec![1, 2]));
        lane.start(1);
        lane.settle(1);
        assert_eq!((lane.position(), lane.ready(NOW, 8)), (1, vec![2]));
    }

    #[test]
    fn a_lane_that_is_taken_up_again_skips_what_is_settled() {
        let mut lane = Lane::new(2, &[1, 4], Some(9));
        lane.add([entry(3, 1), entry(4, 1), entry(5, 1)], 7);
        lane.remember(3, 2, Some(NOW));
        assert_eq!((lane.ready(NOW, 8), lane.open(3).unwrap().tries), (vec![3], 2));
        assert_eq!(lane.wants(100), Some(((7, 9), OPEN_MAX - 2)));
        for at in [3, 5] {
            lane.start(at);
            lane.settle(at);
        }
        assert_eq!((lane.position(), lane.is_done()), (7, false));
        lane.add([], 9);
        assert!(lane.is_done());
    }

    #[test]
    fn beyond_the_place_a_thousand_are_settled_and_then_the_oldest_goes_alone() {
        let mut lane = Lane::new(0, &[], None);
        lane.add([entry(1, 1)].into_iter().chain((2..1500).map(|at| entry(at, at as u128))), 1500);
        lane.start(1);
        let then = NOW + TimeDelta::minutes(1);
        lane.again(1, 1, Some(then));
        loop {
            let ready = lane.ready(NOW, 8);
            if ready.is_empty() {
                break;
            }
            for at in ready {
                lane.start(at);
                lane.settle(at);
            }
        }
        // Eight were ready when one more would have been the last.
        assert!((SETTLED_MAX..SETTLED_MAX + 8).contains(&lane.settled().len()), "{}", lane.settled().len());
        assert_eq!((lane.ready(then, 8), lane.wants(i64::MAX)), (vec![1], None));
        // Another one may be tried before, and may not be sent while the oldest waits.
        let (next, earlier) = (*lane.fronts.range(2..).next().unwrap(), NOW + TimeDelta::seconds(1));
        lane.remember(next, 1, Some(earlier));
        assert_eq!((lane.ready(earlier, 8), lane.wake_at()), (vec![], Some(then)));
        lane.start(1);
        lane.settle(1);
        assert!(lane.position() > 1000 && lane.settled().is_empty() && !lane.ready(NOW, 8).is_empty());
    }
}
