use std::time::Duration;

use super::super::ImapError;
use super::super::script::{commands, is_protocol, session};
use super::Command;

#[tokio::test]
async fn four_hundred_open_parentheses_are_a_protocol_error() {
    let bomb = format!("* LIST {}\r\n$ OK\r\n", "(".repeat(400));
    let (mut s, _) = session("", &[&bomb]).await;
    assert!(is_protocol(&s.noop().await));
    assert!(matches!(s.noop().await, Err(ImapError::Closed { .. })), "a broken conversation is over");
}

#[tokio::test]
async fn parentheses_in_free_text_and_quotes_mean_nothing() {
    let deep = "(".repeat(400);
    let text = format!("* OK {deep}\r\n* LIST () \"/\" \"{deep}\"\r\n* OK ends in {{5}}\r\n$ OK {deep}\r\n");
    let (mut s, _) = session("", &[&text]).await;
    s.noop().await.unwrap();
}

#[tokio::test]
async fn an_endless_line_stops_at_the_limit() {
    let endless = "* OK ".to_owned() + &"x".repeat(200 << 10);
    let (mut s, _) = session("", &[&endless]).await;
    assert!(is_protocol(&s.noop().await));
}

#[tokio::test]
async fn endless_chatter_stops_at_the_budget() {
    let chatter = "* OK still here, as ever, and telling you so\r\n".repeat(30_000);
    let (mut s, _) = session("", &[&chatter]).await;
    assert!(is_protocol(&s.run_within(Command::new("NOOP"), 1 << 20, Some).await));
}

#[tokio::test]
async fn bye_and_the_end_of_the_stream_are_errors_with_their_words() {
    let (mut s, _) = session("", &["* BYE FETCH failed: \u{1}gone\r\n"]).await;
    assert_eq!(s.noop().await, Err(ImapError::Closed { bye: Some("FETCH failed:  gone".into()) }));
    let (mut s, _) = session("", &["* 3 EXISTS\r\n"]).await;
    assert_eq!(s.noop().await, Err(ImapError::Closed { bye: None }));
    let (mut s, _) = session("", &["* BYE Too many connections\r\n"]).await;
    assert!(matches!(s.noop().await, Err(ImapError::Throttled { .. })));
}

#[tokio::test]
async fn a_silent_server_is_a_timeout_and_ends_the_session() {
    let (mut s, _) = session("", &["", "$ OK"]).await;
    s.reply = Duration::from_millis(50);
    assert_eq!(s.noop().await, Err(ImapError::Timeout));
    assert!(!s.is_usable());
}

#[tokio::test]
async fn an_abandoned_command_ends_the_session() {
    let (mut s, _) = session("", &["", "$ OK"]).await;
    assert!(tokio::time::timeout(Duration::from_millis(20), s.noop()).await.is_err());
    assert_eq!(s.noop().await, Err(ImapError::Closed { bye: None }));
}

#[tokio::test]
async fn unknown_lines_are_skipped_and_news_is_kept() {
    let noise = "* XYZZY (\r\n* 5 FROB\r\n*\r\n\r\n* 7 EXISTS\r\n* 2 EXPUNGE\r\n* VANISHED 3:4\r\n\
                 * 1 FETCH (UID 9 FLAGS (\\Seen))\r\n* 1 FETCH (FLAGS ())\r\n$ OK\r\n";
    let (mut s, _) = session("", &[noise]).await;
    s.noop().await.unwrap();
    let news = s.take_unsolicited();
    assert_eq!((news.exists, news.expunged, news.flags.len()), (Some(7), 1, 1));
    assert_eq!(news.vanished.to_string(), "3:4");
    assert!(news.incomplete && s.take_unsolicited().is_empty());
}

#[tokio::test]
async fn names_travel_quoted_or_as_literals_and_never_as_commands() {
    let answers = ["$ OK\r\n", "+ go\r\n", "$ OK\r\n"];
    let (mut s, seen) = session("", &answers).await;
    s.subscribe(b"a\"b\\c").await.unwrap();
    s.subscribe("Entwürfe".as_bytes()).await.unwrap();
    assert_eq!(commands(&seen), ["SUBSCRIBE \"a\\\"b\\\\c\"", "SUBSCRIBE {9}", "Entwürfe"]);
    assert!(matches!(s.subscribe(b"x\r\nA1 LOGOUT").await, Err(ImapError::Refused { .. })));
    assert!(s.is_usable());
}

#[tokio::test]
async fn a_refused_literal_is_not_sent() {
    let (mut s, seen) = session("", &["$ NO [TRYCREATE] none\r\n", "$ OK\r\n"]).await;
    assert!(matches!(s.subscribe(b"\xff").await, Err(ImapError::NoSuchMailbox(_))));
    s.noop().await.unwrap();
    assert_eq!(commands(&seen), ["SUBSCRIBE {1}", "NOOP"]);
}
