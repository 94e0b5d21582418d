//! What is in hand of one endpoint: its lanes, the bodies that are ready, how it stands, and what is to be noted.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use emailclient_core::events::envelope::Include;
use emailclient_core::events::log::{self, Entry, Filter};
use emailclient_core::events::webhook::delivery::{DeliveryState, Note, Waiting};
use emailclient_core::events::webhook::lane::Lane;
use emailclient_core::events::webhook::lease::{Held, Progress, Standing};
use emailclient_core::events::webhook::outcome::{self, Verdict};
use emailclient_core::events::webhook::send::{self, Outgoing};
use emailclient_core::events::webhook::{WebhookState, filter};
use emailclient_core::platform::db::{DbError, TenantTx};
use emailclient_core::platform::metrics::table;
use metrics::{counter, histogram};
use wire::post::{Answered, PostError};

/// Events read at once.
const AT_ONCE: usize = 500;
/// Parts of the log that are looked through at once, while nothing is found in them.
const RANGES: usize = 50;
/// Bodies that are ready, in bytes: people with long names make large ones.
const BODIES_BYTES: usize = 1 << 20;
/// Bodies made at once.
const BODIES: usize = 8;
/// A body that is older says what was, not what is.
const FRESH: Duration = Duration::from_secs(2);

/// In which order events are looked for: what a client asked for, what is new, what is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Way {
    Asked,
    Log,
    Replay,
}

/// An event on one of the ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    way: Way,
    position: i64,
}

/// What came of one attempt.
#[derive(Debug)]
pub(super) struct Answer {
    /// When it began.
    pub at: DateTime<Utc>,
    /// How long it took.
    pub duration_ms: u64,
    /// What was answered.
    pub answer: Result<Answered, PostError>,
}

struct Line {
    lane: Lane,
    filter: Filter,
}

/// See the module.
pub(super) struct Work {
    lines: BTreeMap<Way, Line>,
    waiting: Vec<Waiting>,
    /// Of what a client asked for: whether a replay sent it first.
    asked: HashMap<i64, bool>,
    bodies: HashMap<Place, (Instant, Outgoing)>,
    standing: Standing,
    /// It failed since the lease was taken: nothing more is sent.
    stopped: bool,
    /// More was asked for than fits.
    more_asked: bool,
    disabled: Option<&'static str>,
    delivered: i64,
    failed: i64,
    notes: Vec<Note>,
    dirty: bool,
}

impl Work {
    /// What is in hand when the lease was just taken; `waiting`: what waited for its next try.
    pub(super) fn new(held: &Held, waiting: Vec<Waiting>) -> Self {
        let accounts = held.account_ids.as_deref();
        let of = |types: Option<&[String]>| filter(types, accounts, held.backfill);
        let log = Lane::new(held.position, &held.settled, None);
        let mut lines = BTreeMap::from([(Way::Log, Line { lane: log, filter: of(held.types.as_deref()) })]);
        if let Some(replay) = &held.replaying {
            let mut wanted = of(held.types.as_deref());
            if let Some(kinds) = of(replay.types.as_deref()).kinds {
                let both = |all| kinds.intersection(all).copied().collect();
                wanted.kinds = Some(wanted.kinds.as_ref().map_or_else(|| kinds.clone(), both));
            }
            let lane = Lane::new(replay.position, &replay.settled, Some(replay.until));
            lines.insert(Way::Replay, Line { lane, filter: wanted });
        }
        Self {
            lines,
            waiting,
            asked: HashMap::new(),
            bodies: HashMap::new(),
            standing: held.standing.clone(),
            stopped: false,
            more_asked: false,
            disabled: None,
            delivered: 0,
            failed: 0,
            notes: Vec::new(),
            dirty: false,
        }
    }

    /// Takes up what a client asked for.
    pub(super) async fn recall(&mut self, tx: &mut TenantTx, now: DateTime<Utc>) -> Result<(), DbError> {
        let all = Filter { backfill: true, ..Filter::default() };
        let mut found = Vec::new();
        for waiting in self.waiting.iter().filter(|w| w.asked) {
            if self.asked.contains_key(&waiting.position) {
                self.more_asked = true;
                continue;
            }
            let place = (waiting.position - 1, waiting.position);
            match log::read(tx, place, &all, 1).await?.pop() {
                Some(entry) => {
                    self.asked.insert(waiting.position, waiting.replay);
                    found.push((entry, waiting.tries, waiting.next_try_at));
                }
                None => {
                    self.failed += 1;
                    self.notes.push(given_up(waiting, "event-expired", now));
                }
            }
        }
        let Some(last) = found.iter().map(|(entry, ..)| entry.position).max() else { return Ok(()) };
        let mut lane = Lane::new(0, &[], Some(last));
        lane.add(found.iter().map(|(entry, ..)| entry.clone()), last);
        for (entry, tries, next) in found {
            lane.remember(entry.position, tries, next);
        }
        self.lines.insert(Way::Asked, Line { lane, filter: all });
        Ok(())
    }

