//! Who waits for whom: users for backfills, tenants for each other, everybody for servers that do not answer.

use std::time::{Duration, Instant};

use emailclient_core::queue::job::{Job, enqueue_as, priority};
use serde_json::json;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::fault::{Proxy, Toward};
use tests::{mail, oracle, scripted};
use tokio::time::sleep;

use crate::places::clear;

/// Time for what must not wait for backfills of minutes or for servers that are silent for one.
pub const SOON: Duration = Duration::from_secs(20);

/// Messages that are small but many: minutes of work for an unoptimised build.
fn fill_much(app: &App, user: &str, messages: usize) {
    let start = 1_600_000_000;
    let rows = (0..messages).map(|n| {
        let bytes = mail::message(&format!("Old {n}"), &format!("old{n}@{user}"), "old");
        ("INBOX", vec![], start + n as i64 * 60, bytes)
    });
    app.stack.fill(user, rows).unwrap();
}

/// Messages of four kilobytes, for lines that are slow.
pub fn fill_large(app: &App, user: &str, messages: i64) {
    let text = "0123456789 ".repeat(360);
    let rows = (0..messages).map(|n| {
        let bytes = mail::message(&format!("Old {n}"), &format!("old{n}@{user}"), &text);
        ("INBOX", vec![], 1_600_000_000 + n * 60, bytes)
    });
    app.stack.fill(user, rows).unwrap();
}

pub async fn connect_through(app: &App, tenant: &Tenant, user: &str, proxy: &Proxy) -> String {
    let mut body = mail::settings(app, user);
    body["imap"]["port"] = json!(proxy.port);
    let account = app.post(tenant, "/api/accounts", &body).await.expect(201);
    account["id"].as_str().unwrap().to_owned()
}

/// The state of INBOX, and how many of its messages are here.
pub async fn inbox(app: &App, tenant: &Tenant, account: &str) -> (String, u64) {
    let status = app.get(tenant, &format!("/api/sync/status/{account}")).await.expect(200);
    let mailboxes = status["mailboxes"].as_array().unwrap();
    let inbox = mailboxes.iter().find(|m| m["role"] == "inbox");
    inbox.map_or((String::new(), 0), |m| {
        (m["state"].as_str().unwrap().to_owned(), m["messages_synced"].as_u64().unwrap())
    })
}

/// An account whose old mail comes over a slow line and is being read.
pub struct Slow {
    pub app: App,
    pub tenant: Tenant,
    pub user: String,
    pub account: String,
    pub proxy: Proxy,
}

/// With one worker and no scheduler; messages of four kilobytes, `bandwidth` in bytes a second.
pub async fn reading_old_mail(settings: &[(&str, &str)], messages: i64, bandwidth: usize) -> Slow {
    let mut all = vec![("IMAP_IDLE_ENABLED", "false")];
    all.extend(settings);
    let mut app = App::start_with(&all).await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    fill_large(&app, &user, messages);
    let proxy = Proxy::before(app.stack.imaps_port).await;
    proxy.line(Toward::Client, |line| line.bandwidth = Some(bandwidth));
    app.add_worker();
    let account = connect_through(&app, &tenant, &user, &proxy).await;
    backfill_begun(&app, &tenant, &account).await;
    Slow { app, tenant, user, account, proxy }
}

async fn backfill_begun(app: &App, tenant: &Tenant, account: &str) {
    eventually("the backfill has begun", Duration::from_secs(60), async || {
        let (state, synced) = inbox(app, tenant, account).await;
        (state == "backfill" && synced > 50).then_some(())
    })
    .await;
}

/// Whether one of the newest messages in INBOX has this subject.
pub async fn lists(app: &App, tenant: &Tenant, account: &str, subject: &str) -> bool {
    let path = format!("/api/accounts/{account}/messages?role=inbox&limit=20");
    let page = app.get(tenant, &path).await.expect(200);
    page["data"].as_array().unwrap().iter().any(|m| m["subject"] == subject)
}

pub async fn listed(app: &App, tenant: &Tenant, account: &str, subject: &str) {
    eventually(&format!("{subject} is listed"), SOON, async || {
        lists(app, tenant, account, subject).await.then_some(())
    })
    .await;
}

/// How long a message takes from its delivery into `mailbox` until it is listed, with a refresh asked for.
pub async fn refreshed(app: &App, tenant: &Tenant, (user, account): (&str, &str), subject: &str) -> Duration {
    let started = Instant::now();
    mail::deliver(app, user, &mail::message(subject, &format!("{subject}@example.test"), "fresh"));
    let run = app.post(tenant, &format!("/api/sync/imap/{account}"), &json!({})).await.expect(202);
    listed(app, tenant, account, subject).await;
    let took = started.elapsed();
    eventually("the refresh is over", SOON, async || {
        let path = format!("/api/sync/runs/{}", run["id"].as_str().unwrap());
        (app.get(tenant, &path).await.expect(200)["state"] == "done").then_some(())
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
            enqueue_as(&mut tx, &call, Duration::from_secs(3600), priority::PUSH).await.unwrap();
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
    let Slow { mut app, tenant, user, account, proxy: _proxy } = reading_old_mail(&[], 2_000, 100_000).await;
    app.add_scheduler();
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
async fn a_tenant_that_connects_many_accounts_still_has_refreshes_and_rounds_that_are_due() {
    let mut app = App::start_with(&[("IMAP_IDLE_ENABLED", "false"), ("WORKER_CONCURRENCY", "1")]).await;
    let tenant = app.tenant().await;
    let proxy = Proxy::before(app.stack.imaps_port).await;
    proxy.line(Toward::Client, |line| line.bandwidth = Some(50_000));
    let users: Vec<String> = (0..10).map(|_| mail::new_mailbox(&app)).collect();
    for user in &users {
        fill_large(&app, user, 1_500);
    }
    let user = mail::new_mailbox(&app);
    app.add_worker();
    app.add_scheduler();
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let mut busy = vec![];
    for user in &users {
        busy.push(connect_through(&app, &tenant, user, &proxy).await);
    }
    let begun = async || {
        let mut begun = 0;
        for account in &busy {
            begun += usize::from(inbox(&app, &tenant, account).await.0 == "backfill");
        }
        begun
    };
    // As many as one tenant has places.
    eventually("old mail is being read", Duration::from_secs(60), async || {
        (begun().await >= 7).then_some(())
    })
    .await;
    refreshed(&app, &tenant, (&user, &account), "fresh").await;
    // Nor what nobody asked for.
    mail::deliver(&app, &user, &mail::message("unasked", "unasked@example.test", "x"));
    let due = "UPDATE account_leases SET next_due_at = now() WHERE account_id = $1::uuid";
    sqlx::query(due).bind(&account).execute(&mut app.database.superuser().await).await.unwrap();
    listed(&app, &tenant, &account, "unasked").await;
    // None keeps the last from beginning, either.
    eventually("all have begun", SOON, async || (begun().await == busy.len()).then_some(())).await;
    for account in &busy {
        app.delete(&tenant, &format!("/api/accounts/{account}")).await;
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
    listed(&app, &alive, &account, "unasked").await;
    assert!(waiting().await >= 8, "they still do");
    eprintln!("lag before {before:?}, among two hundred dead hosts {lags:?}");
    app.finish().await;
}
