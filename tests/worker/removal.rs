//! Accounts that are deleted: gone for clients at once, whatever they hold and whatever is being done with them, and removed
//! in portions.

use std::time::Duration;

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::sink::{Sink as Hook, TAKEN};
use tests::worker::Worker;
use tests::{mail, relay::Relay};

use crate::sending::sender::{sender, start};
use crate::sending::sink::{Sink, everybody};

mod locks;
mod mailbox;
mod tenant;

pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

fn messages(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| mail::message(&format!("Number {n}"), &format!("{n}@gone.test"), "word")).collect()
}

pub(crate) async fn count(app: &App, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&app.behind).await.unwrap()
}

/// Waits until nothing of the account is left in any table that names one, but in the log.
pub(crate) async fn removed(app: &App, account: &str) {
    eventually("all of the account is removed", PATIENCE, async || {
        left(app, account).await.is_empty().then_some(())
    })
    .await;
}

/// The tables that have rows of the account, by the catalogue.
async fn left(app: &App, account: &str) -> Vec<String> {
    let tables: Vec<(String, String)> = sqlx::query_as(
        "SELECT c.relname::text, a.attname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
           AND a.attname = CASE c.relname WHEN 'accounts' THEN 'id' ELSE 'account_id' END
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname NOT IN ('events', 'webhook_deliveries')",
    )
    .fetch_all(&app.behind)
    .await
    .unwrap();
    assert!(tables.len() > 12, "{tables:?}");
    let mut found = Vec::new();
    for (table, column) in tables {
        let some = count(app, &format!("SELECT count(*) FROM {table} WHERE {column} = '{account}'")).await;
        if some > 0 {
            found.push(table);
        }
    }
    found
}

/// What a client may have seen of an account: each path answers 404 now, and no list shows anything.
struct Seen {
    paths: Vec<String>,
}

impl Seen {
    async fn of(app: &App, tenant: &Tenant, account: &str) -> Self {
        let mut paths = vec![
            format!("/api/accounts/{account}"),
            format!("/api/accounts/{account}/messages"),
            format!("/api/accounts/{account}/threads"),
            format!("/api/accounts/{account}/mailboxes"),
            format!("/api/accounts/{account}/changes"),
            format!("/api/sync/status/{account}"),
        ];
        let ids = async |path: String| -> Vec<String> {
            let page = app.get(tenant, &path).await.expect(200);
            let rows = page["data"].as_array().unwrap().clone();
            rows.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)).collect()
        };
        for id in ids(format!("/api/accounts/{account}/messages?limit=3")).await {
            paths.extend(["", "/raw", "/text"].map(|part| format!("/api/messages/{id}{part}")));
        }
        for id in ids(format!("/api/accounts/{account}/threads?limit=3")).await {
            paths.push(format!("/api/threads/{id}"));
        }
        for id in ids("/api/compose".to_owned()).await {
            paths.push(format!("/api/compose/{id}"));
        }
        for id in ids("/api/submissions".to_owned()).await {
            paths.push(format!("/api/submissions/{id}"));
        }
        for path in &paths {
            assert_eq!(app.get(tenant, path).await.status, 200, "{path}");
        }
        Self { paths }
    }

    async fn is_gone(&self, app: &App, tenant: &Tenant) {
        for path in &self.paths {
            app.get(tenant, path).await.refused(404, "not-found");
        }
        for path in ["/api/accounts", "/api/compose", "/api/submissions", "/api/sync/search?query=word"] {
            let page = app.get(tenant, path).await.expect(200);
            assert_eq!(page["data"], json!([]), "{path}");
        }
    }
}

async fn connected(app: &App, tenant: &Tenant, mails: usize) -> (String, String) {
    let user = mail::new_mailbox(app);
    mail::fill(app, &user, "INBOX", messages(mails));
    let account = mail::connect(app, tenant, &user).await;
    (user, account)
}

