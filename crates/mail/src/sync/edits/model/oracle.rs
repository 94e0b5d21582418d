//! What may have become of a message: every state that some allowed order of our user's edits and another client's acts
//! leads to. Knows nothing of the fold or of the planner, only which edits were asked for, when the first command for each
//! was sent, and when each was over.
//!
//! - An edit of which nothing was sent comes after what another client does. From its first command until it is over,
//!   each of its parts may happen at any moment.
//! - Edits of a message happen in their order.
//! - "Every place" is every place that we know of: `known`. Nobody can act on what he has not read.
//! - What finds nothing to do, as far as we know, may be over without a command.

use super::server::{Act, BOXES, HERE, Places};

/// Edits of a message at a time.
const SLOTS: usize = 12;
/// States of a message: more are not followed.
const MANY: usize = 400;
/// Of `touched`: a part of the edit was done.
const ANY: u8 = 0x80;

/// What we know of where a message is, by bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// As last read.
    pub(super) read: u8,
    /// Those of them that still are there, under the UIDs we know: whom a command can reach.
    pub(super) reached: u8,
}

/// What our user asked for; mailboxes by number, `None`: all.
#[derive(Debug, Clone, Copy)]
pub(super) enum Asked {
    Flags { set: u8, clear: u8, scope: Option<usize> },
    Copy { from: usize, to: usize },
    Move { from: Option<usize>, to: usize },
    Remove { from: Option<usize> },
}

/// How an edit went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    Done,
    TakenBack,
    /// The driver cannot tell.
    Either,
}

#[derive(Debug, Clone, Copy)]
struct Possible {
    places: Places,
    /// What we left `\Deleted`.
    ghosts: Places,
    /// How many of the edits are done.
    done: usize,
    /// Which places have the next one already.
    touched: u8,
}

/// Which states were seen: a table, as debug builds are slow with sets.
struct Seen {
    table: Vec<(u32, u64)>,
    round: u32,
}

impl Seen {
    fn clear(&mut self) {
        self.round += 1;
    }

    /// Whether it is new.
    fn add(&mut self, state: &Possible) -> bool {
        // Each byte of a place uses three bits.
        let (places, ghosts) = (u32::from_le_bytes(state.places), u32::from_le_bytes(state.ghosts));
        let key =
            u64::from(places | ghosts << 3) | u64::from(state.touched) << 32 | (state.done as u64) << 40;
        let mut at = (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 53) as usize;
        while self.table[at].0 == self.round {
            if self.table[at].1 == key {
                return false;
            }
            at = (at + 1) % self.table.len();
        }
        self.table[at] = (self.round, key);
        true
    }
}

struct Slot {
    id: i64,
    asked: Asked,
    begun: bool,
}

/// All that may be true of one message.
pub(super) struct Oracle {
    /// The edits that are not over.
    slots: Vec<Slot>,
    states: Vec<Possible>,
    seen: Seen,
    /// There were too many states to follow them all: nothing can be told any more.
    pub(super) overrun: bool,
    pub(super) has_move: bool,
    pub(super) has_uidplus: bool,
}

fn mask(places: &Places) -> u8 {
    (0..BOXES).filter(|m| places[*m] != 0).fold(0, |all, m| all | 1 << m)
}

fn each(mask: u8) -> impl Iterator<Item = usize> {
    (0..BOXES).filter(move |m| mask >> m & 1 == 1)
}

impl Asked {
    /// Those it is about, of these.
    fn scope(self, here: u8) -> u8 {
        match self {
            Self::Flags { scope: Some(m), .. } | Self::Copy { from: m, .. } if here >> m & 1 == 1 => 1 << m,
            Self::Flags { .. } | Self::Copy { .. } => here,
            Self::Move { from: None, to } => here & !(1 << to),
            Self::Move { from: Some(m), to } => here & (1 << m) & !(1 << to),
            Self::Remove { from: None } => here,
            Self::Remove { from: Some(m) } => here & (1 << m),
        }
    }

