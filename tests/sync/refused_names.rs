//! Names of mailboxes that nobody can use are refused at once; those that only the server refuses end in a visible cause.

use std::time::Duration;

use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail::{self, doveadm};

use crate::oracle::agrees;

/// More rounds than a refused change is attempted.
const ROUNDS: usize = 7;

/// What the sync status says of a mailbox; null when it is not in there.
async fn progress(app: &App, tenant: &Tenant, account: &str, id: &str) -> Value {
    let status = app.get(tenant, &format!("/api/sync/status/{account}")).await.expect(200);
    let all = status["mailboxes"].as_array().unwrap();
    all.iter().find(|m| m["id"] == id).cloned().unwrap_or_default()
}

async fn refused(app: &App, tenant: &Tenant, account: &str, id: &str) -> Value {
    eventually("the status says that the server refused", Duration::from_secs(20), async || {
        let mailbox = progress(app, tenant, account, id).await;
        (mailbox["cause"]["code"] == "refused").then_some(mailbox)
    })
    .await
}

async fn mailbox(app: &App, tenant: &Tenant, account: &str, id: &str) -> Value {
    let page = app.get(tenant, &format!("/api/accounts/{account}/mailboxes?limit=200")).await.expect(200);
    page["data"].as_array().unwrap().iter().find(|m| m["id"] == id).cloned().unwrap_or_default()
}

async fn by_path(app: &App, tenant: &Tenant, account: &str, path: &str) -> Value {
    let page = app.get(tenant, &format!("/api/accounts/{account}/mailboxes?limit=200")).await.expect(200);
    page["data"].as_array().unwrap().iter().find(|m| m["path"] == path).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_no_server_takes_are_refused_at_once() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let all = format!("/api/accounts/{account}/mailboxes");
    let made = app.post(&tenant, &all, &json!({"name": "Good"})).await.expect(201);
    let one = format!("/api/mailboxes/{}", made["id"].as_str().unwrap());
    let long = "x".repeat(256);
    for name in ["", " ", ".", "..", "~", "~x", "a/b", "a\u{7}b", "a\u{0}b", "a\r\nb", "a*", "%", &long] {
        for answer in [
            app.post(&tenant, &all, &json!({"name": name})).await,
            app.patch(&tenant, &one, &json!({"name": name})).await,
        ] {
            let problem = answer.expect(422);
            assert_eq!(problem["code"], "validation-error", "{name:?}: {problem}");
            assert_eq!(problem["errors"][0]["pointer"], "/name", "{name:?}: {problem}");
        }
    }
    app.finish().await;
}

