//! A second client does as it pleases with thousands of steps, while a worker synchronises: after every pause our rows
//! are the server's, and each message has the id it had.
//!
//! `RANDOM_STEPS` (600) and `RANDOM_SEED` choose another run; the seed is printed. A failure names the steps since the
//! last pause.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use mail::mailbox::encode_name;
use sqlx::Row as _;
use tests::imap::{Imap, quoted};
use tests::oracle;
use uuid::Uuid;

use crate::case::Case;

/// Steps between two pauses, at most.
const BURST: usize = 14;
/// A message that was in no mailbox for less than this has the same id when it comes back; ours keeps it for 120 s.
const GRACE: Duration = Duration::from_secs(100);
/// Of two identical messages one may go, and while ours still keeps its id, either may be the one that turns up elsewhere.
const TWINS_REMEMBERED: Duration = Duration::from_secs(180);
/// Messages and mailboxes beyond these are deleted rather than made.
const MOST_MESSAGES: usize = 120;
const MOST_MAILBOXES: usize = 14;

/// SplitMix64: the same run for the same seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.below(from.len())])
    }
}

/// What the mailboxes hold, by the numbers of the messages; a number twice is two identical messages.
#[derive(Default)]
struct Model {
    mailboxes: BTreeMap<String, Vec<u32>>,
    next: u32,
    /// Mailboxes that must stay.
    fixed: BTreeSet<String>,
    /// Messages that were twice in one mailbox, and when last: which of two is which is nobody's to say.
    twins: BTreeMap<u32, Instant>,
    /// When a message left its last mailbox.
    gone: BTreeMap<u32, Instant>,
    /// The same of those that came back since the last pause.
    returned: BTreeMap<u32, Instant>,
}

impl Model {
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

struct Run {
    case: Case,
    client: Imap,
    dice: Dice,
    model: Model,
    /// Since the last pause.
    steps: Vec<String>,
    made: u32,
    /// How often the id of a message was compared with what it was.
    checked: usize,
}

fn message(n: u32) -> Vec<u8> {
    tests::mail::message(&format!("M{n}"), &format!("m{n}@example.test"), &"x".repeat((n % 7) as usize * 100))
}

const FLAGS: [&str; 7] = ["\\Seen", "\\Flagged", "\\Answered", "\\Draft", "\\Deleted", "$Work", "Later"];

impl Run {
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
        self.client.select(&mailbox).await;
        let found =
            self.client.ok(&format!("UID SEARCH HEADER Message-ID <m{n}@example.test>")).await.numbers();
        let uid = *found.first().unwrap_or_else(|| panic!("{n} is not in {mailbox}: {:?}", self.steps));
        Some((mailbox, n, uid))
    }

