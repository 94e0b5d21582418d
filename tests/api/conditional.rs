//! What a 304 says: all that the 200 would say but for the content.

use std::collections::BTreeMap;

use serde_json::json;
use tests::app::{Answer, App, Tenant, send};
use tests::mail;

/// The headers that a 304 must repeat: all but those about the content, and those that differ with every request.
fn repeated(answer: &Answer) -> BTreeMap<String, String> {
    let left_out = |name: &str| {
        ["content-type", "content-length", "content-encoding", "content-disposition", "transfer-encoding"]
            .contains(&name)
            || ["date", "x-request-id", "ratelimit", "ratelimit-policy"].contains(&name)
    };
    let text = |value: &reqwest::header::HeaderValue| value.to_str().unwrap().to_ascii_lowercase();
    answer
        .headers
        .keys()
        .filter(|name| !left_out(name.as_str()))
        .map(|name| {
            let all: Vec<String> = answer.headers.get_all(name).iter().map(text).collect();
            (name.to_string(), all.join(", "))
        })
        .collect()
}

async fn get(
    app: &App,
    tenant: &Tenant,
    method: &str,
    path: &str,
    coding: &str,
    tag: Option<&str>,
) -> Answer {
    let request = app.request(tenant, method, path).header("Accept-Encoding", coding);
    send(match tag {
        Some(tag) => request.header("If-None-Match", tag),
        None => request,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_304_has_the_headers_of_its_200() {
    let app = App::start_all().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let source = format!(
        "From: a@x.test\r\nSubject: One\r\nMessage-ID: <1@x.test>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>{}</p>\r\n\
         --b\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\n{}\r\n--b--\r\n",
        "words ".repeat(100),
        "more words ".repeat(100)
    );
    mail::fill(&app, &user, "INBOX", vec![source.into_bytes()]);
    let account = mail::connect(&app, &tenant, &user).await;
    mail::synchronise(&app, &tenant, &account).await;
    let listed = app.get(&tenant, &format!("/api/accounts/{account}/messages?role=inbox")).await.expect(200);
    let message = listed["data"][0]["id"].as_str().unwrap();
    let draft = app.post(&tenant, "/api/compose", &json!({"account_id": account})).await.expect(201);
    for path in [
        format!("/api/accounts/{account}"),
        format!("/api/compose/{}", draft["id"].as_str().unwrap()),
        format!("/api/messages/{message}"),
        format!("/api/messages/{message}?fields=subject&body=none"),
        format!("/api/messages/{message}/html"),
        format!("/api/messages/{message}/html?remote=1"),
        format!("/api/messages/{message}/text"),
        format!("/api/messages/{message}/raw"),
        format!("/api/messages/{message}/attachments/0"),
    ] {
        for coding in ["identity", "gzip"] {
            let whole = get(&app, &tenant, "GET", &path, coding, None).await;
            assert_eq!(whole.status, 200, "{path}: {}", whole.text());
            let tag = whole.header("etag");
            assert!(tag.len() > 5, "{path} {coding}");
            for given in [tag.clone(), format!("W/{tag}"), format!("\"old\", {tag}"), "*".to_owned()] {
                for method in ["GET", "HEAD"] {
                    let unchanged = get(&app, &tenant, method, &path, coding, Some(&given)).await;
                    assert_eq!(
                        unchanged.status,
                        304,
                        "{method} {path} {coding} {given}: {}",
                        unchanged.text()
                    );
                    assert_eq!(repeated(&unchanged), repeated(&whole), "{method} {path} {coding} {given}");
                    assert!(unchanged.bytes.is_empty());
                }
            }
            assert_eq!(get(&app, &tenant, "GET", &path, coding, Some("\"old\"")).await.status, 200);
        }
    }
    let nobody = format!("/api/messages/{}", uuid::Uuid::nil());
    get(&app, &tenant, "GET", &nobody, "gzip", Some("*")).await.refused(404, "not-found");
    // No coding at all is acceptable: told in our own words, too.
    get(&app, &tenant, "GET", "/api/accounts", "identity;q=0", None).await.refused(406, "not-acceptable");
    app.finish().await;
}
