//! Reading and pushing, as the real driver does it, with faults between any two steps.

use super::server::{BOXES, Mail, NAMES};
use super::{Went, World, bits, key, number};
use crate::flags::Flags;
use crate::sync::edits::{Command, Does, End, Held, Resolved, State};
use crate::sync::merge::FlagState;
use crate::uid::Uid;

/// What the server answered.
enum Answer {
    /// The message was not there under that UID.
    Nothing,
    Done(Option<u32>),
    No,
}

fn uid(n: u32) -> Uid {
    Uid::new(n).unwrap()
}

fn flags(mail: &Mail) -> FlagState {
    let deleted = if mail.deleted { Flags::DELETED } else { Flags::NONE };
    FlagState { flags: bits(mail.flags).union(deleted), ..FlagState::default() }
}

impl World {
    /// A mailbox is selected: UIDs of an earlier generation mean nothing.
    fn select(&mut self, at: usize) -> bool {
        if self.validity[at] == self.server.boxes[at].validity {
            return true;
        }
        self.log(|| format!("  {} has a new UIDVALIDITY", NAMES[at]));
        self.validity[at] = self.server.boxes[at].validity;
        for i in 0..self.messages.len() {
            let forget = |h: &mut Held| {
                if h.mailbox == key(at) {
                    h.uid = None;
                }
            };
            self.messages[i].server.iter_mut().for_each(forget);
            self.messages[i].placement_gone(key(at));
            self.recorded(i);
        }
        false
    }

    pub(super) fn read(&mut self, at: usize) {
        self.select(at);
        self.log(|| format!("  read {}", NAMES[at]));
        for i in 0..self.messages.len() {
            if self.read_one(at, i) {
                if !self.server.has_uidplus {
                    self.change(i, |m| {
                        m.left_marked(key(at));
                        Went::Done
                    });
                }
                self.recorded(i);
            }
            self.looked(at, i);
            self.resolve(i);
        }
    }

    /// Which reading decides what is in doubt: first the mailbox it went out of, then the target.
    fn looked(&mut self, at: usize, i: usize) {
        for (_, id, read) in self.doubts.iter_mut().filter(|d| d.0 == i) {
            let edit = self.messages[i].edits.iter().find(|e| e.id == *id);
            if edit.and_then(|e| e.sent_from) == Some(key(at)) {
                *read = 0;
            }
            *read |= 1 << at;
        }
    }

    /// Whether there was anything new.
    fn read_one(&mut self, at: usize, i: usize) -> bool {
        let mut mails: Vec<_> =
            self.server.boxes[at].mails.iter().filter(|m| m.content == i).cloned().collect();
        let server = &mut self.messages[i].server;
        let (before, mut news) = (server.len(), false);
        // Those whose UIDs are known first, then who looks the same.
        for known in [true, false] {
            server.retain_mut(|held| {
                if held.mailbox != key(at) || held.uid.is_some() != known {
                    return true;
                }
                let same = |m: &Mail| held.uid.map_or(m.deleted == held.marked, |u| u == uid(m.uid));
                let found = mails.iter().position(same);
                let Some(found) = found.or_else(|| (!known && !mails.is_empty()).then_some(0)) else {
                    return false;
                };
                let mail = mails.remove(found);
                let (uid, flags) = (Some(uid(mail.uid)), flags(&mail));
                news |= held.uid != uid || held.flags != flags;
                (held.uid, held.flags) = (uid, flags);
                held.marked &= mail.deleted;
                true
            });
        }
        let gone = server.len() != before;
        for mail in mails {
            let (uid, flags) = (Some(uid(mail.uid)), flags(&mail));
            server.push(Held { row: None, mailbox: key(at), uid, flags, marked: false });
            news = true;
        }
        if gone {
            self.messages[i].placement_gone(key(at));
        }
        news || gone
    }