    async fn step(&mut self) {
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
            _ => self.uidvalidity(),
        };
        // A session that stays in a mailbox which is deleted or renamed gets BYE.
        self.client.run("UNSELECT").await;
        self.steps.extend(done);
    }

    async fn append(&mut self) -> Option<String> {
        let mailbox = self.mailbox();
        self.model.next += 1;
        let n = self.model.next;
        let flags = [FLAGS[self.dice.below(FLAGS.len())], ""][self.dice.below(2)];
        self.client.append(&mailbox, flags, None, &message(n)).await;
        self.model.put(&mailbox, n);
        Some(format!("APPEND {n} to {mailbox}"))
    }

    async fn store(&mut self) -> Option<String> {
        let (mailbox, n, uid) = self.opened().await?;
        let sign = if self.dice.below(2) == 0 { "+" } else { "-" };
        let flag = FLAGS[self.dice.below(FLAGS.len())];
        self.client.ok(&format!("UID STORE {uid} {sign}FLAGS ({flag})")).await;
        Some(format!("STORE {sign}{flag} on {n} in {mailbox}"))
    }

    async fn transfer(&mut self, command: &str) -> Option<String> {
        let (mailbox, n, uid) = self.opened().await?;
        let target = self.mailbox();
        self.client.ok(&format!("UID {command} {uid} {}", quoted(&target))).await;
        self.model.put(&target, n);
        if command == "MOVE" {
            self.model.take(&mailbox, n);
        }
        Some(format!("{command} {n} from {mailbox} to {target}"))
    }

    async fn copy_and_expunge(&mut self) -> Option<String> {
        let (mailbox, n, uid) = self.opened().await?;
        let target = self.mailbox();
        self.client.ok(&format!("UID COPY {uid} {}", quoted(&target))).await;
        self.client.ok(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)")).await;
        self.client.ok(&format!("UID EXPUNGE {uid}")).await;
        self.model.put(&target, n);
        self.model.take(&mailbox, n);
        Some(format!("COPY and EXPUNGE {n} from {mailbox} to {target}"))
    }

    async fn expunge(&mut self) -> Option<String> {
        let (mailbox, n, uid) = self.opened().await?;
        self.client.ok(&format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)")).await;
        self.client.ok(&format!("UID EXPUNGE {uid}")).await;
        self.model.take(&mailbox, n);
        Some(format!("EXPUNGE {n} from {mailbox}"))
    }

    /// A message that was deleted a while ago is put back, as an undo does.
    async fn come_back(&mut self) -> Option<String> {
        let gone: Vec<u32> = self.model.gone.keys().copied().collect();
        let n = *self.dice.pick(&gone)?;
        let mailbox = self.mailbox();
        self.client.append(&mailbox, "", None, &message(n)).await;
        self.model.put(&mailbox, n);
        Some(format!("APPEND {n} again to {mailbox}"))
    }

    async fn create(&mut self) -> Option<String> {
        if self.model.mailboxes.len() >= MOST_MAILBOXES {
            return None;
        }
        let name = self.new_name();
        self.client.ok(&format!("CREATE {}", quoted(&name))).await;
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
        self.client.ok(&format!("RENAME {} {}", quoted(&from), quoted(&to))).await;
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
        self.client.ok(&format!("DELETE {}", quoted(&name))).await;
        self.model.take_mailbox(&name);
        if again {
            self.client.ok(&format!("CREATE {}", quoted(&name))).await;
            self.model.mailboxes.insert(name.clone(), Vec::new());
        }
        Some(format!("DELETE {name}{}", if again { " and CREATE" } else { "" }))
    }

    fn uidvalidity(&mut self) -> Option<String> {
        let mailbox = self.mailbox();
        let value = (1 + self.dice.below(4_000_000_000)).to_string();
        let path = mail::mailbox::decode_name(mailbox.as_bytes());
        self.case.doveadm("mailbox update", &["--uid-validity", &value, &path]);
        Some(format!("UIDVALIDITY {value} of {mailbox}"))
    }

    /// The ids of each message, by its number, of those in a mailbox.
    async fn ids(&self) -> BTreeMap<u32, BTreeSet<Uuid>> {
        let rows = sqlx::query("SELECT id, message_id_header FROM messages WHERE gone_at IS NULL")
            .fetch_all(&mut self.case.app.database.superuser().await)
            .await
            .unwrap();
        let mut ids: BTreeMap<u32, BTreeSet<Uuid>> = BTreeMap::new();
        for row in rows {
            let header: String = row.get("message_id_header");
            let n = header.trim_start_matches('m').split('@').next().unwrap().parse().unwrap();
            ids.entry(n).or_default().insert(row.get("id"));
        }
        ids
    }

    /// Waits for a round and looks at everything. `known`: the id of each message that ever had one place only.
    async fn pause(&mut self, known: &mut BTreeMap<u32, Uuid>, whole: bool) {
        self.case.sync().await;
        if whole {
            self.case.settled().await;
        } else {
            oracle::rows_agree(&self.case.app, &self.case.account, &self.case.user).await;
        }
        let ids = self.ids().await;
        // What was away for longer, by the time it was seen again, is another message.
        for (n, _) in std::mem::take(&mut self.model.returned).iter().filter(|(_, at)| at.elapsed() > GRACE) {
            known.remove(n);
        }
        for (n, ids) in &ids {
            let most =
                self.model.mailboxes.values().map(|held| held.iter().filter(|m| *m == n).count()).max();
            let most = most.unwrap_or_default();
            assert!(ids.len() >= most, "{n}: {ids:?} for {most} in one mailbox");
            if most > 1 {
                self.model.twins.insert(*n, Instant::now());
            }
            if self.model.twins.contains_key(n) {
                known.remove(n);
                continue;
            }
            // Two that once were twins keep their two ids wherever they go.
            if ids.len() > 1 {
                assert!(!known.contains_key(n), "message {n} has two ids after {:#?}", self.steps);
                continue;
            }
            self.checked += 1;
            let id = *ids.first().unwrap();
            let before = *known.entry(*n).or_insert(id);
            assert_eq!(id, before, "message {n} has another id after {:#?}", self.steps);
        }
        let live: BTreeSet<u32> = self.model.mailboxes.values().flatten().copied().collect();
        assert_eq!(ids.into_keys().collect::<BTreeSet<_>>(), live, "{:#?}", self.steps);
        self.model.twins.retain(|_, at| at.elapsed() < TWINS_REMEMBERED);
        self.model.gone.retain(|_, at| at.elapsed() < GRACE / 2);
        known.retain(|n, _| live.contains(n) || self.model.gone.contains_key(n));
        self.steps.clear();
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var_os(name).map(|value| value.to_str().and_then(|v| v.parse().ok()).expect(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_survive_whatever_another_client_does_and_our_rows_are_the_servers() {
    let steps = setting("RANDOM_STEPS").unwrap_or(600);
    let seed = setting("RANDOM_SEED").unwrap_or_else(|| emailclient_core::id::new_uuid().as_u64_pair().1);
    eprintln!("RANDOM_SEED={seed} RANDOM_STEPS={steps}");
    let case = Case::with(vec![]).await;
    let client = case.client().await;
    let fixed: BTreeSet<String> =
        ["INBOX", "Sent", "Drafts", "Trash", "Junk", "Archive"].map(str::to_owned).into();
    let mailboxes = fixed.iter().map(|name| (name.clone(), Vec::new())).collect();
    let model = Model { mailboxes, fixed, ..Model::default() };
    let mut run = Run { case, client, dice: Dice(seed), model, steps: Vec::new(), made: 0, checked: 0 };
    let mut known = BTreeMap::new();
    let started = Instant::now();
    let (mut done, mut pauses) = (0, 0);
    while done < steps {
        let burst = 1 + run.dice.below(BURST);
        for _ in 0..burst {
            run.step().await;
            // Rounds come at any moment, not only when all is quiet.
            if run.dice.below(10) == 0 {
                let path = format!("/api/sync/imap/{}", run.case.account);
                run.case.app.post(&run.case.tenant, &path, &serde_json::json!({})).await.expect(202);
            }
        }
        done += burst as u64;
        pauses += 1;
        run.pause(&mut known, pauses % 8 == 0).await;
        if pauses % 50 == 0 {
            eprintln!("{done} steps, {} ids compared, {:?}", run.checked, started.elapsed());
        }
    }
    run.pause(&mut known, true).await;
    let (made, checked, took) = (run.model.next, run.checked, started.elapsed());
    eprintln!("{done} steps, {pauses} pauses, {made} messages made, {checked} ids compared, {took:?}");
    assert!(checked as u64 > steps, "hardly anything was looked at");
    run.client.run("LOGOUT").await;
    run.case.finish().await;
}