    /// Reads both places of the log further. Whether it came further in one of them.
    pub(super) async fn read(
        &mut self,
        tx: &mut TenantTx,
        durable: i64,
        now: DateTime<Utc>,
    ) -> Result<bool, DbError> {
        let mut further = false;
        let mut passed = Vec::new();
        for (way, Line { lane, filter }) in &mut self.lines {
            let from = lane.read_to();
            for _ in 0..RANGES {
                let Some((range, room)) = lane.wants(durable) else { break };
                let limit = room.min(AT_ONCE);
                let entries = log::read(tx, range, filter, limit).await?;
                let last = entries.last().map(|e| e.position);
                let (found, whole) = (!entries.is_empty(), entries.len() < limit);
                lane.add(entries, last.filter(|_| !whole).unwrap_or(range.1));
                if found {
                    break;
                }
            }
            for known in self.waiting.iter().filter(|w| !w.asked && w.replay == (*way == Way::Replay)) {
                let is_read = known.position > from && known.position <= lane.read_to();
                if is_read && lane.open(known.position).is_some() {
                    lane.remember(known.position, known.tries, known.next_try_at);
                } else if is_read {
                    // A client wants other events now, or the log was cut beyond it.
                    passed.push(given_up(known, "not-wanted", now));
                }
            }
            further |= lane.read_to() > from;
        }
        self.failed += i64::try_from(passed.len()).unwrap_or(i64::MAX);
        self.notes.extend(passed);
        self.dirty |= further;
        Ok(further)
    }

    /// Makes bodies of the events that are sent next.
    pub(super) async fn make_ready(
        &mut self,
        tx: &mut TenantTx,
        include: Include,
        (now, limit): (DateTime<Utc>, usize),
    ) -> Result<(), DbError> {
        self.bodies.retain(|_, (made, _)| made.elapsed() < FRESH);
        if self.bodies_bytes() >= BODIES_BYTES {
            // Those that are sent next come first.
            self.bodies.clear();
        }
        let mut places = self.ready(now, limit);
        for (way, line) in &self.lines {
            let soon = line.lane.soon(now, limit).into_iter();
            places.extend(soon.map(|position| Place { way: *way, position }));
        }
        for some in places.chunks(BODIES) {
            if self.bodies_bytes() >= BODIES_BYTES {
                break;
            }
            let lacks = |place: &&Place| !self.bodies.contains_key(*place);
            let entry = |place: &Place| {
                Some((*place, self.lines.get(&place.way)?.lane.open(place.position)?.entry.clone()))
            };
            let (places, entries): (Vec<Place>, Vec<Entry>) =
                some.iter().filter(lacks).filter_map(entry).unzip();
            let made = send::outgoing_of(tx, &entries, include).await?;
            let at = Instant::now();
            self.bodies.extend(places.into_iter().zip(made.into_iter().map(|event| (at, event))));
        }
        Ok(())
    }

    fn bodies_bytes(&self) -> usize {
        self.bodies.values().map(|(_, event)| event.body.len()).sum()
    }

    /// How many may be on their way: one where the endpoint failed last.
    pub(super) fn allowed(&self, most: usize) -> usize {
        match (self.stopped, self.standing.failures) {
            (true, _) => 0,
            (false, 0) => most,
            (false, _) => 1,
        }
    }

    /// Events that may be sent now. One of them is sent again, where none of those is on its way: what is new has no end.
    pub(super) fn ready(&self, now: DateTime<Utc>, limit: usize) -> Vec<Place> {
        let of = |(way, line): (&Way, &Line)| {
            let way = *way;
            line.lane.ready(now, limit).into_iter().map(move |position| Place { way, position })
        };
        let mut all: Vec<Place> = self.lines.iter().flat_map(of).collect();
        let replay = self.lines.get(&Way::Replay).filter(|line| !line.lane.is_sending());
        let first = all.iter().position(|place| place.way == Way::Replay).filter(|_| replay.is_some());
        if let Some(first) = first.filter(|at| *at >= limit) {
            all.swap(first, limit.saturating_sub(1));
        }
        all.truncate(limit);
        all
    }

    fn has_body(&self, place: &Place) -> bool {
        self.bodies.get(place).is_some_and(|(made, _)| made.elapsed() < FRESH)
    }

    /// Whether one of those has no body yet.
    pub(super) fn lacks_bodies(&self, now: DateTime<Utc>, limit: usize) -> bool {
        self.ready(now, limit).iter().any(|place| !self.has_body(place))
    }

