//! The daily audit: rows that no longer say what the server has are found though its numbers say that nothing changed.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::postgres::PgConnection;
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail::{self, doveadm};

use crate::oracle::agrees;

const LONG: Duration = Duration::from_secs(120);

async fn status(app: &App, tenant: &Tenant, account: &str) -> Value {
    app.get(tenant, &format!("/api/sync/status/{account}")).await.expect(200)
}

async fn run(conn: &mut PgConnection, sql: &'static str) {
    sqlx::query(sql).execute(conn).await.unwrap();
}

/// Makes the audit due and waits until every mailbox was compared since.
pub async fn audit(app: &App, tenant: &Tenant, account: &str) -> Value {
    let mut conn = app.database.superuser().await;
    run(&mut conn, "UPDATE mailboxes SET last_audit_at = NULL").await;
    run(&mut conn, "UPDATE account_leases SET next_audit_at = now() - interval '1 second'").await;
    eventually("all mailboxes were compared", LONG, async || {
        let told = status(app, tenant, account).await;
        let jobs: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM jobs WHERE kind = 'audit_account' AND state IN ('ready', 'running')",
        )
        .fetch_one(&mut conn)
        .await
        .unwrap();
        (told["audit"]["last_at"].is_string() && jobs == 0).then_some(told)
    })
    .await
}

fn inbox(told: &Value) -> &Value {
    told["mailboxes"].as_array().unwrap().iter().find(|m| m["role"] == "inbox").unwrap()
}

async fn filled(app: &App, tenant: &Tenant) -> (String, String) {
    let user = mail::new_mailbox(app);
    let letters =
        (0..30).map(|n| mail::message(&format!("M{n}"), &format!("m{n}@example.test"), "x")).collect();
    mail::fill(app, &user, "INBOX", letters);
    let account = mail::connect(app, tenant, &user).await;
    mail::synchronise(app, tenant, &account).await;
    (user, account)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_tampered_with_are_repaired_and_counted() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (user, account) = filled(&app, &tenant).await;
    let page = app.get(&tenant, &format!("/api/accounts/{account}/messages?limit=200")).await.expect(200);
    let subjects = |page: &Value| -> Vec<(String, String)> {
        let all = page["data"].as_array().unwrap().iter();
        let mut all: Vec<_> = all.map(|m| (m["subject"].to_string(), m["id"].to_string())).collect();
        all.sort();
        all
    };
    let before = subjects(&page);
    let mut conn = app.database.superuser().await;
    for tampering in [
        // Two messages lost, one that the server never had, flags that nobody set, one base that is not the server's,
        // counts that are wrong, and bytes of no message.
        "DELETE FROM message_mailboxes WHERE uid IN (7, 30)",
        "INSERT INTO message_mailboxes (tenant_id, id, account_id, mailbox_id, generation, uid, message_id, internal_date, sort_at)
         SELECT tenant_id, gen_random_uuid(), account_id, mailbox_id, generation, 77, message_id, internal_date, sort_at
         FROM message_mailboxes WHERE uid = 3",
        "UPDATE message_mailboxes SET flags = 4, base_flags = 4 WHERE uid = 9",
        "UPDATE message_mailboxes SET keywords = '{$Later}', base_keywords = '{$Later}' WHERE uid = 10",
        "UPDATE mailboxes SET total = total + 5, unread = 0 WHERE role = 'inbox'",
        "INSERT INTO blobs (tenant_id, account_id, hash, size_bytes, raw)
         SELECT tenant_id, id, sha256('orphan'), 6, 'orphan' FROM accounts",
    ] {
        run(&mut conn, tampering).await;
    }
    let told = audit(&app, &tenant, &account).await;
    agrees(&app, &tenant, &account, &user).await;
    assert_eq!(inbox(&told)["audit"]["repairs"], 2 + 1 + 2 + 1, "{told}");
    assert_eq!(told["audit"]["repairs"], 6, "{told}");
    assert_eq!((&inbox(&told)["messages_synced"], &inbox(&told)["messages_total"]), (&json!(30), &json!(30)));
    let page = app.get(&tenant, &format!("/api/accounts/{account}/messages?limit=200")).await.expect(200);
    assert_eq!(subjects(&page), before, "every message kept its id");
    let (blobs, orphans): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(*) FILTER (WHERE raw = 'orphan') FROM blobs")
            .fetch_one(&mut conn)
            .await
            .unwrap();
    assert_eq!((blobs, orphans), (30, 0));

    let again = audit(&app, &tenant, &account).await;
    assert_eq!(again["audit"]["repairs"], 6, "what is repaired is not found again");
    app.finish().await;
}

/// News between two rounds is none of our faults, and an account in order has nothing to repair.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changed_on_the_server_since_the_last_round_is_taken_over_and_not_counted() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (user, account) = filled(&app, &tenant).await;
    assert_eq!(audit(&app, &tenant, &account).await["audit"]["repairs"], 0);
    // No round shall be faster than the audit.
    let mut conn = app.database.superuser().await;
    run(&mut conn, "UPDATE account_leases SET next_due_at = now() + interval '1 hour'").await;
    doveadm(&app, &["expunge", "-u", &user, "mailbox", "INBOX", "uid", "4:6"]);
    doveadm(&app, &["flags", "add", "-u", &user, "\\Flagged", "mailbox", "INBOX", "uid", "10:20"]);
    mail::deliver(&app, &user, &mail::message("New", "new@example.test", "x"));
    let told = audit(&app, &tenant, &account).await;
    agrees(&app, &tenant, &account, &user).await;
    assert_eq!(told["audit"]["repairs"], 0, "{told}");
    app.finish().await;
}
