//! Answers that come before a request was read to its end, and what becomes of the connection.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use tests::app::{App, Tenant};
use tests::mail;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

fn address(app: &App) -> String {
    app.base.trim_start_matches("http://").to_owned()
}

fn head(app: &App, who: Option<&Tenant>, start: &str, headers: &str) -> String {
    let who = who
        .map(|t| format!("Authorization: Bearer {}\r\nX-Tenant-ID: {}\r\n", t.token, t.slug))
        .unwrap_or_default();
    format!("{start} HTTP/1.1\r\nHost: {}\r\n{who}{headers}\r\n\r\n", address(app))
}

/// One answer off a connection that may have more: its head in lower case, and its body.
async fn answer(stream: &mut TcpStream) -> (String, String) {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&all).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|t| t.lines().next()?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return (head, body.to_owned());
            }
        }
        match timeout(Duration::from_secs(20), stream.read(&mut piece)).await.expect("an answer in 20 s") {
            Ok(n @ 1..) => all.extend_from_slice(&piece[..n]),
            other => panic!("the answer broke off: {other:?} after {text:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_before_the_end_of_the_body_says_that_the_connection_is_over() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let nil = uuid::Uuid::nil();
    let json = "Content-Type: application/json\r\nContent-Length: 100000";
    let form = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000";
    let huge = "Content-Type: application/json\r\nContent-Length: 90000000";
    let chunked = "Content-Type: application/json\r\nTransfer-Encoding: chunked";
    let key = "Content-Type: application/json\r\nIdempotency-Key: \r\nContent-Length: 100000";
    let yes = Some(&tenant);
    let rows: Vec<(Option<&Tenant>, String, &str, u16)> = vec![
        (None, "POST /api/accounts".into(), json, 401),
        (None, "POST /api/accounts".into(), chunked, 401),
        (None, format!("POST /api/compose/{nil}/attachments"), form, 401),
        (None, "PUT /nowhere".into(), json, 404),
        (None, "POST /health".into(), json, 405),
        (None, "DELETE /auth/login".into(), json, 405),
        (None, "POST /auth/login".into(), huge, 413),
        (None, "POST /auth/login".into(), "Content-Type: text/css\r\nContent-Length: 100000", 415),
        (None, "POST /auth/login".into(), "Accept: image/png\r\nContent-Length: 100000", 406),
        (yes, "POST /api/accounts".into(), huge, 413),
        (yes, "POST /api/accounts".into(), "Content-Type: text/css\r\nContent-Length: 100000", 415),
        (yes, "POST /api/accounts?surprise=1".into(), json, 400),
        (yes, "PATCH /api/accounts/x".into(), json, 400),
        (yes, "POST /api/compose".into(), key, 400),
        (yes, format!("DELETE /api/accounts/{nil}"), json, 404),
        (yes, format!("POST /api/compose/{nil}/attachments"), huge, 413),
    ];
    for (who, start, headers, status) in rows {
        let mut stream = TcpStream::connect(address(&app)).await.unwrap();
        stream.write_all(head(&app, who, &start, headers).as_bytes()).await.unwrap();
        let (head, body) = answer(&mut stream).await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{start}: {head} {body}");
        assert!(head.contains("\r\nconnection: close"), "{start} {status}: {head}");
        let at = Instant::now();
        // Else it waits ten seconds for the next request.
        let end = timeout(Duration::from_secs(8), stream.read(&mut [0; 10])).await;
        assert!(matches!(end, Ok(Ok(0))), "{start}: the answer is the last thing: {end:?}");
        assert!(at.elapsed() < Duration::from_secs(5), "our side ends at once, {:?}", at.elapsed());
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_read_whole_leaves_the_connection_as_it_was() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let user = mail::new_mailbox(&app);
    let account = mail::connect(&app, &tenant, &user).await;
    let mut stream = TcpStream::connect(address(&app)).await.unwrap();
    let json = |text: &str| format!("Content-Type: application/json\r\nContent-Length: {}", text.len());
    for (start, body, status) in [
        ("POST /api/accounts".to_owned(), "{}", 422),
        ("POST /api/accounts".to_owned(), "{", 400),
        ("GET /nowhere".to_owned(), "", 404),
        // A route without a body does not mind a small one.
        (format!("POST /api/sync/imap/{account}"), "{}", 202),
        (format!("GET /api/accounts/{account}"), "{}", 200),
        ("GET /auth/me".to_owned(), "", 200),
    ] {
        let head = head(&app, Some(&tenant), &start, &json(body));
        stream.write_all(head.as_bytes()).await.unwrap();
        // The body comes later than its headers, as many clients send it.
        tokio::time::sleep(Duration::from_millis(30)).await;
        stream.write_all(body.as_bytes()).await.unwrap();
        let (head, text) = answer(&mut stream).await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{start}: {head} {text}");
        assert!(!head.contains("connection: close"), "{start}: {head}");
    }
    app.finish().await;
}

/// As Python's `http.client`: everything is sent before anything is read.
fn send_all_then_read(address: &str, head: &str, body_bytes: usize) -> Result<String, String> {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let body = vec![b'x'; body_bytes];
    stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(&body))
        .map_err(|e| format!("sending: {e}"))?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).map_err(|e| format!("reading: {e}"))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_reaches_a_client_that_sends_everything_before_it_reads() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    for (who, start, kind, length, status) in [
        (None, "POST /api/accounts", "application/json", 1_500_000, 401),
        (None, "POST /nowhere", "application/json", 3_000_000, 404),
        (Some(&tenant), "POST /api/accounts", "application/json", 2_000_000, 413),
        (Some(&tenant), "POST /api/accounts", "text/css", 2_000_000, 415),
    ] {
        let headers = format!("Content-Type: {kind}\r\nContent-Length: {length}");
        let head = head(&app, who, start, &headers);
        for n in 0..10 {
            let (address, head) = (address(&app), head.clone());
            let got = tokio::task::spawn_blocking(move || send_all_then_read(&address, &head, length)).await;
            let got = got.unwrap().unwrap_or_else(|e| panic!("{start} {length} bytes, try {n}: {e}"));
            assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{start}: {got}");
            assert!(got.ends_with('}'), "the whole of it: {got}");
        }
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_stops_sending_is_rid_of_within_seconds() {
    let app = App::start().await;
    let headers = "Content-Type: application/json\r\nTransfer-Encoding: chunked";
    let mut stream = TcpStream::connect(address(&app)).await.unwrap();
    stream.write_all(head(&app, None, "POST /api/accounts", headers).as_bytes()).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let at = Instant::now();
    let sender = tokio::spawn(async move {
        let piece = [b"10000\r\n".to_vec(), vec![b'x'; 65536], b"\r\n".to_vec()].concat();
        let mut sent = 0;
        while write.write_all(&piece).await.is_ok() {
            sent += piece.len();
        }
        sent
    });
    let mut first = [0; 12];
    read.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 401");
    timeout(Duration::from_secs(10), sender).await.expect("the connection ends").unwrap();
    assert!(at.elapsed() < Duration::from_secs(5), "{:?}", at.elapsed());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_does_not_name_one_host_is_400() {
    let app = App::start().await;
    for (hosts, status) in [
        ("Host: mail.example:5000\r\n", 200),
        ("Host: [::1]:5000\r\n", 200),
        ("", 400),
        ("Host: a\r\nHost: a\r\n", 400),
        ("Host: a\r\nhost: b\r\n", 400),
        ("Host:\r\n", 400),
        ("Host: a b\r\n", 400),
        ("Host: a/b\r\n", 400),
        ("Host: u@a\r\n", 400),
        ("Host: a:port\r\n", 400),
        ("Host: a, b\r\n", 400),
    ] {
        for target in ["/health/live", "http://mail.example/health/live"] {
            let mut stream = TcpStream::connect(address(&app)).await.unwrap();
            let request = format!("GET {target} HTTP/1.1\r\n{hosts}\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let (head, body) = answer(&mut stream).await;
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{hosts:?} {target}: {head}");
            if status == 400 {
                assert!(head.contains("application/problem+json"), "{head}");
                assert!(body.contains("\"invalid-parameter\"") && body.contains("Host"), "{body}");
            }
        }
    }
    let mut stream = TcpStream::connect(address(&app)).await.unwrap();
    stream.write_all(b"GET /health/live HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(answer(&mut stream).await.0.starts_with("http/1.0 200 "), "HTTP/1.0 may do without");
    app.finish().await;
}
