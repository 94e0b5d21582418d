//! Our users' edits against everybody: plays under random steps of our user, another client, a server that refuses, lines
//! that break and workers that die, each judged by an oracle that knows nothing of the fold or the planner.
//!
//! A play repeats with `SEED=<n>`; `SEEDS=<n>` plays that many. What must stand, after every step:
//!
//! - the server has each message where, and as, some allowed order of everybody's acts puts it (see `oracle`): so no
//!   edit is lost, turned round or made twice, and no message leaves but by somebody's wish
//! - what our user asks for is shown at once; without another client and refusals, nothing but our user's asking changes
//!   what is shown
//! - a message goes out of one mailbox for the sake of another only while it stands there
//! - nothing that is taken back makes a message vanish
//! - once nothing goes wrong any more: all edits are over, what is shown is what the server has, nothing is sent

mod driver;
mod oracle;
mod server;

use std::collections::BTreeMap;

use super::*;
use crate::flags::Flags;
use oracle::{Asked, Known, Oracle, Went};
use server::{Act, BOXES, Dice, HERE, NAMES, Places, READ, STAR, Server};

const fn key(at: usize) -> MailboxKey {
    MailboxKey(at as u128)
}

const fn number(mailbox: MailboxKey) -> usize {
    mailbox.0 as usize
}

fn bits(flags: u8) -> Flags {
    let star = if flags & STAR == 0 { Flags::NONE } else { Flags::FLAGGED };
    let read = if flags & READ == 0 { Flags::NONE } else { Flags::SEEN };
    star.union(read)
}

fn of_bits(flags: Flags) -> u8 {
    let star = if flags.contains(Flags::FLAGGED) { STAR } else { 0 };
    let read = if flags.contains(Flags::SEEN) { READ } else { 0 };
    star | read
}

/// Everything there is in a play.
struct World {
    dice: Dice,
    server: Server,
    messages: Vec<Message>,
    oracles: Vec<Oracle>,
    /// The UIDVALIDITY of each mailbox that our UIDs are of.
    validity: [u32; BOXES],
    /// Of each edit that was sent: its message, its number, the mailboxes that were read since.
    doubts: Vec<(usize, i64, u8)>,
    refusals: Vec<i64>,
    /// Mailboxes that take nothing in.
    refuses: u8,
    /// Without another client and refusals.
    quiet: bool,
    faults: bool,
    /// As the last step left it.
    shown: Vec<Vec<(usize, u8)>>,
    next_id: i64,
    trace: Option<Vec<String>>,
    failed: Option<String>,
}

fn shown(message: &Message) -> Vec<(usize, u8)> {
    let of = |p: Shown| (number(p.mailbox), HERE | of_bits(p.flags.flags));
    let mut shown: Vec<_> = message.visible().into_iter().map(of).collect();
    shown.sort_unstable();
    shown
}

fn places_of(shown: &[(usize, u8)]) -> Places {
    let mut places = [0; BOXES];
    shown.iter().for_each(|(at, place)| places[*at] = *place);
    places
}

fn say(places: &Places) -> String {
    let of = |m: usize| {
        let flag = |bit: u8, name: &'static str| if places[m] & bit == 0 { "" } else { name };
        format!("{}{}{}", NAMES[m], flag(STAR, "*"), flag(READ, "r"))
    };
    let all: Vec<String> = (0..BOXES).filter(|m| places[*m] != 0).map(of).collect();
    if all.is_empty() { "nowhere".to_owned() } else { all.join("+") }
}

