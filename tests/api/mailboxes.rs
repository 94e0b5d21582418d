//! Mailboxes: what is deleted with them, and which names they may have.

use std::time::Duration;

use serde_json::{Value, json};
use tests::app::App;
use tests::eventually::eventually;
use tests::mail::{self, doveadm};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_with_mail_is_deleted_when_that_was_meant_and_its_mail_is_in_trash() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "Full", vec![mail::message("Kept", "1@x.test", "x")]);
    doveadm(&app, &["mailbox", "create", "-u", &user, "Empty"]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let page = app.get(&tenant, &format!("/api/accounts/{account}/mailboxes?limit=200")).await.expect(200);
    let of = |path: &str| -> Value {
        page["data"].as_array().unwrap().iter().find(|m| m["path"] == path).cloned().unwrap()
    };
    let path = |mailbox: &Value| format!("/api/mailboxes/{}", mailbox["id"].as_str().unwrap());
    let (full, empty, inbox) = (path(&of("Full")), path(&of("Empty")), path(&of("INBOX")));
    app.delete(&tenant, &inbox).await.refused(422, "validation-error");
    app.delete(&tenant, &full).await.refused(409, "mailbox-not-empty");
    app.delete(&tenant, &format!("{full}?with_messages=false")).await.refused(409, "mailbox-not-empty");
    for bad in ["yes", "", "1&with_messages=1"] {
        app.delete(&tenant, &format!("{full}?with_messages={bad}")).await.refused(400, "invalid-parameter");
    }
    assert_eq!(app.delete(&tenant, &empty).await.status, 204, "nothing is in it");
    assert_eq!(app.delete(&tenant, &format!("{full}?with_messages=true")).await.status, 204);
    app.delete(&tenant, &full).await.refused(404, "not-found");
    eventually("its mail is in Trash, here too", Duration::from_secs(30), async || {
        mail::synchronise(&app, &tenant, &account).await;
        let page =
            app.get(&tenant, &format!("/api/accounts/{account}/messages?role=trash")).await.expect(200);
        (page["data"][0]["subject"] == "Kept").then_some(())
    })
    .await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_with_blanks_around_it_is_refused_and_one_that_the_server_has_is_kept() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    doveadm(&app, &["mailbox", "create", "-u", &user, "Old "]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let all = format!("/api/accounts/{account}/mailboxes");
    let made = app.post(&tenant, &all, &json!({"name": "A b"})).await.expect(201);
    let one = format!("/api/mailboxes/{}", made["id"].as_str().unwrap());
    for name in [" x", "x ", "\tx", "x\u{a0}", "\u{2003}x", " "] {
        for answer in [
            app.post(&tenant, &all, &json!({"name": name})).await,
            app.patch(&tenant, &one, &json!({"name": name})).await,
        ] {
            let problem = answer.refused(422, "validation-error");
            assert_eq!(problem["errors"][0]["pointer"], "/name", "{name:?}: {problem}");
        }
    }
    let page = app.get(&tenant, &format!("{all}?limit=200")).await.expect(200);
    let old = page["data"].as_array().unwrap().iter().find(|m| m["path"] == "Old ").cloned().unwrap();
    let path = format!("/api/mailboxes/{}", old["id"].as_str().unwrap());
    let moved = app.patch(&tenant, &path, &json!({"parent_id": made["id"]})).await.expect(200);
    assert_eq!(moved["name"], "Old ", "only its place was to change");
    app.finish().await;
}
