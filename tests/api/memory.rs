//! What the API holds in memory while strangers send and read slowly, and that others are served meanwhile.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::json;
use tests::app::{App, Tenant};
use tests::dice::Dice;
use tests::eventually::eventually;
use tests::mail;
use tests::served::Served;

const MIB: usize = 1024 * 1024;

/// Opens a connection and sends `head`, then `body`; what cannot be sent any more is left.
fn send(served: &Served, head: &str, body: &[u8]) -> TcpStream {
    let mut line = TcpStream::connect(&served.address).unwrap();
    line.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(line, "{head}\r\nHost: {}\r\n\r\n", served.address).unwrap();
    let _ = line.write_all(body);
    line
}

fn as_user(tenant: &Tenant) -> String {
    format!("Authorization: Bearer {}\r\nX-Tenant-ID: {}", tenant.token, tenant.slug)
}

/// The status of the answer; 0 when the connection ended without one.
fn status(mut line: &TcpStream, patience: Duration) -> u16 {
    line.set_read_timeout(Some(patience)).unwrap();
    let mut answer = [0; 12];
    match line.read_exact(&mut answer) {
        Ok(()) => std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap(),
        Err(_) => 0,
    }
}

fn is_served(served: &Served, tenant: &Tenant) {
    let asked = Instant::now();
    let line = send(served, &format!("GET /api/accounts HTTP/1.1\r\n{}", as_user(tenant)), b"");
    assert_eq!(status(&line, Duration::from_secs(10)), 200);
    assert!(asked.elapsed() < Duration::from_secs(5), "another tenant waited {:?}", asked.elapsed());
}