impl World {
    fn new(seed: u64, trace: bool) -> Self {
        let mut dice = Dice(seed);
        let mut server = Server::new(&mut dice);
        let quiet = dice.once_in(4);
        let refuses = if quiet || !dice.once_in(5) { 0 } else { 1 << dice.below(BOXES) };
        let count = 1 + usize::from(dice.once_in(3));
        for content in 0..count {
            for _ in 0..=dice.below(2) {
                let (at, flags) = (dice.below(BOXES), dice.below(4) as u8 * STAR);
                server.put(at, content, flags, false);
            }
        }
        let oracle = |i| Oracle::new(server.places(i), server.has_move, server.has_uidplus);
        let oracles = (0..count).map(oracle).collect();
        let mut world = Self {
            dice,
            oracles,
            messages: vec![Message::default(); count],
            validity: [1; BOXES],
            doubts: Vec::new(),
            refusals: Vec::new(),
            refuses,
            quiet: false,
            faults: true,
            shown: vec![Vec::new(); count],
            next_id: 1,
            trace: None,
            failed: None,
            server,
        };
        (0..BOXES).for_each(|at| world.read(at));
        world.quiet = quiet;
        world.trace = trace.then(Vec::new);
        let (moves, uidplus) = (world.server.has_move, world.server.has_uidplus);
        world.log(|| format!("MOVE {moves}, UIDPLUS {uidplus}, quiet {quiet}, refuses {refuses:04b}"));
        world
    }

