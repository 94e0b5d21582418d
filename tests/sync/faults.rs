//! Random traffic under faults: a second client and our own user change the same account, mail arrives, and two workers
//! read, push and watch over a line whose faults come and go. Every so often the line is well, nobody does anything, and
//! the oracle must hold.
//!
//! `FAULT_MINUTES` says how long (without it some twenty seconds), `RANDOM_SEED` repeats what was decided, though not how
//! the workers' steps fall in between; the seed is printed, and a failure names the steps since the last pause.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::app::{Answer, App};
use tests::dice::Dice;
use tests::fault::Proxy;
use tests::fault::weather::Weather;
use tests::ledger::Ledger;
use tests::mail as rig_mail;
use tests::oracle;

use crate::case::Case;
use crate::traffic::{FOREIGN, Traffic, message, seed, setting};

/// Faults cost little when patience is short; the periodic round comes often.
const SETTINGS: [(&str, &str); 4] = [
    ("OUTBOUND_ALLOW", "localhost:1-65535,127.0.0.0/8:1-65535"),
    ("IMAP_COMMAND_TIMEOUT_SECONDS", "3"),
    ("SYNC_INTERVAL_SECONDS", "15"),
    ("WORKER_LEASE_SECONDS", "10"),
];
/// Traffic before everything is looked at, in a long run and in the short one.
const BOUT: Duration = Duration::from_secs(30);
const SHORT_BOUT: Duration = Duration::from_secs(6);
const SHORT: Duration = Duration::from_secs(12);
/// Longest wait between two steps.
const STEP_MS: usize = 120;
/// Once the line is well, all is as it should be within this.
const SETTLED: Duration = Duration::from_secs(120);
/// Our user has so many mailboxes of their own, at most.
const MOST_OWN: usize = 5;

/// What waits for the server, or for another try. What was asked of a message that is nowhere sleeps, and is over with it.
const WAITING: &str = "
    SELECT concat_ws(' ', c.kind, b.path, c.data, c.attempts, c.last_error, c.created_at::time) FROM pending_changes c
      LEFT JOIN mailboxes b ON b.id = c.mailbox_id
    UNION ALL SELECT concat_ws(' ', e.id, e.kind, e.state, 'of', m.subject, 'from', b.path, 'to', t.path, '+', e.flags_add, '-', e.flags_remove,
                                e.refusals, e.last_error, e.sent_at::time, e.created_at::time)
      FROM edits e JOIN messages m ON m.id = e.message_id
      LEFT JOIN mailboxes b ON b.id = e.mailbox_id LEFT JOIN mailboxes t ON t.id = e.target_mailbox_id
      WHERE m.gone_at IS NULL OR EXISTS (
        SELECT 1 FROM message_mailboxes p WHERE p.message_id = m.id AND p.uid IS NOT NULL AND NOT p.marked)
    UNION ALL SELECT concat_ws(' ', 'unread', b.path, a.uid, a.reason) FROM ingest_attempts a JOIN mailboxes b ON b.id = a.mailbox_id
    UNION ALL SELECT concat_ws(' ', 'place', b.path, coalesce(p.uid::text, 'none'), p.flags, p.base_flags, p.keywords, p.base_keywords, p.hidden_at,
                                p.generation = b.generation, p.created_at::time)
      FROM message_mailboxes p JOIN mailboxes b ON b.id = p.mailbox_id
      WHERE p.uid IS NULL OR p.flags <> p.base_flags OR p.keywords <> p.base_keywords";
/// As if the quarter of an hour had passed after which a message that could not be read is asked for again, and an edit that
/// the server refused.
const LATER: [&str; 2] = [
    "UPDATE ingest_attempts SET next_try_at = now() WHERE next_try_at > now()",
    "UPDATE edits SET refused_at = refused_at - interval '15 minutes'",
];

