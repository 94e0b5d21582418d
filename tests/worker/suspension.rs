//! A suspended tenant: nothing of it runs, nothing of it leaves, and all of it goes on when the suspension is lifted.

use std::sync::atomic::Ordering;
use std::time::Duration;

use emailclient_core::queue::suspension;
use serde_json::json;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail;
use tests::relay::Relay;

use crate::sending::sender::{sender, start};
use crate::sending::sink::{Sink, everybody};

const PATIENCE: Duration = Duration::from_secs(40);

async fn suspend(app: &App, tenant: &Tenant) {
    let mut tx = app.db.tenant(tenant.id).await.unwrap();
    suspension::suspend(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    suspension::stop(&app.db, tenant.id).await.unwrap();
}

async fn lift(app: &App, tenant: &Tenant) {
    let mut tx = app.db.tenant(tenant.id).await.unwrap();
    suspension::lift(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    // The API remembers what it knows of a tenant for some seconds.
    eventually("the API lets the tenant in", Duration::from_secs(10), async || {
        (app.get(tenant, "/auth/me").await.status == 200).then_some(())
    })
    .await;
}

/// State, reason and due jobs of the only submission there is.
async fn submission(app: &App) -> (String, Option<String>, i64) {
    let mut conn = app.database.superuser().await;
    sqlx::query_as(
        "SELECT s.state, s.failure, (SELECT count(*) FROM jobs j WHERE j.kind = 'send_submission' AND j.state = 'ready'
           AND j.run_at <= now()) FROM submissions s",
    )
    .fetch_one(&mut conn)
    .await
    .unwrap()
}

/// Lets another tenant have something done meanwhile, which proves that the worker takes jobs.
async fn others_are_served(app: &App) {
    let other = app.tenant().await;
    let user = mail::new_mailbox(app);
    mail::fill(app, &user, "INBOX", vec![mail::message("Theirs", "theirs@x.test", "x")]);
    let account = mail::connect(app, &other, &user).await;
    mail::synchronise(app, &other, &account).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_to_be_sent_waits_and_leaves_when_the_suspension_is_lifted() {
    let app = start(1, &[]).await;
    let sink = Sink::new(None, everybody);
    let server = sink.start().await;
    let alice = sender(&app, server.port).await;
    let draft = alice.draft(&app, &["one@x.test"], "Held").await;
    let sent = alice.order(&app, &draft, json!({"undo_seconds": 2})).await;
    suspend(&app, &alice.tenant).await;
    eventually("it is due", PATIENCE, async || (submission(&app).await.2 == 1).then_some(())).await;
    others_are_served(&app).await;
    assert_eq!(submission(&app).await.0, "queued");
    assert_eq!((sink.taken().len(), sink.connections.load(Ordering::SeqCst)), (0, 0), "nobody was called");

    lift(&app, &alice.tenant).await;
    alice.ends(&app, &sent, "sent").await;
    alice.copies(&app, 1).await;
    assert_eq!(sink.taken().len(), 1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_that_is_under_way_is_held_before_what_it_would_send_next() {
    let app = start(1, &[]).await;
    let sink = Sink::new(None, everybody);
    let server = sink.start().await;
    let relay = Relay::to(server.port).await;
    let alice = sender(&app, relay.port).await;
    let mut attempts = 0;
    for (n, at) in ["AUTH ", "DATA\r\n"].into_iter().enumerate() {
        let held = relay.hold(at);
        let sent = alice.send(&app, &["one@x.test"], "In the middle").await;
        held.reached().await;
        suspend(&app, &alice.tenant).await;
        held.release();
        let waits = eventually("it waits", PATIENCE, async || {
            let mut conn = app.database.superuser().await;
            let now: (String, Option<String>) =
                sqlx::query_as("SELECT state, failure FROM submissions WHERE id = $1::uuid")
                    .bind(sent["id"].as_str().unwrap())
                    .fetch_one(&mut conn)
                    .await
                    .unwrap();
            (now.0 == "queued").then_some(now.1)
        })
        .await;
        assert_eq!(waits.as_deref(), Some(suspension::HELD), "{at:?}");
        others_are_served(&app).await;
        assert_eq!(sink.taken().len(), n, "{at:?}: the message left a suspended tenant");
        lift(&app, &alice.tenant).await;
        let sent = alice.ends(&app, &sent, "sent").await;
        assert_eq!(sink.taken().len(), n + 1, "{at:?}");
        attempts += sent["attempts"].as_array().unwrap().len();
    }
    assert_eq!(attempts, 4, "each was begun twice");
    alice.copies(&app, 2).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_that_were_asked_for_wait_for_the_end_of_the_suspension() {
    let mut app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", vec![mail::message("Mine", "mine@x.test", "x")]);
    let account = mail::connect(&app, &tenant, &user).await;
    app.post(&tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    suspend(&app, &tenant).await;
    app.add_worker();
    app.add_scheduler();
    others_are_served(&app).await;
    let mut conn = app.database.superuser().await;
    let of_it = "SELECT (SELECT count(*) FROM jobs WHERE tenant_id = $1 AND state = 'ready' AND kind = 'sync_account'),
                        (SELECT count(*) FROM jobs WHERE tenant_id = $1 AND state <> 'ready'),
                        (SELECT count(*) FROM messages WHERE tenant_id = $1)";
    let waiting: (i64, i64, i64) = sqlx::query_as(of_it).bind(tenant.id).fetch_one(&mut conn).await.unwrap();
    assert_eq!(waiting, (1, 0, 0), "jobs that wait, others, messages");

    lift(&app, &tenant).await;
    let list = format!("/api/accounts/{account}/messages");
    eventually("its mail is here", PATIENCE, async || {
        (app.get(&tenant, &list).await.expect(200)["data"].as_array()?.len() == 1).then_some(())
    })
    .await;
    app.finish().await;
}

/// A round that reads old mail for hours is no reason to go on for hours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_that_is_under_way_writes_nothing_more() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", vec![mail::message("Mine", "mine@x.test", "x")]);
    let relay = Relay::to(app.stack.imap_port).await;
    let mut settings = mail::settings(&app, &user);
    settings["imap"]["host"] = json!("127.0.0.1");
    settings["imap"]["port"] = json!(relay.port);
    settings["imap"]["security"] = json!("none");
    let held = relay.hold("BODY");
    let made = app.post(&tenant, "/api/accounts?verify=false", &settings).await.expect(201);
    held.reached().await;
    suspend(&app, &tenant).await;
    held.release();
    others_are_served(&app).await;
    let mut conn = app.database.superuser().await;
    eventually("the round has ended", PATIENCE, async || {
        let running: i64 =
            sqlx::query_scalar("SELECT count(*) FROM jobs WHERE tenant_id = $1 AND state = 'running'")
                .bind(tenant.id)
                .fetch_one(&mut conn)
                .await
                .unwrap();
        (running == 0).then_some(())
    })
    .await;
    let (stored, deaths): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM messages WHERE tenant_id = $1), (SELECT count(*) FROM ingest_batches WHERE tenant_id = $1)",
    )
    .bind(tenant.id)
    .fetch_one(&mut conn)
    .await
    .unwrap();
    assert_eq!((stored, deaths), (0, 0), "messages, and batches that would count as a death over one");

    lift(&app, &tenant).await;
    let list = format!("/api/accounts/{}/messages", made["id"].as_str().unwrap());
    eventually("its mail is here", PATIENCE, async || {
        (app.get(&tenant, &list).await.expect(200)["data"].as_array()?.len() == 1).then_some(())
    })
    .await;
    app.finish().await;
}
