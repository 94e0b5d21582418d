//! Another client, on a connection of its own.

use tests::imap::{Imap, quoted};

use super::diary::Line;
use super::judge::{Act, BOXES, READ, STAR};
use super::{NAMES, Play};

/// Whether the server did what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Did {
    Yes,
    No,
    /// It ended the connection, or did not say.
    Perhaps,
}

/// What was done.
struct Done {
    act: Act,
    did: Did,
    /// A command of ours was under way about then.
    beside_ours: bool,
}

impl Play {
    /// One thing done to one message, if it is where it may be.
    pub async fn other_acts(&mut self) {
        let letters: Vec<u32> = self.letters.keys().copied().collect();
        let Some(n) = self.dice.pick(&letters).copied() else { return };
        let places: Vec<usize> = (0..BOXES).filter(|m| self.letters[&n].judge.is_perhaps_in(*m)).collect();
        let Some(at) = self.dice.pick(&places).copied() else { return };
        let Some(uid) = self.find(n, at).await else { return };
        let Some(act) = self.wish(n, at) else { return };
        let lines = self.diary().await;
        let sent = self.sent;
        self.judge(&lines);
        // A removal is two commands: nothing of ours may come between.
        if matches!(act, Act::Expunge { .. }) && !self.is_left_alone(n) {
            return;
        }
        let did = self.perform(act, uid).await;
        let after = self.diary().await;
        self.note(format!("another client: M{n} {act:?}: {did:?}"));
        self.count("another client's");
        let act = Done { act, did, beside_ours: sent || self.sent };
        self.acted(n, act, &after);
        self.judge(&after);
    }

    fn is_left_alone(&self, n: u32) -> bool {
        let judge = &self.letters[&n].judge;
        judge.open() == 0 || self.paused && !judge.is_under_way()
    }

    fn wish(&mut self, n: u32, at: usize) -> Option<Act> {
        let to = self.dice.below(BOXES);
        let free = to != at && !self.letters[&n].judge.may_be_in(to);
        match self.dice.below(12) {
            0..5 => {
                let bit = if self.dice.below(3) == 0 { READ } else { STAR };
                Some(Act::Flag { at, bit, on: self.dice.below(2) == 0 })
            }
            5..8 if free => Some(Act::Move { from: at, to }),
            8..10 if free => Some(Act::Copy { from: at, to }),
            10 => Some(Act::Expunge { at }),
            _ => Some(Act::Flag { at, bit: STAR, on: self.dice.below(2) == 0 }),
        }
    }

    /// Its UID in this mailbox, which is open then.
    async fn find(&mut self, n: u32, at: usize) -> Option<u32> {
        if self.client.ended {
            self.client.again().await;
        }
        let opened = self.client.run(&format!("SELECT {}", quoted(&self.names[at]))).await;
        if !opened.is_ok() {
            return None;
        }
        let search = format!("UID SEARCH UNDELETED HEADER Message-ID <m{n}@example.test>");
        let found = self.client.run(&search).await.numbers();
        assert!(found.len() < 2, "M{n} is there twice: {found:?} in {}", NAMES[at]);
        found.first().copied()
    }

    async fn perform(&mut self, act: Act, uid: u32) -> Did {
        let client = &mut self.client;
        let done = match act {
            Act::Flag { bit, on, .. } => {
                let flag = if bit == STAR { "\\Flagged" } else { "\\Seen" };
                let sign = if on { '+' } else { '-' };
                client.run(&format!("UID STORE {uid} {sign}FLAGS ({flag})")).await
            }
            Act::Move { to, .. } => client.run(&format!("UID MOVE {uid} {}", quoted(&self.names[to]))).await,
            Act::Copy { to, .. } => client.run(&format!("UID COPY {uid} {}", quoted(&self.names[to]))).await,
            Act::Expunge { .. } => return expunge(client, uid).await,
        };
        if client.ended {
            return Did::Perhaps;
        }
        let says =
            |word: &str| done.status.contains(word) || done.untagged.iter().any(|r| r.text.contains(word));
        let did = match act {
            Act::Flag { .. } => says(&format!("UID {uid}")),
            _ => says("COPYUID"),
        };
        client.run("UNSELECT").await;
        if did && done.is_ok() { Did::Yes } else { Did::No }
    }

