//! How many connections an account has at once, and how fast they are made: counted at the server.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tests::app::{App, send};
use tests::eventually::eventually;
use tests::mail;
use tests::scripted::{self, Scripted};
use tests::worker::Worker;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::TcpStream;

use crate::sending::sender::{Sender, nothing_is_near, sender, start};
use crate::sending::sink::{Sink, everybody};

const PATIENCE: Duration = Duration::from_secs(120);

/// Who is there now, who were at most, and when each came.
#[derive(Clone, Default)]
struct Counted {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    came: Arc<Mutex<Vec<Instant>>>,
}

impl Counted {
    fn enter(&self) -> Inside {
        self.came.lock().unwrap().push(Instant::now());
        self.most.fetch_max(self.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        Inside(self.now.clone())
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A submission server that takes `pause` over each message and counts who is logged in: from AUTH to the answer to QUIT.
async fn slow(counted: &Counted, pause: Duration) -> Scripted {
    let counted = counted.clone();
    scripted::serve(move |stream| {
        let counted = counted.clone();
        async move {
            let _ = session(stream, &counted, pause).await;
        }
    })
    .await
}

async fn session(stream: TcpStream, counted: &Counted, pause: Duration) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut inside = None;
    write.write_all(b"220 slow\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        let answer = match line.split(' ').next().unwrap_or_default() {
            "EHLO" => "250-slow\r\n250 AUTH PLAIN",
            "AUTH" => {
                inside = Some(counted.enter());
                "235 2.7.0 welcome"
            }
            "DATA" => {
                write.write_all(b"354 go on\r\n").await?;
                while lines.next_line().await?.is_some_and(|line| line != ".") {}
                tokio::time::sleep(pause).await;
                "250 2.0.0 Ok: queued as SLOW"
            }
            "QUIT" => {
                drop(inside.take());
                "221 bye"
            }
            _ => "250 2.1.0 ok",
        };
        write.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
    Ok(())
}

/// The real IMAP server behind a counter; each connection waits for `pause` before it is let through.
async fn counted_imap(app: &App, counted: &Counted, pause: Duration) -> Scripted {
    let (counted, port) = (counted.clone(), app.stack.imap_port);
    scripted::serve(move |mut client| {
        let counted = counted.clone();
        async move {
            let _inside = counted.enter();
            tokio::time::sleep(pause).await;
            let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
    })
    .await
}

async fn read_through(app: &App, of: &Sender, imap: &Scripted) {
    let settings = json!({"imap": {"host": "127.0.0.1", "port": imap.port, "security": "none", "password": mail::PASSWORD}});
    let path = format!("/api/accounts/{}?verify=false", of.account);
    app.patch(&of.tenant, &path, &settings).await.expect(200);
    mail::synchronise(app, &of.tenant, &of.account).await;
}

async fn drafts(app: &App, of: &Sender, count: usize) -> Vec<String> {
    let mut drafts = Vec::new();
    for n in 0..count {
        drafts.push(of.draft(app, &["one@x.test"], &format!("Mail {n}")).await);
    }
    drafts
}

async fn order_all(app: &App, of: &Sender, drafts: &[String]) -> Vec<Value> {
    let mut ordered = Vec::new();
    for draft in drafts {
        ordered.push(of.order(app, draft, json!({})).await);
    }
    ordered
}

async fn all_sent(app: &App, of: &Sender, count: i64) {
    let states = "SELECT coalesce(string_agg(state || ' ' || n, ', '), '') FROM
        (SELECT state, count(*)::text AS n FROM submissions WHERE account_id = $1::uuid GROUP BY 1 ORDER BY 1) s";
    let mut conn = app.database.superuser().await;
    eventually("all is sent", PATIENCE, async || {
        let now: String = sqlx::query_scalar(states).bind(&of.account).fetch_one(&mut conn).await.unwrap();
        (now == format!("sent {count}")).then_some(())
    })
    .await;
}

/// Three workers have places for a hundred hand-overs; providers take four log-ins of one account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_eight_submissions_of_one_account_hold_four_logins_and_nobody_else_waits() {
    let app = start(1, &[("IMAP_CONNECTS_PER_HOST_PER_SECOND", "50")]).await;
    let others = [
        Worker::start(&app, &[("IMAP_CONNECTS_PER_HOST_PER_SECOND", "50")]),
        Worker::start(&app, &[("IMAP_CONNECTS_PER_HOST_PER_SECOND", "50")]),
    ];
    let counted = Counted::default();
    let server = slow(&counted, Duration::from_millis(700)).await;
    let quick = Sink::new(None, everybody).start().await;
    let (busy, other) = (sender(&app, server.port).await, sender(&app, quick.port).await);
    let waiting = drafts(&app, &busy, 28).await;
    let one = other.draft(&app, &["two@x.test"], "Meanwhile").await;
    order_all(&app, &busy, &waiting).await;
    let one = other.order(&app, &one, json!({})).await;
    let started = Instant::now();
    other.ends(&app, &one, "sent").await;
    assert!(started.elapsed() < Duration::from_secs(5), "another account waited {:?}", started.elapsed());
    all_sent(&app, &busy, 28).await;
    println!("28 messages of 0.7 s each in {:?}, {} log-ins at once", started.elapsed(), counted.most());
    assert_eq!(counted.most(), 4, "log-ins at once");
    // Seven rounds of 0.7 s: nobody sleeps while there is a seat.
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let mut conn = app.database.superuser().await;
    let attempts: (i64, i32) = sqlx::query_as(
        "SELECT count(*), max(number) FROM submission_attempts a
         JOIN submissions s USING (tenant_id) WHERE s.id = a.submission_id AND s.account_id = $1::uuid",
    )
    .bind(&busy.account)
    .fetch_one(&mut conn)
    .await
    .unwrap();
    assert_eq!(attempts, (28, 1), "waiting is no attempt");
    nothing_is_near(&app).await;
    eventually("no place is held", PATIENCE, async || {
        let held: i64 =
            sqlx::query_scalar("SELECT count(*) FROM connection_places").fetch_one(&mut conn).await.unwrap();
        (held == 0).then_some(())
    })
    .await;
    for mut worker in others {
        worker.signal("-TERM");
        worker.ended(Duration::from_secs(30));
    }
    app.finish().await;
}

async fn hold_all(app: &App, of: &Sender, until: &str) {
    let sql = format!(
        "INSERT INTO connection_places (tenant_id, account_id, protocol, place, holder, held_until)
         SELECT tenant_id, id, p, n, gen_random_uuid(), {until} FROM accounts, unnest(ARRAY['imap', 'smtp']) p, generate_series(1, 4) n
         WHERE id = $1::uuid ON CONFLICT (tenant_id, account_id, protocol, place) DO UPDATE SET held_until = excluded.held_until"
    );
    let mut conn = app.database.superuser().await;
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&of.account).execute(&mut conn).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_places_are_held_mail_waits_a_diagnosis_says_so_and_what_a_dead_process_held_is_free() {
    let app = start(1, &[]).await;
    let server = Sink::new(None, everybody).start().await;
    let alice = sender(&app, server.port).await;
    hold_all(&app, &alice, "now() + interval '50 seconds'").await;
    let first = alice.send(&app, &["one@x.test"], "Waits").await;
    let path = format!("/api/accounts/{}/diagnose", alice.account);
    let told = send(app.request(&alice.tenant, "POST", &path)).await.expect(200);
    for way in ["imap", "smtp"] {
        let steps = told[way]["steps"].as_array().unwrap();
        let login = steps.iter().find(|s| s["step"] == "login").unwrap();
        assert_eq!(
            (&login["outcome"], &login["code"]),
            (&json!("failed"), &json!("connections-in-use")),
            "{told}"
        );
    }
    let still = alice.now(&app, first["id"].as_str().unwrap()).await;
    assert_eq!((&still["state"], &still["attempts"]), (&json!("queued"), &json!([])), "{still}");
    // A clock that was set back holds nothing for longer than a minute.
    hold_all(&app, &alice, "now() + interval '1 hour'").await;
    let sent = alice.ends(&app, &first, "sent").await;
    assert_eq!(sent["attempts"].as_array().unwrap().len(), 1);
    hold_all(&app, &alice, "now()").await;
    let second = alice.send(&app, &["one@x.test"], "Goes").await;
    alice.ends(&app, &second, "sent").await;
    alice.copies(&app, 2).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_in_sent_take_few_connections_at_once() {
    let app = start(1, &[("IMAP_CONNECTS_PER_HOST_PER_SECOND", "50"), ("IMAP_IDLE_ENABLED", "false")]).await;
    let server = Sink::new(None, everybody).start().await;
    let alice = sender(&app, server.port).await;
    let counted = Counted::default();
    let imap = counted_imap(&app, &counted, Duration::from_secs(1)).await;
    read_through(&app, &alice, &imap).await;
    let waiting = drafts(&app, &alice, 14).await;
    order_all(&app, &alice, &waiting).await;
    all_sent(&app, &alice, 14).await;
    eventually("the copies are filed", PATIENCE, async || (alice.sent_on_server(&app) == 14).then_some(()))
        .await;
    println!("{} IMAP connections at once", counted.most());
    // Four of copies, and one of a round.
    assert!((2..=5).contains(&counted.most()), "{} at once", counted.most());
    nothing_is_near(&app).await;
    assert_eq!(alice.sent_on_server(&app), 14);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_finds_no_place_was_not_tried_and_is_filed_when_there_is_one() {
    let app = start(1, &[("IMAP_IDLE_ENABLED", "false")]).await;
    let server = Sink::new(None, everybody).start().await;
    let alice = sender(&app, server.port).await;
    hold_all(&app, &alice, "now() + interval '55 seconds'").await;
    let mut conn = app.database.superuser().await;
    sqlx::query("DELETE FROM connection_places WHERE protocol = 'smtp'").execute(&mut conn).await.unwrap();
    let sent = alice.send(&app, &["one@x.test"], "Waits in the end").await;
    alice.ends(&app, &sent, "sent").await;
    let mut looks = BTreeSet::new();
    eventually("it looked for a place three times", Duration::from_secs(40), async || {
        let due: Option<DateTime<Utc>> =
            sqlx::query_scalar("SELECT run_at FROM jobs WHERE kind = 'file_sent_copy' AND state = 'ready'")
                .fetch_optional(&mut conn)
                .await
                .unwrap();
        looks.extend(due);
        (looks.len() > 3).then_some(())
    })
    .await;
    let copy: (String, i32) = eventually("the last look is over", PATIENCE, async || {
        sqlx::query_as("SELECT sent_copy, sent_copy_attempts FROM submissions WHERE sent_copy_attempts = 0")
            .fetch_optional(&mut conn)
            .await
            .unwrap()
    })
    .await;
    assert_eq!(copy, ("pending".to_owned(), 0));
    hold_all(&app, &alice, "now()").await;
    alice.copies(&app, 1).await;
    app.finish().await;
}

/// Nobody who waits is a reason to hammer a host: mail and its copies stand in line, for both protocols together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sending_and_copies_stand_in_line_with_all_connections_to_a_host() {
    let app = start(1, &[("IMAP_CONNECTS_PER_HOST_PER_SECOND", "1"), ("IMAP_IDLE_ENABLED", "false")]).await;
    let counted = Counted::default();
    let server = slow(&counted, Duration::ZERO).await;
    let alice = sender(&app, server.port).await;
    let imap = counted_imap(&app, &counted, Duration::ZERO).await;
    read_through(&app, &alice, &imap).await;
    counted.came.lock().unwrap().clear();
    let waiting = drafts(&app, &alice, 4).await;
    order_all(&app, &alice, &waiting).await;
    all_sent(&app, &alice, 4).await;
    eventually("the copies are filed", PATIENCE, async || (alice.sent_on_server(&app) == 4).then_some(()))
        .await;
    let came = counted.came.lock().unwrap().clone();
    assert!(came.len() >= 8, "{} connections", came.len());
    let spread = came[came.len() - 1] - came[0];
    println!("{} connections within {spread:?}", came.len());
    // One a second; what a user waits for may have come between.
    assert!(spread >= Duration::from_millis(6_500), "{} connections within {spread:?}", came.len());
    app.finish().await;
}
