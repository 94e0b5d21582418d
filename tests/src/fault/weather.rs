//! A line whose faults come and go at random.
//!
//! Each turn both directions get another state (clean, late, slow, in slices, silent), and with luck a cut that waits for
//! its pattern or its number of bytes, or all connections are reset. A new kind of fault: an arm in [`Weather::line`] or
//! [`Weather::turn`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Cut, End, Line, Proxy, Toward};
use crate::dice::Dice;

/// What a cut may wait for in a conversation with an IMAP server that is not encrypted.
const SAID_BY_SERVER: [&str; 16] = [
    "* OK",
    " OK ",
    "* LIST",
    "* STATUS",
    "[UIDVALIDITY",
    "EXISTS",
    "FETCH (",
    "BODY[] {",
    "Subject: ",
    "VANISHED",
    "EXPUNGE",
    "COPYUID",
    "FLAGS (",
    "+ idling",
    "Logged in",
    "\r\n",
];
const SAID_BY_CLIENT: [&str; 14] = [
    "AUTHENTICATE",
    "LIST",
    "SELECT",
    "UID FETCH",
    "UID STORE",
    "UID MOVE",
    "UID COPY",
    "UID EXPUNGE",
    "CREATE",
    "RENAME",
    "DELETE",
    "IDLE",
    "LOGOUT",
    "\r\n",
];
const ENDS: [End; 4] = [End::Reset, End::Close, End::HalfClose, End::Hole];

/// The faults of one run.
#[derive(Debug)]
pub struct Weather {
    dice: Dice,
    turns: BTreeMap<&'static str, usize>,
}

impl Weather {
    /// The same faults for the same dice.
    #[must_use]
    pub const fn new(dice: Dice) -> Self {
        Self { dice, turns: BTreeMap::new() }
    }

    /// The next faults, instead of those there are; and how long they last.
    pub fn turn(&mut self, proxy: &Proxy) -> Duration {
        for toward in [Toward::Server, Toward::Client] {
            let line = self.line();
            proxy.line(toward, |l| *l = line);
        }
        match self.dice.below(8) {
            0 => {
                self.count("all connections reset");
                proxy.hang_up();
            }
            1..6 => {
                let toward = [Toward::Server, Toward::Client][self.dice.below(2)];
                proxy.cut(toward, self.cut(toward));
            }
            _ => {}
        }
        Duration::from_millis(150 + self.dice.below(1_850) as u64)
    }

    fn line(&mut self) -> Line {
        let clean = Line::default();
        match self.dice.below(14) {
            0..2 => {
                self.count("latency");
                Line { latency: Duration::from_millis(1 + self.dice.below(250) as u64), ..clean }
            }
            2 => {
                self.count("bandwidth");
                Line { bandwidth: Some(2_000 + self.dice.below(60_000)), ..clean }
            }
            3 => {
                self.count("single bytes");
                Line { slice: Some(1), ..clean }
            }
            4 => {
                self.count("slices");
                Line { slice: Some(2 + self.dice.below(60)), ..clean }
            }
            5 => {
                self.count("black hole");
                Line { hole: true, ..clean }
            }
            _ => clean,
        }
    }

    fn cut(&mut self, toward: Toward) -> Cut {
        let end = ENDS[self.dice.below(ENDS.len())];
        if self.dice.below(3) == 0 {
            return Cut::after_bytes(1 + self.dice.below(20_000), end);
        }
        let said: &[&str] = if toward == Toward::Server { &SAID_BY_CLIENT } else { &SAID_BY_SERVER };
        let pattern = said[self.dice.below(said.len())];
        let nth = 1 + self.dice.below(4);
        let cut = if self.dice.below(2) == 0 { Cut::before(pattern, end) } else { Cut::after(pattern, end) };
        cut.nth(nth)
    }

    fn count(&mut self, kind: &'static str) {
        *self.turns.entry(kind).or_default() += 1;
    }

    /// The line is well again. What a connection of before has met, it keeps: one that delivers nothing stays so.
    pub fn clear(&self, proxy: &Proxy) {
        proxy.no_cuts();
        proxy.both(|l| *l = Line::default());
    }

    /// How often each kind of fault came, cuts by how they ended and only those that happened.
    #[must_use]
    pub fn happened(&self, proxy: &Proxy) -> BTreeMap<String, usize> {
        let mut all: BTreeMap<String, usize> =
            self.turns.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect();
        for cut in proxy.cuts() {
            let at = if cut.pattern.is_empty() { "bytes" } else { "a pattern" };
            *all.entry(format!("cut at {at}: {:?}", cut.end)).or_default() += 1;
        }
        all
    }
}