    /// What is in doubt is decided by what was read since.
    fn resolve(&mut self, i: usize) {
        let ids: Vec<i64> = self.messages[i].edits.iter().map(|e| e.id).collect();
        for id in ids {
            let Some(at) = self.messages[i].edits.iter().position(|e| e.id == id) else { continue };
            let before = self.messages[i].edits[at].state;
            if !matches!(before, State::InDoubt | State::Copied | State::DoneUnseen) {
                continue;
            }
            let read = self.doubts.iter().find(|d| d.1 == id).map_or(0, |d| d.2);
            let went = if before == State::Copied { Went::TakenBack } else { Went::Done };
            let mut told = Resolved::NotYet;
            self.change(i, |m| {
                told = m.resolve(at, |mailbox| read >> number(mailbox) & 1 == 1);
                went
            });
            if told != Resolved::NotYet {
                self.log(|| format!("  message {i}: edit {id} was {before:?}: {told:?}"));
            }
            self.recorded(i);
        }
    }

    /// From now on only what is read anew counts for this edit.
    fn doubt(&mut self, i: usize, id: i64) {
        self.doubts.retain(|d| d.1 != id);
        self.doubts.push((i, id, 0));
    }

    /// Sends one command.
    pub(super) fn push(&mut self, i: usize, command: &Command) {
        let at = number(command.mailbox);
        if !self.select(at) || !self.is_proven(i, command) {
            return;
        }
        let id = self.messages[i].edits[command.edit].id;
        self.log(|| format!("  message {i}: edit {id} sends {:?} in {}", command.does, NAMES[at]));
        self.messages[i].begin(command.edit, command.mailbox);
        let known = self.known(i);
        self.oracles[i].begin(id, known);
        self.doubt(i, id);
        self.recorded(i);
        if self.fault("the line is lost before") {
            return;
        }
        let proven = matches!(command.does, Does::Remove { stands_in: Some(_) });
        if !proven {
            self.others();
        }
        if self.validity[at] != self.server.boxes[at].validity {
            self.log(|| "    thrown out".to_owned());
            return;
        }
        let answer = self.execute(i, at, command);
        self.executed(i, proven);
        self.others();
        if self.fault("the line is lost after") {
            return;
        }
        self.answered(i, id, command, answer);
    }

    /// Whether the message may go out of its mailbox because it stands in another.
    fn is_proven(&mut self, i: usize, command: &Command) -> bool {
        let Does::Remove { stands_in: Some(to) } = command.does else { return true };
        if !self.select(number(to)) {
            return false;
        }
        let there = self.messages[i].server.iter().find(|h| h.mailbox == to && !h.marked);
        let Some(told) = there.and_then(|h| h.uid) else { return false };
        let found = self.server.find(number(to), told.get()).is_some_and(|m| m.content == i && !m.deleted);
        if !found {
            self.log(|| format!("  message {i} is not in {} any more", NAMES[number(to)]));
            self.messages[i].disproved(to, told);
            self.recorded(i);
        }
        found
    }

    fn execute(&mut self, i: usize, at: usize, command: &Command) -> Answer {
        let refused = |to: usize| self.refuses >> to & 1 == 1;
        let never = match command.does {
            Does::Copy { to } | Does::Move { to } => refused(number(to)),
            Does::Store(_) | Does::Remove { .. } => false,
        };
        if never || (self.faults && !self.quiet && self.dice.once_in(14)) {
            return Answer::No;
        }
        let n = command.uid.get();
        let server = &mut self.server;
        let uidplus = server.has_uidplus;
        let transfers = matches!(command.does, Does::Copy { .. } | Does::Move { .. });
        let Some(mail) = server.find(at, n).filter(|m| m.content == i) else {
            // Of UIDs that are not there OK says nothing.
            return if transfers { Answer::Done(None) } else { Answer::Nothing };
        };
        match &command.does {
            Does::Store(change) => {
                let new = change.apply(&FlagState { flags: bits(mail.flags), ..FlagState::default() });
                mail.flags = super::of_bits(new.flags);
                Answer::Done(None)
            }
            Does::Copy { to } | Does::Move { to } => {
                let had = mail.flags;
                let new = server.put(number(*to), i, had, true);
                if server.has_move && matches!(command.does, Does::Move { .. }) {
                    server.take(at, n);
                }
                Answer::Done(uidplus.then_some(new))
            }
            Does::Remove { .. } => {
                if uidplus {
                    server.take(at, n);
                } else {
                    mail.deleted = true;
                }
                Answer::Done(None)
            }
        }
    }

