//! Servers that lie about lengths, tags and abilities. Byte-exact; those that break one verb are tested beside it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::connect::greet;
use super::script::{REPLY, endpoint, is_protocol, server, session};
use super::{Endpoint, ImapError, Security, connect};
use crate::dial::{Deadlines, Outbound, OutboundPolicy};
use crate::login::Login;
use crate::secret::Secret;
use crate::tls::authority;

#[tokio::test]
async fn ok_to_another_tag_ends_nothing() {
    for answer in
        ["A999 OK done\r\n", "OK done\r\n", "* OK done\r\n", "+ OK done\r\n", "$OK done\r\n", "a OK\r\n"]
    {
        let (mut s, _) = session("", &[answer, ""]).await;
        s.reply = Duration::from_millis(50);
        assert_eq!(s.noop().await, Err(ImapError::Timeout), "{answer:?}");
        assert!(!s.is_usable());
    }
}

#[tokio::test]
async fn a_literal_that_is_announced_and_never_sent_is_a_timeout() {
    for announced in ["{5}", "{1000000}"] {
        let (mut s, _) = session("", &[&format!("* LIST () \"/\" {announced}\r\nab"), ""]).await;
        s.reply = Duration::from_millis(50);
        assert_eq!(s.noop().await, Err(ImapError::Timeout), "{announced}");
    }
}

#[tokio::test]
async fn a_literal_beyond_the_cap_or_beyond_all_numbers_is_refused_before_it_is_read() {
    // Of what is no body already a megabyte is too much: no memory is kept for it.
    for size in [
        "1048577",
        "53477377",
        "4294967296",
        "18446744073709551615",
        "18446744073709551616",
        &"9".repeat(400),
    ] {
        let (mut s, _) = session("", &[&format!("* LIST () \"/\" {{{size}}}\r\n"), ""]).await;
        assert!(is_protocol(&s.noop().await), "{size}");
        assert!(!s.is_usable());
    }
}

#[tokio::test]
async fn literals_without_number_are_text_and_many_of_them_have_an_end() {
    let (mut s, _) =
        session("", &["* LIST () \"/\" {}\r\n* LIST () \"/\" {-5}\r\n* LIST () \"/\" {x}\r\n$ OK\r\n"]).await;
    s.noop().await.unwrap();
    let many = format!("* LIST ({}", "{1}\r\na".repeat(2_000));
    let (mut s, _) = session("", &[&many, ""]).await;
    assert!(is_protocol(&s.noop().await));
}

#[tokio::test]
async fn parentheses_are_counted_across_literals_and_not_hidden_by_quotes() {
    let across = format!("* LIST {}", format!("{}{{1}}\r\na", "(".repeat(60)).repeat(2));
    let behind_a_quote = format!("* LIST \"a\\\"\" {}\r\n", "(".repeat(101));
    for bomb in [across, behind_a_quote] {
        let (mut s, _) = session("", &[&format!("{bomb}\r\n$ OK\r\n")]).await;
        assert!(is_protocol(&s.noop().await), "{bomb:.40}");
    }
}

#[tokio::test]
async fn a_line_has_64_kibibytes_and_not_more() {
    for (length, passes) in [(60 << 10, true), (66 << 10, false)] {
        let (mut s, _) =
            session("", &[&format!("* LIST () \"/\" \"{}\"\r\n$ OK\r\n", "x".repeat(length))]).await;
        assert_eq!(s.noop().await.is_ok(), passes, "{length}");
    }
}