struct Run {
    case: Case,
    traffic: Traffic,
    dice: Dice,
    weather: Weather,
    proxy: Proxy,
    ledger: Ledger,
    /// What our user's requests were answered with: 404 what went a moment ago, 503 what met a worker at the same rows.
    answers: BTreeMap<u16, usize>,
    made: u32,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let mut app = App::start_with(&SETTINGS).await;
        let ledger = Ledger::open(&app).await;
        app.add_worker();
        app.add_worker();
        app.add_scheduler();
        let user = rig_mail::new_mailbox(&app);
        let proxy = Proxy::before(app.stack.imap_port).await;
        let mut dice = Dice::new(seed);
        let traffic = Traffic::among_others(&app, &user, Dice::new(dice.roll())).await;
        let weather = Weather::new(Dice::new(dice.roll()));
        let case = Case::of(app, user, "127.0.0.1", Some(proxy.port)).await;
        Self { case, traffic, dice, weather, proxy, ledger, answers: BTreeMap::new(), made: 0 }
    }

    /// Everybody does something, while the faults change.
    async fn bout(&mut self, lasts: Duration) {
        let start = Instant::now();
        let mut next_turn = start;
        while start.elapsed() < lasts {
            if Instant::now() >= next_turn {
                next_turn = Instant::now() + self.weather.turn(&self.proxy);
            }
            match self.dice.below(100) {
                0..50 => self.traffic.step(&self.case).await,
                50..60 => self.deliver().await,
                60..97 => self.act().await,
                _ => {
                    let path = format!("/api/sync/imap/{}", self.case.account);
                    self.case.app.post(&self.case.tenant, &path, &json!({})).await.expect(202);
                }
            }
            tokio::time::sleep(Duration::from_millis(self.dice.below(STEP_MS) as u64)).await;
        }
    }

    /// The line is well, and nobody does anything any more: all that waits is done, and then everything agrees.
    async fn pause(&mut self) {
        self.case.stay_logged_in().await;
        self.weather.clear(&self.proxy);
        settle(&self.case).await;
        self.case.settled().await;
        self.ledger.balances(&self.case.app).await;
        self.traffic.learn().await;
        self.traffic.steps.clear();
    }

    async fn deliver(&mut self) {
        let n = self.traffic.next_number();
        let (stack, user, bytes) = (self.case.app.stack, self.case.user.clone(), message(n));
        tokio::task::spawn_blocking(move || stack.deliver(&user, &bytes).unwrap()).await.unwrap();
        self.traffic.arrived(n);
        self.traffic.note(format!("LMTP {n}"));
    }

    /// Our user does something through the REST API. What they do it to may have gone a moment ago.
    async fn act(&mut self) {
        match self.dice.below(100) {
            0..40 => self.flag().await,
            40..65 => self.transfer().await,
            65..85 => self.delete().await,
            _ => self.mailboxes().await,
        }
    }

    async fn flag(&mut self) {
        let Some((id, subject)) = self.message().await else { return };
        let on = self.dice.below(2) == 0;
        let change = match self.dice.below(4) {
            0 => json!({"unread": on}),
            1 => json!({"starred": on}),
            2 if on => json!({"keywords_add": ["Later"]}),
            2 => json!({"keywords_remove": ["Later"]}),
            _ => json!({"flags_add": ["\\Answered"], "starred": on}),
        };
        let path = format!("/api/messages/{id}");
        let answer = self.case.app.patch(&self.case.tenant, &path, &change).await;
        self.note("our-flags", format!("{subject} {change}"), &answer);
    }

    async fn transfer(&mut self) {
        let Some((id, subject)) = self.message().await else { return };
        let mailboxes = self.case.mailboxes().await;
        let able: Vec<(&String, &Value)> =
            mailboxes.iter().filter(|(_, m)| m["selectable"] == true).collect();
        let Some((path, target)) = self.dice.pick(&able) else { return };
        let (app, tenant) = (&self.case.app, &self.case.tenant);
        let (word, answer) = if self.dice.below(4) == 0 {
            let body = json!({"ids": [id], "action": "copy", "mailbox_id": target["id"]});
            ("our-copy", app.post(tenant, "/api/messages/actions", &body).await)
        } else {
            let body = json!({"move_to": target["id"]});
            ("our-move", app.patch(tenant, &format!("/api/messages/{id}"), &body).await)
        };
        self.note(word, format!("{subject} to {path}"), &answer);
    }

    async fn delete(&mut self) {
        let Some((id, subject)) = self.message().await else { return };
        let permanent = self.dice.below(3) == 0;
        let path = format!("/api/messages/{id}?permanent={permanent}");
        let answer = self.case.app.delete(&self.case.tenant, &path).await;
        self.note("our-delete", format!("{subject} permanent {permanent}"), &answer);
    }

    /// Our user's own mailboxes come, get other names, and go.
    async fn mailboxes(&mut self) {
        let all = self.case.mailboxes().await;
        let own: Vec<(&String, &Value)> = all.iter().filter(|(path, _)| path.starts_with(FOREIGN)).collect();
        let (app, tenant) = (&self.case.app, &self.case.tenant);
        self.made += 1;
        let name = format!("{FOREIGN} {}", self.made);
        let create = own.is_empty() || own.len() < MOST_OWN && self.dice.below(3) == 0;
        if create {
            let path = format!("/api/accounts/{}/mailboxes", self.case.account);
            let answer = app.post(tenant, &path, &json!({"name": name})).await;
            return self.note("our-create", name, &answer);
        }
        let (path, mailbox) = own[self.dice.below(own.len())];
        let url = format!("/api/mailboxes/{}", mailbox["id"].as_str().unwrap());
        if self.dice.below(2) == 0 {
            let answer = app.patch(tenant, &url, &json!({"name": name})).await;
            self.note("our-rename", format!("{path} to {name}"), &answer);
        } else {
            let answer = app.delete(tenant, &url).await;
            self.note("our-remove", path.clone(), &answer);
        }
    }

    /// A message as our user sees it: id and subject.
    async fn message(&mut self) -> Option<(String, String)> {
        let listed = self.case.listed().await;
        let message = self.dice.pick(&listed)?;
        let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
        Some((text("id"), text("subject")))
    }

    fn note(&mut self, word: &str, what: String, answer: &Answer) {
        assert!(
            answer.status < 300 || matches!(answer.status, 404 | 409 | 422 | 503),
            "{word} {what}: {} {}",
            answer.status,
            answer.text()
        );
        *self.answers.entry(answer.status).or_default() += 1;
        self.traffic.note(format!("{word} {what}: {}", answer.status));
    }

    async fn tell(&self, pauses: usize, took: Duration) {
        let rounds = self.case.count("SELECT count(*) FROM sync_runs").await;
        let failed = self.case.count("SELECT count(*) FROM sync_runs WHERE state = 'failed'").await;
        eprintln!(
            "{took:.0?}: {pauses} pauses without a difference, {} operations {:?}, answers {:?}, faults {:?}, {} connections, \
             {rounds} rounds ({failed} failed), {} events",
            self.traffic.done.values().sum::<usize>(),
            self.traffic.done,
            self.answers,
            self.weather.happened(&self.proxy),
            self.proxy.accepted(),
            self.ledger.events,
        );
    }
}