/// Dovecot keeps Maildir++ here, where a dot separates levels on the disk: it refuses a dot in a name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_the_server_refuses_stays_with_its_cause_until_it_is_renamed_or_deleted() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", vec![mail::message("M", "m@example.test", "x")]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let all = format!("/api/accounts/{account}/mailboxes");
    // Both mailboxes and the message on its way there before the server hears of any.
    let turn = async |verb: &str| {
        let path = format!("/api/accounts/{account}/{verb}");
        app.post(&tenant, &path, &json!({})).await.expect(200);
    };
    turn("pause").await;
    let ids = [
        app.post(&tenant, &all, &json!({"name": "v1.2"})).await.expect(201),
        app.post(&tenant, &all, &json!({"name": "v1.3"})).await.expect(201),
    ]
    .map(|m| m["id"].as_str().unwrap().to_owned());
    let page = app.get(&tenant, &format!("/api/accounts/{account}/messages")).await.expect(200);
    let message = format!("/api/messages/{}", page["data"][0]["id"].as_str().unwrap());
    app.patch(&tenant, &message, &json!({"move_to": ids[0]})).await.expect(200);
    turn("resume").await;
    for id in &ids {
        let told = refused(&app, &tenant, &account, id).await;
        let cause = &told["cause"];
        assert_eq!(cause["text"], "The mail server refuses to make this mailbox.", "{cause}");
        let upstream = &cause["upstream"];
        assert_eq!(
            (&upstream["protocol"], &upstream["retryable"]),
            (&json!("imap"), &json!(false)),
            "{cause}"
        );
        assert_eq!(upstream["response_code"], "CANNOT", "{cause}");
        assert!(!upstream["text"].as_str().unwrap().is_empty(), "{cause}");
        assert!(cause["since"].is_string() && cause["next_try_at"].is_string(), "it is tried again: {cause}");
        let row = mailbox(&app, &tenant, &account, id).await;
        assert_eq!(row["selectable"], false, "from the first refusal on: {row}");
        let more = app.patch(&tenant, &message, &json!({"move_to": id})).await;
        assert_eq!(more.status, 422, "nothing more goes there: {}", more.text());
    }
    for _ in 0..ROUNDS {
        mail::synchronise(&app, &tenant, &account).await;
    }
    for id in &ids {
        let cause = &refused(&app, &tenant, &account, id).await["cause"];
        assert!(cause["next_try_at"].is_null(), "it is given up: {cause}");
        let row = mailbox(&app, &tenant, &account, id).await;
        assert_eq!((&row["selectable"], &row["total"]), (&json!(false), &json!(0)), "{row}");
    }
    let back = app.get(&tenant, &message).await.expect(200);
    assert_eq!(back["mailboxes"][0]["role"], "inbox", "the message came back: {back}");

    let renamed =
        app.patch(&tenant, &format!("/api/mailboxes/{}", ids[0]), &json!({"name": "v1-2"})).await.expect(200);
    assert_eq!(renamed["selectable"], true);
    eventually("the server has it under its new name", Duration::from_secs(20), async || {
        doveadm(&app, &["mailbox", "list", "-s", "-u", &user]).lines().any(|l| l == "v1-2").then_some(())
    })
    .await;
    mail::synchronise(&app, &tenant, &account).await;
    let healed = progress(&app, &tenant, &account, &ids[0]).await;
    assert!(healed["name"] == "v1-2" && healed["cause"].is_null() && healed["state"] == "synced", "{healed}");

    assert_eq!(app.delete(&tenant, &format!("/api/mailboxes/{}", ids[1])).await.status, 204);
    mail::synchronise(&app, &tenant, &account).await;
    assert!(mailbox(&app, &tenant, &account, &ids[1]).await.is_null());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rename_that_the_server_refuses_is_undone_and_the_cause_stays() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    doveadm(&app, &["mailbox", "create", "-u", &user, "Plain"]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let page = app.get(&tenant, &format!("/api/accounts/{account}/mailboxes?limit=200")).await.expect(200);
    let plain = page["data"].as_array().unwrap().iter().find(|m| m["path"] == "Plain").unwrap();
    let id = plain["id"].as_str().unwrap();
    app.patch(&tenant, &format!("/api/mailboxes/{id}"), &json!({"name": "p.q"})).await.expect(200);
    refused(&app, &tenant, &account, id).await;
    for _ in 0..ROUNDS {
        mail::synchronise(&app, &tenant, &account).await;
    }
    assert_eq!(mailbox(&app, &tenant, &account, id).await["path"], "Plain");
    let told = refused(&app, &tenant, &account, id).await;
    let text = told["cause"]["text"].as_str().unwrap();
    assert!(text.contains("p.q") && told["state"] == "synced", "{told}");
    assert!(told["cause"]["upstream"]["text"].is_string(), "{told}");
    app.finish().await;
}

