//! Mailboxes that go with much in them: gone for clients at once, removed in portions. What another client and the server see of
//! it is in `tests/sync/hold/emptied.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::worker::Worker;

use super::locks::{account, fill, watch};
use super::{PATIENCE, count};

const MESSAGES: usize = 6_000;
/// Every tenth is in another mailbox as well.
const KEPT: usize = MESSAGES / 10;
const LONGEST: Duration = Duration::from_secs(1);

/// An account nobody synchronises, whose mailbox `box 1` holds all messages and `box 2` every tenth.
async fn filled(app: &App) -> (Tenant, String) {
    let tenant = app.tenant().await;
    let account = account(app, &tenant).await;
    app.post(&tenant, &format!("/api/accounts/{account}/pause"), &json!({})).await.expect(200);
    fill(app, &tenant, &account, MESSAGES).await;
    (tenant, account)
}

async fn mailbox(app: &App, tenant: &Tenant, account: &str, path: &str) -> Option<serde_json::Value> {
    let page = app.get(tenant, &format!("/api/accounts/{account}/mailboxes")).await.expect(200);
    page["data"].as_array().unwrap().iter().find(|m| m["path"] == path).cloned()
}

/// The ids of a list, page by page.
async fn all(app: &App, tenant: &Tenant, path: &str) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.get(tenant, &format!("{path}{cursor}")).await.expect(200);
        found.extend(
            page["data"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

/// What everybody sees once `box 1` is deleted, and goes on seeing.
async fn shows_what_stays(app: &App, tenant: &Tenant, account: &str, gone: &str) {
    let place = mailbox(app, tenant, account, "box 2").await.unwrap();
    assert_eq!(place["total"], KEPT);
    let listed = all(app, tenant, &format!("/api/accounts/{account}/messages?limit=200")).await;
    assert_eq!(listed.len(), KEPT);
    let unique: BTreeSet<&String> = listed.iter().collect();
    assert_eq!(unique.len(), KEPT, "each once");
    app.get(tenant, &format!("/api/accounts/{account}/messages?mailbox_id={gone}"))
        .await
        .refused(404, "not-found");
    let found = all(app, tenant, "/api/sync/search?query=everywhere&limit=200").await;
    assert_eq!(found.len(), KEPT);
    assert!(found.iter().all(|id| unique.contains(id)));
    let first = app.get(tenant, &format!("/api/messages/{}", listed[0])).await.expect(200);
    let places: Vec<&str> =
        first["mailboxes"].as_array().unwrap().iter().filter_map(|m| m["name"].as_str()).collect();
    assert_eq!(places, ["box 2"]);
    let threads = app.get(tenant, &format!("/api/accounts/{account}/threads?limit=50")).await.expect(200);
    for thread in threads["data"].as_array().unwrap() {
        assert_eq!(thread["message_count"], 1, "{thread}");
    }
}

async fn told(app: &App, kind: &str) -> i64 {
    count(app, &format!("SELECT count(*) FROM events WHERE kind = '{kind}'")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_holds_much_is_gone_at_once_and_removed_in_portions_and_each_message_is_told_once() {
    let mut app = App::start().await;
    let (tenant, account) = filled(&app).await;
    let gone = mailbox(&app, &tenant, &account, "box 1").await.unwrap()["id"].as_str().unwrap().to_owned();
    let only_there: String =
        sqlx::query_scalar("SELECT message_id::text FROM message_mailboxes WHERE uid = 7")
            .fetch_one(&app.behind)
            .await
            .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let locks = watch(&app, Arc::clone(&over)).await;
    let begun = Instant::now();
    let path = format!("/api/mailboxes/{gone}?with_messages=true");
    assert_eq!(app.delete(&tenant, &path).await.status, 204);
    let answered = begun.elapsed();
    app.delete(&tenant, &path).await.refused(404, "not-found");
    assert_eq!(told(&app, "mailbox.deleted").await, 1);
    shows_what_stays(&app, &tenant, &account, &gone).await;
    app.get(&tenant, &format!("/api/messages/{only_there}")).await.refused(404, "not-found");
    app.patch(&tenant, &format!("/api/messages/{only_there}"), &json!({"starred": true}))
        .await
        .refused(404, "not-found");
    let status = app.get(&tenant, &format!("/api/sync/status/{account}")).await.expect(200);
    assert!(status["mailboxes"].as_array().unwrap().iter().all(|m| m["id"] != gone.as_str()), "{status}");
    // Its name is free.
    let again = json!({"name": "box 1"});
    let again = app.post(&tenant, &format!("/api/accounts/{account}/mailboxes"), &again).await.expect(201);
    assert_eq!((&again["path"], &again["total"]), (&json!("box 1"), &json!(0)));
    app.add_worker();
    eventually("it is removed", PATIENCE, async || {
        shows_what_stays(&app, &tenant, &account, &gone).await;
        (count(&app, "SELECT count(*) FROM mailbox_removals").await == 0).then_some(())
    })
    .await;
    let took = begun.elapsed();
    over.store(true, Ordering::Relaxed);
    let locks = locks.await.unwrap();
    println!("answered in {answered:?}, removed in {took:?}, {locks:?}");
    assert_eq!(count(&app, &format!("SELECT count(*) FROM mailboxes WHERE id = '{gone}'")).await, 0);
    assert_eq!(told(&app, "mailbox.deleted").await, 1);
    let kept = i64::try_from(KEPT).unwrap();
    for (kind, expected) in [("message.deleted", 9 * kept), ("message.updated", kept)] {
        let (events, messages): (i64, i64) =
            sqlx::query_as("SELECT count(*), count(DISTINCT object_id) FROM events WHERE kind = $1")
                .bind(kind)
                .fetch_one(&app.behind)
                .await
                .unwrap();
        assert_eq!((events, messages), (expected, expected), "{kind}");
    }
    assert!(answered < LONGEST, "{answered:?}");
    assert!(locks.held.0 < LONGEST && locks.awaited.0 < LONGEST, "{locks:?}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_out_of_its_last_mailbox_while_another_is_removed_is_told_once() {
    let mut app = App::start().await;
    let (tenant, account) = filled(&app).await;
    let ids = ["box 1", "box 2"];
    for path in ids {
        let gone = mailbox(&app, &tenant, &account, path).await.unwrap()["id"].as_str().unwrap().to_owned();
        let path = format!("/api/mailboxes/{gone}?with_messages=true");
        assert_eq!(app.delete(&tenant, &path).await.status, 204);
    }
    assert!(all(&app, &tenant, &format!("/api/accounts/{account}/messages?limit=200")).await.is_empty());
    app.add_worker();
    eventually("both are removed", PATIENCE, async || {
        (count(&app, "SELECT count(*) FROM mailbox_removals").await == 0).then_some(())
    })
    .await;
    assert_eq!(told(&app, "message.deleted").await, i64::try_from(MESSAGES).unwrap(), "each once");
    assert_eq!(told(&app, "message.updated").await, 0);
    assert_eq!(told(&app, "mailbox.deleted").await, 2);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_between_two_portions_of_a_mailbox_leaves_what_the_next_one_removes() {
    let mut app = App::start().await;
    let (tenant, account) = filled(&app).await;
    let gone = mailbox(&app, &tenant, &account, "box 1").await.unwrap()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/mailboxes/{gone}?with_messages=true");
    assert_eq!(app.delete(&tenant, &path).await.status, 204);
    for _ in 0..2 {
        let there = "SELECT count(*) FROM message_mailboxes p JOIN mailbox_removals r USING (mailbox_id)";
        let before = count(&app, there).await;
        let mut worker = Worker::start(&app, &[("FAILPOINT", "removed-portion:2")]);
        let ended = tokio::task::block_in_place(|| worker.ended(PATIENCE));
        assert!(!ended.success() && ended.code().is_none(), "{ended}");
        let left = count(&app, there).await;
        assert!(left < before);
        let done = count(&app, "SELECT removed FROM mailbox_removals").await;
        assert_eq!(done + left, i64::try_from(MESSAGES).unwrap(), "each is counted once");
        shows_what_stays(&app, &tenant, &account, &gone).await;
        sqlx::query("UPDATE jobs SET state = 'ready', lease_owner = NULL, lease_until = NULL, run_at = now() WHERE state = 'running'")
            .execute(&app.behind)
            .await
            .unwrap();
    }
    // Its job is lost, too.
    sqlx::query("DELETE FROM jobs WHERE kind = 'remove_mailboxes'").execute(&app.behind).await.unwrap();
    app.add_worker();
    app.add_scheduler();
    eventually("it is removed", PATIENCE, async || {
        (count(&app, "SELECT count(*) FROM mailbox_removals").await == 0).then_some(())
    })
    .await;
    shows_what_stays(&app, &tenant, &account, &gone).await;
    let deleted = told(&app, "message.deleted").await;
    assert_eq!(deleted, i64::try_from(MESSAGES - KEPT).unwrap());
    app.finish().await;
}

/// Puts a hundred messages that are in `box 1` alone into a new mailbox, by SQL.
async fn third(app: &App, account: &str) {
    let mut conn = app.database.superuser().await;
    for sql in [
        "INSERT INTO mailboxes (tenant_id, id, account_id, wire_name, path, name, generation)
         SELECT tenant_id, gen_random_uuid(), account_id, 'box 3', 'box 3', 'box 3', 1 FROM mailboxes
         WHERE account_id = '{account}' AND path = 'box 1'",
        "UPDATE message_mailboxes p SET mailbox_id = b.id FROM mailboxes b, mailboxes f
         WHERE b.account_id = '{account}' AND b.path = 'box 3' AND f.account_id = '{account}' AND f.path = 'box 1'
           AND p.mailbox_id = f.id AND p.uid <= 111 AND p.uid % 10 <> 0",
    ] {
        let sql = sql.replace("{account}", account);
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_goes_at_once_while_another_is_removed_takes_its_messages_along() {
    let mut app = App::start().await;
    let (tenant, account) = filled(&app).await;
    third(&app, &account).await;
    let id = async |path: &str| {
        let found = mailbox(&app, &tenant, &account, path).await.unwrap();
        (found["id"].as_str().unwrap().to_owned(), found["total"].clone())
    };
    let ((first, _), (third, held)) = (id("box 1").await, id("box 3").await);
    assert_eq!(held, 100);
    let list = format!("/api/accounts/{account}/messages?limit=200");
    for (gone, left, deleted) in [(&first, KEPT + 100, 0), (&third, KEPT, 100)] {
        let path = format!("/api/mailboxes/{gone}?with_messages=true");
        assert_eq!(app.delete(&tenant, &path).await.status, 204);
        assert_eq!(all(&app, &tenant, &list).await.len(), left);
        assert_eq!(told(&app, "message.deleted").await, deleted, "what went is told");
    }
    app.add_worker();
    eventually("the large one is removed", PATIENCE, async || {
        shows_what_stays(&app, &tenant, &account, &first).await;
        (count(&app, "SELECT count(*) FROM mailbox_removals").await == 0).then_some(())
    })
    .await;
    shows_what_stays(&app, &tenant, &account, &first).await;
    let deleted = i64::try_from(MESSAGES - KEPT).unwrap();
    assert_eq!(told(&app, "message.deleted").await, deleted, "each once");
    assert_eq!(
        count(&app, "SELECT count(*) FROM messages WHERE gone_at IS NULL").await,
        i64::try_from(KEPT).unwrap()
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_into_a_mailbox_that_holds_much_is_back_at_once_when_that_is_deleted() {
    let app = App::start().await;
    let (tenant, account) = filled(&app).await;
    third(&app, &account).await;
    let id = async |path: &str| {
        mailbox(&app, &tenant, &account, path).await.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let (first, third) = (id("box 1").await, id("box 3").await);
    let list = format!("/api/accounts/{account}/messages?limit=200&mailbox_id={third}");
    let moved = all(&app, &tenant, &list).await[..3].to_vec();
    let action = json!({"ids": moved, "action": "move", "mailbox_id": first});
    app.post(&tenant, "/api/messages/actions", &action).await.expect(200);
    assert_eq!(all(&app, &tenant, &list).await.len(), 97);
    let path = format!("/api/mailboxes/{first}?with_messages=true");
    assert_eq!(app.delete(&tenant, &path).await.status, 204);
    assert_eq!(count(&app, "SELECT count(*) FROM mailbox_removals").await, 1, "it goes in portions");
    assert_eq!(all(&app, &tenant, &list).await.len(), 100);
    assert_eq!(told(&app, "message.deleted").await, 0);
    app.finish().await;
}
