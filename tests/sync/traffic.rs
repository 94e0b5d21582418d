//! A second mail client that does as it pleases: random MOVE, COPY, STORE, EXPUNGE, APPEND, CREATE, RENAME, DELETE and
//! changes of UIDVALIDITY, with a model of what the mailboxes then hold.
//!
//! Alone with the account, it knows every message; where others change it too ([`Traffic::among_others`]), what it does not
//! find any more is passed over, and [`Traffic::learn`] reads anew what there is. A new operation: an arm in
//! [`Traffic::step`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use mail::mailbox::encode_name;
use tests::app::App;
use tests::dice::Dice;
use tests::imap::{Imap, Outcome, quoted};

use crate::case::Case;

/// Messages and mailboxes beyond these are deleted rather than made.
const MOST_MESSAGES: usize = 120;
const MOST_MAILBOXES: usize = 14;
/// Of the steps since the last pause, a failure names so many.
const NAMED: usize = 200;

/// Mailboxes of this name are somebody else's: they are neither looked into nor renamed nor deleted.
pub const FOREIGN: &str = "Ours";

const FLAGS: [&str; 7] = ["\\Seen", "\\Flagged", "\\Answered", "\\Draft", "\\Deleted", "$Work", "Later"];

/// What the mailboxes hold, by the numbers of the messages; a number twice is two identical messages.
#[derive(Default)]
pub struct Model {
    pub mailboxes: BTreeMap<String, Vec<u32>>,
    /// Messages made so far.
    pub next: u32,
    /// Mailboxes that must stay.
    fixed: BTreeSet<String>,
    /// Messages that were twice in one mailbox, and when last: which of two is which is nobody's to say.
    pub twins: BTreeMap<u32, Instant>,
    /// When a message left its last mailbox.
    pub gone: BTreeMap<u32, Instant>,
    /// The same of those that came back since the last pause.
    pub returned: BTreeMap<u32, Instant>,
}

impl Model {
    fn new() -> Self {
        let fixed: BTreeSet<String> =
            ["INBOX", "Sent", "Drafts", "Trash", "Junk", "Archive"].map(str::to_owned).into();
        let mailboxes = fixed.iter().map(|name| (name.clone(), Vec::new())).collect();
        Self { mailboxes, fixed, ..Self::default() }
    }

    fn count(&self) -> usize {
        self.mailboxes.values().map(Vec::len).sum()
    }

    fn lives(&self, n: u32) -> bool {
        self.mailboxes.values().any(|held| held.contains(&n))
    }

    fn put(&mut self, mailbox: &str, n: u32) {
        let held = self.mailboxes.get_mut(mailbox).unwrap();
        if held.contains(&n) {
            self.twins.insert(n, Instant::now());
        }
        held.push(n);
        if let Some(at) = self.gone.remove(&n) {
            self.returned.insert(n, at);
        }
    }

    fn take(&mut self, mailbox: &str, n: u32) {
        let held = self.mailboxes.get_mut(mailbox).unwrap();
        if held.iter().filter(|m| **m == n).count() > 1 {
            self.twins.insert(n, Instant::now());
        }
        let at = held.iter().position(|m| *m == n).unwrap();
        held.remove(at);
        if !self.lives(n) {
            self.gone.insert(n, Instant::now());
        }
    }

    fn take_mailbox(&mut self, mailbox: &str) {
        for n in self.mailboxes[mailbox].clone() {
            self.take(mailbox, n);
        }
        self.mailboxes.remove(mailbox);
    }
}

/// The client with its model.
pub struct Traffic {
    client: Imap,
    pub dice: Dice,
    pub model: Model,
    /// Since the last pause; named when the test fails.
    pub steps: Vec<String>,
    /// Operations done so far, by their first word.
    pub done: BTreeMap<String, usize>,
    made: u32,
    shared: bool,
}

/// The message with this number.
pub fn message(n: u32) -> Vec<u8> {
    tests::mail::message(&format!("M{n}"), &format!("m{n}@example.test"), &"x".repeat((n % 7) as usize * 100))
}

/// A number from the environment.
pub fn setting(name: &str) -> Option<u64> {
    std::env::var_os(name).map(|value| value.to_str().and_then(|v| v.parse().ok()).expect(name))
}