/// Servers change their rules, and other clients have other rights: here the name itself becomes one that is possible.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_mailbox_that_another_client_makes_later_is_that_one() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let all = format!("/api/accounts/{account}/mailboxes");
    let made = app.post(&tenant, &all, &json!({"name": "v1.2"})).await.expect(201);
    let id = made["id"].as_str().unwrap();
    for _ in 0..ROUNDS {
        mail::synchronise(&app, &tenant, &account).await;
    }
    assert_eq!(mailbox(&app, &tenant, &account, id).await["selectable"], false);
    let mut conn = app.database.superuser().await;
    sqlx::query(
        "UPDATE mailboxes SET wire_name = 'Later', path = 'Later', name = 'Later' WHERE id = $1::uuid",
    )
    .bind(id)
    .execute(&mut conn)
    .await
    .unwrap();
    doveadm(&app, &["mailbox", "create", "-u", &user, "Later"]);
    for _ in 0..2 {
        mail::synchronise(&app, &tenant, &account).await;
    }
    let row = mailbox(&app, &tenant, &account, id).await;
    assert_eq!((&row["path"], &row["selectable"]), (&json!("Later"), &json!(true)), "{row}");
    let told = progress(&app, &tenant, &account, id).await;
    assert!(told["cause"].is_null() && told["state"] == "synced", "{told}");
    app.finish().await;
}

/// Nothing but the name has to give way: the mailbox that comes under it is the one it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_mailbox_gives_way_to_one_that_another_client_renames_to_its_name() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    doveadm(&app, &["mailbox", "create", "-u", &user, "Old"]);
    mail::fill(&app, &user, "Old", vec![mail::message("M", "m@example.test", "x")]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let all = format!("/api/accounts/{account}/mailboxes");
    let old = by_path(&app, &tenant, &account, "Old").await;
    let made = app.post(&tenant, &all, &json!({"name": "v1.2"})).await.expect(201);
    let id = made["id"].as_str().unwrap();
    for _ in 0..ROUNDS {
        mail::synchronise(&app, &tenant, &account).await;
    }
    let mut conn = app.database.superuser().await;
    let renamed =
        "UPDATE mailboxes SET wire_name = 'Later', path = 'Later', name = 'Later' WHERE id = $1::uuid";
    sqlx::query(renamed).bind(id).execute(&mut conn).await.unwrap();
    let moving = app.get(&tenant, &format!("/api/accounts/{account}/messages")).await.expect(200);
    let message = moving["data"][0]["id"].as_str().unwrap();
    doveadm(&app, &["mailbox", "rename", "-u", &user, "Old", "Later"]);
    for _ in 0..2 {
        mail::synchronise(&app, &tenant, &account).await;
    }
    assert_eq!(by_path(&app, &tenant, &account, "Later").await["id"], old["id"]);
    assert!(mailbox(&app, &tenant, &account, id).await.is_null());
    let there = app.get(&tenant, &format!("/api/messages/{message}")).await.expect(200);
    assert_eq!(there["mailboxes"][0]["id"], old["id"], "{there}");
    agrees(&app, &tenant, &account, &user).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_rename_to_a_name_that_another_client_gave_to_another_mailbox_fails_no_round() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    for name in ["Ours", "Theirs"] {
        doveadm(&app, &["mailbox", "create", "-u", &user, name]);
        mail::fill(&app, &user, name, vec![mail::message(name, &format!("{name}@example.test"), "x")]);
    }
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let [ours, theirs] =
        [by_path(&app, &tenant, &account, "Ours").await, by_path(&app, &tenant, &account, "Theirs").await];
    let turn = async |what: &str| {
        let path = format!("/api/accounts/{account}/{what}");
        tests::app::send(app.request(&tenant, "POST", &path)).await.expect(200);
    };
    turn("pause").await;
    let path = format!("/api/mailboxes/{}", ours["id"].as_str().unwrap());
    app.patch(&tenant, &path, &json!({"name": "Same"})).await.expect(200);
    doveadm(&app, &["mailbox", "rename", "-u", &user, "Theirs", "Same"]);
    turn("resume").await;
    for _ in 0..ROUNDS {
        mail::synchronise(&app, &tenant, &account).await;
    }
    assert_eq!(by_path(&app, &tenant, &account, "Ours").await["id"], ours["id"]);
    assert_eq!(by_path(&app, &tenant, &account, "Same").await["id"], theirs["id"]);
    agrees(&app, &tenant, &account, &user).await;
    app.finish().await;
}