#[tokio::test]
async fn go_aheads_nobody_asked_for_and_words_of_control_characters_do_no_harm() {
    let (mut s, _) = session("", &["+ go\r\n+ go\r\n+\r\n* \u{1b}[31m\0\u{7f} x\r\n\0\r\n$ OK\r\n"]).await;
    s.noop().await.unwrap();
    let (mut s, _) = session("", &["$ NO \u{1b}[31mred\u{7} \u{202e}txt\0\r\n"]).await;
    let Err(ImapError::Refused { text, .. }) = s.noop().await else { panic!("not refused") };
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

/// A server with STARTTLS on a real socket: `before` is its greeting and its answer to a command before the switch,
/// `after` what it announces then. Returns the lines heard under TLS.
async fn switched(before: &str, after: &str) -> (Result<super::Session, ImapError>, Vec<String>) {
    let ca = authority::Authority::new("localhost");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (acceptor, seen) = (ca.acceptor(), Arc::clone(&heard));
    let (before, after) = (before.to_owned(), after.to_owned());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(format!("* OK [CAPABILITY {before}] hi\r\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        BufReader::new(&mut socket).read_line(&mut line).await.unwrap();
        let tag = line.split(' ').next().unwrap().to_owned();
        socket.write_all(format!("{tag} OK begin\r\n").as_bytes()).await.unwrap();
        let Ok(stream) = acceptor.accept(socket).await else { return };
        answer(stream, &after, &seen).await;
    });
    let outbound = Outbound::new(OutboundPolicy::parse("localhost:1-65535").unwrap());
    let endpoint = Endpoint { host: "localhost".into(), port, security: Security::StartTls };
    let deadlines = Deadlines { reply: Duration::from_secs(2), ..Deadlines::default() };
    let session = match connect(&outbound, &ca.trusted(), &endpoint, &deadlines).await {
        Ok(connection) => connection.login(&endpoint, &Login::of("me", Secret::new("secret"))).await,
        Err(error) => Err(error),
    };
    let heard = heard.lock().unwrap().clone();
    (session, heard)
}

async fn answer(stream: impl AsyncRead + AsyncWrite, capabilities: &str, seen: &Mutex<Vec<String>>) {
    let (read, mut write) = tokio::io::split(stream);
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let (tag, command) = line.split_once(' ').unwrap();
        seen.lock().unwrap().push(command.to_owned());
        let told =
            if command == "CAPABILITY" { format!("* CAPABILITY {capabilities}\r\n") } else { String::new() };
        if write.write_all(format!("{told}{tag} OK done\r\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn abilities_announced_before_tls_are_forgotten() {
    let (session, heard) =
        switched("IMAP4rev1 STARTTLS IDLE QRESYNC AUTH=XOAUTH2 SASL-IR", "IMAP4rev1 AUTH=PLAIN").await;
    let session = session.unwrap();
    assert_eq!(heard.first().map(String::as_str), Some("CAPABILITY"), "asked anew: {heard:?}");
    let known = session.capabilities();
    assert!(!known.idle && !known.sasl_ir && !known.qresync, "{known:?}");
}

#[tokio::test]
async fn a_login_that_is_disabled_under_tls_is_not_tried() {
    let (session, heard) = switched("IMAP4rev1 STARTTLS AUTH=PLAIN", "IMAP4rev1 LOGINDISABLED").await;
    assert!(session.is_err());
    assert!(!heard.iter().any(|l| l.starts_with("LOGIN") || l.starts_with("AUTHENTICATE")), "{heard:?}");
}

/// What a server may put into the challenge that tells why a token is refused.
fn challenges() -> Vec<String> {
    let json = |text: &str| STANDARD.encode(text);
    vec![
        "not base64 at all".into(),
        "====".into(),
        "AA".into(),
        json("not json"),
        json("{\"status\":"),
        json("[[[[]]]]"),
        json(&format!("{{\"status\":{}{}}}", "[".repeat(5_000), "]".repeat(5_000))),
        json(&format!("{{\"status\":\"{}\"}}", "4".repeat(40_000))),
        json(&format!("{{{}\"status\":{{}}}}", "\"a\":1,".repeat(1_000))),
        json("{\"status\":[\"401\"],\"scope\":{\"a\":1}}"),
        json("{\"status\":\"\\u001b[31m\\u0000\\r\\n* BYE\",\"scope\":\"\\u202e\\ud83d\\ude00\"}"),
        json("{\"status\":1e999999}"),
        json("\u{feff}{\"status\":\"401\"}"),
        STANDARD.encode([0xff_u8, 0xfe, 0x00]),
        STANDARD.encode([0_u8; 40_000]),
    ]
}

#[tokio::test]
async fn hostile_reasons_for_refusing_a_token_do_no_harm() {
    for challenge in challenges() {
        let answers = [format!("+ {challenge}\r\n"), "$ NO [AUTHENTICATIONFAILED] no\r\n".to_owned()];
        let greeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=OAUTHBEARER] hi\r\n";
        let (stream, seen) = server(greeting, &[&answers[0], &answers[1]], 1 << 17);
        let connection = greet(Box::new(stream), REPLY).await.unwrap();
        let login = Login::Token { user: "me".into(), token: Secret::new("token") };
        let error = connection.login(&endpoint(), &login).await.unwrap_err();
        let ImapError::AuthRejected { refusal, text, .. } = &error else { panic!("{error:?}") };
        assert_eq!(text, "no", "{challenge:.60}");
        assert_eq!(seen.lock().unwrap().last().map(String::as_str), Some("AQ=="), "{challenge:.60}");
        let kept = refusal.iter().flat_map(|r| [&r.status, &r.scope, &r.openid_configuration]).flatten();
        for text in kept {
            assert!(text.len() <= 500 && !text.chars().any(char::is_control), "{text:?}");
            assert!(!text.contains('\u{202e}'), "{text:?}");
        }
    }
}
