//! Endpoints that harm, names that lead inside, tenants that are suspended, and workers that die.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use emailclient_core::domain::event::{self, DraftCreated};
use emailclient_core::platform::heartbeat::Heartbeat;
use emailclient_core::platform::id::{AccountId, DraftId};
use emailclient_core::queue::suspension;
use emailclient_worker::environment;
use emailclient_worker::webhooks;
use serde_json::json;
use tests::app::App;
use tests::eventually::eventually;
use tests::name_server;
use tests::sink::{Answer, Received, Sink, TAKEN};
use tests::worker::Worker;
use tokio_util::sync::CancellationToken;

use super::SOON;
use super::stage::{Stage, by_account, draft};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_harm_delay_no_other_and_a_redirect_leads_nowhere() {
    let stage = Stage::new(&[]).await;
    let inside = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&inside);
    let secret_place = Sink::plain(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        TAKEN
    })
    .await;
    let location = Box::leak(format!("location: {}\r\n", secret_place.url()).into_boxed_str());
    let redirect: &'static str = location;
    let sinks = [
        Sink::plain(|_| Answer::Never).await,
        Sink::plain(|_| Answer::Never).await,
        Sink::plain(|_| Answer::HangUp).await,
        Sink::plain(move |_| Answer::Status(307, redirect)).await,
        Sink::plain(|_| Answer::Endless).await,
    ];
    let mut hooks = Vec::new();
    for sink in &sinks {
        hooks.push(stage.hook(json!({"url": sink.url()})).await);
    }
    let healthy = Sink::plain(|_| TAKEN).await;
    stage.hook(json!({"url": healthy.url()})).await;
    let started = Instant::now();
    for _ in 0..10 {
        stage.drafts(AccountId::new(), 2).await;
    }
    healthy.got(20).await;
    // Each of the others would hold it up for 15 s.
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    let state = stage.until(&hooks[3], "a redirect is a failure", |s| s["state"] == "failing").await;
    assert_eq!((&state["cause"]["code"], inside.load(Ordering::SeqCst)), (&json!("status-307"), 0));
    // What was answered counts, whatever comes behind it.
    stage.until(&hooks[4], "the endless body is cut off", |s| s["delivered"] == 20).await;
    let state = stage.until(&hooks[0], "who does not answer fails", |s| s["state"] == "failing").await;
    assert_eq!(state["cause"]["code"], "upstream-timeout");
    assert!(sinks[0].most_at_once() <= 8);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_a_worker_is_killed_and_what_comes_twice_has_the_same_id() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let sink = Sink::plain(|_| Answer::Slow(Duration::from_millis(2))).await;
    let made = app.post(&tenant, "/api/webhooks", &json!({"url": sink.url()})).await.expect(201);
    let hook = format!("/api/webhooks/{}", made["id"].as_str().unwrap());
    let accounts: Vec<AccountId> = (0..6).map(|_| AccountId::new()).collect();
    let mut wanted = BTreeMap::<String, Vec<String>>::new();
    for _ in 0..100 {
        for account in &accounts {
            let id = DraftId::new();
            let mut tx = app.db.tenant(tenant.id).await.unwrap();
            event::tell(&mut tx, *account, DraftCreated { id });
            tx.commit().await.unwrap();
            wanted.entry(account.to_string()).or_default().push(id.to_string());
        }
    }
    for killed_at in [60, 300] {
        let worker = Worker::start(&app, &[("WORKER_LEASE_SECONDS", "6")]);
        sink.got(killed_at).await;
        worker.signal("-KILL");
    }
    let mut worker = Worker::start(&app, &[("WORKER_LEASE_SECONDS", "6")]);
    eventually("all are delivered", Duration::from_secs(60), async || {
        let all = sink.all();
        let ids = all.iter().map(Received::id).collect::<BTreeSet<_>>();
        (ids.len() >= 600).then_some(())
    })
    .await;
    let all = sink.all();
    assert_eq!(by_account(&all), wanted);
    assert!(all.len() > 600, "the test kills too early or too late: nothing came twice");
    let mut ids = BTreeMap::new();
    for request in &all {
        assert_eq!(ids.entry(draft(request)).or_insert_with(|| request.id().to_owned()), request.id());
    }
    // One that is told to stop notes what it did.
    worker.signal("-TERM");
    assert!(worker.ended(Duration::from_secs(30)).success());
    let state = app.get(&tenant, &hook).await.expect(200);
    assert_eq!(state["state"], "enabled");
    let left: (i64, Option<uuid::Uuid>) = sqlx::query_as(
        "SELECT s.position - w.position, w.owner FROM webhooks w JOIN tenant_streams s USING (tenant_id)",
    )
    .fetch_one(&app.behind)
    .await
    .unwrap();
    assert_eq!(left, (0, None));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_endpoints_never_answer_takes_no_place_of_another() {
    let mut stage = Stage::new(&[]).await;
    let (dead, healthy) = (Sink::plain(|_| Answer::Never).await, Sink::plain(|_| TAKEN).await);
    for _ in 0..50 {
        stage.hook(json!({"url": dead.url()})).await;
    }
    stage.drafts(AccountId::new(), 1).await;
    eventually("they hold all they can", SOON, async || (dead.all().len() >= 32).then_some(())).await;
    stage.tenant = stage.app.tenant().await;
    stage.hook(json!({"url": healthy.url()})).await;
    let started = Instant::now();
    stage.drafts(AccountId::new(), 5).await;
    healthy.got(5).await;
    // The others hold their places for 15 s.
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    assert_eq!(dead.most_at_once(), 32, "a quarter of the places");
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_resolves_to_the_inside_later_is_not_connected_to() {
    let names = name_server::serve(vec![name_server::a("loop.example", "127.0.0.1")]).await;
    let server = names.address.to_string();
    let stage = Stage::new(&[("OUTBOUND_ALLOW", ""), ("DNS_SERVERS", &server)]).await;
    let hook = stage.hook(json!({"url": "https://8.8.8.8/"})).await;
    // It was another when it was judged.
    sqlx::query("UPDATE webhooks SET url = 'https://loop.example:8443/'")
        .execute(&stage.app.behind)
        .await
        .unwrap();
    let inside = tokio::net::TcpListener::bind("127.0.0.1:8443").await;
    stage.drafts(AccountId::new(), 1).await;
    let state = stage.until(&hook, "it is failing", |s| s["state"] == "failing").await;
    assert_eq!(state["cause"]["code"], "host-not-found");
    let told = stage.app.post(&stage.tenant, &format!("{hook}/test"), &json!({})).await.expect(200);
    assert_eq!(told["error"], "host-not-found");
    if let Ok(inside) = inside {
        let came = tokio::time::timeout(Duration::from_millis(200), inside.accept()).await;
        assert!(came.is_err(), "somebody connected");
    }
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaves_a_suspended_tenant_and_all_of_it_when_that_is_lifted() {
    let stage = Stage::new(&[]).await;
    let sink = Sink::plain(|_| TAKEN).await;
    stage.hook(json!({"url": sink.url()})).await;
    let account = AccountId::new();
    let mut ids = stage.drafts(account, 2).await;
    sink.got(2).await;
    let mut tx = stage.app.db.tenant(stage.tenant.id).await.unwrap();
    suspension::suspend(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    suspension::stop(&stage.app.db, stage.tenant.id).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    ids.extend(stage.drafts(account, 2).await);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(sink.all().len(), 2, "events left a suspended tenant");
    let mut tx = stage.app.db.tenant(stage.tenant.id).await.unwrap();
    suspension::lift(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(by_account(&sink.got(4).await)[&account.to_string()], ids);
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_workers_one_sends_to_an_endpoint_at_a_time() {
    let stage = Stage::new(&[]).await;
    let mut other = environment::new(stage.app.config().clone(), CancellationToken::new()).unwrap();
    other.process.clock = stage.env.clock.clone();
    let running = other.clone();
    let beside = tokio::spawn(async move { webhooks::dispatch(&running, &Heartbeat::default()).await });
    let sink = Sink::plain(|_| Answer::Slow(Duration::from_millis(3))).await;
    let hook = stage.hook(json!({"url": sink.url()})).await;
    let accounts: Vec<AccountId> = (0..4).map(|_| AccountId::new()).collect();
    let mut wanted = BTreeMap::<String, Vec<String>>::new();
    for _ in 0..40 {
        for account in &accounts {
            wanted.entry(account.to_string()).or_default().extend(stage.drafts(*account, 1).await);
        }
    }
    stage.until(&hook, "all are delivered", |s| s["delivered"] == 160).await;
    let all = sink.all();
    assert_eq!((all.len(), by_account(&all)), (160, wanted), "none twice, each account in order");
    assert!(sink.most_at_once() <= 4, "{}", sink.most_at_once());
    other.shutdown.cancel();
    beside.await.unwrap();
    other.db.close().await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_ends_later_than_any_can_is_nobodys() {
    let stage = Stage::new(&[]).await;
    let sink = Sink::plain(|_| TAKEN).await;
    stage.hook(json!({"url": sink.url()})).await;
    let held = async |until: &str| {
        let sql =
            "UPDATE webhooks SET owner = gen_random_uuid(), lease_until = clock_timestamp() + $1::interval";
        sqlx::query(sql).bind(until).execute(&stage.app.behind).await.unwrap();
    };
    held("20 seconds").await;
    stage.drafts(AccountId::new(), 1).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(sink.all().len(), 0, "somebody holds it");
    // The database's clock was an hour ahead when it was written.
    held("1 hour").await;
    sink.got(1).await;
    stage.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_settled_behind_an_event_that_waits_keeps_nothing_new_back() {
    let stage = Stage::new(&[]).await;
    let bad = DraftId::new();
    let sink =
        Sink::plain(move |r| if draft(r) == bad.to_string() { Answer::Status(422, "") } else { TAKEN }).await;
    let hook = stage.hook(json!({"url": sink.url()})).await;
    stage.tell(AccountId::new(), &[DraftCreated { id: bad }.into()]).await;
    // More than is read at once.
    for _ in 0..8 {
        stage.drafts(AccountId::new(), 80).await;
    }
    sink.got(641).await;
    let free = async || {
        let owner: Option<uuid::Uuid> =
            sqlx::query_scalar("SELECT owner FROM webhooks").fetch_one(&stage.app.behind).await.unwrap();
        owner.is_none().then_some(())
    };
    eventually("it is looked at no more", SOON, free).await;
    let new = stage.drafts(AccountId::new(), 2).await;
    let all = sink.got(643).await;
    assert_eq!(all[641..].iter().map(draft).collect::<Vec<_>>(), new);
    eventually("it is looked at no more", SOON, free).await;
    let epoch = async || -> i64 {
        sqlx::query_scalar("SELECT epoch FROM webhooks").fetch_one(&stage.app.behind).await.unwrap()
    };
    let before = epoch().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(epoch().await - before <= 1, "it is taken up again and again, and waits");
    assert_eq!(stage.state(&hook).await["delivered"], 642);
    stage.finish().await;
}
