//! The database's clock is set back or forward while everything runs: no lease and no due time counts for longer than it can.
//!
//! A clock set back by an hour and every stored instant moved an hour ahead are the same to all who compare the two, so the
//! instants are moved: every column of every table that holds one, whatever it is for.

use std::time::Duration;

use emailclient_core::connect::capability_off;
use emailclient_core::domain::search::index;
use emailclient_core::platform::clock::{Clock as _, SystemClock};
use emailclient_core::platform::id::{AccountId, MailboxId};
use emailclient_core::queue::job::{Job, enqueue_as};
use emailclient_core::sync::store::{Target, attempts, audit, checkpoint};
use mail::sync::LocalView;
use mail::uid::{Uid, UidSet};
use serde_json::json;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail as mailbox;
use tests::worker::Worker;
use wire::imap::{Endpoint, Security};

/// Rounds come once a day, so that only a watch notices mail; a lease is as short as an operator may set it.
const SETTINGS: [(&str, &str); 2] = [("SYNC_INTERVAL_SECONDS", "86400"), ("WORKER_LEASE_SECONDS", "4")];
const WATCHING: [(&str, &str); 3] = [SETTINGS[0], SETTINGS[1], ("IMAP_IDLE_ENABLED", "true")];
/// The scheduler looks every 5 s, a lease ends after 4, and a busy machine takes its time.
const SOON: Duration = Duration::from_secs(40);

/// Sets the clock back by so many seconds (forward when negative), as seen by all that is stored.
async fn set_back(app: &App, seconds: i64) {
    let mut conn = app.database.superuser().await;
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT c.table_name::text, string_agg(format('%1$I = %1$I + interval ''%2$s seconds''', c.column_name, $1::text), ', ')
         FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
         WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE' AND c.data_type = 'timestamp with time zone'
           AND c.table_name <> '_sqlx_migrations' GROUP BY 1",
    )
    .bind(seconds)
    .fetch_all(&mut conn)
    .await
    .unwrap();
    assert!(columns.len() > 20, "{columns:?}");
    let mut all = String::from("BEGIN; SET LOCAL session_replication_role = replica;");
    for (table, set) in columns {
        all += &format!("UPDATE {table} SET {set};");
    }
    // Those who write meanwhile lock rows in another order.
    eventually("all stored instants are moved", SOON, async || {
        let moved = sqlx::raw_sql(AssertSqlSafe(format!("{all} COMMIT"))).execute(&mut conn).await;
        if moved.is_err() {
            sqlx::raw_sql("ROLLBACK").execute(&mut conn).await.unwrap();
        }
        moved.ok()
    })
    .await;
}

async fn count(app: &App, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut app.database.superuser().await).await.unwrap()
}

/// Delivers a message and waits until a client sees it.
async fn noticed(app: &App, tenant: &Tenant, user: &str, account: &str, subject: &str) {
    mailbox::deliver(app, user, &mailbox::message(subject, &format!("{subject}@example.test"), "x"));
    eventually(&format!("{subject:?} is noticed"), SOON, async || {
        let page = app.get(tenant, &format!("/api/accounts/{account}/messages?limit=50")).await.expect(200);
        page["data"].as_array().unwrap().iter().any(|m| m["subject"] == subject).then_some(())
    })
    .await;
}

const WATCHED: &str =
    "SELECT count(*) FROM account_leases WHERE watch_owner IS NOT NULL AND watch_expires_at > now()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_when_the_clock_was_set_back_or_forward_is_replaced_as_soon_as_ever() {
    let mut app = App::start_with(&SETTINGS).await;
    app.add_scheduler();
    let tenant = app.tenant().await;
    let user = mailbox::new_mailbox(&app);
    let mut worker = Worker::start(&app, &WATCHING);
    let account = mailbox::connect(&app, &tenant, &user).await;
    mailbox::synchronise(&app, &tenant, &account).await;
    eventually("it is watched", SOON, async || (count(&app, WATCHED).await == 1).then_some(())).await;
    noticed(&app, &tenant, &user, &account, "before").await;
    for (seconds, subject) in [(3_600, "set back"), (-3_600, "set forward"), (86_400, "by a day")] {
        set_back(&app, seconds).await;
        worker.signal("-KILL");
        worker.ended(SOON);
        worker = Worker::start(&app, &WATCHING);
        noticed(&app, &tenant, &user, &account, subject).await;
    }
    worker.signal("-TERM");
    worker.ended(SOON);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_died_before_the_clock_was_set_back_is_replaced() {
    let mut app = App::start_with(&SETTINGS).await;
    let gone = "INSERT INTO scheduler_lease (name, owner, expires_at) VALUES ('scheduler', gen_random_uuid(), now() + interval '1 hour')";
    sqlx::query(gone).execute(&mut app.database.superuser().await).await.unwrap();
    app.add_scheduler();
    let leads = "SELECT count(*) FROM scheduler_lease WHERE expires_at BETWEEN now() AND now() + interval '11 seconds'";
    eventually("its lease is no longer than a lease", SOON, async || {
        (count(&app, leads).await == 1).then_some(())
    })
    .await;
    let owner = "SELECT count(*) FROM scheduler_lease WHERE owner = (SELECT owner FROM first_owner)";
    sqlx::raw_sql("CREATE TABLE first_owner AS SELECT owner FROM scheduler_lease")
        .execute(&mut app.database.superuser().await)
        .await
        .unwrap();
    eventually("another leads", SOON, async || (count(&app, owner).await == 0).then_some(())).await;
    app.finish().await;
}