    /// What the whole of it makes of these places, one after the other; the flags of the first go along.
    pub(super) fn apply(self, places: &Places) -> Places {
        let mut after = *places;
        let scope = self.scope(mask(places));
        let first = each(scope).next();
        match self {
            Self::Flags { set, clear, .. } => each(scope).for_each(|m| after[m] = (after[m] | set) & !clear),
            Self::Copy { to, .. } | Self::Move { to, .. } => {
                if let Some(first) = first.filter(|_| after[to] == 0) {
                    after[to] = after[first];
                }
                if matches!(self, Self::Move { .. }) {
                    each(scope).for_each(|m| after[m] = 0);
                }
            }
            Self::Remove { .. } => each(scope).for_each(|m| after[m] = 0),
        }
        after
    }
}

impl Possible {
    fn carry(&mut self, from: usize, to: usize, moved: bool) {
        if self.places[from] == 0 || from == to {
            return;
        }
        let new = self.places[to] == 0;
        if new {
            self.places[to] = self.places[from];
        }
        if new {
            self.touched = self.touched & !(1 << to) | (self.touched >> from & 1) << to;
        }
        if moved {
            self.clear(from);
        }
    }

    fn clear(&mut self, at: usize) {
        self.places[at] = 0;
        self.touched &= !(1 << at);
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Flag { at, bit, on } if self.places[at] != 0 => {
                self.places[at] = if on { self.places[at] | bit } else { self.places[at] & !bit };
            }
            Act::Flag { .. } => {}
            Act::Move { from, to } => self.carry(from, to, true),
            Act::Copy { from, to } => self.carry(from, to, false),
            Act::Expunge { at } => self.clear(at),
            Act::Unmark { at } => {
                if self.places[at] == 0 {
                    self.places[at] = self.ghosts[at];
                }
                self.ghosts[at] = 0;
            }
            Act::ExpungeMarked { at } => self.ghosts[at] = 0,
            Act::Return { at } => self.places[at] |= HERE,
        }
    }
}

