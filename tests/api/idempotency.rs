//! What is kept under an Idempotency-Key, and what a request is told apart by.

use serde_json::json;
use tests::app::{Answer, App, Tenant, send};
use tests::mail;

async fn keyed(
    app: &App,
    tenant: &Tenant,
    path: &str,
    key: &str,
    kind: &str,
    body: impl Into<Vec<u8>>,
) -> Answer {
    let request =
        app.request(tenant, "POST", path).header("Idempotency-Key", key).header("Content-Type", kind);
    send(request.body(body.into())).await
}

fn same(first: &Answer, again: &Answer, what: &str) {
    assert_eq!(first.header("idempotency-replayed"), "", "{what}");
    assert_eq!(again.header("idempotency-replayed"), "true", "{what}: {}", again.text());
    assert_eq!((first.status, &first.bytes), (again.status, &again.bytes), "{what}: {}", again.text());
    assert_eq!(first.header("x-request-id"), again.header("x-request-id"), "{what}");
    for header in ["content-type", "location", "etag"] {
        assert_eq!(first.header(header), again.header(header), "{what}");
    }
}

fn form(boundary: &str, parts: &[(&str, &str, &str)]) -> Vec<u8> {
    let part = |(field, name, content): &(&str, &str, &str)| {
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\r\n{content}\r\n"
        )
    };
    format!("{}--{boundary}--\r\n", parts.iter().map(part).collect::<String>()).into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_is_the_first_answer_with_the_first_request_id() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    let json = "application/json";
    let draft = json!({"account_id": account, "subject": "once"}).to_string();
    let first = keyed(&app, &tenant, "/api/compose", "k1", json, draft.clone()).await;
    first.expect(201);
    same(&first, &keyed(&app, &tenant, "/api/compose", "k1", json, draft).await, "a draft");
    let (wrong, nobody) = (json!({"surprise": 1}).to_string(), uuid::Uuid::nil());
    for (n, (path, body, status, code)) in [
        ("/api/compose".to_owned(), wrong.clone(), 422, "validation-error"),
        ("/api/accounts".to_owned(), wrong.clone(), 422, "validation-error"),
        ("/api/messages/actions".to_owned(), "[]".to_owned(), 422, "validation-error"),
        ("/api/compose".to_owned(), "{\"a\":".to_owned(), 400, "malformed-json"),
        ("/api/compose/draft".to_owned(), "{\"a\":1,\"a\":1}".to_owned(), 400, "malformed-json"),
        (format!("/api/accounts/{account}/mailboxes"), "nonsense".to_owned(), 400, "malformed-json"),
        (format!("/api/compose/{nobody}/send"), "{}".to_owned(), 404, "not-found"),
        ("/api/accounts/discover".to_owned(), " ".repeat(1_100_000), 413, "payload-too-large"),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("refused {n}");
        let first = keyed(&app, &tenant, &path, &key, json, body.clone()).await;
        let problem = first.refused(status, code);
        assert_eq!(problem["request_id"], first.header("x-request-id"));
        same(&first, &keyed(&app, &tenant, &path, &key, json, body).await, &path);
        let other = keyed(&app, &tenant, &path, &key, json, "{\"other\": 1}").await;
        other.refused(422, "idempotency-key-reused");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_is_the_same_under_another_boundary() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    let draft = app.post(&tenant, "/api/compose", &json!({"account_id": account})).await.expect(201);
    let path = format!("/api/compose/{}/attachments", draft["id"].as_str().unwrap());
    let send = async |key: &str, boundary: &str, parts: &[(&str, &str, &str)]| {
        let kind = format!("multipart/form-data; boundary={boundary}");
        keyed(&app, &tenant, &path, key, &kind, form(boundary, parts)).await
    };
    let parts = [("file", "a.txt", "one"), ("file", "b.txt", "two")];
    let first = send("files", "first", &parts).await;
    first.expect(201);
    same(&first, &send("files", "second", &parts).await, "the same files");
    send("files", "first", &[("file", "a.txt", "one")]).await.refused(422, "idempotency-key-reused");
    send("files", "first", &[("file", "a.txt", "two"), ("file", "b.txt", "one")])
        .await
        .refused(422, "idempotency-key-reused");
    let wrong = [("other", "a.txt", "one")];
    let refused = send("wrong", "first", &wrong).await;
    refused.refused(422, "validation-error");
    same(&refused, &send("wrong", "second", &wrong).await, "a form that means nothing");
    let torn = "multipart/form-data; boundary=b";
    let first = keyed(&app, &tenant, &path, "torn", torn, "--b\r\nnonsense").await;
    first.refused(400, "malformed-multipart");
    same(&first, &keyed(&app, &tenant, &path, "torn", torn, "--b\r\nnonsense").await, "a torn form");
    let files =
        app.get(&tenant, &format!("/api/compose/{}", draft["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(files["attachments"].as_array().unwrap().len(), 2, "each file once");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_broke_off_is_no_answer_for_its_key() {
    use tokio::io::AsyncWriteExt as _;

    let app = App::start_with(&[("API_BODY_TIMEOUT_SECONDS", "1")]).await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    let body = json!({"account_id": account, "subject": "whole"}).to_string();
    let address = app.base.trim_start_matches("http://");
    let head = format!(
        "POST /api/compose HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nX-Tenant-ID: {}\r\n\
         Idempotency-Key: torn\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        tenant.token,
        tenant.slug,
        body.len()
    );
    for _ in 0..2 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body.as_bytes()[..10]).await.unwrap();
        // One ends early, the other stays silent until it is 408.
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
    }
    let whole = keyed(&app, &tenant, "/api/compose", "torn", "application/json", body).await;
    whole.expect(201);
    assert_eq!(whole.header("idempotency-replayed"), "");
    app.finish().await;
}