/// Every kind of lease and due time, each moved far beyond what it can be, and the longest it may be afterwards.
const BOUNDS: [(&str, &str); 9] = [
    ("account_leases", "coalesce(expires_at, now()) <= now() + interval '10 seconds'"),
    ("account_leases", "coalesce(watch_expires_at, now()) <= now() + interval '10 seconds'"),
    ("account_leases", "next_due_at <= now() + interval '86406 seconds'"),
    ("account_leases", "next_audit_at <= now() + interval '86406 seconds'"),
    ("account_leases", "coalesce(failing_since, now()) <= now() + interval '6 seconds'"),
    ("jobs", "state <> 'running' OR lease_until <= now() + interval '10 seconds'"),
    (
        "jobs",
        "state <> 'ready' OR dedupe_key = (SELECT id::text FROM submissions WHERE envelope_from = 'named') OR run_at <= now() + interval '3 minutes'",
    ),
    ("submissions", "state <> 'sending' OR lease_until <= now() + interval '66 seconds'"),
    (
        "submissions",
        "state <> 'queued' OR envelope_from = 'named' OR send_after <= now() + interval '126 seconds'",
    ),
];

async fn send(app: &App, tenant: &Tenant, account: &str, order: serde_json::Value) -> String {
    let draft = json!({"account_id": account, "to": ["one@x.test"], "subject": "s", "text": "x"});
    let draft = app.post(tenant, "/api/compose", &draft).await.expect(201);
    let path = format!("/api/compose/{}/send", draft["id"].as_str().unwrap());
    let submission = app.post(tenant, &path, &order).await.expect(202);
    submission["id"].as_str().unwrap().to_owned()
}

