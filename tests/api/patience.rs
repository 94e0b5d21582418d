//! How long a body may take, with a service that is told to be less patient.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::app::{App, Tenant};
use tests::mail;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A request on a connection of its own, of which the body is sent by hand.
struct Slow(TcpStream);

impl Slow {
    async fn begin(app: &App, tenant: Option<&Tenant>, path: &str, headers: &str) -> Self {
        let address = app.base.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.unwrap();
        let who = tenant
            .map(|t| format!("Authorization: Bearer {}\r\nX-Tenant-ID: {}\r\n", t.token, t.slug))
            .unwrap_or_default();
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\n{who}{headers}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Self(stream)
    }

    /// The status and the whole answer, once the service ends the connection or the answer is there.
    async fn answer(mut self) -> (u16, String) {
        let mut all = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(Ok(n @ 1..)) =
            tokio::time::timeout(Duration::from_secs(20), self.0.read(&mut piece)).await
        {
            all.extend_from_slice(&piece[..n]);
            let text = String::from_utf8_lossy(&all);
            let length =
                text.split("content-length: ").nth(1).and_then(|t| t.lines().next()?.parse::<usize>().ok());
            if text.split_once("\r\n\r\n").is_some_and(|(_, body)| Some(body.len()) >= length) {
                break;
            }
        }
        let text = String::from_utf8_lossy(&all).into_owned();
        (text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0), text)
    }
}

fn too_late(answer: &(u16, String), what: &str) {
    assert_eq!(answer.0, 408, "{what}: {}", answer.1);
    for part in ["application/problem+json", "\"request-timeout\"", "x-request-id"] {
        assert!(answer.1.contains(part), "{what}: {part} is missing in {}", answer.1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_end_in_time_is_408_however_busily_it_is_sent() {
    let app = App::start_with(&[("API_BODY_TIMEOUT_SECONDS", "2")]).await;
    let tenant = app.tenant().await;
    let json = "Content-Type: application/json\r\nContent-Length: 1000";
    for (who, path) in [(Some(&tenant), "/api/accounts"), (None, "/auth/login")] {
        let start = Instant::now();
        let silent = Slow::begin(&app, who, path, json).await;
        too_late(&silent.answer().await, path);
        assert!((2..8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    }
    // A byte every now and then does not help: the whole body has its time.
    let start = Instant::now();
    let chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked";
    let Slow(stream) = Slow::begin(&app, Some(&tenant), "/api/accounts", chunked).await;
    let (read, mut write) = stream.into_split();
    let drip = tokio::spawn(async move {
        while write.write_all(b"1\r\n \r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let mut answer = vec![0; 4096];
    let mut read = read;
    let got = tokio::time::timeout(Duration::from_secs(20), read.read(&mut answer)).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&answer[..got]).into_owned();
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
    assert!((2..8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    drip.abort();
    let _ = drip.await;
    drop(read);
    app.get(&tenant, "/api/accounts").await.expect(200);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_may_be_slow_but_not_stand_still() {
    let app = App::start_with(&[("API_BODY_TIMEOUT_SECONDS", "2")]).await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    let draft = app.post(&tenant, "/api/compose", &json!({"account_id": account})).await.expect(201);
    let id = draft["id"].as_str().unwrap();
    let path = format!("/api/compose/{id}/attachments?filename=slow.bin");
    let headers = "Content-Type: application/octet-stream\r\nContent-Length: 8";

    let mut slow = Slow::begin(&app, Some(&tenant), &path, headers).await;
    for _ in 0..8 {
        // Eight pieces take more than the two seconds, none of them does.
        tokio::time::sleep(Duration::from_millis(500)).await;
        slow.0.write_all(b"x").await.unwrap();
    }
    let arrived = slow.answer().await;
    assert_eq!(arrived.0, 201, "{}", arrived.1);

    let mut stalled = Slow::begin(&app, Some(&tenant), &path, headers).await;
    stalled.0.write_all(b"xx").await.unwrap();
    let start = Instant::now();
    too_late(&stalled.answer().await, "stalled");
    assert!((1..8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    let kept = app.get(&tenant, &format!("/api/compose/{id}")).await.expect(200);
    assert_eq!(kept["attachments"].as_array().unwrap().len(), 1, "nothing of the second is kept: {kept}");
    app.finish().await;
}