    /// Takes those that are ready to be sent, at most so many.
    pub(super) fn start(&mut self, now: DateTime<Utc>, limit: usize) -> Vec<(Place, Outgoing)> {
        let mut started = Vec::new();
        for place in self.ready(now, limit) {
            let Some((_, event)) = self.bodies.remove(&place) else { continue };
            if let Some(line) = self.lines.get_mut(&place.way) {
                line.lane.start(place.position);
            }
            started.push((place, event));
        }
        started
    }

    /// What an attempt came to.
    pub(super) fn take(&mut self, place: Place, answer: &Answer, (now, unit): (DateTime<Utc>, f64)) {
        let Some(line) = self.lines.get_mut(&place.way) else { return };
        let Some(open) = line.lane.open(place.position) else { return };
        let (known, mut tries) = (open.known, open.tries);
        let entry = &open.entry;
        let note = |state, tries, next_try_at| Note {
            position: place.position,
            replay: place.way == Way::Replay
                || self.asked.get(&place.position).is_some_and(|r| *r) && place.way == Way::Asked,
            account: entry.account_id,
            kind: entry.kind.clone(),
            event_at: entry.created_at,
            state,
            tries,
            next_try_at,
            at: answer.at,
            status: answer.answer.as_ref().ok().map(|a| a.status),
            error: (state != DeliveryState::Delivered).then(|| outcome::word(&answer.answer)),
            duration_ms: answer.duration_ms,
        };
        let verdict = outcome::judge(&answer.answer, now);
        let waited = answer.at - entry.created_at;
        let first = place.way == Way::Log && !known;
        measure(&verdict, waited.to_std().ok().filter(|_| first && matches!(verdict, Verdict::Taken)));
        let noted = match verdict {
            Verdict::Taken => known.then(|| note(DeliveryState::Delivered, tries, None)),
            Verdict::EventRefused => {
                tries += 1;
                let pause = outcome::event_pause(tries, unit).and_then(|p| TimeDelta::from_std(p).ok());
                Some(match pause {
                    Some(pause) => note(DeliveryState::Waiting, tries, Some(now + pause)),
                    None => note(DeliveryState::Failed, tries, None),
                })
            }
            Verdict::Failed | Verdict::Later(_) | Verdict::Gone => {
                Some(note(DeliveryState::Waiting, tries, None))
            }
        };
        match noted.as_ref().map(|n| (n.state, n.next_try_at)) {
            None | Some((DeliveryState::Delivered, _)) => {
                self.delivered += 1;
                line.lane.settle(place.position);
            }
            Some((DeliveryState::Failed, _)) => {
                self.failed += 1;
                line.lane.settle(place.position);
            }
            Some((DeliveryState::Waiting, next)) => line.lane.again(place.position, tries, next),
        }
        let given_up = noted.as_ref().is_some_and(|note| note.state == DeliveryState::Failed);
        self.notes.extend(noted);
        self.dirty = true;
        self.stand(verdict, &outcome::word(&answer.answer), (now, unit));
        // What was given up is the event's matter: it says nothing of an endpoint that fails days later.
        let waits = self.lines.values().any(|line| line.lane.wake_at().is_some());
        if given_up && !waits && !self.stopped {
            self.standing.failing_since = None;
        }
    }

    /// How the endpoint stands after an answer.
    fn stand(&mut self, verdict: Verdict, word: &str, when: (DateTime<Utc>, f64)) {
        let (now, _) = when;
        match verdict {
            Verdict::Taken => {
                self.standing.last_success_at = Some(now);
                // Another one failed beside it: it began to fail just now.
                self.standing.failing_since = self.stopped.then_some(now);
                self.well();
            }
            Verdict::EventRefused => {
                self.standing.failing_since.get_or_insert(now);
                self.well();
                self.give_up(now);
            }
            Verdict::Gone => self.disable(outcome::GONE),
            // One failure of several at once is one.
            Verdict::Failed if !self.stopped => self.fail(word, None, when),
            Verdict::Later(pause) if !self.stopped => self.fail(word, Some(pause), when),
            Verdict::Failed | Verdict::Later(_) => {}
        }
    }

    /// It answers.
    fn well(&mut self) {
        if !self.stopped {
            let standing = &mut self.standing;
            (standing.state, standing.cause) = (WebhookState::Enabled, None);
            (standing.failures, standing.next_try_at) = (0, None);
        }
    }

