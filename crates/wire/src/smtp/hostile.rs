//! Servers that are silent, speak in tongues, or change their mind under TLS.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::connect::{greet, start_tls};
use super::script::{Server, deadlines, endpoint};
use super::stream::LineStream;
use super::{Dialler, Endpoint, Security, SmtpError, SmtpServer, connect};
use crate::dial::{Deadlines, Outbound, OutboundPolicy};
use crate::login::Login;
use crate::secret::Secret;
use crate::tls::authority::Authority;

#[tokio::test]
async fn a_server_that_is_silent_before_or_in_login_is_given_up() {
    let started = Instant::now();
    let mute = Server::new().banner("");
    assert_eq!(greet(mute.start(), "us", deadlines()).await.err(), Some(SmtpError::Timeout), "banner");
    let server = Server::new().features(&["STARTTLS"]).silent_at("STARTTLS");
    assert_eq!(
        start_tls(server.start(), "us", deadlines()).await.err(),
        Some(SmtpError::Timeout),
        "STARTTLS"
    );
    for (mechanism, first) in [("PLAIN", "AUTH PLAIN"), ("LOGIN", "AUTH LOGIN")] {
        let offer = format!("AUTH {mechanism}");
        let server = Server::new().features(&[&offer]).silent_at(first);
        let mut connection = greet(server.start(), "us", deadlines()).await.unwrap();
        let refused = connection.login(&endpoint(), &Login::of("ann", Secret::new("secret"))).await;
        assert_eq!(refused.err(), Some(SmtpError::Timeout), "{mechanism}");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_reply_whose_last_line_never_comes_is_given_up() {
    for unfinished in ["250-one\r\n", "250-one\r\n250-two\r\n250", "250"] {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(unfinished.as_bytes()).await.unwrap();
        let reply = LineStream::new(Box::new(ours)).reply(Duration::from_millis(100)).await;
        assert_eq!(reply.err(), Some(SmtpError::Timeout), "{unfinished:?}");
    }
}

#[tokio::test]
async fn words_that_would_move_a_terminal_or_break_a_row_are_cleaned() {
    for words in [
        &b"550 5.1.1 \x1b[31mred\x1b[0m \x07bell\r\n"[..],
        b"550 5.1.1 nul\0 in \0it\r\n",
        b"550 5.1.1 \xff\xfe\x80 not utf-8\r\n",
        "550 5.1.1 \u{9b}31m c1 \u{85}next\r\n".as_bytes(),
        b"550-5.1.1 one\rtwo\r\n550 5.1.1 three\r\n",
        b"550 5.1.1 tab\tand\x0bvertical\x0c\r\n",
    ] {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(words).await.unwrap();
        let raw = LineStream::new(Box::new(ours)).reply(Duration::from_secs(1)).await.unwrap();
        assert_eq!(raw.reply.code, 550);
        let error = SmtpError::Refused(raw.reply);
        for text in [error.text(), error.to_string()] {
            // The lines of a reply stay lines.
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?} from {words:?}");
        }
    }
}

#[tokio::test]
async fn a_reply_of_two_minds_is_no_success() {
    for answer in [
        "250-fine\r\n550 no\r\n",
        "550-no\r\n250 fine\r\n",
        "25O fine\r\n",
        "2500 fine\r\n",
        "999 fine\r\n",
        " 250 fine\r\n",
    ] {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(answer.as_bytes()).await.unwrap();
        let reply = LineStream::new(Box::new(ours)).reply(Duration::from_millis(200)).await;
        let accepted = reply.as_ref().is_ok_and(|r| r.reply.code / 100 == 2);
        assert!(!accepted, "{answer:?}: {reply:?}");
    }
}

/// Speaks SMTP on `socket` up to STARTTLS, then under TLS; keeps what it hears under TLS.
async fn two_faced(
    socket: TcpStream,
    acceptor: tokio_rustls::TlsAcceptor,
    faces: [&str; 2],
    heard: &Mutex<Vec<String>>,
) {
    let [before, after] = faces;
    let mut socket = BufReader::new(socket);
    socket.write_all(b"220 hi\r\n").await.unwrap();
    for answer in [format!("250-x\r\n250-STARTTLS\r\n250 {before}\r\n"), "220 go\r\n".to_owned()] {
        socket.read_line(&mut String::new()).await.unwrap();
        socket.write_all(answer.as_bytes()).await.unwrap();
    }
    let Ok(stream) = acceptor.accept(socket.into_inner()).await else { return };
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        heard.lock().unwrap().push(line.trim_end().to_owned());
        let answer = match line.split([' ', '\r']).next().unwrap_or_default() {
            "EHLO" => format!("250-x\r\n250 {after}\r\n"),
            "AUTH" => "235 in\r\n".to_owned(),
            _ => "250 ok\r\n".to_owned(),
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn log_in_to(
    before: &'static str,
    after: &'static str,
) -> (Result<super::Connection, SmtpError>, Vec<String>) {
    let ca = Authority::new("localhost");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let (acceptor, seen) = (ca.acceptor(), Arc::clone(&heard));
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        two_faced(socket, acceptor, [before, after], &seen).await;
    });
    let outbound = Outbound::new(OutboundPolicy::parse("localhost:1-65535").unwrap());
    let tls = ca.trusted();
    let deadlines = Deadlines { reply: Duration::from_secs(2), ..Deadlines::default() };
    let dialler = Dialler { outbound: &outbound, tls: &tls, helo_name: "us", deadlines };
    let endpoint = Endpoint { host: "localhost".into(), port, security: Security::StartTls };
    let server = SmtpServer { endpoint, login: Login::of("ann", Secret::new("secret")) };
    let connection = connect(&dialler, &server).await;
    let heard = heard.lock().unwrap().clone();
    (connection, heard)
}

#[tokio::test]
async fn abilities_announced_before_tls_are_forgotten() {
    let (connection, heard) = log_in_to("AUTH PLAIN", "SIZE 10").await;
    assert!(matches!(connection, Err(SmtpError::Protocol(_))), "{connection:?}");
    assert!(!heard.iter().any(|line| line.starts_with("AUTH")), "the password went out: {heard:?}");
    let (connection, _) = log_in_to("SMTPUTF8", "AUTH PLAIN").await;
    let features = connection.unwrap().features().clone();
    assert!(!features.smtputf8 && !features.starttls && features.size_bytes.is_none(), "{features:?}");
}

#[tokio::test]
async fn hostile_reasons_for_refusing_a_token_do_no_harm() {
    let json = |text: &str| STANDARD.encode(text);
    for challenge in [
        "not base64 at all".to_owned(),
        "====".into(),
        "AA".into(),
        json("not json"),
        json("{\"status\":"),
        json(&format!("{{\"status\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000))),
        json(&format!("{{\"status\":\"{}\"}}", "4".repeat(2_900))),
        json("{\"status\":[\"401\"],\"scope\":{\"a\":1}}"),
        json("{\"status\":\"\\u001b[31m\\u0000\\r\\n250 ok\",\"scope\":\"\\u202e\\ud83d\\ude00\"}"),
        json("{\"status\":1e999999}"),
        STANDARD.encode([0xff_u8, 0xfe, 0x00]),
        STANDARD.encode([0_u8; 2_900]),
    ] {
        let server = Server::new()
            .features(&["AUTH OAUTHBEARER"])
            .answer("AUTH", &format!("334 {challenge}\r\n"))
            .answer("AQ==", "535 5.7.8 no\r\n");
        let mut connection = greet(server.start(), "us", deadlines()).await.unwrap();
        let login = Login::Token { user: "ann".into(), token: Secret::new("token") };
        let error = connection.login(&endpoint(), &login).await.unwrap_err();
        let SmtpError::AuthRejected { refusal, .. } = &error else { panic!("{challenge:.60}: {error:?}") };
        assert_eq!(error.text(), "5.7.8 no", "{challenge:.60}");
        let kept = refusal.iter().flat_map(|r| [&r.status, &r.scope, &r.openid_configuration]).flatten();
        for text in kept {
            assert!(text.len() <= 500 && !text.chars().any(char::is_control), "{text:?}");
            assert!(!text.contains('\u{202e}'), "{text:?}");
        }
    }
    // What is longer than a reply may be ends the connection.
    let endless = format!("334 {}\r\n", "A".repeat(70_000));
    let server = Server::new().features(&["AUTH OAUTHBEARER"]).answer("AUTH", &endless);
    let mut connection = greet(server.start(), "us", deadlines()).await.unwrap();
    let login = Login::Token { user: "ann".into(), token: Secret::new("token") };
    let refused = connection.login(&endpoint(), &login).await;
    assert!(matches!(refused, Err(SmtpError::Protocol(_))), "{refused:?}");
}