async fn searchable(app: &App, tenant: &Tenant) {
    eventually("its words are found", PATIENCE, async || {
        let found = app.get(tenant, "/api/sync/search?query=word").await.expect(200);
        (!found["data"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_account_is_gone_for_clients_at_once_and_removed_behind_them() {
    let mut app = App::start_all().await;
    let tenant = app.tenant().await;
    let (user, account) = connected(&app, &tenant, 40).await;
    mail::synchronise(&app, &tenant, &account).await;
    searchable(&app, &tenant).await;
    let draft = json!({"account_id": account, "to": ["a@x.test"], "subject": "S", "text": "T"});
    app.post(&tenant, "/api/compose", &draft).await.expect(201);
    // Nobody removes anything yet.
    app.stop_workers().await;
    let seen = Seen::of(&app, &tenant, &account).await;
    let path = format!("/api/accounts/{account}");
    assert_eq!(app.delete(&tenant, &path).await.status, 204);
    app.delete(&tenant, &path).await.refused(404, "not-found");
    seen.is_gone(&app, &tenant).await;
    assert_eq!(count(&app, "SELECT count(*) FROM messages").await, 40, "they are still there");
    // What opens anything is forgotten, whatever it will be called.
    let secrets: Vec<String> = sqlx::query_scalar(
        "SELECT attname::text FROM pg_attribute WHERE attrelid = 'accounts'::regclass AND atttypid = 'bytea'::regtype
           AND NOT attisdropped AND attname <> 'read_again_to'",
    )
    .fetch_all(&app.behind)
    .await
    .unwrap();
    assert!(secrets.len() >= 2, "{secrets:?}");
    for column in secrets {
        let kept = count(&app, &format!("SELECT count(*) FROM accounts WHERE {column} IS NOT NULL")).await;
        assert_eq!(kept, 0, "{column}");
    }
    // The same address is connected and read again beside it.
    let again = mail::connect(&app, &tenant, &user).await;
    assert_ne!(again, account);
    app.add_worker();
    mail::synchronise(&app, &tenant, &again).await;
    removed(&app, &account).await;
    let page = app.get(&tenant, &format!("/api/accounts/{again}/messages?limit=100")).await.expect(200);
    let page = page["data"].as_array().unwrap();
    assert_eq!(page.len(), 40);
    for message in page {
        let raw = app.get(&tenant, &format!("/api/messages/{}/raw", message["id"].as_str().unwrap())).await;
        assert!(raw.status == 200 && raw.text().contains("word"), "its bytes are there");
    }
    assert_eq!(count(&app, "SELECT count(*) FROM account_removals").await, 0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_deleted_and_connected_again_while_it_is_read_is_read_anew() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", messages(600));
    let relay = Relay::to(app.stack.imap_port).await;
    let mut settings = mail::settings(&app, &user);
    settings["imap"] = json!({"host": "127.0.0.1", "port": relay.port, "security": "none", "username": user, "password": mail::PASSWORD});
    let held = relay.hold("UID FETCH");
    let first = app.post(&tenant, "/api/accounts", &settings).await.expect(201);
    let first = first["id"].as_str().unwrap().to_owned();
    held.reached().await;
    assert_eq!(app.delete(&tenant, &format!("/api/accounts/{first}")).await.status, 204);
    held.release();
    let second = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &second).await;
    removed(&app, &first).await;
    let there = format!(
        "SELECT count(*) FROM messages JOIN blobs b USING (tenant_id, account_id) WHERE b.hash = blob_hash AND account_id = '{second}'"
    );
    assert_eq!(count(&app, &there).await, 600);
    assert_eq!(count(&app, "SELECT count(*) FROM messages").await, 600);
    // Whoever was at work with it gives up for good.
    eventually("no job goes on with it", PATIENCE, async || {
        let open = format!(
            "SELECT count(*) FROM jobs WHERE dedupe_key = '{first}' AND state IN ('ready', 'running')"
        );
        (count(&app, &open).await == 0).then_some(())
    })
    .await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_under_way_with_a_deleted_account_ends_and_streams_and_webhooks_are_told() {
    let mut app = App::start_all().await;
    let tenant = app.tenant().await;
    let (_, other) = connected(&app, &tenant, 3).await;
    mail::synchronise(&app, &tenant, &other).await;
    let (_, account) = connected(&app, &tenant, 520).await;
    mail::synchronise(&app, &tenant, &account).await;
    let hook = Hook::plain(|_| TAKEN).await;
    let body = json!({"url": hook.url(), "types": ["account.deleted"]});
    app.post(&tenant, "/api/webhooks", &body).await.expect(201);
    let mut stream = app.request(&tenant, "GET", "/api/events?types=account.deleted").send().await.unwrap();
    assert_eq!(stream.status(), 200);
    app.stop_workers().await;
    // A bulk action over both accounts, and edits that wait.
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT id FROM messages ORDER BY sort_at, id")
        .fetch_all(&app.behind)
        .await
        .unwrap();
    assert_eq!(ids.len(), 523);
    let starred: Vec<uuid::Uuid> = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT id FROM messages WHERE account_id = '{account}' LIMIT 20"
    )))
    .fetch_all(&app.behind)
    .await
    .unwrap();
    for id in &starred {
        app.patch(&tenant, &format!("/api/messages/{id}"), &json!({"starred": true})).await.expect(200);
    }
    let job = app
        .post(&tenant, "/api/messages/actions", &json!({"ids": ids, "action": "mark_read"}))
        .await
        .expect(202);
    assert!(count(&app, "SELECT count(*) FROM edits").await >= 20);
    assert_eq!(app.delete(&tenant, &format!("/api/accounts/{account}")).await.status, 204);
    app.add_worker();
    removed(&app, &account).await;
    let job = format!("/api/jobs/{}", job["id"].as_str().unwrap());
    let done = eventually("the action is over", PATIENCE, async || {
        let job = app.get(&tenant, &job).await.expect(200);
        (job["state"] == "done").then_some(job)
    })
    .await;
    assert_eq!((&done["updated"], &done["progress"]["done"]), (&json!(3), &json!(523)), "{done}");
    let told = hook.got(1).await;
    assert_eq!(told[0].json()["data"]["account_id"], json!(account));
    let mut text = String::new();
    while !text.contains("account.deleted") {
        let piece = tokio::time::timeout(PATIENCE, stream.chunk()).await.expect("nothing was told");
        text.push_str(&String::from_utf8_lossy(&piece.unwrap().unwrap()));
    }
    assert!(text.contains(&account));
    drop(stream);
    assert_eq!(app.get(&tenant, &format!("/api/accounts/{other}")).await.status, 200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_to_be_sent_of_a_deleted_account_is_not_sent() {
    let app = start(1, &[]).await;
    let sink = Sink::new(None, everybody);
    let server = sink.start().await;
    let alice = sender(&app, server.port).await;
    let draft = alice.draft(&app, &["one@x.test"], "Held").await;
    alice.order(&app, &draft, json!({"undo_seconds": 3})).await;
    let seen = Seen::of(&app, &alice.tenant, &alice.account).await;
    assert_eq!(app.delete(&alice.tenant, &format!("/api/accounts/{}", alice.account)).await.status, 204);
    seen.is_gone(&app, &alice.tenant).await;
    removed(&app, &alice.account).await;
    // Nothing is left then that could send it.
    eventually("its job is over", PATIENCE, async || {
        let open =
            "SELECT count(*) FROM jobs WHERE kind = 'send_submission' AND state IN ('ready', 'running')";
        (count(&app, open).await == 0).then_some(())
    })
    .await;
    assert_eq!((sink.taken().len(), count(&app, "SELECT count(*) FROM submissions").await), (0, 0));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_deletions_at_once_one_finds_nothing_and_a_change_that_waited_for_them_neither() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    for round in 0..5 {
        let user = mail::new_mailbox(&app);
        let made =
            app.post(&tenant, "/api/accounts?verify=false", &mail::settings(&app, &user)).await.expect(201);
        let path = format!("/api/accounts/{}", made["id"].as_str().unwrap());
        // All of them wait for the account's lease, so they have begun before it was deleted.
        let mut conn = app.database.superuser().await;
        let mut held = conn.begin().await.unwrap();
        sqlx::query("SELECT 1 FROM account_leases FOR UPDATE").execute(&mut *held).await.unwrap();
        let pause = format!("{path}/pause");
        let nothing = json!({});
        let waiting = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            held.rollback().await.unwrap();
        };
        let (first, second, paused, ()) = tokio::join!(
            app.delete(&tenant, &path),
            app.delete(&tenant, &path),
            app.post(&tenant, &pause, &nothing),
            waiting
        );
        let mut statuses = [first.status, second.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 404], "round {round}");
        assert!([200, 404].contains(&paused.status), "{}", paused.text());
        let (kept, told): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM accounts WHERE imap_password IS NOT NULL OR removed_at IS NULL),
                    (SELECT count(*) FROM events WHERE kind = 'account.deleted')",
        )
        .fetch_one(&app.behind)
        .await
        .unwrap();
        assert_eq!((kept, told), (0, round + 1), "round {round}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_between_two_portions_leaves_what_the_next_one_removes() {
    let mut app = App::start_all().await;
    let tenant = app.tenant().await;
    let (_, account) = connected(&app, &tenant, 300).await;
    mail::synchronise(&app, &tenant, &account).await;
    app.stop_workers().await;
    assert_eq!(app.delete(&tenant, &format!("/api/accounts/{account}")).await.status, 204);
    for _ in 0..2 {
        let before = count(&app, "SELECT count(*) FROM messages").await;
        // After what is to be indexed, and a portion of messages.
        let mut worker = Worker::start(&app, &[("FAILPOINT", "removed-portion:2")]);
        let ended = tokio::task::block_in_place(|| worker.ended(PATIENCE));
        assert!(!ended.success() && ended.code().is_none(), "{ended}");
        assert!(count(&app, "SELECT count(*) FROM messages").await < before);
        sqlx::query("UPDATE jobs SET state = 'ready', lease_owner = NULL, lease_until = NULL, run_at = now() WHERE state = 'running'")
            .execute(&app.behind)
            .await
            .unwrap();
    }
    let (done, left): (i64, i64) =
        sqlx::query_as("SELECT (SELECT removed FROM account_removals), (SELECT count(*) FROM messages)")
            .fetch_one(&app.behind)
            .await
            .unwrap();
    assert_eq!(done + left, 300, "each is counted once");
    // Its job is lost, too.
    sqlx::query("DELETE FROM jobs WHERE kind = 'remove_accounts'").execute(&app.behind).await.unwrap();
    app.add_worker();
    app.add_scheduler();
    removed(&app, &account).await;
    app.finish().await;
}
