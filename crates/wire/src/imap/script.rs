//! A scripted server for the tests of the verb files: byte-exact answers, one for each line it receives.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};

use super::connect::greet;
use super::{Endpoint, ImapError, Security, Session};
use crate::login::Login;
use crate::secret::Secret;

/// What the server received, line by line.
pub(super) type Received = Arc<Mutex<Vec<String>>>;

pub(super) const REPLY: Duration = Duration::from_secs(2);

/// Where a mechanism is told that the connection leads.
pub(super) fn endpoint() -> Endpoint {
    Endpoint { host: "imap.example.com".into(), port: 993, security: Security::Tls }
}

/// Says `greeting`, then one of `answers` for each line received (`$` is that line's tag), then closes.
/// `width` is how many bytes travel at once.
pub(super) fn server(greeting: &str, answers: &[&str], width: usize) -> (DuplexStream, Received) {
    let (client, server) = tokio::io::duplex(width);
    let received = Received::default();
    let seen = Arc::clone(&received);
    let greeting = greeting.to_owned();
    let answers: Vec<String> = answers.iter().map(|a| (*a).to_owned()).collect();
    tokio::spawn(async move {
        let (read, mut write) = tokio::io::split(server);
        let mut read = BufReader::new(read);
        let mut tag = String::new();
        let _ = write.write_all(greeting.as_bytes()).await;
        for answer in answers {
            let mut line = String::new();
            if read.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            if let Some((t, _)) = line.split_once(' ').filter(|(t, _)| t.starts_with('A')) {
                tag = t.to_owned();
            }
            seen.lock().unwrap().push(line.trim_end().to_owned());
            let _ = write.write_all(answer.replace("$ ", &format!("{tag} ")).as_bytes()).await;
        }
    });
    (client, received)
}

/// A session with a server of these capabilities.
pub(super) async fn session_by(width: usize, capabilities: &str, answers: &[&str]) -> (Session, Received) {
    let welcome = format!("$ OK [CAPABILITY IMAP4rev1 {capabilities}] in\r\n");
    let mut all = vec![welcome.as_str()];
    all.extend(answers);
    let (stream, received) = server("* OK [CAPABILITY IMAP4rev1] hello\r\n", &all, width);
    let connection = greet(Box::new(stream), REPLY).await.unwrap();
    let session = connection.login(&endpoint(), &Login::of("u", Secret::new("p\"w"))).await.unwrap();
    received.lock().unwrap().clear();
    (session, received)
}

pub(super) async fn session(capabilities: &str, answers: &[&str]) -> (Session, Received) {
    session_by(1 << 16, capabilities, answers).await
}

/// What the server received since login, without the tags.
pub(super) fn commands(received: &Received) -> Vec<String> {
    let lines = received.lock().unwrap();
    lines
        .iter()
        .map(|l| l.split_once(' ').filter(|(t, _)| t.starts_with('A')).map_or(l.as_str(), |x| x.1).to_owned())
        .collect()
}

pub(super) fn is_protocol<T: std::fmt::Debug>(result: &Result<T, ImapError>) -> bool {
    matches!(result, Err(ImapError::Protocol(_)))
}
