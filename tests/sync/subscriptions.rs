//! `subscribed` is what the server says, and what our users decide reaches the server.

use std::time::Duration;

use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail::{self, doveadm};

async fn mailbox(app: &App, tenant: &Tenant, account: &str, path: &str) -> Value {
    let page = app.get(tenant, &format!("/api/accounts/{account}/mailboxes?limit=200")).await.expect(200);
    let found = page["data"].as_array().unwrap().iter().find(|m| m["path"] == path).cloned();
    found.unwrap_or_else(|| panic!("no {path} in {page}"))
}

fn on_server(app: &App, user: &str, path: &str) -> bool {
    doveadm(app, &["mailbox", "list", "-s", "-u", user]).lines().any(|l| l == path)
}

async fn reaches_server(app: &App, user: &str, path: &str, wanted: bool) {
    eventually("the server has heard of it", Duration::from_secs(20), async || {
        (on_server(app, user, path) == wanted).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_of_another_client_are_taken_over_by_the_next_round() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    doveadm(&app, &["mailbox", "create", "-u", &user, "Quiet"]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    assert_eq!(mailbox(&app, &tenant, &account, "Quiet").await["subscribed"], false);
    assert_eq!(mailbox(&app, &tenant, &account, "Sent").await["subscribed"], true);
    for (verb, wanted) in [("subscribe", true), ("unsubscribe", false)] {
        doveadm(&app, &["mailbox", verb, "-u", &user, "Quiet"]);
        mail::synchronise(&app, &tenant, &account).await;
        assert_eq!(mailbox(&app, &tenant, &account, "Quiet").await["subscribed"], wanted, "{verb}");
        mail::synchronise(&app, &tenant, &account).await;
    }
    let mut conn = app.database.superuser().await;
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE kind = 'mailbox.updated'")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    assert_eq!(events, 2, "one for each change, none for rounds without");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_our_user_makes_renames_and_unsubscribes_is_so_on_the_server() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let made = app
        .post(&tenant, &format!("/api/accounts/{account}/mailboxes"), &json!({"name": "Ours"}))
        .await
        .expect(201);
    assert_eq!(made["subscribed"], true);
    let path = format!("/api/mailboxes/{}", made["id"].as_str().unwrap());
    reaches_server(&app, &user, "Ours", true).await;
    mail::synchronise(&app, &tenant, &account).await;
    assert_eq!(mailbox(&app, &tenant, &account, "Ours").await["subscribed"], true);

    app.patch(&tenant, &path, &json!({"name": "Theirs"})).await.expect(200);
    reaches_server(&app, &user, "Theirs", true).await;
    reaches_server(&app, &user, "Ours", false).await;
    mail::synchronise(&app, &tenant, &account).await;
    assert_eq!(mailbox(&app, &tenant, &account, "Theirs").await["subscribed"], true);

    let patched = app.patch(&tenant, &path, &json!({"subscribed": false})).await.expect(200);
    assert_eq!(patched["subscribed"], false);
    reaches_server(&app, &user, "Theirs", false).await;
    mail::synchronise(&app, &tenant, &account).await;
    assert_eq!(mailbox(&app, &tenant, &account, "Theirs").await["subscribed"], false);

    app.patch(&tenant, &path, &json!({"subscribed": true})).await.expect(200);
    reaches_server(&app, &user, "Theirs", true).await;
    assert_eq!(app.delete(&tenant, &path).await.status, 204);
    reaches_server(&app, &user, "Theirs", false).await;
    app.finish().await;
}
