//! The doors of the event log agree, whatever happens: a second client and our own user change an account at random, workers
//! are killed, PostgreSQL crashes, a stream is cut every 200 ms, and a webhook's receiver is away for 26 hours. In the end
//! the stream, the webhook and the log have told the same events, each account in order, and a client that follows the
//! changes from state to state has what is listed.
//!
//! `DOOR_STEPS` (150) and `RANDOM_SEED` choose another run; the seed is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use emailclient_core::events::envelope::event_id;
use emailclient_core::events::log::{self, Filter};
use emailclient_core::platform::db::Db;
use emailclient_core::platform::start::EX_UNAVAILABLE;
use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::database::Database;
use tests::dice::Dice;
use tests::eventually::eventually;
use tests::follower::{Follower, Listener};
use tests::mail;
use tests::postgres::PrivatePostgres;
use tests::sink::{Answer, Sink, TAKEN};
use tests::worker::Worker;
use tokio::task::JoinHandle;

use crate::case::Case;
use crate::faults::settle;
use crate::traffic::{Traffic, seed, setting};

/// Steps between two pauses, at most.
const BURST: usize = 20;
/// For so long the receiver of the webhook is away.
const AWAY_MINUTES: i64 = 26 * 60;
/// An account comes to rest within this after the last fault.
const PATIENCE: Duration = Duration::from_secs(100);
const CUT_AFTER: Duration = Duration::from_millis(200);

const SETTINGS: [(&str, &str); 3] = [
    ("IMAP_IDLE_ENABLED", "false"),
    ("OUTBOUND_ALLOW", "localhost:1-65535,127.0.0.0/8:1-65535"),
    ("WORKER_LEASE_SECONDS", "6"),
];

/// An event as a door told it: its id, and the account it is of.
type Told = (String, Option<String>);

fn told(envelope: &Value) -> Told {
    (envelope["id"].as_str().unwrap().to_owned(), envelope["account_id"].as_str().map(str::to_owned))
}

/// A client of the stream whose connection is cut all the time.
struct Hearer {
    task: JoinHandle<Vec<Told>>,
    over: Arc<AtomicBool>,
}

impl Hearer {
    /// Hears what comes after the event `last`, and once it is told to stop what comes up to `end`.
    fn start(app: &App, tenant: &Tenant, last: String, end: Arc<std::sync::Mutex<Option<String>>>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (http, url) = (app.http.clone(), format!("{}/api/events", app.base));
        let (token, slug, is_over) = (tenant.token.clone(), tenant.slug.clone(), Arc::clone(&over));
        let task = tokio::spawn(async move {
            let (mut last, mut heard) = (last, Vec::new());
            loop {
                let asked = http.get(&url).bearer_auth(&token).header("X-Tenant-ID", &slug);
                let asked = asked.header("Last-Event-ID", &last).send().await;
                // The database is away now and then.
                let Some(answer) = asked.ok().filter(|answer| answer.status() == 200) else {
                    tokio::time::sleep(CUT_AFTER).await;
                    continue;
                };
                let mut stream = Listener::of(answer);
                let _ = tokio::time::timeout(CUT_AFTER, async {
                    while let Some(sent) = stream.next().await {
                        assert_ne!(sent.kind, "reset", "a place that was told is unknown");
                        heard.push(told(&sent.json()));
                    }
                })
                .await;
                if !stream.last_id.is_empty() {
                    last.clone_from(&stream.last_id);
                }
                let wanted = end.lock().unwrap().clone();
                if is_over.load(Ordering::SeqCst) && wanted.is_none_or(|end| heard.iter().any(|t| t.0 == end))
                {
                    return heard;
                }
            }
        });
        Self { task, over }
    }
}

struct Run {
    case: Case,
    traffic: Traffic,
    dice: Dice,
    postgres: PrivatePostgres,
    worker: Worker,
    follower: Follower,
    crashes: usize,
    kills: usize,
}

impl Run {
    async fn step(&mut self) {
        match self.dice.below(100) {
            0..70 => self.traffic.step(&self.case).await,
            70..96 => self.act().await,
            96..98 => {
                self.worker.signal("-KILL");
                self.worker = self.case.process(&SETTINGS);
                self.kills += 1;
            }
            _ => self.crash().await,
        }
        if self.dice.below(10) == 0 {
            let path = format!("/api/sync/imap/{}", self.case.account);
            self.case.app.post(&self.case.tenant, &path, &json!({})).await.expect(202);
        }
    }

