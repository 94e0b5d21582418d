//! Two clients that read the same version of a message: only one of them may change it.

use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::json;
use sqlx::{Connection as _, Executor as _};
use tests::app::{App, Tenant, send};
use tests::eventually::eventually;
use tests::mail;

/// Sends both while the account's row is held, so that they come to it at the same time. The statuses, sorted.
async fn at_once(app: &App, first: RequestBuilder, second: RequestBuilder) -> [u16; 2] {
    let mut holder = app.database.superuser().await;
    let mut held = holder.begin().await.unwrap();
    held.execute("SELECT 1 FROM account_leases FOR UPDATE").await.unwrap();
    let both = tokio::spawn(async move { tokio::join!(send(first), send(second)) });
    let mut look = app.database.superuser().await;
    eventually("both wait for the account", Duration::from_secs(8), async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
             AND query LIKE 'SELECT removed_at IS NOT NULL FROM account_leases%FOR UPDATE'",
        )
        .fetch_one(&mut look)
        .await
        .unwrap();
        (waiting >= 2).then_some(())
    })
    .await;
    held.commit().await.unwrap();
    let (a, b) = both.await.unwrap();
    let mut statuses = [a.status, b.status];
    statuses.sort_unstable();
    statuses
}

async fn tag_of(app: &App, tenant: &Tenant, path: &str) -> String {
    let read = app.get(tenant, path).await;
    read.expect(200);
    read.header("etag")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_changes_of_one_version_of_a_message_one_is_refused() {
    let mut app = App::start_all().await;
    // In one process they would wait for each other before they come to the row.
    let second = app.add_api().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", vec![mail::message("One", "1@x.test", "x")]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let listed = app.get(&tenant, &format!("/api/accounts/{account}/messages?role=inbox")).await.expect(200);
    let path = format!("/api/messages/{}", listed["data"][0]["id"].as_str().unwrap());

    let tag = tag_of(&app, &tenant, &path).await;
    let change =
        |base: &str, method: &str| app.request_to(base, &tenant, method, &path).header("If-Match", &tag);
    let (star, read) = (json!({"starred": true}), json!({"unread": false}));
    let statuses =
        at_once(&app, change(&app.base, "PATCH").json(&star), change(&second, "PATCH").json(&read)).await;
    assert_eq!(statuses, [200, 412], "two PATCHes");

    let tag = tag_of(&app, &tenant, &path).await;
    let change =
        |base: &str, method: &str| app.request_to(base, &tenant, method, &path).header("If-Match", &tag);
    let word = json!({"keywords_add": ["work"]});
    let statuses = at_once(&app, change(&app.base, "PATCH").json(&word), change(&second, "DELETE")).await;
    assert!(matches!(statuses, [200 | 204, 412]), "a PATCH and a DELETE: {statuses:?}");
    app.finish().await;
}
