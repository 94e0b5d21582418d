//! What may have become of one message: every state that some allowed order of our user's edits and another client's acts
//! leads to. Knows nothing of the product but when each edit was asked for, when the first command for it may have been
//! sent, when it was over, and where the product has read the message.
//!
//! - An edit of which nothing was sent comes after what another client does. From its first command until it is over, each
//!   of its parts may happen at any moment. What is over is done, unless there was nothing to do it to.
//! - Edits of a message happen in their order.
//! - Dovecot's MOVE (2.3.19) is a copy and, some milliseconds later, a removal. What we do to a message in between is done to
//!   its original, and confirmed: the copy lacks the flag, outlives the removal, or stands beside the one that we moved.
//! - Nobody can act on what he has not read: a place that another client made may be left out until it is known, though an
//!   edit of which there is no other place is done there.

use std::collections::HashSet;

/// Mailboxes of a play.
pub const BOXES: usize = 5;
/// The number of Trash.
pub const TRASH: usize = BOXES - 1;
/// Of a place: the message is there, with these flags.
pub const HERE: u8 = 1;
pub const STAR: u8 = 2;
pub const READ: u8 = 4;
/// What is in each mailbox of one message: 0, or [`HERE`] and flags.
pub type Places = [u8; BOXES];

/// States of a message: more are not followed.
const MANY: usize = 4_000;
/// Of `touched`: a part of the edit was done.
const ANY: u8 = 0x80;

/// What our user asked for; mailboxes by number, `None`: all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Flags { set: u8, clear: u8, scope: Option<usize> },
    Copy { from: usize, to: usize },
    Move { from: Option<usize>, to: usize },
    Remove { from: Option<usize> },
}

/// What another client did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Flag { at: usize, bit: u8, on: bool },
    Move { from: usize, to: usize },
    Copy { from: usize, to: usize },
    Expunge { at: usize },
}