    /// It takes nothing: nothing more is sent for a while, `asked` for or that of its failures in a row.
    pub(super) fn fail(&mut self, word: &str, asked: Option<Duration>, (now, unit): (DateTime<Utc>, f64)) {
        (self.stopped, self.dirty) = (true, true);
        let standing = &mut self.standing;
        standing.failures = if asked.is_some() { standing.failures.max(1) } else { standing.failures + 1 };
        let pause = asked.unwrap_or_else(|| outcome::pause(standing.failures, unit));
        standing.next_try_at = TimeDelta::from_std(pause).ok().map(|pause| now + pause);
        (standing.state, standing.cause) = (WebhookState::Failing, Some(word.to_owned()));
        standing.failing_since.get_or_insert(now);
        self.give_up(now);
    }

    fn give_up(&mut self, now: DateTime<Utc>) {
        if self.standing.failing_since.is_some_and(|since| now - since >= outcome::PATIENCE) {
            self.disable(outcome::FAILING_TOO_LONG);
        }
    }

    fn disable(&mut self, reason: &'static str) {
        (self.stopped, self.dirty) = (true, true);
        if self.standing.state != WebhookState::Disabled {
            let standing = &mut self.standing;
            (standing.state, standing.cause) = (WebhookState::Disabled, Some(reason.to_owned()));
            standing.next_try_at = None;
            self.disabled = Some(reason);
        }
    }

    /// Whether something was done that is not noted.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Whether it should be noted at once: clients look at it.
    pub(super) fn is_urgent(&self) -> bool {
        !self.notes.is_empty() || self.disabled.is_some()
    }

    /// What is to be noted. `release`: the lease is given up now, perhaps with events left that could be sent.
    pub(super) fn progress(&self, release: Option<(DateTime<Utc>, bool)>) -> Progress {
        let replay = self.lines.get(&Way::Replay).map(|line| &line.lane).filter(|lane| !lane.is_done());
        let log = self.lines.get(&Way::Log).map(|line| &line.lane);
        Progress {
            standing: self.standing.clone(),
            position: log.map_or(0, Lane::position),
            settled: log.map(Lane::settled).unwrap_or_default(),
            replaying: replay.map(|lane| (lane.position(), lane.settled())),
            delivered: self.delivered,
            failed: self.failed,
            notes: self.notes.clone(),
            disabled: self.disabled,
            release: release.map(|(now, left)| (self.seen(), self.wake(replay.is_some(), now, left))),
        }
    }

    /// Up to where the log has nothing for this endpoint. With no room for more, news are none of its matter.
    fn seen(&self) -> i64 {
        self.lines.get(&Way::Log).map_or(0, |Line { lane, .. }| {
            if lane.wants(i64::MAX).is_some() { lane.read_to() } else { i64::MAX }
        })
    }

    /// When there is something to do again, news apart.
    fn wake(&self, replays: bool, now: DateTime<Utc>, left: bool) -> Option<DateTime<Utc>> {
        if self.stopped {
            return self.standing.next_try_at;
        }
        // What broke off is still on its way for its lane.
        let broken_off = self.lines.values().any(|line| line.lane.is_sending());
        // What did not fit has its turn when what did is settled.
        let asked = self.lines.get(&Way::Asked).is_some_and(|line| !line.lane.is_done());
        if left || broken_off || self.more_asked && !asked || !self.ready(now, 1).is_empty() {
            return Some(now);
        }
        let waits = self.lines.values().filter_map(|line| line.lane.wake_at()).min();
        waits.or_else(|| replays.then(|| now + TimeDelta::seconds(1)))
    }

    /// It was noted.
    pub(super) fn noted(&mut self) {
        (self.delivered, self.failed) = (0, 0);
        self.notes.clear();
        self.disabled = None;
        self.dirty = false;
    }
}

/// An event that waited is not sent any more, for this reason.
/// `delay`: since the event, where it was taken at once.
fn measure(verdict: &Verdict, delay: Option<Duration>) {
    let word = match verdict {
        Verdict::Taken => "taken",
        Verdict::EventRefused => "refused",
        Verdict::Failed => "failed",
        Verdict::Later(_) => "later",
        Verdict::Gone => "gone",
    };
    counter!(table::WEBHOOK_ATTEMPTS.name, "outcome" => word).increment(1);
    if let Some(delay) = delay {
        histogram!(table::WEBHOOK_DELAY.name).record(delay.as_secs_f64());
    }
}

fn given_up(waiting: &Waiting, why: &str, now: DateTime<Utc>) -> Note {
    Note {
        position: waiting.position,
        replay: waiting.replay,
        account: waiting.account_id,
        kind: waiting.kind.clone(),
        event_at: waiting.event_at,
        state: DeliveryState::Failed,
        tries: waiting.tries,
        next_try_at: None,
        at: now,
        status: None,
        error: Some(why.to_owned()),
        duration_ms: 0,
    }
}