/// Waits, round by round, until nothing waits for the server or for another try.
pub async fn settle(case: &Case) {
    let start = Instant::now();
    let mut rested = false;
    loop {
        let status = case.round().await;
        for sql in LATER {
            sqlx::query(sql).execute(&case.app.behind).await.unwrap();
        }
        oracle::at_rest(&case.app, &case.account).await;
        let waiting: Vec<String> = sqlx::query_scalar(WAITING).fetch_all(&case.app.behind).await.unwrap();
        // What was pushed after a round, by its own job, raises the server's mod-sequence, which the next round takes over.
        let rests = rig_mail::last_round(&status)["state"] == "done" && waiting.is_empty();
        if rests && rested {
            return;
        }
        rested = rests;
        assert!(start.elapsed() < SETTLED, "{status:#} {waiting:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_bad_the_line_what_everybody_did_to_an_account_ends_the_same_on_both_sides() {
    let minutes = setting("FAULT_MINUTES");
    let seed = seed();
    eprintln!("RANDOM_SEED={seed} FAULT_MINUTES={minutes:?}");
    let (whole, bout) = minutes.map_or((SHORT, SHORT_BOUT), |m| (Duration::from_secs(60 * m), BOUT));
    let mut run = Run::new(seed).await;
    run.pause().await;
    let (start, mut pauses) = (Instant::now(), 0);
    while start.elapsed() < whole {
        run.bout(bout).await;
        run.pause().await;
        pauses += 1;
        if pauses % 10 == 0 {
            run.tell(pauses, start.elapsed()).await;
        }
    }
    run.tell(pauses, start.elapsed()).await;
    assert!(run.weather.happened(&run.proxy).len() > 3, "there were hardly any faults");
    run.traffic.log_out().await;
    run.case.finish().await;
}