    fn answered(&mut self, i: usize, id: i64, command: &Command, answer: Answer) {
        let (at, from) = (number(command.mailbox), (command.mailbox, command.uid));
        let Some(edit) = self.messages[i].edits.iter().position(|e| e.id == id) else { return };
        let new = match answer {
            Answer::Nothing => {
                self.log(|| "    there was nothing".to_owned());
                self.read(at);
                return;
            }
            Answer::No => {
                self.refused(i, id, edit);
                return;
            }
            Answer::Done(new) => new,
        };
        self.log(|| format!("    OK {new:?}"));
        let (moves, marks) = (self.server.has_move, !self.server.has_uidplus);
        self.doubt(i, id);
        let transfers = matches!(command.does, Does::Copy { .. } | Does::Move { .. });
        if transfers && new.is_none() && self.server.find(at, from.1.get()).is_none() {
            self.log(|| "    and the original is gone".to_owned());
            return;
        }
        self.change(i, |m| {
            match command.does {
                Does::Store(_) => m.stored(edit, from.0, from.1),
                Does::Copy { .. } => m.transferred(edit, from, new.map(uid), false),
                Does::Move { .. } => m.transferred(edit, from, new.map(uid), moves),
                Does::Remove { .. } => m.removed(edit, from, marks),
            }
            Went::Done
        });
        if self.messages[i].edits.iter().any(|e| e.id == id && e.state == State::DoneUnseen) {
            let known = self.known(i);
            self.oracles[i].close(known);
            self.oracles[i].confirm(id);
        }
        self.recorded(i);
    }

    fn refused(&mut self, i: usize, id: i64, edit: usize) {
        self.refusals.push(id);
        let count = self.refusals.iter().filter(|r| **r == id).count();
        self.log(|| format!("    NO for the {count}. time"));
        if count == 3 {
            self.change(i, |m| {
                m.end(edit, End::TakenBack);
                Went::TakenBack
            });
            self.recorded(i);
        }
    }

    /// A fault between two steps, now and then.
    fn fault(&mut self, what: &str) -> bool {
        if !self.faults || !self.dice.once_in(6) {
            return false;
        }
        let crash = self.dice.once_in(3);
        self.log(|| format!("    {what}{}", if crash { ", and the worker dies" } else { "" }));
        if crash {
            // What was read since is in memory only.
            self.doubts.iter_mut().for_each(|d| d.2 = 0);
        }
        true
    }

    /// Nothing goes wrong any more: until there is nothing to do.
    pub(super) fn finish(&mut self) {
        self.faults = false;
        self.log(|| "nothing goes wrong any more".to_owned());
        let mut quiet = 0;
        for _ in 0..150 {
            let before = self.messages.clone();
            let mut sent = 0;
            for at in 0..BOXES {
                self.read(at);
            }
            for i in 0..self.messages.len() {
                while let Some(command) = self.messages[i].commands().first().cloned()
                    && sent < 200
                {
                    sent += 1;
                    self.push(i, &command);
                    if self.messages[i].commands().first() == Some(&command) {
                        break;
                    }
                }
            }
            // Looking at a source and then at a target may take two rounds.
            quiet = if sent == 0 && before == self.messages { quiet + 1 } else { 0 };
            if self.failed.is_some() || quiet == 2 {
                return;
            }
        }
        self.fail("it never comes to rest".to_owned());
    }
}