fn grew_by(served: &Served, before: usize) -> usize {
    served.peak().saturating_sub(before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn strangers_make_open_routes_hold_next_to_nothing() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let served = Served::start(&app);
    is_served(&served, &tenant);
    let before = served.resident();
    let body = vec![b'['; MIB];
    let lines: Vec<TcpStream> = (0..400)
        .map(|n| {
            // Half of them say how much comes, half do not.
            let (framing, start) = if n % 2 == 0 {
                (format!("Content-Length: {MIB}"), &body[..])
            } else {
                ("Transfer-Encoding: chunked".to_owned(), &b"100000\r\n[[[["[..])
            };
            let head = format!("POST /auth/refresh HTTP/1.1\r\nContent-Type: application/json\r\n{framing}");
            send(&served, &head, &start[..start.len().min(64 * 1024)])
        })
        .collect();
    is_served(&served, &tenant);
    let refused =
        lines.iter().filter(|l| [413, 429].contains(&status(l, Duration::from_millis(200)))).count();
    assert!(refused >= 200, "{refused} of the bodies that were announced are refused");
    let grown = grew_by(&served, before);
    assert!(grown < 32 * MIB, "400 strangers took {} MiB", grown / MIB);
    drop(lines);
    drop(served);
    app.finish().await;
}

/// A file as large as an upload may be. As most of what is sent, it cannot be compressed further: PostgreSQL would have to
/// decompress all that stands before a piece.
fn large_file() -> Vec<u8> {
    let mut dice = Dice::new(45);
    (0..32 * MIB / 8).flat_map(|_| dice.roll().to_le_bytes()).collect()
}

/// An account with one message of 45 MB, and its id.
async fn one_large_message(app: &mut App, tenant: &Tenant, file: &[u8]) -> String {
    let user = mail::new_mailbox(app);
    let lines: String = file.chunks(57).flat_map(|line| [BASE64.encode(line), "\r\n".to_owned()]).collect();
    let raw = format!(
        "From: a@example.test\r\nTo: {user}\r\nSubject: Large\r\nMessage-ID: <large@example.test>\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\nContent-Type: application/zip; name=a.zip\r\n\
         Content-Disposition: attachment; filename=a.zip\r\nContent-Transfer-Encoding: base64\r\n\r\n{lines}--b--\r\n",
    );
    mail::deliver(app, &user, raw.as_bytes());
    app.add_worker();
    let account = mail::connect(app, tenant, &user).await;
    mail::synchronise(app, tenant, &account).await;
    let page = app.get(tenant, &format!("/api/accounts/{account}/messages")).await.expect(200);
    page["data"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slow_readers_of_a_large_message_hold_a_piece_of_it_each() {
    let mut app = App::start().await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    let sent = large_file();
    let id = one_large_message(&mut app, &tenant, &sent).await;
    let served = Served::start(&app);
    is_served(&served, &other);
    let before = served.resident();
    let lines: Vec<TcpStream> = (0..20)
        .map(|n| {
            let part = if n % 2 == 0 { "raw" } else { "attachments/0" };
            send(&served, &format!("GET /api/messages/{id}/{part} HTTP/1.1\r\n{}", as_user(&tenant)), b"")
        })
        .collect();
    for line in &lines {
        assert_eq!(status(line, Duration::from_secs(60)), 200);
    }
    // What was found before is let go before the next is looked for. The whole of what is read are 800 MiB.
    let grown = grew_by(&served, before);
    assert!(grown < 240 * MIB, "{} MiB were held at once", grown / MIB);
    // The allocator gives back what was let go while others are served.
    eventually("20 readers hold a piece each", Duration::from_secs(30), async || {
        is_served(&served, &other);
        (served.resident().saturating_sub(before) < 64 * MIB).then_some(())
    })
    .await;
    drop(lines);
    // Both are whole.
    let raw = app.get(&tenant, &format!("/api/messages/{id}/raw")).await;
    assert!(raw.text().ends_with("--b--\r\n"));
    let file = app.get(&tenant, &format!("/api/messages/{id}/attachments/0")).await;
    assert_eq!(file.header("content-length"), file.bytes.len().to_string());
    assert!(file.bytes == sent);
    let part = app.request(&tenant, "GET", &format!("/api/messages/{id}/attachments/0"));
    let part = tests::app::send(part.header("Range", "bytes=30000001-30000006")).await;
    assert_eq!((part.status, &part.bytes[..]), (206, &sent[30_000_001..=30_000_006]));
    drop(served);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slow_uploads_hold_a_piece_each_and_none_to_a_draft_that_is_not_there() {
    let app = App::start().await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    let user = mail::new_mailbox(&app);
    let settings = mail::settings(&app, &user);
    let account = app.post(&tenant, "/api/accounts?verify=false", &settings).await.expect(201);
    let draft = app.post(&tenant, "/api/compose", &json!({"account_id": account["id"], "text": "x"})).await;
    let draft = draft.expect(201)["id"].as_str().unwrap().to_owned();
    let served = Served::start(&app);
    is_served(&served, &other);
    let before = served.resident();
    let nobody = emailclient_core::platform::id::new_uuid().to_string();
    let half = vec![b'x'; 12 * MIB];
    let upload = |draft: &str| {
        let head = format!(
            "POST /api/compose/{draft}/attachments?filename=a.bin HTTP/1.1\r\nContent-Type: application/octet-stream\r\n\
             Content-Length: {}\r\n{}",
            24 * MIB,
            as_user(&tenant)
        );
        send(&served, &head, &half)
    };
    let mut lines = Vec::new();
    for _ in 0..24 {
        let line = upload(&nobody);
        assert_eq!(status(&line, Duration::from_secs(10)), 404, "before the body");
        lines.push(upload(&draft));
    }
    is_served(&served, &other);
    let grown = grew_by(&served, before);
    assert!(grown < 64 * MIB, "24 uploads took {} MiB", grown / MIB);
    // One goes on and is whole.
    let mut line = lines.pop().unwrap();
    line.write_all(&half).unwrap();
    assert_eq!(status(&line, Duration::from_secs(30)), 201);
    drop(lines);
    let seen = app.get(&tenant, &format!("/api/compose/{draft}")).await.expect(200);
    assert_eq!(seen["attachments"][0]["size_bytes"], 24 * MIB);
    let stored: i64 = sqlx::query_scalar("SELECT sum(octet_length(content)) FROM draft_attachments")
        .fetch_one(&mut app.database.superuser().await)
        .await
        .unwrap();
    assert_eq!(usize::try_from(stored).unwrap(), 24 * MIB);
    eventually("no piece is left", Duration::from_secs(10), async || {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM upload_pieces")
            .fetch_one(&mut app.database.superuser().await)
            .await
            .unwrap();
        (left == 0).then_some(())
    })
    .await;
    drop(served);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn large_bodies_of_one_tenant_leave_room_for_another() {
    let app = App::start().await;
    let (tenant, other) = (app.tenant().await, app.tenant().await);
    let served = Served::start(&app);
    is_served(&served, &other);
    let before = served.resident();
    let body = vec![b' '; 4 * MIB - 1024];
    let lines: Vec<TcpStream> = (0..60)
        .map(|_| {
            let head = format!(
                "POST /api/compose HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{}",
                4 * MIB,
                as_user(&tenant)
            );
            let mut line = TcpStream::connect(&served.address).unwrap();
            line.set_nonblocking(true).unwrap();
            let _ = line.write_all(format!("{head}\r\nHost: {}\r\n\r\n", served.address).as_bytes());
            let _ = line.write(&body);
            line.set_nonblocking(false).unwrap();
            line
        })
        .collect();
    is_served(&served, &other);
    let grown = grew_by(&served, before);
    assert!(grown < 96 * MIB, "60 bodies took {} MiB", grown / MIB);
    drop(lines);
    drop(served);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn large_changes_whose_answers_are_as_large_do_not_wait_for_each_other() {
    let app = App::start().await;
    let tenant = app.tenant().await;
    let settings = mail::settings(&app, &mail::new_mailbox(&app));
    let account = app.post(&tenant, "/api/accounts?verify=false", &settings).await.expect(201);
    let body = json!({"account_id": account["id"], "text": "x".repeat(3 * MIB)});
    let began = Instant::now();
    let asked: Vec<_> = (0..8)
        .map(|_| tokio::spawn(tests::app::send(app.request(&tenant, "POST", "/api/compose").json(&body))))
        .collect();
    for task in asked {
        assert_eq!(task.await.unwrap().status, 201);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    app.finish().await;
}
