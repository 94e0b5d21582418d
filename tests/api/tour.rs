//! The main job from end to end, as a client written from the API's description would do it.

use std::time::Duration;

use serde_json::{Value, json};
use tests::app::{App, Tenant};
use tests::eventually::eventually;
use tests::mail;

async fn messages(app: &App, tenant: &Tenant, account: &str, query: &str) -> Vec<Value> {
    let page = app.get(tenant, &format!("/api/accounts/{account}/messages?{query}")).await.expect(200);
    page["data"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_connects_reads_searches_writes_and_sends() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (alice, bob) = (mail::new_mailbox(&app), mail::new_mailbox(&app));
    mail::fill(
        &app,
        &alice,
        "INBOX",
        vec![
            mail::message("Quarterly report", "one@example.test", "The zebra crossed the river."),
            mail::message("Re: Quarterly report", "two@example.test", "Thanks for the numbers."),
            mail::message("Lunch", "three@example.test", "Pizza at noon?"),
        ],
    );
    let account = mail::connect(&app, &tenant, &alice).await;
    let other = mail::connect(&app, &tenant, &bob).await;
    let status = mail::synchronise(&app, &tenant, &account).await;
    assert_eq!(status["state"], "connected");
    assert_eq!(status["progress"]["messages_synced"], 3);
    mail::synchronise(&app, &tenant, &other).await;

    let mailboxes = app.get(&tenant, &format!("/api/accounts/{account}/mailboxes")).await.expect(200);
    let roles: Vec<&str> =
        mailboxes["data"].as_array().unwrap().iter().filter_map(|m| m["role"].as_str()).collect();
    for role in ["inbox", "sent", "drafts", "trash"] {
        assert!(roles.contains(&role), "{role} is missing from {mailboxes}");
    }
    let listed = messages(&app, &tenant, &account, "role=inbox").await;
    let subjects: Vec<&str> = listed.iter().map(|m| m["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["Lunch", "Re: Quarterly report", "Quarterly report"], "newest first");
    let id = listed[2]["id"].as_str().unwrap();
    let alone = app.get(&tenant, &format!("/api/messages/{id}")).await.expect(200);
    assert_eq!(alone["message_id_header"], "one@example.test");
    assert!(alone["text"].as_str().unwrap().contains("zebra"));
    let raw = app.get(&tenant, &format!("/api/messages/{id}/raw")).await;
    assert_eq!(
        raw.bytes,
        mail::message("Quarterly report", "one@example.test", "The zebra crossed the river.")
    );

    let found = eventually("the body text is searchable", Duration::from_secs(60), async || {
        let found = app.get(&tenant, "/api/sync/search?query=zebra").await.expect(200);
        (!found["data"].as_array().unwrap().is_empty()).then_some(found)
    })
    .await;
    assert_eq!(found["data"][0]["id"], id);
    assert!(found["data"][0]["snippet"].as_str().unwrap().contains("<mark>zebra</mark>"), "{found}");

    let patched = app
        .patch(&tenant, &format!("/api/messages/{id}"), &json!({"unread": false, "starred": true}))
        .await
        .expect(200);
    assert_eq!((&patched["unread"], &patched["starred"]), (&json!(false), &json!(true)));
    eventually("the server knows the flags", Duration::from_secs(20), async || {
        let flags = mail::doveadm(
            &app,
            &[
                "fetch",
                "-u",
                &alice,
                "flags",
                "mailbox",
                "INBOX",
                "subject",
                "Quarterly",
                "not",
                "subject",
                "Re:",
            ],
        );
        (flags.contains("\\Seen") && flags.contains("\\Flagged")).then_some(())
    })
    .await;

    let draft = app
        .post(
            &tenant,
            "/api/compose",
            &json!({"account_id": account, "to": [&bob], "subject": "Grüße", "text": "Hello Bob"}),
        )
        .await
        .expect(201);
    let draft_id = draft["id"].as_str().unwrap();
    let sent = app.post(&tenant, &format!("/api/compose/{draft_id}/send"), &json!({})).await.expect(202);
    let submission = sent["id"].as_str().unwrap();
    let header = sent["message_id_header"].as_str().unwrap().to_owned();
    eventually("the message was sent and its copy filed", Duration::from_secs(30), async || {
        let now = app.get(&tenant, &format!("/api/submissions/{submission}")).await.expect(200);
        assert_ne!(now["state"], "failed", "{now}");
        (now["state"] == "sent" && now["sent_copy"] == "done").then_some(())
    })
    .await;
    let arrived = eventually("the message is in the other mailbox", Duration::from_secs(30), async || {
        messages(&app, &tenant, &other, "role=inbox")
            .await
            .into_iter()
            .find(|m| m["message_id_header"] == header.as_str())
    })
    .await;
    assert_eq!(arrived["subject"], "Grüße");
    eventually("one copy is in Sent", Duration::from_secs(30), async || {
        let copies = messages(&app, &tenant, &account, "role=sent").await;
        assert!(copies.len() < 2, "{copies:?}");
        (copies.len() == 1 && copies[0]["unread"] == false).then_some(())
    })
    .await;
    let again = app.post(&tenant, &format!("/api/compose/{draft_id}/send"), &json!({})).await.expect(200);
    assert_eq!(again["id"], submission, "a draft is sent once");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_and_deleting_reach_the_server_and_threads_group_replies() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let reply = String::from_utf8(mail::message("Re: Plan", "b@example.test", "Second"))
        .unwrap()
        .replace("MIME-Version", "References: <a@example.test>\r\nMIME-Version")
        .into_bytes();
    mail::fill(
        &app,
        &user,
        "INBOX",
        vec![
            mail::message("Plan", "a@example.test", "First"),
            reply,
            mail::message("Other", "c@example.test", "x"),
        ],
    );
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;

    let threads = app.get(&tenant, &format!("/api/accounts/{account}/threads")).await.expect(200);
    let plan = threads["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["message_count"] == 2)
        .expect("the reply is in its thread")
        .clone();
    let alone = app.get(&tenant, &format!("/api/threads/{}", plan["id"].as_str().unwrap())).await.expect(200);
    let order: Vec<&str> =
        alone["messages"].as_array().unwrap().iter().map(|m| m["subject"].as_str().unwrap()).collect();
    assert_eq!(order, ["Plan", "Re: Plan"], "oldest first");

    let listed = messages(&app, &tenant, &account, "role=inbox").await;
    let by_subject =
        |s: &str| listed.iter().find(|m| m["subject"] == s).unwrap()["id"].as_str().unwrap().to_owned();
    let mailboxes = app.get(&tenant, &format!("/api/accounts/{account}/mailboxes")).await.expect(200);
    let archive =
        mailboxes["data"].as_array().unwrap().iter().find(|m| m["role"] == "archive").unwrap()["id"].clone();
    app.patch(&tenant, &format!("/api/messages/{}", by_subject("Plan")), &json!({"move_to": archive}))
        .await
        .expect(200);
    assert_eq!(app.delete(&tenant, &format!("/api/messages/{}", by_subject("Other"))).await.status, 204);
    assert_eq!(messages(&app, &tenant, &account, "role=inbox").await.len(), 1, "the change shows at once");
    eventually("the server has moved both", Duration::from_secs(20), async || {
        let count = |mailbox: &str| {
            mail::doveadm(&app, &["search", "-u", &user, "mailbox", mailbox, "all"]).lines().count()
        };
        (count("INBOX") == 1 && count("Archive") == 1 && count("Trash") == 1).then_some(())
    })
    .await;
    mail::synchronise(&app, &tenant, &account).await;
    let archived = messages(&app, &tenant, &account, "role=archive").await;
    assert_eq!(archived.len(), 1);
    assert_eq!(archived[0]["id"], by_subject("Plan").as_str(), "the id survives the move");
    let trashed = by_subject("Other");
    assert_eq!(app.delete(&tenant, &format!("/api/messages/{trashed}")).await.status, 204);
    app.get(&tenant, &format!("/api/messages/{trashed}")).await.refused(404, "not-found");
    eventually("it is expunged from the server's Trash", Duration::from_secs(20), async || {
        mail::doveadm(&app, &["search", "-u", &user, "mailbox", "Trash", "all"])
            .lines()
            .next()
            .is_none()
            .then_some(())
    })
    .await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_mail_in_inbox_is_noticed_within_seconds_without_a_poll() {
    let app = {
        let mut app = App::start_with(&[("SYNC_INTERVAL_SECONDS", "3600")]).await;
        app.add_worker();
        app.add_scheduler();
        app
    };
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    eventually("a worker watches the account", Duration::from_secs(20), async || {
        let watched: i64 =
            sqlx::query_scalar("SELECT count(*) FROM account_leases WHERE watch_owner IS NOT NULL")
                .fetch_one(&mut app.database.superuser().await)
                .await
                .unwrap();
        (watched == 1).then_some(())
    })
    .await;
    mail::deliver(&app, &user, &mail::message("Fresh", "fresh@example.test", "news"));
    eventually("the new message is listed", Duration::from_secs(5), async || {
        messages(&app, &tenant, &account, "role=inbox")
            .await
            .iter()
            .any(|m| m["subject"] == "Fresh")
            .then_some(())
    })
    .await;
    app.finish().await;
}
