//! Random plays of our user's edits beside another client, over a line that is cut now and then, with pauses and deaths of
//! workers: at every rest each message is where, and as, some allowed order of everybody's acts puts it.
//!
//! - `judge`: which states are allowed; a small reference of its own
//! - `diary`: when edits were asked for, sent and over, and what the product had read
//! - `user`, `other`: who acts
//! - `rest`: all that waits is done, and everything is looked at
//!
//! `SEEDS` plays that many in each mode (2), `STEPS` long (20), `AT_ONCE` side by side (1); `SEED` repeats what was decided in one, though not how the
//! worker's steps fall in between. A failure names the seed, the mode, and what happened since the last rest.
//!
//! Not played, since the outcome has no place in the reference: two equal messages in one mailbox, a message that comes back
//! after it was nowhere.

mod diary;
mod judge;
mod other;
mod rest;
mod user;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::PgConnection;
use tests::app::App;
use tests::dice::Dice;
use tests::fault::{Cut, End, Proxy, Toward};
use tests::imap::Imap;
use tests::ledger::Ledger;
use tests::relay::Relay;
use tests::{mail, worker};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::case::{Case, numbered};
use crate::traffic::setting;
use diary::Line;
use judge::{Asked, BOXES, Judge};

/// What the mailboxes are called at first.
const NAMES: [&str; BOXES] = ["INBOX", "A", "B", "C", "Trash"];
/// A lost answer costs little.
const SETTINGS: [(&str, &str); 4] = [
    ("OUTBOUND_ALLOW", "localhost:1-65535,127.0.0.0/8:1-65535"),
    ("IMAP_IDLE_ENABLED", "false"),
    ("IMAP_COMMAND_TIMEOUT_SECONDS", "3"),
    ("WORKER_LEASE_SECONDS", "10"),
];
/// Longest wait between two steps while a worker is at it.
const STEP_MS: usize = 60;
/// Where a line is cut.
const SAID_BY_US: [&str; 6] = ["UID STORE", "UID MOVE", "UID COPY", "UID EXPUNGE", "SELECT", "UID FETCH"];
const SAID_BY_SERVER: [&str; 4] = ["OPYUID", " OK ", "FETCH (", "EXISTS"];

/// Commands of ours that change messages.
const SENT: [&str; 4] = ["UID STORE", "UID COPY", "UID MOVE", "UID EXPUNGE"];

/// A server with fewer extensions.
struct Mode {
    name: &'static str,
    host: &'static str,
    words: &'static [(&'static str, &'static str)],
    has_move: bool,
    has_uidplus: bool,
}

const ALL: Mode =
    Mode { name: "all extensions", host: "127.0.0.1", words: &[], has_move: true, has_uidplus: true };
/// Dovecot 2.3 has no MAILBOXID; without these it is asked for each mailbox, and Trash is known by its name.
const NO_LIST: Mode = Mode {
    name: "without MAILBOXID, LIST-STATUS, SPECIAL-USE",
    words: &[("LIST-STATUS", "XIST-STATUS"), ("SPECIAL-USE", "XPECIAL-USE"), ("OBJECTID", "XBJECTID")],
    ..ALL
};
const NO_UIDPLUS: Mode = Mode {
    name: "without UIDPLUS",
    words: &[("UIDPLUS", "XIDPLUS"), ("COPYUID", "XOPYUID")],
    has_uidplus: false,
    ..ALL
};
const NO_MOVE: Mode = Mode { name: "without MOVE", words: &[("MOVE", "XOVE")], has_move: false, ..ALL };
const NO_QRESYNC: Mode = Mode { name: "without QRESYNC", words: &[("QRESYNC", "XRESYNC")], ..ALL };
const PLAIN: Mode = Mode {
    name: "plain IMAP4rev1",
    host: devstack::PLAIN_HOST,
    words: &[("COPYUID", "XOPYUID")],
    has_move: false,
    has_uidplus: false,
};

/// A message of the play.
struct Letter {
    id: String,
    judge: Judge,
    /// What our user asks for at this moment.
    asks: Vec<Asked>,
}

/// One play.
struct Play {
    case: Case,
    mode: &'static Mode,
    dice: Dice,
    proxy: Proxy,
    relay: Relay,
    client: Imap,
    conn: PgConnection,
    ledger: Ledger,
    /// A worker of its own that can be killed, where the play has that.
    worker: Option<worker::Worker>,
    /// Names on the server and ids, by number.
    names: [String; BOXES],
    /// Those that got another name or UIDVALIDITY since the last rest: both at once is another mailbox.
    altered: [bool; BOXES],
    boxes: [String; BOXES],
    letters: BTreeMap<u32, Letter>,
    paused: bool,
    /// A command of ours that changes messages was heard when the diary was read last.
    sent: bool,
    made: u32,
    /// What was done, and since the last rest what happened.
    counts: BTreeMap<&'static str, usize>,
    steps: Steps,
}

