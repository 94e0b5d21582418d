//! SIGTERM: who is being served is served to the end, who asks whether to send more is told no, and then it ends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tests::database::Database;
use tests::eventually::eventually;

use super::program::Settings;

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// The whole answer on a connection that is closed after it.
fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn is_ready(port: u16) -> Option<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text.starts_with("HTTP/1.1 200"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_finishes_a_request_under_way_before_it_ends() {
    let database = Database::create().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = Settings::of(&database).with("API_LISTEN", &format!("127.0.0.1:{port}"));
    let api = settings.start("emailclient-api");
    eventually("the API is ready", Duration::from_secs(30), async || is_ready(port).filter(|ready| *ready))
        .await;

    let body = r#"{"email":"nobody@acme.test","password":"whatever it is"}"#;
    let (first, second) = body.split_at(20);
    let mut slow = connect(port);
    let head = format!(
        "POST /auth/login HTTP/1.1\r\nHost: api\r\nX-Tenant-ID: acme\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{first}",
        body.len()
    );
    slow.write_all(head.as_bytes()).unwrap();
    // It must have come to the handler, not only to the socket.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let idle = connect(port);
    let asked = Instant::now();
    api.signal("TERM");
    eventually("a balancer is told to send no more", Duration::from_secs(5), async || {
        is_ready(port).filter(|ready| !ready)
    })
    .await;
    eventually("nobody new is let in", Duration::from_secs(5), async || {
        TcpStream::connect(("127.0.0.1", port)).is_err().then_some(())
    })
    .await;
    slow.write_all(second.as_bytes()).unwrap();
    let text = answer(slow);
    assert!(text.starts_with("HTTP/1.1 401") && text.contains("invalid-credentials"), "{text}");
    assert_eq!(api.wait(), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "an idle connection held it up: {:?}",
        asked.elapsed()
    );
    drop(idle);
    database.drop_it().await;
}