    /// PostgreSQL crashes in the middle of whatever is written, and comes back.
    async fn crash(&mut self) {
        let path = format!("/api/sync/imap/{}", self.case.account);
        self.case.app.post(&self.case.tenant, &path, &json!({})).await.expect(202);
        tokio::time::sleep(Duration::from_millis(self.dice.below(300) as u64)).await;
        tokio::task::block_in_place(|| {
            self.postgres.crash();
            self.postgres.up();
        });
        self.crashes += 1;
        eventually("the API is ready again", Duration::from_secs(60), async || {
            let ready = self.case.app.http.get(format!("{}/health/ready", self.case.app.base)).send().await;
            // A pool gives away a broken connection once at most.
            let lists = self.case.app.get(&self.case.tenant, "/api/accounts").await;
            (ready.ok()?.status() == 200 && lists.status == 200).then_some(())
        })
        .await;
        self.revive();
    }

    /// Our user does something. What they do it to may have gone a moment ago, and the database may be busy with it.
    async fn act(&mut self) {
        let listed = self.case.listed().await;
        let Some(message) = self.dice.pick(&listed) else { return };
        let (path, on) =
            (format!("/api/messages/{}", message["id"].as_str().unwrap()), self.dice.below(2) == 0);
        let (app, tenant) = (&self.case.app, &self.case.tenant);
        let answer = match self.dice.below(10) {
            0..4 => app.patch(tenant, &path, &json!({"unread": on})).await,
            4..8 => app.patch(tenant, &path, &json!({"starred": on})).await,
            8 => app.delete(tenant, &path).await,
            _ => {
                let name = format!("N{}", self.dice.below(1_000));
                app.patch(tenant, &format!("/api/accounts/{}", self.case.account), &json!({ "name": name }))
                    .await
            }
        };
        assert!(matches!(answer.status, 200..300 | 404 | 409 | 503), "{} {}", answer.status, answer.text());
        self.traffic.note(format!("our change: {}", answer.status));
    }

    /// Nobody changes anything: who followed the changes has what is listed.
    async fn pause(&mut self) {
        self.case.stay_logged_in().await;
        self.revive();
        if tokio::time::timeout(PATIENCE, settle(&self.case)).await.is_err() {
            panic!("the account does not come to rest: {:#?}", self.stands().await);
        }
        let limit = 1 + self.dice.below(9);
        self.follower.follow(&self.case.app, &self.case.tenant, limit).await;
        self.follower.agrees(&self.case.app, &self.case.tenant).await;
        self.traffic.learn().await;
        self.traffic.steps.clear();
    }

    /// A worker that was just being started when the database went looked for it in vain; orchestrators start it again.
    fn revive(&mut self) {
        if let Some(ended) = self.worker.has_ended() {
            assert_eq!(ended.code(), Some(EX_UNAVAILABLE.into()), "{ended}");
            self.worker = self.case.process(&SETTINGS);
        }
    }

    /// What is left to do, and who has it in hand.
    async fn stands(&self) -> Vec<String> {
        let sql = "SELECT concat_ws(' ', 'job', kind, state, attempt, 'at', run_at, 'until', lease_until, 'now', now(), last_error) FROM jobs
              WHERE state <> 'done'
            UNION ALL SELECT concat_ws(' ', 'lease', owner, expires_at, 'due', next_due_at) FROM account_leases
            UNION ALL SELECT concat_ws(' ', 'account', state, cause_code, cause_text) FROM accounts
            UNION ALL (SELECT concat_ws(' ', 'round', state, requested_at, started_at, finished_at, error) FROM sync_runs
              ORDER BY requested_at DESC LIMIT 5)";
        sqlx::query_scalar(sql).fetch_all(&self.case.app.behind).await.unwrap()
    }

    /// For the dispatcher of webhooks so many minutes pass.
    async fn let_pass(&self, minutes: i64) {
        for sql in [
            "UPDATE webhooks SET failing_since = failing_since - make_interval(mins => $1),
               next_try_at = next_try_at - make_interval(mins => $1), wake_at = wake_at - make_interval(mins => $1)",
            "UPDATE webhook_deliveries SET next_try_at = next_try_at - make_interval(mins => $1),
               created_at = created_at - make_interval(mins => $1)",
        ] {
            sqlx::query(sql).bind(i32::try_from(minutes).unwrap()).execute(&self.case.app.behind).await.unwrap();
        }
    }
}

/// What arrived for the first time, in order.
fn arrived(sink: &Sink) -> Vec<Told> {
    let mut seen = BTreeSet::new();
    let all = sink.all().into_iter().filter(|request| seen.insert(request.id().to_owned()));
    all.map(|request| {
        let body = request.json();
        (request.id().to_owned(), body["data"]["account_id"].as_str().map(str::to_owned))
    })
    .collect()
}

