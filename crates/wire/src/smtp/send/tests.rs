use super::super::connect::greet;
use super::super::script::{Server, deadlines};
use super::*;

/// Remembers the points, and stops at one of them if told to.
#[derive(Default)]
struct Points {
    seen: Vec<&'static str>,
    stop_at: Option<&'static str>,
}

impl Progress for Points {
    async fn reached(&mut self, point: Point<'_>) -> Result<(), Stopped> {
        let name = match point {
            Point::Envelope => "envelope",
            Point::Data(_) => "data",
            Point::Dot => "dot",
        };
        self.seen.push(name);
        if self.stop_at == Some(name) { Err(Stopped) } else { Ok(()) }
    }
}

fn envelope(to: &[&str]) -> Envelope {
    Envelope { sender: "me@a.example".to_owned(), recipients: to.iter().map(|s| (*s).to_owned()).collect() }
}

const MESSAGE: &[u8] = b"Subject: x\r\n\r\n.dot\r\nbody\r\n";

async fn run(server: Server, to: &[&str], message: &[u8]) -> (Result<Sent, SendError>, Vec<&'static str>) {
    let mut points = Points::default();
    let sent = match greet(server.start(), "us", deadlines()).await {
        Ok(mut connection) => send(&mut connection, &envelope(to), message, &mut points).await,
        Err(error) => Err(error.into()),
    };
    (sent, points.seen)
}

fn codes(sent: &Sent) -> Vec<u16> {
    sent.recipients.iter().map(|r| r.code).collect()
}

#[tokio::test]
async fn a_message_goes_out_with_each_recipients_own_answer() {
    let server = Server::new()
        .answer("RCPT TO:<bad@", "550-5.1.1 no such\r\n550 5.1.1 user\r\n")
        .answer("RCPT TO:<grey@", "451 4.7.1 later\r\n");
    let heard = server.heard();
    let (sent, points) = run(server, &["good@x.example", "bad@x.example", "grey@x.example"], MESSAGE).await;
    let sent = sent.unwrap();
    assert_eq!(codes(&sent), [250, 550, 451]);
    assert_eq!(sent.dot.unwrap().text, "Ok: queued as ABC");
    assert_eq!(points, ["envelope", "data", "dot"]);
    let heard = heard.lock().unwrap();
    assert!(heard.contains(&"MAIL FROM:<me@a.example> SIZE=26".to_owned()), "{heard:?}");
    assert_eq!(heard[heard.len() - 5..], ["Subject: x", "", "..dot", "body", "."]);
}

#[tokio::test]
async fn without_an_accepted_recipient_nothing_is_sent() {
    let (sent, points) =
        run(Server::new().answer("RCPT", "550 5.1.1 no\r\n"), &["a@x.example"], MESSAGE).await;
    assert_eq!(sent.unwrap().dot, None);
    assert_eq!(points, ["envelope"]);
}

