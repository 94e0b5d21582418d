//! Pausing, going on, and reading anew.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail::{self, doveadm};

use crate::oracle::agrees;

const LONG: Duration = Duration::from_secs(120);

fn letters(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| mail::message(&format!("M{n}"), &format!("m{n}@example.test"), &format!("body {n}")))
        .collect()
}

async fn status(app: &App, tenant: &Tenant, account: &str) -> Value {
    app.get(tenant, &format!("/api/sync/status/{account}")).await.expect(200)
}

async fn post(app: &App, tenant: &Tenant, path: &str) -> tests::app::Answer {
    tests::app::send(app.request(tenant, "POST", path)).await
}

async fn count(app: &App, table: &str) -> i64 {
    let mut conn = app.database.superuser().await;
    let sql = format!("SELECT count(*) FROM {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut conn).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_ends_a_round_at_its_next_write_and_keeps_edits_until_the_account_goes_on() {
    let mut app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", letters(6_000));
    let account = mail::connect(&app, &tenant, &user).await;
    eventually("some messages are here", LONG, async || {
        let synced = status(&app, &tenant, &account).await["progress"]["messages_synced"].as_i64();
        (synced > Some(0)).then_some(())
    })
    .await;
    let paused = post(&app, &tenant, &format!("/api/accounts/{account}/pause")).await.expect(200);
    let held = count(&app, "message_mailboxes").await;
    assert!(held < 6_000, "the round was over before it was paused");
    assert_eq!((&paused["state"], &paused["cause"]["code"]), (&json!("paused"), &json!("paused")));
    assert!(paused["cause"]["since"].is_string());

    // A worker that starts now finds it paused, too.
    app.add_worker();
    let page = app.get(&tenant, &format!("/api/accounts/{account}/messages?limit=1")).await.expect(200);
    let message = page["data"][0]["id"].as_str().unwrap().to_owned();
    app.patch(&tenant, &format!("/api/messages/{message}"), &json!({"unread": false})).await.expect(200);
    mail::deliver(&app, &user, &mail::message("Late", "late@example.test", "x"));
    for path in [format!("/api/sync/imap/{account}"), format!("/api/accounts/{account}/resync")] {
        post(&app, &tenant, &path).await.refused(409, "account-paused");
    }
    eventually("no job of the account is left", LONG, async || {
        let mut conn = app.database.superuser().await;
        let left: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM jobs WHERE kind IN ('sync_account', 'push_changes') AND state IN ('ready', 'running')",
        )
        .fetch_one(&mut conn)
        .await
        .unwrap();
        (left == 0).then_some(())
    })
    .await;
    assert_eq!(count(&app, "message_mailboxes").await, held, "something was read after the pause");
    let seen = doveadm(&app, &["search", "-u", &user, "mailbox", "INBOX", "seen"]);
    assert_eq!(seen.lines().count(), 0, "an edit was pushed after the pause");
    let told = status(&app, &tenant, &account).await;
    assert_eq!((&told["state"], &told["next_due_at"]), (&json!("paused"), &Value::Null), "{told}");
    assert_eq!(mail::last_round(&told)["state"], "failed", "{told}");
    let here = app.get(&tenant, &format!("/api/messages/{message}")).await.expect(200);
    assert_eq!(here["unread"], false);

    let again = post(&app, &tenant, &format!("/api/accounts/{account}/pause")).await.expect(200);
    assert_eq!(again["cause"]["since"], paused["cause"]["since"], "pausing twice is pausing once");
    let resumed = post(&app, &tenant, &format!("/api/accounts/{account}/resume")).await.expect(200);
    assert_eq!((&resumed["state"], &resumed["cause"]), (&json!("connecting"), &Value::Null));
    eventually("the account is connected and complete", LONG, async || {
        let told = status(&app, &tenant, &account).await;
        (told["state"] == "connected" && told["progress"]["messages_synced"] == 6_001).then_some(())
    })
    .await;
    agrees(&app, &tenant, &account, &user).await;
    let seen = doveadm(&app, &["search", "-u", &user, "mailbox", "INBOX", "seen"]);
    assert_eq!(seen.lines().count(), 1, "the edit was pushed");
    assert_eq!(count(&app, "ingest_attempts").await, 0, "a pause is no message's fault");
    app.finish().await;
}

/// Each placement's id, message and row version, by UID.
async fn rows(app: &App) -> BTreeMap<i64, (String, String, String)> {
    let mut conn = app.database.superuser().await;
    let rows: Vec<(i64, String, String, String)> = sqlx::query_as(
        "SELECT uid, id::text, message_id::text, xmin::text FROM message_mailboxes ORDER BY uid",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    rows.into_iter().map(|(uid, id, message, version)| (uid, (id, message, version))).collect()
}

async fn events(app: &App) -> Vec<String> {
    let mut conn = app.database.superuser().await;
    sqlx::query_scalar(
        "SELECT kind FROM events WHERE kind LIKE 'message.%' OR kind LIKE 'mailbox.%' ORDER BY position",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_is_read_anew_is_repaired_and_what_was_right_is_left_alone() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", letters(20));
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let (before, told) = (rows(&app).await, events(&app).await.len());
    let mut conn = app.database.superuser().await;
    for tampering in [
        "DELETE FROM message_mailboxes WHERE uid = 7",
        "UPDATE message_mailboxes SET flags = 4, base_flags = 4 WHERE uid = 9",
    ] {
        sqlx::query(tampering).execute(&mut conn).await.unwrap();
    }
    // The server's numbers are what they were, so an ordinary round sees nothing.
    mail::synchronise(&app, &tenant, &account).await;
    assert_eq!(rows(&app).await.len(), 19);

    let page = app.get(&tenant, &format!("/api/accounts/{account}/mailboxes?limit=200")).await.expect(200);
    let inbox = page["data"].as_array().unwrap().iter().find(|m| m["role"] == "inbox").unwrap();
    let path = format!("/api/mailboxes/{}/resync", inbox["id"].as_str().unwrap());
    let answer = post(&app, &tenant, &path).await;
    assert_eq!(answer.header("location"), format!("/api/sync/status/{account}"));
    let run = answer.expect(202)["id"].as_str().unwrap().to_owned();
    eventually("the run is done", LONG, async || {
        let told = status(&app, &tenant, &account).await;
        let last = mail::last_round(&told);
        (last["id"].as_str() >= Some(&run) && last["state"] == "done").then_some(())
    })
    .await;
    agrees(&app, &tenant, &account, &user).await;
    let after = rows(&app).await;
    for (uid, (id, message, version)) in &before {
        let now = &after[uid];
        assert_eq!(&now.1, message, "UID {uid} keeps its message");
        if ![7, 9].contains(uid) {
            assert_eq!(now, &(id.clone(), message.clone(), version.clone()), "UID {uid} was written anew");
        }
    }
    assert_eq!(events(&app).await.len(), told + 2, "one event for each difference: {:?}", events(&app).await);

    // Once is enough: the next round is an ordinary one.
    let marks: i64 = sqlx::query_scalar("SELECT count(*) FROM mailboxes WHERE resync_asked_at IS NOT NULL")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(marks, 0);
    app.finish().await;
}
