//! Tenant B with A's ids: every route answers as it does for an id of nobody.

use serde_json::{Value, json};
use tests::app::{App, send};
use tests::mail;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_called_with_another_tenants_ids_is_not_found() {
    let app = App::start_all().await;
    let (a, b) = (app.tenant().await, app.tenant().await);
    let user = mail::new_mailbox(&app);
    mail::fill(&app, &user, "INBOX", vec![mail::message("Private", "p@example.test", "secret words")]);
    let account = mail::connect(&app, &a, &user).await;
    mail::synchronise(&app, &a, &account).await;
    let first = |value: &Value| value["data"][0]["id"].as_str().unwrap().to_owned();
    let mailbox = first(&app.get(&a, &format!("/api/accounts/{account}/mailboxes")).await.expect(200));
    let message = first(&app.get(&a, &format!("/api/accounts/{account}/messages")).await.expect(200));
    let thread = first(&app.get(&a, &format!("/api/accounts/{account}/threads")).await.expect(200));
    let draft =
        app.post(&a, "/api/compose", &json!({"account_id": account, "to": ["x@lab.test"]})).await.expect(201);
    let draft = draft["id"].as_str().unwrap().to_owned();
    let sent =
        app.post(&a, &format!("/api/compose/{draft}/send"), &json!({"undo_seconds": 100})).await.expect(202);
    let submission = sent["id"].as_str().unwrap().to_owned();
    let nobody = "01890000-0000-7000-8000-000000000000";

    let routes: [(&str, String, &str, Option<Value>); 27] = [
        ("GET", "/api/accounts/{}".into(), &account, None),
        ("PATCH", "/api/accounts/{}".into(), &account, Some(json!({"name": "x"}))),
        ("DELETE", "/api/accounts/{}".into(), &account, None),
        ("GET", "/api/accounts/{}/mailboxes".into(), &account, None),
        ("POST", "/api/accounts/{}/mailboxes".into(), &account, Some(json!({"name": "x"}))),
        ("GET", "/api/accounts/{}/messages".into(), &account, None),
        ("GET", "/api/accounts/{}/threads".into(), &account, None),
        ("POST", "/api/accounts/{}/diagnose".into(), &account, None),
        ("POST", "/api/accounts/{}/pause".into(), &account, None),
        ("POST", "/api/accounts/{}/resume".into(), &account, None),
        ("POST", "/api/accounts/{}/resync".into(), &account, None),
        ("POST", "/api/mailboxes/{}/resync".into(), &mailbox, None),
        ("POST", "/api/sync/imap/{}".into(), &account, None),
        ("GET", "/api/sync/status/{}".into(), &account, None),
        ("PATCH", "/api/mailboxes/{}".into(), &mailbox, Some(json!({"name": "x"}))),
        ("DELETE", "/api/mailboxes/{}".into(), &mailbox, None),
        ("GET", "/api/messages/{}".into(), &message, None),
        ("GET", "/api/messages/{}/raw".into(), &message, None),
        ("GET", "/api/messages/{}/html".into(), &message, None),
        ("GET", "/api/messages/{}/text".into(), &message, None),
        ("PATCH", "/api/messages/{}".into(), &message, Some(json!({"unread": false}))),
        ("DELETE", "/api/messages/{}".into(), &message, None),
        ("GET", "/api/threads/{}".into(), &thread, None),
        ("GET", "/api/compose/{}".into(), &draft, None),
        ("POST", "/api/compose/{}/send".into(), &draft, Some(json!({}))),
        ("GET", "/api/submissions/{}".into(), &submission, None),
        ("POST", "/api/submissions/{}/cancel".into(), &submission, None),
    ];
    let strip = |mut body: Value, id: &str| {
        for field in ["request_id", "instance"] {
            body.as_object_mut().unwrap().remove(field);
        }
        body.to_string().replace(id, "ID")
    };
    for (method, path, id, body) in routes {
        let mut bodies = vec![];
        for id in [id, nobody] {
            let mut request = app.request(&b, method, &path.replace("{}", id));
            if let Some(body) = &body {
                request = request.json(body);
            }
            let answer = send(request).await;
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
            bodies.push(strip(answer.json(), id));
        }
        assert_eq!(bodies[0], bodies[1], "{method} {path} tells another tenant's id from one of nobody");
    }
    let found = app.get(&b, "/api/sync/search?query=in:anywhere").await.expect(200);
    assert_eq!(found["data"], json!([]));
    assert_eq!(app.get(&b, "/api/accounts").await.expect(200)["data"], json!([]));
    let foreign = app.post(&b, "/api/compose", &json!({"account_id": account, "to": ["x@lab.test"]})).await;
    foreign.refused(422, "validation-error");
    app.get(&a, &format!("/api/messages/{message}")).await.expect(200);
    app.post(&a, &format!("/api/submissions/{submission}/cancel"), &json!({})).await.expect(200);
    app.finish().await;
}

#[tokio::test]
async fn a_token_opens_its_own_tenant_only() {
    let app = App::start().await;
    let (a, b) = (app.tenant().await, app.tenant().await);
    let call = |slug: &str| {
        app.http.get(format!("{}/api/accounts", app.base)).bearer_auth(&a.token).header("X-Tenant-ID", slug)
    };
    assert_eq!(send(call(&a.slug)).await.status, 200);
    assert_eq!(send(call(&a.id.to_string())).await.status, 200);
    let known = send(call(&b.slug)).await.refused(403, "tenant-forbidden");
    let unknown = send(call("no-such-tenant")).await.refused(403, "tenant-forbidden");
    assert_eq!(known["detail"], unknown["detail"]);
    app.finish().await;
}