    /// `after`: what the product noted while it was done.
    fn acted(&mut self, n: u32, Done { act, did, beside_ours }: Done, after: &[Line]) {
        let subject = format!("M{n}");
        let of_it = || after.iter().filter(|l| l.subject == subject);
        let raced =
            of_it().any(|l| l.what == "state" || l.what == "over") || self.letters[&n].judge.is_under_way();
        let mut read = 0;
        for line in of_it().filter(|l| l.what == "reads") {
            read |= self.number_of(line.mailbox.as_ref()).map_or(0, |at| 1 << at);
        }
        let judge = &mut self.letters.get_mut(&n).unwrap().judge;
        for line in of_it().filter(|l| l.is_sent()) {
            judge.begin(line.edit, line.state == "copied");
        }
        // A flag of what goes in that moment may be lost with it.
        let flags = matches!(act, Act::Flag { .. });
        let maybe = did == Did::Perhaps || flags && raced;
        if did != Did::No || maybe {
            judge.beside_ours = beside_ours;
            let wrong = judge.act(act, read, maybe);
            self.fails(n, wrong);
        }
    }

    /// A mailbox gets another name.
    pub async fn rename(&mut self) {
        let at = 1 + self.dice.below(BOXES - 2);
        if std::mem::replace(&mut self.altered[at], true) {
            return;
        }
        let new = format!("{}{}", NAMES[at], self.dice.below(100_000));
        if self.client.ended {
            self.client.again().await;
        }
        let done = self.client.run(&format!("RENAME {} {}", quoted(&self.names[at]), quoted(&new))).await;
        self.note(format!("another client: {} is now called {new}: {}", self.names[at], done.status));
        // Dovecot sometimes does it and says that it was deleted under it.
        assert!(
            done.is_ok() || done.status.starts_with("NO [NONEXISTENT]") || self.client.ended,
            "{}",
            done.status
        );
        if !done.is_ok() {
            self.client.again().await;
            let listed = self.client.ok("LIST \"\" \"*\"").await.listed();
            if !listed.iter().any(|(_, name)| *name == new) {
                return;
            }
        }
        self.count("names");
        self.names[at] = new;
    }

    /// A mailbox gets another UIDVALIDITY.
    pub async fn renumber(&mut self) {
        let at = self.dice.below(BOXES);
        if std::mem::replace(&mut self.altered[at], true) {
            return;
        }
        let value = (1 + self.dice.below(4_000_000_000)).to_string();
        let lines = self.diary().await;
        self.judge(&lines);
        self.case.doveadm("mailbox update", &["--uid-validity", &value, &self.names[at]]);
        self.note(format!("UIDVALIDITY {value} of {}", NAMES[at]));
        self.count("UIDVALIDITYs");
        self.letters.values_mut().for_each(|l| l.judge.renumbered(at));
    }

    /// On a server without UIDPLUS what our user deleted stands as `\Deleted`: somebody expunges it.
    pub async fn expunge_marked(&mut self) {
        if self.mode.has_uidplus {
            return;
        }
        let at = self.dice.below(BOXES);
        if self.client.ended {
            self.client.again().await;
        }
        if self.client.run(&format!("SELECT {}", quoted(&self.names[at]))).await.is_ok() {
            self.client.run("EXPUNGE").await;
            self.client.run("UNSELECT").await;
            self.note(format!("another client expunges what is deleted in {}", NAMES[at]));
            self.count("expunges of what was marked");
        }
    }
}

async fn expunge(client: &mut Imap, uid: u32) -> Did {
    client.run(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)")).await;
    let done = client.run(&format!("UID EXPUNGE {uid}")).await;
    if client.ended {
        return Did::Perhaps;
    }
    client.run("UNSELECT").await;
    if done.untagged.iter().any(|r| r.text.contains("EXPUNGE")) { Did::Yes } else { Did::No }
}