impl Oracle {
    pub(super) fn new(places: Places, has_move: bool, has_uidplus: bool) -> Self {
        let first = Possible { places, ghosts: [0; BOXES], done: 0, touched: 0 };
        Self {
            slots: Vec::new(),
            states: vec![first],
            seen: Seen { table: vec![(0, 0); 2048], round: 0 },
            overrun: false,
            has_move,
            has_uidplus,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.slots.len() == SLOTS
    }

    pub(super) fn ask(&mut self, id: i64, asked: Asked) {
        self.slots.push(Slot { id, asked, begun: false });
    }

    /// The newest edit takes in another that changes flags.
    pub(super) fn merge(&mut self, id: i64, later: Asked) {
        let slot = self.slots.iter_mut().find(|s| s.id == id).unwrap();
        let (Asked::Flags { set, clear, .. }, Asked::Flags { set: add, clear: remove, .. }) =
            (&mut slot.asked, later)
        else {
            unreachable!("only flags merge")
        };
        *set = *set & !remove | add;
        *clear = *clear & !add | remove;
    }

    /// A command for the edit is about to be sent.
    pub(super) fn begin(&mut self, id: i64, known: Known) {
        let at = self.slots.iter().position(|s| s.id == id).unwrap();
        if !self.slots[at].begun {
            self.slots[at].begun = true;
            self.states.retain(|s| s.done <= at);
        }
        self.close(known);
    }

    pub(super) fn act(&mut self, act: Act, known: Known) {
        self.states.iter_mut().for_each(|s| s.act(act));
        self.close(known);
    }

    /// The server has told that it did the edit.
    pub(super) fn confirm(&mut self, id: i64) {
        let at = self.slots.iter().position(|s| s.id == id).unwrap();
        self.states.retain(|s| s.done > at);
    }

    /// The edit is over. What is wrong with that, if anything.
    pub(super) fn over(&mut self, id: i64, went: Went, known: Known) -> Result<(), String> {
        self.close(known);
        let at = self.slots.iter().position(|s| s.id == id).unwrap();
        let slot = self.slots.remove(at);
        // A move out of a mailbox that the message has left is taken back: nothing is done by that.
        let nothing = !slot.begun && matches!(slot.asked, Asked::Move { from: Some(_), .. });
        if went == Went::TakenBack && !slot.begun && !nothing && !matches!(slot.asked, Asked::Remove { .. }) {
            return Err(format!("{:?} rests on nothing that was taken back", slot.asked));
        }
        if went == Went::Done || (went == Went::TakenBack && nothing) {
            self.states.retain(|s| s.done > at);
        }
        for state in &mut self.states {
            if state.done > at {
                state.done -= 1;
            } else if state.done == at {
                state.touched = 0;
            }
        }
        self.close(known);
        if self.states.is_empty() && !self.overrun {
            return Err(format!("{:?} cannot be {went:?}", slot.asked));
        }
        Ok(())
    }

    /// Everything that our edits may have done by now, each state once.
    pub(super) fn close(&mut self, known: Known) {
        let mut states = std::mem::take(&mut self.states);
        self.seen.clear();
        states.retain(|s| self.seen.add(s));
        let mut at = 0;
        let mut next = Vec::new();
        while at < states.len() && !self.overrun {
            self.overrun = states.len() > MANY;
            let state = states[at];
            if let Some(slot) = self.slots.get(state.done) {
                self.steps(&state, slot, known, &mut next);
            }
            for state in next.drain(..) {
                if self.seen.add(&state) {
                    states.push(state);
                }
            }
            at += 1;
        }
        self.states = states;
    }

    fn steps(&self, state: &Possible, slot: &Slot, known: Known, next: &mut Vec<Possible>) {
        let Slot { asked, begun, .. } = *slot;
        let here = mask(&state.places);
        let scope = asked.scope(here & known.reached);
        let some = state.touched & ANY != 0;
        let seen = |to: usize| !begun && known.read >> to & 1 == 1;
        let done = match asked {
            Asked::Flags { .. } => some && scope & !state.touched == 0,
            Asked::Copy { to, .. } => state.places[to] != 0 || seen(to),
            Asked::Move { from: Some(_), .. } | Asked::Remove { from: Some(_) } => {
                scope == 0 && (some || here != 0 || known.read != 0)
            }
            Asked::Move { from: None, to } => {
                scope == 0 && (some || state.places[to] != 0) || seen(to) && known.read == 1 << to
            }
            Asked::Remove { from: None } => scope == 0 && some,
        };
        if done {
            let mut new = *state;
            new.done += 1;
            new.touched = 0;
            next.push(new);
        }
        if !begun {
            return;
        }
        for m in each(scope) {
            let mut new = *state;
            new.touched |= ANY;
            match asked {
                Asked::Flags { set, clear, .. } => {
                    new.places[m] = (new.places[m] | set) & !clear;
                    new.touched |= 1 << m;
                    next.push(new);
                }
                Asked::Copy { to, .. } => {
                    new.carry(m, to, false);
                    next.push(new);
                }
                Asked::Move { to, .. } if state.places[to] == 0 => {
                    new.carry(m, to, self.has_move);
                    next.push(new);
                }
                Asked::Move { .. } | Asked::Remove { .. } => self.remove(new, m, next),
            }
        }
    }

    fn remove(&self, mut new: Possible, at: usize, next: &mut Vec<Possible>) {
        let mut marked = new;
        new.clear(at);
        next.push(new);
        if !self.has_uidplus {
            marked.ghosts[at] = marked.places[at];
            marked.clear(at);
            next.push(marked);
        }
    }

    pub(super) fn allows(&self, places: &Places) -> bool {
        self.overrun || self.states.iter().any(|s| s.places == *places)
    }

    /// The edits that are not over, laid over these places.
    pub(super) fn wanted(&self, places: &Places) -> Places {
        self.slots.iter().fold(*places, |places, slot| slot.asked.apply(&places))
    }

    pub(super) fn places(&self) -> Vec<Places> {
        let mut all: Vec<Places> = self.states.iter().map(|s| s.places).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}