impl Play {
    async fn new(mode: &'static Mode, seed: u64, mortal: bool) -> Self {
        let mut dice = Dice::new(seed);
        let app = App::start_with(&SETTINGS).await;
        let ledger = Ledger::open(&app).await;
        let mut conn = app.database.superuser().await;
        diary::open(&mut conn).await;
        let user = mail::new_mailbox(&app);
        let mut client = Imap::login(&app, &user).await;
        for name in &NAMES[1..BOXES - 1] {
            client.ok(&format!("CREATE {name}")).await;
        }
        let count = 4 + dice.below(5) as u32;
        for n in 1..=count {
            client.append(NAMES[dice.below(BOXES - 1)], "", None, &numbered(n)).await;
        }
        let relay = Relay::before(mode.host, app.stack.imap_port, mode.words).await;
        let proxy = Proxy::before(relay.port).await;
        let mut case = Case::of(app, user, "127.0.0.1", Some(proxy.port)).await;
        case.app.add_scheduler();
        let worker = mortal.then(|| case.process(&SETTINGS));
        if !mortal {
            case.app.add_worker();
        }
        case.sync().await;
        let mut play = Self {
            case,
            mode,
            dice,
            proxy,
            relay,
            client,
            conn,
            ledger,
            worker,
            names: NAMES.map(str::to_owned),
            altered: [false; BOXES],
            boxes: Default::default(),
            letters: BTreeMap::new(),
            paused: false,
            sent: false,
            made: count,
            counts: BTreeMap::new(),
            steps: Steps { play: format!("SEED={seed}, {}", mode.name), lines: Vec::new() },
        };
        for (at, name) in NAMES.iter().enumerate() {
            play.boxes[at] = play.case.mailbox(name).await;
        }
        let truth = play.truth().await;
        play.learn(truth).await;
        play
    }

    fn note(&mut self, what: String) {
        self.steps.lines.push(what);
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn number_of(&self, mailbox: Option<&String>) -> Option<usize> {
        self.boxes.iter().position(|id| Some(id) == mailbox)
    }

    /// What the product noted since the last time.
    async fn diary(&mut self) -> Vec<Line> {
        self.sent = false;
        for said in self.relay.heard() {
            self.sent |= SENT.iter().any(|command| said.contains(command));
            self.steps.lines.push(format!("        {said}"));
        }
        diary::read(&mut self.conn).await
    }

    /// Lets the judges know of it.
    fn judge(&mut self, lines: &[Line]) {
        for line in lines {
            let Some(n) = line.subject.strip_prefix('M').and_then(|n| n.parse::<u32>().ok()) else {
                continue;
            };
            let at = self.number_of(line.mailbox.as_ref());
            let place = at.map_or_else(String::new, |at| format!(" {}", NAMES[at]));
            let told = format!(
                "    product: M{n} …{} {} {} {}{place} {}",
                line.id, line.what, line.edit, line.kind, line.state
            );
            self.note(told);
            let asked = matches!(line.what.as_str(), "ask" | "merge").then(|| self.asked(n, line));
            let first = |o: &Line| o.what == "over" && o.subject == line.subject && o.tx == line.tx;
            let with_another = lines.iter().any(|o| first(o) && o.edit < line.edit);
            let Some(Letter { judge, .. }) = self.letters.get_mut(&n) else { continue };
            let mut wrong = Ok(());
            match (line.what.as_str(), asked, at) {
                ("ask", Some(asked), _) => judge.ask(line.edit, asked),
                ("merge", Some(asked), _) => judge.merge(line.edit, asked),
                ("over", ..) => wrong = judge.over(line.edit, with_another),
                ("reads", _, Some(at)) => judge.reads(at),
                ("misses", _, Some(at)) => judge.misses(at),
                _ if line.is_sent() => judge.begin(line.edit, line.state == "copied"),
                _ => {}
            }
            self.fails(n, wrong);
        }
    }

    fn fails(&self, n: u32, wrong: Result<(), String>) {
        if let Err(what) = wrong {
            panic!("M{n}: {what}");
        }
    }

    async fn step(&mut self) {
        match self.dice.below(100) {
            0..48 => self.user_acts().await,
            48..76 => self.other_acts().await,
            76..84 => self.turn().await,
            84..90 => self.cut(),
            90..92 => self.rename().await,
            92 => self.renumber().await,
            93..95 => self.expunge_marked().await,
            95..97 => self.kill().await,
            _ => {
                let path = format!("/api/sync/imap/{}", self.case.account);
                self.case.app.post(&self.case.tenant, &path, &json!({})).await;
            }
        }
        let lines = self.diary().await;
        self.judge(&lines);
        if !self.paused && self.dice.below(3) > 0 {
            // Steps come as quickly as a worker does; nothing is concluded from how long this is.
            tokio::time::sleep(Duration::from_millis(self.dice.below(STEP_MS) as u64)).await;
        }
    }

    /// The account is paused, or goes on.
    async fn turn(&mut self) {
        self.paused = !self.paused;
        let what = if self.paused { "pause" } else { "resume" };
        let path = format!("/api/accounts/{}/{what}", self.case.account);
        self.case.app.post(&self.case.tenant, &path, &json!({})).await.expect(200);
        self.count("pauses and resumptions");
        self.note(what.to_owned());
    }

    /// The line will end at one of the next commands or answers.
    fn cut(&mut self) {
        // Silence costs the patience for an answer.
        let ends = [End::Reset, End::Close, End::Reset, End::Close, End::Reset, End::Close, End::Hole];
        let end = ends[self.dice.below(ends.len())];
        let server = self.dice.below(2) == 0;
        let (toward, said) = match server {
            true => (Toward::Client, SAID_BY_SERVER[self.dice.below(SAID_BY_SERVER.len())]),
            false => (Toward::Server, SAID_BY_US[self.dice.below(SAID_BY_US.len())]),
        };
        let before = self.dice.below(2) == 0;
        let cut = if before { Cut::before(said, end) } else { Cut::after(said, end) };
        self.proxy.cut(toward, cut);
        self.note(format!("the line will end {} {said}: {end:?}", if before { "before" } else { "after" }));
    }

    /// The worker dies, now or at a place that has a name, and another comes.
    async fn kill(&mut self) {
        let Some(worker) = self.worker.take() else { return };
        drop(worker);
        crate::killed::let_time_pass(&self.case).await;
        let place = ["pushed-before-recorded", "committed-before-ack", "pushed-before-recorded:2"];
        let place = place[self.dice.below(place.len())];
        let settings: Vec<(&str, &str)> = SETTINGS.into_iter().chain([("FAILPOINT", place)]).collect();
        self.worker = Some(self.case.process(&settings));
        self.count("deaths");
        self.note(format!("the worker is killed; the next one dies at {place}"));
    }

    async fn finish(self) {
        let Self { case, worker, mut client, conn, steps, .. } = self;
        client.run("LOGOUT").await;
        drop((worker, conn));
        crate::killed::let_time_pass(&case).await;
        case.finish().await;
        drop(steps);
    }
}

/// What happened since the last rest, told when the play fails.
struct Steps {
    play: String,
    lines: Vec<String>,
}

impl Drop for Steps {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.play, self.lines.join("\n"));
        }
    }
}