/// `RANDOM_SEED`, else another for each run.
pub fn seed() -> u64 {
    setting("RANDOM_SEED").unwrap_or_else(|| emailclient_core::platform::id::new_uuid().as_u64_pair().1)
}

impl Traffic {
    /// Nobody else changes the account.
    pub async fn alone(app: &App, user: &str, dice: Dice) -> Self {
        let client = Imap::login(app, user).await;
        let (model, steps, done) = (Model::new(), Vec::new(), BTreeMap::new());
        Self { client, dice, model, steps, done, made: 0, shared: false }
    }

    /// Others move and delete its messages too, and have mailboxes called [`FOREIGN`].
    pub async fn among_others(app: &App, user: &str, dice: Dice) -> Self {
        let mut traffic = Self::alone(app, user, dice).await;
        traffic.shared = true;
        traffic
    }

    /// One operation, or none where there is nothing to do it to.
    pub async fn step(&mut self, case: &Case) {
        let choice = self.dice.below(100);
        let full = self.model.count() > MOST_MESSAGES;
        let done = match choice {
            0..20 if !full => self.append().await,
            0..38 => self.store().await,
            38..54 => self.transfer("MOVE").await,
            54..64 if !full => self.transfer("COPY").await,
            54..72 => self.copy_and_expunge().await,
            72..84 => self.expunge().await,
            84..88 => self.come_back().await,
            88..91 => self.create().await,
            91..95 => self.rename().await,
            95..97 => self.delete(false).await,
            97..98 => self.delete(true).await,
            _ => self.uidvalidity(case),
        };
        // A session that stays in a mailbox which is deleted or renamed gets BYE.
        if !self.client.ended {
            self.client.run("UNSELECT").await;
        }
        if self.client.ended {
            self.learn().await;
            self.note("BYE".to_owned());
        }
        if let Some(step) = done {
            self.note(step);
        }
    }