/// Runs statements with `$account` and `$id` put in.
async fn run(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_stored_waits_for_longer_than_it_can() {
    // No worker: nothing but the scheduler touches these rows.
    let mut app = App::start_with(&SETTINGS).await;
    let tenant = app.tenant().await;
    let user = mailbox::new_mailbox(&app);
    let account =
        app.post(&tenant, "/api/accounts?verify=false", &mailbox::settings(&app, &user)).await.expect(201);
    let account = account["id"].as_str().unwrap().to_owned();
    send(&app, &tenant, &account, json!({"undo_seconds": 100})).await;
    let deferred = send(&app, &tenant, &account, json!({"undo_seconds": 100})).await;
    let sending = send(&app, &tenant, &account, json!({"undo_seconds": 100})).await;
    let mut conn = app.database.superuser().await;
    let mut tx = app.db.tenant(tenant.id).await.unwrap();
    let a: AccountId = account.parse().unwrap();
    for job in [
        Job::SyncAccount { account_id: a },
        Job::IndexText { account_id: a },
        Job::PushChanges { account_id: a },
    ] {
        enqueue_as(&mut tx, &job, Duration::ZERO, 0).await.unwrap();
    }
    tx.commit().await.unwrap();
    run(
        &mut conn,
        &format!(
            "UPDATE account_leases SET owner = gen_random_uuid(), expires_at = now() + interval '4 seconds', failing_since = now(),
               watch_owner = gen_random_uuid(), watch_expires_at = now() + interval '4 seconds', woken_at = now();
             UPDATE accounts SET state = 'connected';
             UPDATE jobs SET state = 'running', attempt = 1, lease_owner = gen_random_uuid(), lease_until = now() + interval '4 seconds'
               WHERE kind = 'push_changes';
             UPDATE submissions SET attempt = 1, send_after = now() + interval '1 minute' WHERE id = '{deferred}';
             UPDATE submissions SET attempt = 1, state = 'sending', lease_until = now() + interval '60 seconds' WHERE id = '{sending}'"
        ),
    )
    .await;
    set_back(&app, 3 * 86_400).await;
    let scheduled = SystemClock.now() + chrono::TimeDelta::days(9);
    let named = send(&app, &tenant, &account, json!({"send_at": scheduled})).await;
    run(&mut conn, &format!("UPDATE submissions SET envelope_from = 'named' WHERE id = '{named}'")).await;
    let stands = "SELECT (send_after > now() + interval '8 days')::int::bigint FROM submissions WHERE envelope_from = 'named'";
    assert_eq!(count(&app, stands).await, 1, "{named}");
    app.add_scheduler();
    for (table, holds) in BOUNDS {
        eventually(&format!("{table}: {holds}"), SOON, async || {
            let sql = format!("SELECT count(*) FROM {table} WHERE NOT ({holds})");
            let beyond: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut conn).await.unwrap();
            (beyond == 0).then_some(())
        })
        .await;
    }
    let due = format!("SELECT count(*) FROM submissions WHERE id = '{deferred}' AND send_after > now()");
    let waits: i64 = sqlx::query_scalar(AssertSqlSafe(due)).fetch_one(&mut conn).await.unwrap();
    assert_eq!(waits, 0, "what was put off by a clock that ran ahead is due");
    assert_eq!(count(&app, stands).await, 1, "what a sender named stands");
    drop(conn);
    run(&mut app.database.superuser().await, "DELETE FROM jobs").await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_judged_where_it_is_read_lets_nobody_wait_for_an_instant_of_before() {
    let mut app = App::start_with(&SETTINGS).await;
    let tenant = app.tenant().await;
    let user = mailbox::new_mailbox(&app);
    app.add_worker();
    let account = mailbox::connect(&app, &tenant, &user).await;
    mailbox::synchronise(&app, &tenant, &account).await;
    let a: AccountId = account.parse().unwrap();
    let mut conn = app.database.superuser().await;
    let inbox: uuid::Uuid = sqlx::query_scalar("SELECT id FROM mailboxes WHERE role = 'inbox'")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    let generation: i32 = sqlx::query_scalar("SELECT generation FROM mailboxes WHERE role = 'inbox'")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    let target = Target { account: a, mailbox: MailboxId(inbox), generation };
    let server = Endpoint { host: "mail.test".to_owned(), port: 993, security: Security::Tls };
    let mut tx = app.db.tenant(tenant.id).await.unwrap();
    let uids: UidSet = [Uid::try_from(4_000_000_u32).unwrap()].into_iter().collect();
    attempts::refused(&mut tx, &target, &uids, "refused").await.unwrap();
    capability_off::note(&mut tx, &server, "QRESYNC", "BAD", mail::backoff::CAPABILITY_OFF_FOR)
        .await
        .unwrap();
    audit::done(&mut tx, &target, 0).await.unwrap();
    tx.commit().await.unwrap();
    let out = async || {
        let mut tx = app.db.tenant(tenant.id).await.unwrap();
        let mut view = LocalView::default();
        attempts::load(&mut tx, &target, &mut view).await.unwrap();
        let off = capability_off::list(&mut tx, &server).await.unwrap();
        let mut audited = vec![];
        while let Some(mailbox) = audit::next(&mut tx, a).await.unwrap() {
            let target = Target { mailbox, ..target };
            audited.push(mailbox.0);
            audit::done(&mut tx, &target, 0).await.unwrap();
        }
        (view.unreadable.len(), off.len(), audited.contains(&inbox))
    };
    assert_eq!(out().await, (1, 1, false), "the clock is right");
    run(&mut conn, &format!(
        "INSERT INTO unindexed_batches (tenant_id, id, account_id, sort_at, message_ids) VALUES ('{}', gen_random_uuid(), '{account}', now(), '{{}}')", tenant.id)).await;
    assert!(index::shall_wait(&app.db, tenant.id, a).await.unwrap(), "mail is coming in");
    run(&mut conn, "UPDATE mailboxes SET resync_asked_at = now() WHERE role = 'inbox'").await;
    // What moves is what was stored; the worker finds nothing to do in it meanwhile.
    set_back(&app, 3_600).await;
    assert_eq!(out().await, (0, 0, true), "the clock was set back");
    assert!(!index::shall_wait(&app.db, tenant.id, a).await.unwrap(), "nothing has come in for an hour");
    let mut tx = app.db.tenant(tenant.id).await.unwrap();
    checkpoint::read_anew(&mut tx, &target, SystemClock.now()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        count(&app, "SELECT count(*) FROM mailboxes WHERE resync_asked_at IS NOT NULL").await,
        0,
        "read anew once, not for an hour"
    );
    run(&mut conn, "DELETE FROM unindexed_batches; DELETE FROM ingest_attempts").await;
    drop(conn);
    app.finish().await;
}
