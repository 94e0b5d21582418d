//! The stream of events: what it tells, from where it goes on, and how it ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use emailclient_core::domain::event::{self, AccountUpdated, Event};
use emailclient_core::events::log::{self, Filter};
use emailclient_core::platform::db::Db;
use emailclient_core::platform::id::AccountId;
use serde_json::json;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::follower::Listener;
use tests::mail;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::events::{account, ids};

pub(crate) fn stream(app: &App, tenant: &Tenant, query: &str) -> reqwest::RequestBuilder {
    app.request(tenant, "GET", &format!("/api/events{query}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_tells_of_new_mail_and_of_our_edits_and_goes_on_where_it_was_cut() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (account, user) = account(&app, &tenant, vec![mail::message("Old", "old@c.test", "x")]).await;
    let mut open = Listener::open(stream(&app, &tenant, "")).await;
    mail::deliver(&app, &user, &mail::message("New", "new@c.test", "hello"));
    let created = open.wait_for("message.created").await;
    let told = created.json();
    assert_eq!(
        (&told["type"], &told["account_id"], &told["id"]),
        (&json!("message.created"), &json!(account), &json!(created.id))
    );
    assert_eq!(told["data"]["message"]["subject"], "New", "{told}");
    assert_eq!(told["data"]["backfill"], false);
    let id = told["data"]["message_id"].as_str().unwrap().to_owned();
    drop(open);
    app.patch(&tenant, &format!("/api/messages/{id}"), &json!({"starred": true})).await.expect(200);
    let again = stream(&app, &tenant, "?types=message.updated").header("Last-Event-ID", &created.id);
    let mut open = Listener::open(again).await;
    let updated = open.wait_for("message.updated").await.json();
    assert_eq!(
        (&updated["data"]["message_id"], &updated["data"]["changed"]),
        (&json!(id), &json!(["flags"]))
    );
    assert_eq!(updated["data"]["message"]["starred"], true);
    // From the beginning, old mail is left out unless it is asked for.
    let mut all = BTreeSet::new();
    for (query, with_old) in [("&backfill=true", true), ("", false)] {
        let first = before_all(&tenant);
        let path = format!("?last_event_id={first}&types=message.created{query}");
        let mut open = Listener::open(stream(&app, &tenant, &path)).await;
        let sent = open.wait_for("message.created").await.json();
        assert_eq!(sent["data"]["message"]["subject"], if with_old { "Old" } else { "New" });
        assert_eq!(sent["data"]["backfill"], with_old);
        all.insert(sent["id"].to_string());
    }
    assert_eq!(all.len(), 2);
    app.finish().await;
}

/// The id of the place before the first event.
fn before_all(tenant: &Tenant) -> String {
    emailclient_core::events::envelope::event_id(tenant.id, 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_asks_for_good_parameters_and_an_unknown_place_gives_one_reset() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (own, _) = account(&app, &tenant, vec![]).await;
    let other = app.tenant().await;
    let (theirs, user) = account(&app, &other, vec![]).await;
    for (query, code) in [
        ("?types=message.eaten", "invalid-parameter"),
        ("?account_id=7", "invalid-parameter"),
        ("?ping=1", "invalid-parameter"),
        ("?closeafter=0", "invalid-parameter"),
        ("?last_event_id=7", "invalid-state"),
        (&format!("?last_event_id={}", before_all(&other)), "invalid-state"),
    ] {
        app.get(&tenant, &format!("/api/events{query}")).await.refused(400, code);
    }
    app.get(&tenant, &format!("/api/events?account_id={own}&account_id={theirs}"))
        .await
        .refused(404, "not-found");
    // A place in the future, and one that was cut off.
    let future = emailclient_core::events::envelope::event_id(tenant.id, 1_000_000);
    let mut open = Listener::open(stream(&app, &tenant, &format!("?last_event_id={future}&ping=5"))).await;
    let reset = open.next().await.unwrap();
    assert_eq!(reset.kind, "reset");
    // It goes on from now; who comes back with that id is not reset again.
    app.patch(&tenant, &format!("/api/accounts/{own}"), &json!({"name": "Other"})).await.expect(200);
    open.wait_for("account.updated").await;
    open.wait_for("ping").await;
    let mut back =
        Listener::open(stream(&app, &tenant, "?closeafter=1").header("Last-Event-ID", &reset.id)).await;
    assert_eq!(back.next().await.unwrap().kind, "account.updated");
    assert_eq!(back.next().await, None, "one event was asked for");
    // What another tenant does is told to nobody else.
    let mut deaf = Listener::open(stream(&app, &tenant, "")).await;
    mail::deliver(&app, &user, &mail::message("Theirs", "t@c.test", "x"));
    mail::synchronise(&app, &other, &theirs).await;
    app.patch(&tenant, &format!("/api/accounts/{own}"), &json!({"name": "Third"})).await.expect(200);
    assert_eq!(deaf.next().await.unwrap().kind, "account.updated");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_opens_one_stream_and_no_other_door() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let made = app.post(&tenant, "/api/events/ticket", &json!({})).await.expect(201);
    let ticket = made["ticket"].as_str().unwrap();
    let with = |path: String| app.http.get(format!("{}{path}", app.base));
    tests::app::send(with(format!("/api/accounts?ticket={ticket}"))).await.refused(401, "unauthenticated");
    let mut open = Listener::open(with(format!("/api/events?ticket={ticket}&ping=5"))).await;
    tests::app::send(with(format!("/api/events?ticket={ticket}"))).await.refused(401, "invalid-token");
    open.wait_for("ping").await;
    // One that nobody used in time.
    let late = app.post(&tenant, "/api/events/ticket", &json!({})).await.expect(201);
    sqlx::query("UPDATE event_tickets SET expires_at = now() - interval '1 second'")
        .execute(&app.behind)
        .await
        .unwrap();
    let late = late["ticket"].as_str().unwrap();
    tests::app::send(with(format!("/api/events?ticket={late}"))).await.refused(401, "invalid-token");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_session_and_when_the_service_stops() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let mut open = Listener::open(stream(&app, &tenant, "")).await;
    let ticket = app.post(&tenant, "/api/events/ticket", &json!({})).await.expect(201);
    let path = format!("/api/events?ticket={}", ticket["ticket"].as_str().unwrap());
    let mut by_ticket = Listener::open(app.http.get(format!("{}{path}", app.base))).await;
    sqlx::query("UPDATE sessions SET revoked_at = now()").execute(&app.behind).await.unwrap();
    let patience = Duration::from_secs(20);
    let took = tokio::join!(open.ends(patience), by_ticket.ends(patience));
    // Five seconds, and ten for a machine that is busy; the token would last for minutes.
    assert!(took.0.max(took.1) < Duration::from_secs(15), "{took:?}");
    let again = app.login(&tenant.slug, &tenant.email).await;
    let tenant = Tenant { token: again["access_token"].as_str().unwrap().to_owned(), ..tenant };
    let mut last = Listener::open(stream(&app, &tenant, "")).await;
    let begun = Instant::now();
    let (_, ended) = tokio::join!(app.finish(), last.ends(Duration::from_secs(20)));
    assert!(ended < Duration::from_secs(12) && begun.elapsed() < Duration::from_secs(20), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_its_stream_does_not_hold_up_the_end_of_the_service() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // The smaller, the sooner nothing more is taken.
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut line = socket.connect(app.base.trim_start_matches("http://").parse().unwrap()).await.unwrap();
    let head = format!(
        "GET /api/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nX-Tenant-ID: {}\r\n\r\n",
        tenant.token, tenant.slug
    );
    line.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 12];
    line.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let told: Vec<Event> = (0..20_000).map(|_| AccountUpdated { id: AccountId::new() }.into()).collect();
    for portion in told.chunks(1_000) {
        let mut tx = app.db.tenant(tenant.id).await.unwrap();
        event::record(&mut tx, AccountId::new(), portion);
        tx.commit().await.unwrap();
    }
    // What both ends hold of it does not grow any more.
    let mut held = (0, Instant::now());
    eventually("the line is full", Duration::from_secs(60), async || {
        let waits = unsent(&line);
        if waits != held.0 {
            held = (waits, Instant::now());
        }
        (waits > 0 && held.1.elapsed() > Duration::from_secs(2)).then_some(())
    })
    .await;
    let begun = Instant::now();
    app.finish().await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    drop(line);
}

/// Bytes that the other end of a local connection has written and that are not read, as the kernel counts them.
fn unsent(line: &tokio::net::TcpStream) -> u64 {
    let (ours, theirs) = (line.local_addr().unwrap().port(), line.peer_addr().unwrap().port());
    let wanted = (format!(":{theirs:04X}"), format!(":{ours:04X}"));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let row = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    let mut row = row.filter(|row| row[1].ends_with(&wanted.0) && row[2].ends_with(&wanted.1));
    let queues = row.next().map(|row| row[4].to_owned()).unwrap_or_default();
    u64::from_str_radix(queues.split(':').next().unwrap(), 16).unwrap_or(0)
}

/// Each event that a client could be told of, told once at each door and in the same order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_all_the_time_tells_each_event_once_and_in_order() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (account, user) = account(&app, &tenant, vec![]).await;
    let db = Db::new(app.config()).unwrap();
    let begin = log::make_durable(&db, tenant.id).await.unwrap().durable;
    let over = Arc::new(AtomicBool::new(false));
    let hear = async {
        let mut last = emailclient_core::events::envelope::event_id(tenant.id, begin);
        let mut heard = Vec::new();
        loop {
            let ended = over.load(Ordering::SeqCst);
            let mut open = Listener::open(stream(&app, &tenant, "").header("Last-Event-ID", &last)).await;
            let limit = Duration::from_millis(if ended { 3_000 } else { 200 });
            let _ = tokio::time::timeout(limit, async {
                while let Some(sent) = open.next().await {
                    heard.push(sent.id.clone());
                }
            })
            .await;
            last.clone_from(&open.last_id);
            if ended {
                return heard;
            }
        }
    };
    let act = async {
        for n in 0..25 {
            mail::deliver(&app, &user, &mail::message(&format!("M{n}"), &format!("m{n}@c.test"), "x"));
            let path = format!("/api/accounts/{account}");
            app.patch(&tenant, &path, &json!({"name": format!("N{n}")})).await.expect(200);
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        mail::synchronise(&app, &tenant, &account).await;
        for id in ids(&app, &tenant, &account).await {
            app.patch(&tenant, &format!("/api/messages/{id}"), &json!({"unread": false})).await.expect(200);
        }
        over.store(true, Ordering::SeqCst);
    };
    let (heard, ()) = tokio::join!(hear, act);
    let end = log::make_durable(&db, tenant.id).await.unwrap().durable;
    let mut tx = db.tenant(tenant.id).await.unwrap();
    let entries = log::read(&mut tx, (begin, end), &Filter::default(), 10_000).await.unwrap();
    tx.release();
    let wanted: Vec<String> =
        entries.iter().map(|e| emailclient_core::events::envelope::event_id(tenant.id, e.position)).collect();
    assert!(wanted.len() >= 75, "{}", wanted.len());
    assert_eq!(heard, wanted);
    db.close().await;
    app.finish().await;
}