/// The plays of a mode, some at once: most of its time a play waits. One that fails keeps no other from its end.
async fn play(mode: &'static Mode) {
    let seeds = match setting("SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let first = crate::traffic::seed() >> 1;
            first..first + setting("SEEDS").unwrap_or(2)
        }
    };
    let steps = setting("STEPS").unwrap_or(20);
    let at_once = usize::try_from(setting("AT_ONCE").unwrap_or(1)).unwrap();
    let (mut seeds, mut plays, mut failed) = (seeds.peekable(), JoinSet::new(), 0);
    while seeds.peek().is_some() || !plays.is_empty() {
        if let Some(seed) = seeds.next_if(|_| plays.len() < at_once) {
            let handle = Handle::current();
            // On a thread of its own: of closures over references the compiler does not believe that a play can move between
            // threads.
            plays.spawn_blocking(move || handle.block_on(one(mode, seed, steps)));
        } else if let Some(ended) = plays.join_next().await {
            failed += usize::from(ended.is_err());
        }
    }
    assert_eq!(failed, 0, "plays of {} that failed", mode.name);
}

async fn one(mode: &'static Mode, seed: u64, steps: u64) {
    let start = Instant::now();
    // A worker in a process of its own costs time to start.
    let mut play = Play::new(mode, seed, steps > 100 && seed.is_multiple_of(4)).await;
    for _ in 0..steps {
        play.step().await;
        if play.dice.below(18) == 0 {
            play.rest(false).await;
        }
        play.case.stay_logged_in().await;
    }
    play.rest(true).await;
    let cuts = play.proxy.fired();
    eprintln!("SEED={seed} {}: {:.1?}, {cuts} cuts, {:?}", mode.name, start.elapsed(), play.counts);
    play.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plays_of_edits_with_all_extensions_end_as_their_order_allows() {
    play(&ALL).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plays_of_edits_without_lists_that_tell_all_end_as_their_order_allows() {
    play(&NO_LIST).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plays_of_edits_without_uidplus_end_as_their_order_allows() {
    play(&NO_UIDPLUS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plays_of_edits_without_move_end_as_their_order_allows() {
    play(&NO_MOVE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plays_of_edits_without_qresync_end_as_their_order_allows() {
    play(&NO_QRESYNC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plays_of_edits_on_a_plain_server_end_as_their_order_allows() {
    play(&PLAIN).await;
}