#[tokio::test]
async fn every_cut_before_the_dot_is_safe_to_repeat_and_none_after_it_is() {
    for point in ["banner", "EHLO", "MAIL", "RCPT TO:<b@", "DATA", "Subject", "body"] {
        let (sent, points) =
            run(Server::new().cut_at(point), &["a@x.example", "b@x.example", "c@x.example"], MESSAGE).await;
        // The client may still believe in a line that was cut in the body; then the dot has been announced.
        let in_doubt = points.contains(&"dot");
        match sent {
            Err(SendError::Before(_)) => assert!(!in_doubt, "{point}"),
            Err(SendError::InDoubt(_)) => assert!(in_doubt, "{point}"),
            other => panic!("{point}: {other:?}"),
        }
        if !["Subject", "body"].contains(&point) {
            assert!(!in_doubt, "{point}");
        }
    }
    let (sent, _) = run(Server::new().cut_at("."), &["a@x.example"], b"Subject: x\r\n\r\nbody\r\n").await;
    assert_eq!(sent.unwrap_err(), SendError::InDoubt(SmtpError::Closed));
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_in_every_step() {
    for point in ["EHLO", "MAIL", "RCPT", "DATA"] {
        let (sent, _) = run(Server::new().silent_at(point), &["a@x.example"], MESSAGE).await;
        assert_eq!(sent.unwrap_err(), SendError::Before(SmtpError::Timeout), "{point}");
    }
    let (sent, _) = run(Server::new().silent_at("."), &["a@x.example"], b"Subject: x\r\n\r\nbody\r\n").await;
    assert_eq!(sent.unwrap_err(), SendError::InDoubt(SmtpError::Timeout));
}

#[tokio::test]
async fn gibberish_after_the_dot_leaves_the_outcome_in_doubt() {
    for text in ["354 again\r\n", "what?\r\n", &"2".repeat(100_000)] {
        let (sent, _) = run(Server::new().answer(".", text), &["a@x.example"], MESSAGE).await;
        assert!(matches!(sent, Err(SendError::InDoubt(_))), "{text:.20}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_message_is_an_answer() {
    let (sent, _) = run(Server::new().answer(".", "554 5.7.1 spam\r\n"), &["a@x.example"], MESSAGE).await;
    assert_eq!(sent.unwrap().dot.unwrap().code, 554);
}

#[tokio::test]
async fn the_dot_is_not_written_when_the_owner_says_stop() {
    let server = Server::new();
    let heard = server.heard();
    let mut connection = greet(server.start(), "us", deadlines()).await.unwrap();
    let mut points = Points { stop_at: Some("dot"), ..Points::default() };
    let stopped = send(&mut connection, &envelope(&["a@x.example"]), MESSAGE, &mut points).await;
    assert_eq!(stopped.unwrap_err(), SendError::Stopped(Stopped));
    drop(connection);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(!heard.lock().unwrap().contains(&".".to_owned()));
}

#[tokio::test]
async fn extensions_are_used_only_where_offered() {
    let eight_bit = "Subject: x\r\n\r\ngrün\r\n".as_bytes();
    let utf8_header = "Subject: grün\r\n\r\nx\r\n".as_bytes();
    let refused = |r: Result<Sent, SendError>| match r {
        Err(SendError::Before(SmtpError::Refused(reply))) => reply.enhanced_text().unwrap_or_default(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(run(Server::new().features(&["SIZE 0"]), &["a@x.example"], eight_bit).await.0),
        "5.6.3"
    );
    assert_eq!(refused(run(Server::new(), &["a@x.example"], utf8_header).await.0), "5.6.7");
    assert_eq!(
        refused(run(Server::new().features(&["SIZE 10"]), &["a@x.example"], MESSAGE).await.0),
        "5.3.4"
    );
    let server = Server::new().features(&["8BITMIME", "SMTPUTF8"]);
    let heard = server.heard();
    run(server, &["jörg@x.example"], utf8_header).await.0.unwrap();
    assert!(heard.lock().unwrap().contains(&"MAIL FROM:<me@a.example> BODY=8BITMIME SMTPUTF8".to_owned()));
    let (sent, _) = run(Server::new(), &["jörg@x.example", "b@x.example"], MESSAGE).await;
    assert_eq!(codes(&sent.unwrap()), [553, 250]);
}

#[tokio::test]
async fn a_domain_in_another_script_stands_in_commands_only_behind_smtputf8() {
    let heard_by = async |features: &[&str], to: &[&str]| {
        let server = Server::new().features(features);
        let heard = server.heard();
        run(server, to, MESSAGE).await.0.unwrap();
        let heard = heard.lock().unwrap().clone();
        let envelope = |l: &&String| l.starts_with("MAIL") || l.starts_with("RCPT");
        heard.iter().filter(envelope).cloned().collect::<Vec<_>>()
    };
    for features in [&["8BITMIME"][..], &["8BITMIME", "SMTPUTF8"]] {
        assert_eq!(
            heard_by(features, &["ann@bücher.example"]).await,
            ["MAIL FROM:<me@a.example>", "RCPT TO:<ann@xn--bcher-kva.example>"],
            "{features:?}"
        );
    }
    assert_eq!(
        heard_by(&["SMTPUTF8"], &["ann@bücher.example", "jörg@x.example"]).await,
        ["MAIL FROM:<me@a.example> SMTPUTF8", "RCPT TO:<ann@bücher.example>", "RCPT TO:<jörg@x.example>"]
    );
}

#[test]
fn only_crlf_leaves_and_dots_are_stuffed_across_pieces() {
    let stuff = |pieces: &[&[u8]]| {
        let mut s = Stuffer::default();
        let mut out = Vec::new();
        for p in pieces {
            s.push(p, &mut out);
        }
        s.end(&mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(stuff(&[b"a\nb\rc\r\nd"]), "a\r\nb\r\nc\r\nd\r\n");
    assert_eq!(stuff(&[b"a\r", b"\n", b".b\n", b"."]), "a\r\n..b\r\n..\r\n");
    assert_eq!(stuff(&[b"\r\r\n\n"]), "\r\n\r\n\r\n");
    assert_eq!(stuff(&[b".\r\n.\n.."]), "..\r\n..\r\n...\r\n");
}
