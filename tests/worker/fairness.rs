//! Who waits for whom: users for backfills, tenants for each other, everybody for servers that do not answer.

use std::time::{Duration, Instant};

use emailclient_core::db::Db;
use emailclient_core::id::{AccountId, TenantId, new_uuid};
use emailclient_core::job::queue::{self, Claimed, Room};
use emailclient_core::job::{Job, enqueue, priority};
use serde_json::json;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::fault::{Proxy, Toward};
use tests::{mail, oracle, scripted};
use tokio::time::sleep;

const ROOM: Room = Room { total: 32, free: 32 };
/// Time for what must not wait for backfills of minutes or for servers that are silent for one.
const SOON: Duration = Duration::from_secs(20);

async fn add(db: &Db, tenant: TenantId, jobs: usize, priority: i16) {
    let mut tx = db.tenant(tenant).await.unwrap();
    for _ in 0..jobs {
        let job = Job::IndexText { account_id: AccountId::new() };
        enqueue(&mut tx, &job, Duration::ZERO, priority).await.unwrap();
    }
    tx.commit().await.unwrap();
}

async fn claim(db: &Db, owner: uuid::Uuid, room: Room) -> Vec<Claimed> {
    let mut tx = db.system().await.unwrap();
    let claimed = queue::claim(&mut tx, owner, room, Duration::from_secs(60)).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

fn of(claimed: &[Claimed], tenant: TenantId) -> usize {
    claimed.iter().filter(|c| c.tenant == tenant).count()
}

async fn clear(app: &App) {
    sqlx::query("DELETE FROM jobs").execute(&mut app.database.superuser().await).await.unwrap();
}

#[tokio::test]
async fn tenants_take_turns_whatever_the_length_of_their_queues() {
    let app = App::start().await;
    let (crowd, few) = (app.tenant().await.id, app.tenant().await.id);
    add(&app.db, crowd, 500, priority::ROUND).await;
    add(&app.db, few, 3, priority::ROUND).await;
    let me = new_uuid();
    let first = claim(&app.db, me, Room { free: 6, ..ROOM }).await;
    assert_eq!((of(&first, crowd), of(&first, few)), (3, 3), "equal shares though the crowd came first");
    let second = claim(&app.db, me, Room { free: 26, ..ROOM }).await;
    assert_eq!(second.len(), 13, "the crowd stops at half of the places");
    add(&app.db, few, 2, priority::ROUND).await;
    assert_eq!(of(&claim(&app.db, me, Room { free: 13, ..ROOM }).await, few), 2);
    // What the crowd has running elsewhere counts against it, too.
    let other = new_uuid();
    add(&app.db, few, 20, priority::ROUND).await;
    let elsewhere = claim(&app.db, other, Room { free: 8, ..ROOM }).await;
    assert_eq!((of(&elsewhere, crowd), of(&elsewhere, few)), (0, 8));
    clear(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn some_places_are_kept_for_what_somebody_waits_for() {
    let app = App::start().await;
    let me = new_uuid();
    for _ in 0..4 {
        add(&app.db, app.tenant().await.id, 40, priority::ROUND).await;
    }
    assert_eq!(claim(&app.db, me, ROOM).await.len(), 24);
    assert!(claim(&app.db, me, Room { free: 8, ..ROOM }).await.is_empty());
    let user = app.tenant().await.id;
    add(&app.db, user, 1, priority::USER).await;
    let quick = claim(&app.db, me, Room { free: 8, ..ROOM }).await;
    assert_eq!((quick.len(), of(&quick, user)), (1, 1));
    clear(&app).await;
    app.finish().await;
}

#[tokio::test]
async fn a_worker_with_one_place_takes_everything_in_its_turn() {
    let app = App::start().await;
    let tenant = app.tenant().await.id;
    add(&app.db, tenant, 1, priority::BACKGROUND).await;
    assert_eq!(claim(&app.db, new_uuid(), Room { total: 1, free: 1 }).await.len(), 1);
    clear(&app).await;
    app.finish().await;
}

/// Messages that are small but many: minutes of work for an unoptimised build.
fn fill_much(app: &App, user: &str, messages: usize) {
    let start = 1_600_000_000;
    let rows = (0..messages).map(|n| {
        let bytes = mail::message(&format!("Old {n}"), &format!("old{n}@{user}"), "old");
        ("INBOX", vec![], start + n as i64 * 60, bytes)
    });
    app.stack.fill(user, rows).unwrap();
}

/// The state of INBOX, and how many of its messages are here.
async fn inbox(app: &App, tenant: &Tenant, account: &str) -> (String, u64) {
    let status = app.get(tenant, &format!("/api/sync/status/{account}")).await.expect(200);
    let mailboxes = status["mailboxes"].as_array().unwrap();
    let inbox = mailboxes.iter().find(|m| m["role"] == "inbox");
    inbox.map_or((String::new(), 0), |m| {
        (m["state"].as_str().unwrap().to_owned(), m["messages_synced"].as_u64().unwrap())
    })
}

async fn backfill_begun(app: &App, tenant: &Tenant, account: &str) {
    eventually("the backfill has begun", Duration::from_secs(60), async || {
        let (state, synced) = inbox(app, tenant, account).await;
        (state == "backfill" && synced > 50).then_some(())
    })
    .await;
}

/// How long a message takes from its delivery into `mailbox` until it is listed, with a refresh asked for.
async fn refreshed(app: &App, tenant: &Tenant, (user, account): (&str, &str), subject: &str) -> Duration {
    let started = Instant::now();
    mail::deliver(app, user, &mail::message(subject, &format!("{subject}@example.test"), "fresh"));
    let run = app.post(tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    eventually("the refresh brought the new message", SOON, async || {
        let path = format!("/api/accounts/{account}/messages?role=inbox&limit=20");
        let page = app.get(tenant, &path).await.expect(200);
        page["data"].as_array().unwrap().iter().any(|m| m["subject"] == subject).then_some(())
    })
    .await;
    let took = started.elapsed();
    eventually("the refresh is over", SOON, async || {
        let status = app.get(tenant, &format!("/api/sync/status/{account}")).await.expect(200);
        let (id, now) = (run["id"].as_str().unwrap(), status["run"]["id"].as_str().unwrap());
        (now > id || (now == id && status["run"]["state"] == "done")).then_some(())
    })
    .await;
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_and_an_edit_go_before_the_backfill_of_the_same_account() {
    let mut app = App::start_with(&[("IMAP_IDLE_ENABLED", "false")]).await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let all = 15_000;
    fill_much(&app, &user, all);
    app.add_worker();
    app.add_scheduler();
    let account = mail::connect(&app, &tenant, &user).await;
    backfill_begun(&app, &tenant, &account).await;
    refreshed(&app, &tenant, (&user, &account), "fresh").await;

    let page =
        app.get(&tenant, &format!("/api/accounts/{account}/messages?role=inbox&limit=1")).await.expect(200);
    let id = page["data"][0]["id"].as_str().unwrap().to_owned();
    app.patch(&tenant, &format!("/api/messages/{id}"), &json!({"starred": true})).await.expect(200);
    eventually("the server has the star", SOON, async || {
        let found = mail::doveadm(&app, &["search", "-u", &user, "mailbox", "INBOX", "flagged"]);
        (found.lines().count() == 1).then_some(())
    })
    .await;
    let (state, synced) = inbox(&app, &tenant, &account).await;
    assert_eq!(state, "backfill", "the test needs more old mail: {synced} are here already");
    eventually("the backfill ends", Duration::from_secs(180), async || {
        let (state, synced) = inbox(&app, &tenant, &account).await;
        (state == "synced" && synced == all as u64 + 1).then_some(())
    })
    .await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_never_rests_does_not_keep_the_old_mail_away() {
    let mut app = App::start_with(&[("IMAP_IDLE_ENABLED", "false")]).await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let all = 15_000;
    fill_much(&app, &user, all);
    app.add_worker();
    app.add_scheduler();
    let account = mail::connect(&app, &tenant, &user).await;
    backfill_begun(&app, &tenant, &account).await;
    // Due far in the future, so that nobody but the round under way takes it.
    let call = Job::PushChanges { account_id: account.parse().unwrap() };
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut calls = 0;
    loop {
        for _ in 0..20 {
            let mut tx = app.db.tenant(tenant.id).await.unwrap();
            enqueue(&mut tx, &call, Duration::from_secs(3600), priority::PUSH).await.unwrap();
            tx.commit().await.unwrap();
            calls += 1;
            sleep(Duration::from_millis(2)).await;
        }
        let (state, synced) = inbox(&app, &tenant, &account).await;
        if state == "synced" {
            break;
        }
        assert!(Instant::now() < deadline, "{synced} of {all} after {calls} calls");
    }
    assert!(calls >= 200, "the test needs more old mail");
    clear(&app).await;
    oracle::agrees(&app, &tenant, &account, &user).await;
    app.finish().await;
}

/// What one command asks a fast server for takes this line twenty seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_goes_before_the_first_old_mail_of_a_slow_server_too() {
    let mut app = App::start_with(&[("IMAP_IDLE_ENABLED", "false")]).await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let old = (0..2_000).map(|n| {
        let text = "0123456789 ".repeat(360);
        let bytes = mail::message(&format!("Old {n}"), &format!("old{n}@{user}"), &text);
        ("INBOX", vec![], 1_600_000_000 + n * 60, bytes)
    });
    app.stack.fill(&user, old).unwrap();
    let proxy = Proxy::before(app.stack.imaps_port).await;
    proxy.line(Toward::Client, |line| line.bandwidth = Some(100_000));
    app.add_worker();
    app.add_scheduler();
    let mut body = mail::settings(&app, &user);
    body["imap"]["port"] = json!(proxy.port);
    let account = app.post(&tenant, "/api/accounts", &body).await.expect(201);
    let account = account["id"].as_str().unwrap().to_owned();
    eventually("old mail is being read", Duration::from_secs(60), async || {
        let (state, synced) = inbox(&app, &tenant, &account).await;
        (state == "backfill" && synced > 50).then_some(())
    })
    .await;
    refreshed(&app, &tenant, (&user, &account), "fresh").await;
    app.delete(&tenant, &format!("/api/accounts/{account}")).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_does_not_wait_for_the_backfills_of_others() {
    let mut app = App::start_with(&[("IMAP_IDLE_ENABLED", "false"), ("WORKER_CONCURRENCY", "1")]).await;
    let (crowd, single) = (app.tenant().await, app.tenant().await);
    let mut busy = vec![];
    for _ in 0..6 {
        let user = mail::new_mailbox(&app);
        fill_much(&app, &user, 4_000);
        busy.push(user);
    }
    let user = mail::new_mailbox(&app);
    app.add_worker();
    app.add_scheduler();
    let account = mail::connect(&app, &single, &user).await;
    mail::synchronise(&app, &single, &account).await;
    let mut accounts = vec![];
    for user in &busy {
        accounts.push(mail::connect(&app, &crowd, user).await);
    }
    backfill_begun(&app, &crowd, &accounts[0]).await;
    refreshed(&app, &single, (&user, &account), "fresh").await;
    let mut open = 0;
    for account in &accounts {
        open += usize::from(inbox(&app, &crowd, account).await.0 != "synced");
    }
    assert!(open > 0, "the test needs more old mail");
    for account in &accounts {
        app.delete(&crowd, &format!("/api/accounts/{account}")).await;
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_dead_hosts_of_one_tenant_do_not_move_anothers_lag() {
    let mut app = App::start_with(&[("IMAP_IDLE_ENABLED", "false"), ("SYNC_INTERVAL_SECONDS", "5")]).await;
    let (dead, alive) = (app.tenant().await, app.tenant().await);
    // Accepts and never says a word: the worst kind, because each connection costs a whole deadline of a minute.
    let hole = scripted::serve(|stream| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let user = mail::new_mailbox(&app);
    app.add_worker();
    app.add_scheduler();
    let account = mail::connect(&app, &alive, &user).await;
    mail::synchronise(&app, &alive, &account).await;
    let before = refreshed(&app, &alive, (&user, &account), "before").await;
    for n in 0..200 {
        let mut settings = mail::settings(&app, &format!("dead{n}@lab.test"));
        settings["imap"]["port"] = json!(hole.port);
        app.post(&dead, "/api/accounts?verify=false", &settings).await.expect(201);
    }
    let waiting = async || -> i64 {
        let sql =
            "SELECT count(*) FROM jobs WHERE kind = 'sync_account' AND state = 'running' AND tenant_id = $1";
        sqlx::query_scalar(sql).bind(dead.id.0).fetch_one(&mut app.database.superuser().await).await.unwrap()
    };
    eventually("the dead hosts keep places busy", Duration::from_secs(60), async || {
        (waiting().await >= 8).then_some(())
    })
    .await;
    let mut lags = vec![];
    for n in 0..5 {
        lags.push(refreshed(&app, &alive, (&user, &account), &format!("during{n}")).await);
    }
    // Rounds that nobody asked for are on time, too.
    mail::deliver(&app, &user, &mail::message("unasked", "unasked@example.test", "x"));
    eventually("the periodic round comes", SOON, async || {
        let page = app
            .get(&alive, &format!("/api/accounts/{account}/messages?role=inbox&limit=20"))
            .await
            .expect(200);
        page["data"].as_array().unwrap().iter().any(|m| m["subject"] == "unasked").then_some(())
    })
    .await;
    assert!(waiting().await >= 8, "they still do");
    eprintln!("lag before {before:?}, among two hundred dead hosts {lags:?}");
    app.finish().await;
}
