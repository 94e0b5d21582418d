//! What the API promises beyond single refusals: the order of refusals, exact instants, bytes in parts.

use serde_json::{Value, json};
use tests::app::{App, Tenant, send};
use tests::mail;
use uuid::Uuid;

async fn with_body(app: &App, tenant: &Tenant, method: &str, path: &str, body: &Value) -> tests::app::Answer {
    send(app.request(tenant, method, path).json(body)).await
}

async fn stale(app: &App, tenant: &Tenant, method: &str, path: &str, body: &Value) -> tests::app::Answer {
    send(app.request(tenant, method, path).header("If-Match", "\"stale\"").json(body)).await
}

/// An account with one message that is here, and the ids of both.
async fn account_with_message(app: &App, tenant: &Tenant, message: Vec<u8>) -> (String, String) {
    let user = mail::new_mailbox(app);
    mail::fill(app, &user, "INBOX", vec![message]);
    let account = mail::connect(app, tenant, &user).await;
    mail::synchronise(app, tenant, &account).await;
    let listed = app.get(tenant, &format!("/api/accounts/{account}/messages?role=inbox")).await.expect(200);
    let id = listed["data"][0]["id"].as_str().unwrap().to_owned();
    (account, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn existence_and_preconditions_are_told_before_what_fields_mean() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let (account, message) = account_with_message(&app, &tenant, mail::message("One", "1@x.test", "x")).await;
    let draft = app.post(&tenant, "/api/compose", &json!({"account_id": account})).await.expect(201);
    let draft = draft["id"].as_str().unwrap();
    let (nobody, odd) = (Uuid::nil(), json!({"surprise": 1}));
    for (method, path) in [
        ("PUT", format!("/api/accounts/{nobody}")),
        ("PATCH", format!("/api/accounts/{nobody}")),
        ("PATCH", format!("/api/messages/{nobody}")),
        ("PATCH", format!("/api/mailboxes/{nobody}")),
        ("POST", format!("/api/accounts/{nobody}/mailboxes")),
        ("PUT", format!("/api/compose/{nobody}")),
        ("POST", format!("/api/compose/{nobody}/send")),
    ] {
        with_body(&app, &tenant, method, &path, &odd).await.refused(404, "not-found");
        let torn = app.request(&tenant, method, &path).header("Content-Type", "application/json").body("{");
        send(torn).await.refused(400, "malformed-json");
    }
    for (method, path) in [
        ("PUT", format!("/api/accounts/{account}")),
        ("PATCH", format!("/api/accounts/{account}")),
        ("PATCH", format!("/api/messages/{message}")),
        ("PUT", format!("/api/compose/{draft}")),
    ] {
        stale(&app, &tenant, method, &path, &odd).await.refused(412, "precondition-failed");
    }
    with_body(&app, &tenant, "PUT", &format!("/api/compose/{draft}"), &odd)
        .await
        .refused(428, "precondition-required");
    for (method, path) in [
        ("PATCH", format!("/api/accounts/{account}")),
        ("PATCH", format!("/api/messages/{message}")),
        ("POST", format!("/api/accounts/{account}/mailboxes")),
        ("POST", format!("/api/compose/{draft}/send")),
    ] {
        let told = with_body(&app, &tenant, method, &path, &odd).await.refused(422, "validation-error");
        let pointers = told["errors"].as_array().unwrap();
        assert!(pointers.iter().any(|e| e["pointer"] == "/surprise"), "{told}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_instant_to_send_at_is_told_back_as_it_was_given() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    let draft = app
        .post(&tenant, "/api/compose", &json!({"account_id": account, "to": [&user], "text": "later"}))
        .await
        .expect(201);
    // Counted from the server's own clock, which decides what is past or too far away.
    let created = chrono::DateTime::parse_from_rfc3339(draft["created_at"].as_str().unwrap()).unwrap();
    let at =
        (created + chrono::TimeDelta::days(100)).with_timezone(&chrono::FixedOffset::east_opt(7200).unwrap());
    let order = json!({"send_at": at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)});
    let path = format!("/api/compose/{}/send", draft["id"].as_str().unwrap());
    let queued = app.post(&tenant, &path, &order).await.expect(202);
    let told = chrono::DateTime::parse_from_rfc3339(queued["send_after"].as_str().unwrap()).unwrap();
    assert_eq!((told.timestamp(), told.timestamp_subsec_nanos()), (at.timestamp(), 0), "{queued}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_can_be_read_in_parts_by_a_client_that_takes_compressed_answers() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let source = mail::message("Long", "long@x.test", &"the same words again and again ".repeat(200));
    let (_, message) = account_with_message(&app, &tenant, source.clone()).await;
    let path = format!("/api/messages/{message}/raw");
    let ask = |range: Option<&str>| {
        let request = app.request(&tenant, "GET", &path).header("Accept-Encoding", "gzip");
        match range {
            Some(range) => request.header("Range", range),
            None => request,
        }
    };
    let whole = send(ask(None)).await;
    assert_eq!(whole.status, 200);
    assert_eq!(whole.header("accept-ranges"), "bytes");
    assert_eq!(whole.header("content-encoding"), "", "the tag is that of the plain bytes");
    assert_eq!(whole.header("content-length"), source.len().to_string());
    assert_eq!(whole.bytes, source);
    let part = send(ask(Some("bytes=10-19"))).await;
    assert_eq!((part.status, part.bytes.as_slice()), (206, source.get(10..20).unwrap()));
    assert_eq!(part.header("etag"), whole.header("etag"));
    let beyond = send(ask(Some("bytes=999999-"))).await;
    beyond.refused(416, "range-not-satisfiable");
    assert_eq!(beyond.header("content-range"), format!("bytes */{}", source.len()));
    app.finish().await;
}