    fn log(&mut self, what: impl FnOnce() -> String) {
        if self.trace.is_some() {
            let mut line = what();
            for i in 0..self.messages.len() {
                let truth = say(&self.server.places(i));
                line = format!("{line:<60} [{truth} | shown {}]", say(&places_of(&shown(&self.messages[i]))));
            }
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    fn fail(&mut self, what: String) {
        if self.failed.is_none() {
            self.failed = Some(what);
        }
    }

    fn known(&self, i: usize) -> Known {
        let mut known = Known { read: 0, reached: 0 };
        for held in self.messages[i].server.iter().filter(|h| !h.marked) {
            let at = number(held.mailbox);
            known.read |= 1 << at;
            let same = self.validity[at] == self.server.boxes[at].validity;
            if self.server.boxes[at].mails.iter().any(|m| !same || held.uid.is_none_or(|u| u.get() == m.uid))
            {
                known.reached |= 1 << at;
            }
        }
        known
    }

    /// Changes a message, and tells the oracle which edits are over by that.
    fn change(&mut self, i: usize, how: impl FnOnce(&mut Message) -> Went) {
        let before: Vec<i64> = self.messages[i].edits.iter().map(|e| e.id).collect();
        let (wanted, held) = (self.wanted(i), self.known(i).read);
        let went = how(&mut self.messages[i]);
        let edits = &self.messages[i].edits;
        let over: Vec<i64> = before.into_iter().filter(|id| !edits.iter().any(|e| e.id == *id)).collect();
        if over.is_empty() {
            return;
        }
        let known = self.known(i);
        for id in over {
            self.log(|| format!("  message {i}: edit {id} is over: {went:?}"));
            if let Err(what) = self.oracles[i].over(id, went, known) {
                self.fail(format!("message {i}, edit {id}: {what}"));
            }
        }
        let emptied = wanted != [0; BOXES] && held != 0 && self.wanted(i) == [0; BOXES];
        if went == Went::TakenBack && known.read != 0 && emptied {
            self.fail(format!("message {i}: what was taken back leaves it nowhere"));
        }
    }

    /// What our user wants, laid over what we know.
    fn wanted(&self, i: usize) -> Places {
        let mut places = [0; BOXES];
        for held in self.messages[i].server.iter().filter(|h| !h.marked) {
            places[number(held.mailbox)] = HERE | of_bits(held.flags.flags);
        }
        self.oracles[i].wanted(&places)
    }

    /// The end of every transaction: edits that are over end, and what is shown is told.
    fn recorded(&mut self, i: usize) {
        let known = self.known(i);
        self.oracles[i].close(known);
        self.change(i, |m| match m.settle() {
            (_, 0) => Went::Done,
            (0, _) => Went::TakenBack,
            _ => Went::Either,
        });
        let now = shown(&self.messages[i]);
        if now.windows(2).any(|two| two[0].0 == two[1].0) {
            self.fail(format!("message {i} is shown twice in a mailbox"));
        }
        if self.quiet && now != self.shown[i] {
            let (was, is) = (say(&places_of(&self.shown[i])), say(&places_of(&now)));
            self.fail(format!("message {i} was shown in {was}, is shown in {is}, and nobody asked for that"));
        }
        self.shown[i] = now;
    }

    /// The server has done something for us.
    fn executed(&mut self, i: usize, proven: bool) {
        let truth = self.server.places(i);
        if !self.oracles[i].allows(&truth) {
            let may: Vec<String> = self.oracles[i].places().iter().map(say).collect();
            self.fail(format!("message {i} is in {}, and may be in {}", say(&truth), may.join(" or ")));
        }
        if proven && truth == [0; BOXES] {
            self.fail(format!("message {i} was removed for the sake of a place it does not have"));
        }
        if std::mem::take(&mut self.server.doubled) {
            self.fail(format!("message {i} was put twice where it is"));
        }
    }

    /// Another client or our user, perhaps, while a command is under way.
    fn others(&mut self) {
        if self.faults && self.dice.once_in(5) {
            self.other();
        }
        if self.faults && self.dice.once_in(8) {
            self.burst();
        }
    }

    fn other(&mut self) {
        if self.dice.once_in(14) {
            let at = self.dice.below(BOXES);
            self.server.reset(at);
            self.log(|| format!("the UIDs of {} begin anew", NAMES[at]));
            return;
        }
        let i = self.dice.below(self.messages.len());
        if self.quiet {
            return;
        }
        if let Some(act) = self.server.think(i, &mut self.dice) {
            self.act(i, act);
        }
    }

    fn act(&mut self, i: usize, act: Act) {
        self.server.act(i, act);
        let known = self.known(i);
        self.oracles[i].act(act, known);
        self.log(|| format!("another client: message {i}: {act:?}"));
        self.executed(i, false);
    }

    /// Our user asks for one to four things, of one message or of all.
    fn burst(&mut self) {
        let all = self.dice.once_in(4);
        let one = self.dice.below(self.messages.len());
        for _ in 0..=self.dice.below(4) {
            let Some(asked) = self.wish(one) else { return };
            for i in 0..self.messages.len() {
                if all || i == one {
                    self.ask(i, asked);
                }
            }
        }
    }

    /// Something to ask for, seen what is shown.
    fn wish(&mut self, i: usize) -> Option<Asked> {
        let seen: Vec<usize> = shown(&self.messages[i]).iter().map(|(at, _)| *at).collect();
        let at = self.dice.of(&seen)?;
        let from = if self.dice.once_in(2) { Some(at) } else { None };
        let to = self.dice.below(BOXES);
        let bit = if self.dice.once_in(3) { READ } else { STAR };
        Some(match self.dice.below(11) {
            0..3 => Asked::Flags { set: bit, clear: 0, scope: from },
            3..5 => Asked::Flags { set: 0, clear: bit, scope: from },
            5..7 => Asked::Copy { from: at, to },
            7..9 => Asked::Move { from, to },
            9 => Asked::Move { from, to: BOXES - 1 },
            _ => Asked::Remove { from },
        })
    }

    fn ask(&mut self, i: usize, asked: Asked) {
        let before = shown(&self.messages[i]);
        let should = asked.apply(&places_of(&before));
        if self.oracles[i].is_full() || should == places_of(&before) {
            return;
        }
        if self.messages[i].ask(change_of(asked)) {
            let last = self.messages[i].edits.last_mut().unwrap();
            last.id = self.next_id;
            self.oracles[i].ask(self.next_id, asked);
            self.next_id += 1;
        } else {
            let last = self.messages[i].edits.last().unwrap().id;
            self.oracles[i].merge(last, asked);
        }
        let id = self.next_id - 1;
        self.log(|| format!("our user: message {i}: {asked:?} is edit {id}"));
        let now = places_of(&shown(&self.messages[i]));
        if !same(&now, &should, asked) {
            self.fail(format!("message {i} is shown in {}, not in {}", say(&now), say(&should)));
        }
        self.shown[i] = shown(&self.messages[i]);
        self.recorded(i);
    }

    fn step(&mut self) {
        match self.dice.below(10) {
            0..2 => self.burst(),
            2..4 => self.other(),
            4..6 => {
                let at = self.dice.below(BOXES);
                self.read(at);
            }
            _ => {
                let i = self.dice.below(self.messages.len());
                let commands = self.messages[i].commands();
                if !commands.is_empty() {
                    let command = commands[self.dice.below(commands.len())].clone();
                    self.push(i, &command);
                }
            }
        }
    }

    fn judge(&mut self) {
        for i in 0..self.messages.len() {
            let truth = self.server.places(i);
            self.executed(i, false);
            let mut now = places_of(&shown(&self.messages[i]));
            // A removal that was refused after it had been done by half.
            for held in self.messages[i].server.iter().filter(|h| h.flags.flags.contains(Flags::DELETED)) {
                now[number(held.mailbox)] &= truth[number(held.mailbox)];
            }
            if now != truth {
                self.fail(format!("message {i} is shown in {}, is in {}", say(&now), say(&truth)));
            }
            let edits = self.messages[i].edits.len();
            if edits != 0 && truth != [0; BOXES] {
                self.fail(format!("message {i}: {edits} edits are left"));
            }
            if !self.messages[i].commands().is_empty() || self.messages[i].clone().settle() != (0, 0) {
                self.fail(format!("message {i}: there is something to do after all"));
            }
        }
    }
}

/// Whether it is shown as it should be. Whose flags go along is not said when it is taken from several places.
fn same(now: &Places, should: &Places, asked: Asked) -> bool {
    let any = matches!(asked, Asked::Move { from: None, .. } | Asked::Copy { .. });
    (0..BOXES).all(|m| now[m] == should[m] || (any && now[m] & should[m] & HERE == HERE))
}

fn change_of(asked: Asked) -> Change {
    let scope = |from: Option<usize>| from.map_or(Scope::All, |m| Scope::In(key(m)));
    match asked {
        Asked::Flags { set, clear, scope: in_ } => {
            let change = StoreChange { add: bits(set), remove: bits(clear), ..StoreChange::default() };
            Change::Flags { change, scope: scope(in_) }
        }
        Asked::Copy { from, to } => Change::Copy { from: key(from), to: key(to) },
        Asked::Move { from, to } => Change::Move { from: scope(from), to: key(to) },
        Asked::Remove { from } => Change::Remove { from: scope(from) },
    }
}

/// One play: whether it could be judged to its end. What went wrong, and all that happened until then.
fn play(seed: u64, trace: bool) -> Result<bool, (String, Vec<String>)> {
    let mut world = World::new(seed, trace);
    let steps = 6 + world.dice.below(20);
    for _ in 0..steps {
        if world.failed.is_none() {
            world.step();
        }
    }
    if world.failed.is_none() {
        world.finish();
    }
    if world.failed.is_none() {
        world.judge();
    }
    match world.failed {
        Some(what) => Err((what, world.trace.unwrap_or_default())),
        None => Ok(!world.oracles.iter().any(|o| o.overrun)),
    }
}

/// What went wrong, whoever it was about.
fn kind(what: &str) -> String {
    let of = |w: &&str| w.chars().all(|c| c.is_ascii_lowercase() || c == ',');
    what.split(' ').filter(of).take(6).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_our_user_asks_for_holds_against_everybody() {
    let number = |name: &str| std::env::var_os(name).and_then(|s| s.to_str()?.parse::<u64>().ok());
    let seeds = number("SEED").map_or(0..number("SEEDS").unwrap_or(100_000), |seed| seed..seed + 1);
    let mut failures: BTreeMap<String, (usize, u64, usize)> = BTreeMap::new();
    let (mut plays, mut judged) = (0, 0);
    for seed in seeds {
        plays += 1;
        let result = play(seed, false);
        judged += usize::from(result == Ok(true));
        if result.is_err() {
            let (what, trace) = play(seed, true).unwrap_err();
            let of = failures.entry(kind(&what)).or_insert((0, seed, usize::MAX));
            of.0 += 1;
            if trace.len() < of.2 {
                (of.1, of.2) = (seed, trace.len());
            }
        }
    }
    let mut told = String::new();
    for (kind, (count, seed, _)) in &failures {
        let (what, trace) = play(*seed, true).unwrap_err();
        told = format!("{told}\n{count} times: {kind}\nSEED={seed}: {what}\n{}\n", trace.join("\n"));
    }
    assert!(failures.is_empty(), "{told}");
    assert!(
        plays < 100 || judged * 100 > plays * 98,
        "the oracle lost its way in {} of {plays}",
        plays - judged
    );
}