    /// Notes what was done, by this client or beside it.
    pub fn note(&mut self, step: String) {
        *self.done.entry(step.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
        self.steps.push(step);
    }

    /// A message that came into INBOX by another way.
    pub fn arrived(&mut self, n: u32) {
        self.model.put("INBOX", n);
    }

    /// A number for a message that is new.
    pub fn next_number(&mut self) -> u32 {
        self.model.next += 1;
        self.model.next
    }

    fn mailbox(&mut self) -> String {
        let names: Vec<String> = self.model.mailboxes.keys().cloned().collect();
        // INBOX is where most happens.
        if self.dice.below(3) == 0 { "INBOX".to_owned() } else { self.dice.pick(&names).unwrap().clone() }
    }

    /// A mailbox and a message in it, opened, with the UID of that message (of one of several that are identical).
    async fn opened(&mut self) -> Option<(String, u32, u32)> {
        let filled: Vec<String> = self
            .model
            .mailboxes
            .iter()
            .filter(|(_, held)| !held.is_empty())
            .map(|(n, _)| n.clone())
            .collect();
        let mailbox = self.dice.pick(&filled)?.clone();
        let n = *self.dice.pick(&self.model.mailboxes[&mailbox])?;
        self.asked(&format!("SELECT {}", quoted(&mailbox))).await?;
        let found = self.asked(&format!("UID SEARCH HEADER Message-ID <m{n}@example.test>")).await?.numbers();
        if found.is_empty() {
            assert!(self.shared, "{n} is not in {mailbox}");
            self.model.mailboxes.get_mut(&mailbox)?.retain(|m| *m != n);
            return None;
        }
        Some((mailbox, n, found[0]))
    }

    /// A command that must succeed. Dovecot 2.3.19 now and then ends the session of one in whose mailbox others change much at
    /// once (`BYE IMAP session state is inconsistent, please relogin`): whether it was done then, only [`Traffic::learn`] tells.
    async fn asked(&mut self, command: &str) -> Option<Outcome> {
        let done = self.client.run(command).await;
        assert!(done.is_ok() || self.shared && self.client.ended, "{command}: {}", done.status);
        done.is_ok().then_some(done)
    }

    /// A command about a message that must succeed, unless somebody else took the message away meanwhile.
    async fn tell(&mut self, command: &str) -> Option<()> {
        let done = self.client.run(command).await;
        let taken = self.shared && (done.status.starts_with("NO [EXPUNGEISSUED]") || self.client.ended);
        assert!(done.is_ok() || taken, "{command}: {}", done.status);
        done.is_ok().then_some(())
    }

    /// A command about a mailbox that must succeed. Where others have it open, Dovecot sometimes does it and says that it was
    /// deleted under it; and a name that is new exists already when another session lists it while it is made.
    async fn tell_tree(&mut self, command: &str) -> Option<()> {
        let done = self.client.run(command).await;
        if done.status.starts_with("NO [ALREADYEXISTS]") && command.starts_with("CREATE") {
            return Some(());
        }
        if self.shared && (done.status.starts_with("NO [NONEXISTENT]") || self.client.ended) {
            self.learn().await;
            return None;
        }
        assert!(done.is_ok(), "{command}: {}", done.status);
        Some(())
    }

    async fn append(&mut self) -> Option<String> {
        let mailbox = self.mailbox();
        let n = self.next_number();
        let flags = [FLAGS[self.dice.below(FLAGS.len())], ""][self.dice.below(2)];
        self.put(&mailbox, flags, n).await?;
        self.model.put(&mailbox, n);
        Some(format!("APPEND {n} to {mailbox}"))
    }

    async fn put(&mut self, mailbox: &str, flags: &str, n: u32) -> Option<()> {
        let done = self.client.try_append(mailbox, flags, None, &message(n)).await;
        assert!(done.is_ok() || self.shared && self.client.ended, "APPEND {n}: {}", done.status);
        done.is_ok().then_some(())
    }

    async fn store(&mut self) -> Option<String> {
        let (mailbox, n, uid) = self.opened().await?;
        let sign = if self.dice.below(2) == 0 { "+" } else { "-" };
        let flag = FLAGS[self.dice.below(FLAGS.len())];
        self.tell(&format!("UID STORE {uid} {sign}FLAGS ({flag})")).await?;
        Some(format!("STORE {sign}{flag} on {n} in {mailbox}"))
    }

    async fn transfer(&mut self, command: &str) -> Option<String> {
        let (mailbox, n, uid) = self.opened().await?;
        let target = self.mailbox();
        self.tell(&format!("UID {command} {uid} {}", quoted(&target))).await?;
        self.model.put(&target, n);
        if command == "MOVE" {
            self.model.take(&mailbox, n);
        }
        Some(format!("{command} {n} from {mailbox} to {target}"))
    }

    async fn copy_and_expunge(&mut self) -> Option<String> {
        let (mailbox, n, uid) = self.opened().await?;
        let target = self.mailbox();
        self.tell(&format!("UID COPY {uid} {}", quoted(&target))).await?;
        self.model.put(&target, n);
        self.remove(&mailbox, n, uid).await?;
        Some(format!("COPY and EXPUNGE {n} from {mailbox} to {target}"))
    }

    async fn expunge(&mut self) -> Option<String> {
        let (mailbox, n, uid) = self.opened().await?;
        self.remove(&mailbox, n, uid).await?;
        Some(format!("EXPUNGE {n} from {mailbox}"))
    }

    async fn remove(&mut self, mailbox: &str, n: u32, uid: u32) -> Option<()> {
        self.tell(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)")).await?;
        self.tell(&format!("UID EXPUNGE {uid}")).await?;
        self.model.take(mailbox, n);
        Some(())
    }

    /// A message that was deleted a while ago is put back, as an undo does.
    async fn come_back(&mut self) -> Option<String> {
        let gone: Vec<u32> = self.model.gone.keys().copied().collect();
        let n = *self.dice.pick(&gone)?;
        let mailbox = self.mailbox();
        self.put(&mailbox, "", n).await?;
        self.model.put(&mailbox, n);
        Some(format!("APPEND {n} again to {mailbox}"))
    }

    async fn create(&mut self) -> Option<String> {
        if self.model.mailboxes.len() >= MOST_MAILBOXES {
            return None;
        }
        let name = self.new_name();
        self.tell_tree(&format!("CREATE {}", quoted(&name))).await?;
        self.model.mailboxes.insert(name.clone(), Vec::new());
        Some(format!("CREATE {name}"))
    }

    fn new_name(&mut self) -> String {
        self.made += 1;
        let parents: Vec<String> = self.model.mailboxes.keys().cloned().collect();
        let below = ["", "Top/", "Größe & Co/"][self.dice.below(3)];
        let name = match self.dice.below(4) {
            0 => return format!("{}/Box {}", self.dice.pick(&parents).unwrap(), self.made),
            _ => format!("{below}Box {}", self.made),
        };
        encode_name(&name).unwrap()
    }

    fn loose(&mut self) -> Option<String> {
        let loose: Vec<String> =
            self.model.mailboxes.keys().filter(|m| !self.model.fixed.contains(*m)).cloned().collect();
        self.dice.pick(&loose).cloned()
    }

    async fn rename(&mut self) -> Option<String> {
        let from = self.loose()?;
        let to = self.new_name();
        if to.starts_with(&format!("{from}/")) {
            return None;
        }
        self.tell_tree(&format!("RENAME {} {}", quoted(&from), quoted(&to))).await?;
        let carried: Vec<String> = self
            .model
            .mailboxes
            .keys()
            .filter(|m| **m == from || m.starts_with(&format!("{from}/")))
            .cloned()
            .collect();
        for old in carried {
            let held = self.model.mailboxes.remove(&old).unwrap();
            self.model.mailboxes.insert(format!("{to}{}", &old[from.len()..]), held);
        }
        Some(format!("RENAME {from} to {to}"))
    }

    async fn delete(&mut self, again: bool) -> Option<String> {
        let name = self.loose()?;
        self.tell_tree(&format!("DELETE {}", quoted(&name))).await?;
        self.model.take_mailbox(&name);
        if again {
            self.tell_tree(&format!("CREATE {}", quoted(&name))).await?;
            self.model.mailboxes.insert(name.clone(), Vec::new());
        }
        Some(format!("DELETE {name}{}", if again { " and CREATE" } else { "" }))
    }

    fn uidvalidity(&mut self, case: &Case) -> Option<String> {
        let mailbox = self.mailbox();
        let value = (1 + self.dice.below(4_000_000_000)).to_string();
        let path = mail::mailbox::decode_name(mailbox.as_bytes());
        case.doveadm("mailbox update", &["--uid-validity", &value, &path]);
        Some(format!("UIDVALIDITY {value} of {mailbox}"))
    }

    /// Reads what the mailboxes hold, but for those of others.
    pub async fn learn(&mut self) {
        let before: BTreeSet<u32> = self.model.mailboxes.values().flatten().copied().collect();
        while self.client.ended || self.read_all().await.is_none() {
            self.client.again().await;
        }
        for n in before {
            if !self.model.lives(n) {
                self.model.gone.insert(n, Instant::now());
            }
        }
    }

    async fn read_all(&mut self) -> Option<()> {
        self.model.mailboxes.clear();
        for (_, name) in self.asked("LIST \"\" \"*\"").await?.listed() {
            if name.starts_with(FOREIGN) {
                continue;
            }
            let opened = self.client.run(&format!("EXAMINE {}", quoted(&name))).await;
            if self.client.ended {
                return None;
            }
            if !opened.is_ok() {
                continue;
            }
            let fetched = self.asked("UID FETCH 1:* (BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])").await?;
            let headers = fetched.untagged.iter().filter_map(|r| r.literals.last());
            let number = |header: &Vec<u8>| {
                let header = String::from_utf8_lossy(header);
                header.split_once("<m")?.1.split('@').next()?.parse().ok()
            };
            self.model.mailboxes.insert(name, headers.filter_map(number).collect());
        }
        self.client.run("UNSELECT").await;
        (!self.client.ended).then_some(())
    }

    /// The end.
    pub async fn log_out(&mut self) {
        self.client.run("LOGOUT").await;
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let from = self.steps.len().saturating_sub(NAMED);
            eprintln!("steps since the last pause: {:#?}", &self.steps[from..]);
        }
    }
}