fn by_account(all: &[Told]) -> BTreeMap<Option<String>, Vec<String>> {
    let mut found = BTreeMap::<_, Vec<String>>::new();
    for (id, account) in all {
        found.entry(account.clone()).or_default().push(id.clone());
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doors_tell_the_same_whatever_breaks() {
    let steps = setting("DOOR_STEPS").unwrap_or(150);
    let seed = seed();
    eprintln!("RANDOM_SEED={seed} DOOR_STEPS={steps}");
    let mut dice = Dice::new(seed);
    let postgres = PrivatePostgres::start().await;
    let mut app = App::start_on(Database::of(&postgres), &SETTINGS).await;
    app.add_scheduler();
    let user = mail::new_mailbox(&app);
    let traffic = Traffic::among_others(&app, &user, Dice::new(dice.roll())).await;
    let case = Case::of(app, user, "127.0.0.1", None).await;
    let worker = case.process(&SETTINGS);
    case.sync().await;

    let db = Db::new(case.app.config()).unwrap();
    let begin = log::make_durable(&db, case.tenant.id).await.unwrap().durable;
    let sink = Sink::plain(|_| Answer::Status(503, "")).await;
    let hook = case.app.post(&case.tenant, "/api/webhooks", &json!({"url": sink.url()})).await.expect(201);
    let hook = format!("/api/webhooks/{}", hook["id"].as_str().unwrap());
    let end = Arc::new(std::sync::Mutex::new(None));
    let hearer = Hearer::start(&case.app, &case.tenant, event_id(case.tenant.id, begin), Arc::clone(&end));
    let follower = Follower::begin(&case.app, &case.tenant, &case.account).await;
    let mut run = Run { case, traffic, dice, postgres, worker, follower, crashes: 0, kills: 0 };

    let (mut done, mut passed) = (0, 0);
    while done < steps {
        let burst = 1 + run.dice.below(BURST);
        for _ in 0..burst {
            run.step().await;
        }
        done += burst as u64;
        run.pause().await;
        // The receiver comes back before the end: what happens afterwards goes on behind what waited.
        let due = AWAY_MINUTES * i64::try_from(done).unwrap() * 5 / i64::try_from(steps).unwrap() / 4;
        if passed < AWAY_MINUTES {
            run.let_pass(due.min(AWAY_MINUTES) - passed).await;
            passed = due.min(AWAY_MINUTES);
        } else {
            sink.answer(|_| TAKEN);
        }
    }
    if run.crashes == 0 {
        run.crash().await;
    }
    run.pause().await;
    sink.answer(|_| TAKEN);

    // All are told up to here.
    let last = log::make_durable(&db, run.case.tenant.id).await.unwrap().durable;
    let mut tx = db.tenant(run.case.tenant.id).await.unwrap();
    let entries = log::read(&mut tx, (begin, last), &Filter::default(), 1_000_000).await.unwrap();
    tx.release();
    let entries = entries
        .into_iter()
        .map(|e| (event_id(run.case.tenant.id, e.position), e.account_id.map(|account| account.to_string())));
    let wanted: Vec<Told> = entries.collect();
    assert!(wanted.len() as u64 > steps / 2, "{} events of {steps} steps", wanted.len());
    *end.lock().unwrap() = wanted.last().map(|(id, _)| id.clone());
    hearer.over.store(true, Ordering::SeqCst);
    let heard =
        tokio::time::timeout(Duration::from_secs(120), hearer.task).await.expect("the stream has told all");
    assert_eq!(heard.unwrap(), wanted, "the stream");
    eventually("the webhook has told all", Duration::from_secs(300), async || {
        run.let_pass(60).await;
        (arrived(&sink).len() >= wanted.len()).then_some(())
    })
    .await;
    // Of one account in order; accounts do not wait for each other.
    assert_eq!(by_account(&arrived(&sink)), by_account(&wanted), "the webhook");
    let state = run.case.app.get(&run.case.tenant, &hook).await.expect(200);
    eprintln!(
        "{done} steps, {} events, {} requests at the webhook, {} crashes, {} killed workers, {:?}",
        wanted.len(),
        sink.all().len(),
        run.crashes,
        run.kills,
        run.traffic.done,
    );
    assert_eq!(state["state"], "enabled");
    run.traffic.log_out().await;
    db.close().await;
    let Run { case, postgres, worker, .. } = run;
    drop(worker);
    case.app.stop_services().await;
    drop(postgres);
}
