use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::{Address, Answered, Poster, Trouble};
use crate::dial::{Outbound, OutboundPolicy};
use crate::tls::{TlsConfig, install_provider};

/// A server that treats each connection like this, and how many there were.
async fn server<F, W>(serve: F) -> (u16, Arc<AtomicUsize>)
where
    F: Fn(TcpStream) -> W + Send + Sync + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(socket));
        }
    });
    (port, count)
}

async fn request(socket: &mut TcpStream) -> String {
    let (mut read, mut byte) = (Vec::new(), [0u8; 1]);
    while !read.ends_with(b"body!") {
        if socket.read(&mut byte).await.unwrap_or(0) == 0 {
            return String::new();
        }
        read.push(byte[0]);
    }
    String::from_utf8(read).unwrap()
}

fn poster(port: u16, patience: u64) -> Poster {
    install_provider();
    let policy = OutboundPolicy::parse(&format!("127.0.0.1:{port}")).unwrap();
    let address = Address::parse(&format!("http://127.0.0.1:{port}/hook?a=b")).unwrap();
    let tls = TlsConfig::new(None).unwrap();
    Poster::new(Arc::new(Outbound::new(policy)), tls, address, Duration::from_millis(patience))
}

async fn post(poster: &Poster) -> Result<Answered, Trouble> {
    poster.post(&HeaderMap::new(), &Bytes::from_static(b"body!")).await.map_err(|e| e.0)
}

#[tokio::test]
async fn a_connection_serves_one_body_after_the_other_and_is_replaced_when_it_was_hung_up() {
    let (port, connections) = server(async |mut socket| {
        for _ in 0..2 {
            let text = request(&mut socket).await;
            assert!(text.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{text}");
            assert!(text.contains(&format!("host: 127.0.0.1:{}\r\n", socket.local_addr().unwrap().port())));
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await;
    let poster = poster(port, 5000);
    for _ in 0..6 {
        assert_eq!(post(&poster).await, Ok(Answered { status: 200, retry_after: None }));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (port, connections) = server(async |mut socket| {
        let port = socket.local_addr().unwrap().port();
        request(&mut socket).await;
        let answer =
            format!("HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:{port}/\r\ncontent-length: 0\r\n\r\n");
        socket.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    assert_eq!(post(&poster(port, 5000)).await.unwrap().status, 307);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off_and_its_status_counts() {
    let (port, connections) = server(async |mut socket| {
        request(&mut socket).await;
        let head = b"HTTP/1.1 503 X\r\nretry-after: 7\r\ncontent-length: 99999999\r\n\r\n";
        socket.write_all(head).await.unwrap();
        while socket.write_all(&[b'x'; 4096]).await.is_ok() {}
    })
    .await;
    let (poster, started) = (poster(port, 5000), Instant::now());
    let answered = post(&poster).await.unwrap();
    assert_eq!(answered, Answered { status: 503, retry_after: Some("7".to_owned()) });
    assert!(started.elapsed() < Duration::from_secs(2));
    post(&poster).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 2, "what was cut off is not used again");
}

#[tokio::test]
async fn a_byte_a_second_ends_with_the_patience() {
    let (port, _) = server(async |mut socket| {
        request(&mut socket).await;
        for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".chunks(1).cycle() {
            if socket.write_all(byte).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    let started = Instant::now();
    assert_eq!(post(&poster(port, 700)).await, Err(Trouble::Timeout));
    assert!(started.elapsed() < Duration::from_millis(1500));
}

#[tokio::test]
async fn a_head_without_end_and_what_is_no_http_are_faults_of_the_protocol() {
    for said in [b"HTTP/1.1 200 OK\r\nx: ".as_slice(), b"220 mail.example ESMTP\r\n"] {
        let (port, _) = server(async move |mut socket| {
            request(&mut socket).await;
            socket.write_all(said).await.unwrap();
            while socket.write_all(&[b'x'; 4096]).await.is_ok() {}
        })
        .await;
        assert_eq!(post(&poster(port, 5000)).await, Err(Trouble::Protocol));
    }
}

#[tokio::test]
async fn who_hangs_up_or_is_not_there_has_the_words_of_the_table() {
    let (port, _) = server(async |mut socket| _ = request(&mut socket).await).await;
    assert_eq!(post(&poster(port, 5000)).await, Err(Trouble::Closed));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    assert_eq!(post(&poster(port, 5000)).await, Err(Trouble::Unreachable));
}

#[tokio::test]
async fn a_host_that_is_allowed_no_more_is_not_connected_to() {
    install_provider();
    let address = Address::parse("http://127.0.0.1:8080/").unwrap();
    let poster = Poster::new(Arc::default(), TlsConfig::new(None).unwrap(), address, super::PATIENCE);
    assert_eq!(post(&poster).await, Err(Trouble::PortNotAllowed));
    let address = Address::parse("https://127.0.0.1/").unwrap();
    let poster = Poster::new(Arc::default(), TlsConfig::new(None).unwrap(), address, super::PATIENCE);
    assert_eq!(post(&poster).await, Err(Trouble::HostNotAllowed));
}