impl Act {
    /// Where it found the message.
    const fn at(self) -> usize {
        match self {
            Self::Flag { at, .. } | Self::Expunge { at } => at,
            Self::Move { from, .. } | Self::Copy { from, .. } => from,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Possible {
    places: Places,
    /// Places another client made since the last rest that are perhaps not known.
    fresh: u8,
    /// How many of the edits are done.
    done: usize,
    /// Which places have the next one already.
    touched: u8,
}

struct Slot {
    id: i64,
    asked: Asked,
    begun: bool,
    /// Its copy was made, and what became of that is not known.
    copied: bool,
}

/// All that may be true of one message.
pub struct Judge {
    slots: Vec<Slot>,
    states: Vec<Possible>,
    has_move: bool,
    /// Where the product has read it.
    known: u8,
    /// Where it was since the last rest.
    ever: u8,
    /// Where it came a second time since then: which of the two is known, nobody can say.
    repeated: u8,
    /// A command of ours was under way about when another client acts.
    pub beside_ours: bool,
    /// There were too many states to follow them all: nothing can be told until the next rest.
    pub overrun: bool,
}

fn mask(places: &Places) -> u8 {
    (0..BOXES).filter(|m| places[*m] != 0).fold(0, |all, m| all | 1 << m)
}

fn each(mask: u8) -> impl Iterator<Item = usize> {
    (0..BOXES).filter(move |m| mask >> m & 1 == 1)
}

impl Possible {
    fn clear(&mut self, at: usize) {
        self.places[at] = 0;
        self.touched &= !(1 << at);
        self.fresh &= !(1 << at);
    }

    fn carry(&mut self, from: usize, to: usize, moved: bool) {
        if from == to {
            return;
        }
        if self.places[to] == 0 {
            self.places[to] = self.places[from];
            self.touched = self.touched & !(1 << to) | (self.touched >> from & 1) << to;
        }
        if moved {
            self.clear(from);
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Flag { at, bit, on } => {
                self.places[at] = if on { self.places[at] | bit } else { self.places[at] & !bit };
            }
            Act::Move { from, to } | Act::Copy { from, to } => {
                self.carry(from, to, matches!(act, Act::Move { .. }));
                self.fresh |= 1 << to;
            }
            Act::Expunge { at } => self.clear(at),
        }
    }

    /// Where the edit may be done, and where it must be.
    fn scope(&self, asked: Asked) -> (u8, u8) {
        let here = mask(&self.places);
        let sure = here & !self.fresh;
        let may = match asked {
            Asked::Flags { scope: Some(m), .. } | Asked::Copy { from: m, .. } if sure >> m & 1 == 1 => 1 << m,
            // Whether it was known to be back there, or followed to elsewhere.
            Asked::Flags { scope: Some(m), .. } if here >> m & 1 == 1 => return (here, 0),
            Asked::Flags { .. } | Asked::Copy { .. } | Asked::Remove { from: None } => here,
            Asked::Move { from: None, to } => here & !(1 << to),
            Asked::Move { from: Some(m), to } => here & (1 << m) & !(1 << to),
            Asked::Remove { from: Some(m) } => here & (1 << m),
        };
        (may, may & sure)
    }
}

impl Judge {
    pub fn new(places: Places, has_move: bool) -> Self {
        let here = mask(&places);
        let first = Possible { places, fresh: 0, done: 0, touched: 0 };
        Self {
            slots: Vec::new(),
            states: vec![first],
            has_move,
            known: here,
            ever: here,
            repeated: 0,
            beside_ours: false,
            overrun: false,
        }
    }

    /// Whether the message may be in this mailbox, or an edit leads there.
    pub fn may_be_in(&self, at: usize) -> bool {
        let leads = |s: &Slot| matches!(s.asked, Asked::Copy { to, .. } | Asked::Move { to, .. } if to == at);
        self.states.iter().any(|s| s.places[at] != 0) || self.slots.iter().any(leads)
    }

    /// Whether the message is in this mailbox in one of its states.
    pub fn is_perhaps_in(&self, at: usize) -> bool {
        self.states.iter().any(|s| s.places[at] != 0)
    }

    /// Whether another client put it there, and the product perhaps does not know.
    pub fn is_fresh_in(&self, at: usize) -> bool {
        self.states.iter().any(|s| s.fresh >> at & 1 == 1)
    }

    /// Whether a command for it may be under way.
    pub fn is_under_way(&self) -> bool {
        self.slots.iter().any(|s| s.begun)
    }

    /// How many edits are not over.
    pub fn open(&self) -> usize {
        self.slots.len()
    }

    pub fn ask(&mut self, id: i64, asked: Asked) {
        self.slots.push(Slot { id, asked, begun: false, copied: false });
        self.close();
    }

    /// An edit takes in another that changes flags.
    pub fn merge(&mut self, id: i64, later: Asked) {
        let Some(slot) = self.slots.iter_mut().find(|s| s.id == id) else { return };
        let (Asked::Flags { set, clear, .. }, Asked::Flags { set: add, clear: remove, .. }) =
            (&mut slot.asked, later)
        else {
            unreachable!("only flags merge")
        };
        *set = *set & !remove | add;
        *clear = *clear & !add | remove;
        self.close();
    }

    /// A command for the edit may have been sent from now on.
    pub fn begin(&mut self, id: i64, copied: bool) {
        if let Some(slot) = self.slots.iter_mut().find(|s| s.id == id) {
            slot.begun = true;
            slot.copied |= copied;
        }
        self.close();
    }

    /// The product reads the message in this mailbox.
    pub fn reads(&mut self, at: usize) {
        self.known |= 1 << at;
        if self.repeated >> at & 1 == 0 {
            self.states.iter_mut().for_each(|s| s.fresh &= !(1 << at));
        }
        self.close();
    }

    /// The product finds that it is gone from there.
    pub fn misses(&mut self, at: usize) {
        self.known &= !(1 << at);
        self.close();
    }

    /// UIDs of this mailbox begin anew.
    pub fn renumbered(&mut self, at: usize) {
        self.repeated |= 1 << at;
        self.states.iter_mut().filter(|s| s.places[at] != 0).for_each(|s| s.fresh |= 1 << at);
        self.close();
    }

    /// Another client did this; `read`: what the product may have known in that moment besides. With `maybe` nobody knows
    /// whether it did. What is wrong with it, if anything.
    pub fn act(&mut self, act: Act, read: u8, maybe: bool) -> Result<(), String> {
        let known = self.known;
        self.known |= read;
        self.close();
        self.known = known;
        let before = self.states.clone();
        self.states.retain(|s| s.places[act.at()] != 0);
        let left_behind = self.left_behind(act);
        self.states.iter_mut().for_each(|s| s.act(act));
        self.states.extend(left_behind);
        if let Act::Move { to, .. } | Act::Copy { to, .. } = act {
            self.repeated |= self.ever & (1 << to);
            self.ever |= 1 << to;
        }
        if maybe {
            // A server that ended over a MOVE may have copied and not yet removed.
            if let Act::Move { from, to } = act {
                let half = before.iter().filter(|s| s.places[from] != 0).map(|s| {
                    let mut half = *s;
                    half.act(Act::Copy { from, to });
                    half
                });
                self.states.extend(half);
            }
            self.states.extend(before);
        }
        self.close();
        self.check(|| format!("another client found it where it cannot be: {act:?}"))
    }

    /// After a move of another client's that had copied the message before a command of ours found the original.
    fn left_behind(&self, act: Act) -> Vec<Possible> {
        let (Act::Move { from, to } | Act::Copy { from, to }) = act else { return Vec::new() };
        let after = |s: &Possible| {
            let slot = self.slots.get(s.done).filter(|slot| slot.begun)?;
            let mut new = *s;
            match slot.asked {
                // Done to the original.
                Asked::Flags { .. } | Asked::Remove { .. } => {
                    new.act(act);
                    new.touched |= ANY | 1 << to;
                }
                // The original is there for ours still.
                Asked::Move { .. } | Asked::Copy { .. } => new.act(Act::Copy { from, to }),
            }
            Some(new)
        };
        if self.beside_ours { self.states.iter().filter_map(after).collect() } else { Vec::new() }
    }

    fn check(&self, what: impl FnOnce() -> String) -> Result<(), String> {
        if self.states.is_empty() && !self.overrun { Err(what()) } else { Ok(()) }
    }

    /// The edit is over. `with_another`: in one transaction with another, as what rests on one that is taken back.
    pub fn over(&mut self, id: i64, with_another: bool) -> Result<(), String> {
        let Some(at) = self.slots.iter().position(|s| s.id == id) else { return Ok(()) };
        self.close();
        let slot = self.slots.remove(at);
        let rested = with_another && !slot.begun && matches!(slot.asked, Asked::Remove { .. });
        if !rested {
            self.states.retain(|s| s.done > at);
        }
        for state in &mut self.states {
            if state.done > at {
                state.done -= 1;
            } else if state.done == at {
                state.touched = 0;
            }
        }
        self.close();
        self.check(|| format!("{:?} is over and cannot be done", slot.asked))
    }

    /// Everything that our edits may have done by now, each state once.
    fn close(&mut self) {
        let mut seen = HashSet::new();
        let mut states = std::mem::take(&mut self.states);
        states.retain(|s| seen.insert(*s));
        let (mut at, mut next) = (0, Vec::new());
        while at < states.len() && !self.overrun {
            self.overrun = states.len() > MANY;
            let state = states[at];
            self.ever |= mask(&state.places);
            if let Some(slot) = self.slots.get(state.done) {
                self.steps(&state, slot, &mut next);
            }
            states.extend(next.drain(..).filter(|s| seen.insert(*s)));
            at += 1;
        }
        self.states = states;
    }

    fn is_done(&self, state: &Possible, slot: &Slot) -> bool {
        let here = mask(&state.places);
        let (_, must) = state.scope(slot.asked);
        let some = state.touched & ANY != 0;
        let nothing_left = must & !state.touched == 0;
        // What is nowhere has its edits taken back in the end, as has a move whose copy somebody took away.
        let lost =
            matches!(slot.asked, Asked::Move { to, .. } if slot.copied && some && state.places[to] == 0);
        if here == 0 || lost {
            return true;
        }
        match slot.asked {
            Asked::Flags { .. } => some && nothing_left,
            Asked::Copy { to, .. } => state.places[to] != 0 || !slot.begun && self.known >> to & 1 == 1,
            Asked::Move { from: Some(_), .. } | Asked::Remove { from: Some(_) } => must == 0,
            Asked::Move { from: None, to } => {
                must == 0 && (some || state.places[to] != 0) || !slot.begun && self.known == 1 << to
            }
            Asked::Remove { from: None } => must == 0 && some,
        }
    }

    fn steps(&self, state: &Possible, slot: &Slot, next: &mut Vec<Possible>) {
        if self.is_done(state, slot) {
            next.push(Possible { done: state.done + 1, touched: 0, ..*state });
        }
        if !slot.begun {
            return;
        }
        let (may, _) = state.scope(slot.asked);
        for m in each(may) {
            let mut new = *state;
            new.touched |= ANY;
            match slot.asked {
                Asked::Flags { set, clear, .. } => {
                    new.places[m] = (new.places[m] | set) & !clear;
                    new.touched |= 1 << m;
                }
                Asked::Copy { to, .. } => new.carry(m, to, false),
                Asked::Move { to, .. } if state.places[to] == 0 => new.carry(m, to, self.has_move),
                Asked::Move { .. } | Asked::Remove { .. } => new.clear(m),
            }
            next.push(new);
        }
    }

    pub fn allows(&self, places: &Places) -> bool {
        self.overrun || self.states.iter().any(|s| s.places == *places)
    }

    /// The states, for people.
    pub fn told(&self) -> String {
        let mut all: Vec<String> = self.states.iter().map(|s| say(&s.places)).collect();
        all.sort_unstable();
        all.dedup();
        all.join(" or ")
    }
}

/// Where a message is, for people.
pub fn say(places: &Places) -> String {
    let of = |m: usize| {
        let flag = |bit: u8, name: &'static str| if places[m] & bit == 0 { "" } else { name };
        format!("{}{}{}", super::NAMES[m], flag(STAR, "*"), flag(READ, "r"))
    };
    let all: Vec<String> = (0..BOXES).filter(|m| places[*m] != 0).map(of).collect();
    if all.is_empty() { "nowhere".to_owned() } else { all.join("+") }
}
