//! A real server seen through a wire that we hold: a command can be stopped until something else has happened, words of the
//! server's can be replaced by others of the same length, and what was said about messages can be read afterwards.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A listening relay; it ends when this is dropped.
pub struct Relay {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    gate: Arc<Mutex<Option<Gate>>>,
    log: Log,
    task: JoinHandle<()>,
}

/// Commands that change messages or open mailboxes, and what they were answered.
type Log = Arc<Mutex<Vec<String>>>;

/// What stands for what in what the server says.
type Words = Arc<Vec<(Vec<u8>, Vec<u8>)>>;

struct Gate {
    pattern: String,
    held: Held,
}

/// A command that waits, or will, once a client sends it.
#[derive(Clone)]
pub struct Held {
    reached: CancellationToken,
    released: CancellationToken,
}

impl Held {
    /// Waits until a client has sent the command.
    ///
    /// # Panics
    /// When none does within a minute.
    pub async fn reached(&self) {
        let within = tokio::time::timeout(Duration::from_secs(60), self.reached.cancelled());
        within.await.expect("nobody sent the command that was to be held");
    }

    /// Lets the command go on to the server.
    pub fn release(&self) {
        self.released.cancel();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// Relays to `port` on 127.0.0.1.
    pub async fn to(port: u16) -> Self {
        Self::replacing(port, &[]).await
    }

    /// Relays to `port` on 127.0.0.1; each `(from, to)` of the same length is replaced in what the server says.
    ///
    /// # Panics
    /// When the lengths differ.
    pub async fn replacing(port: u16, words: &[(&str, &str)]) -> Self {
        Self::before("127.0.0.1", port, words).await
    }

    /// The same for `port` on another address of the machine.
    ///
    /// # Panics
    /// When the lengths differ.
    pub async fn before(host: &'static str, port: u16, words: &[(&str, &str)]) -> Self {
        assert!(words.iter().all(|(from, to)| from.len() == to.len()));
        let words: Vec<(Vec<u8>, Vec<u8>)> = words.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let words = Arc::new(words);
        let gate: Arc<Mutex<Option<Gate>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let log = Log::default();
        let (shared, heard) = (gate.clone(), log.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect((host, port)).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(upstream(from_client, to_server, (shared.clone(), heard.clone())));
                tokio::spawn(downstream(from_server, to_client, (words.clone(), heard.clone())));
            }
        });
        Self { port: own, gate, log, task }
    }

    /// The next command that contains `pattern` stops here until it is released; what comes after it waits too. A
    /// command is what one write of the client brings.
    #[must_use]
    pub fn hold(&self, pattern: &str) -> Held {
        let held = Held { reached: CancellationToken::new(), released: CancellationToken::new() };
        *self.gate.lock().unwrap() = Some(Gate { pattern: pattern.to_owned(), held: held.clone() });
        held
    }

    /// What was said about messages since the last time, both ways.
    ///
    /// # Panics
    /// When a connection did.
    #[must_use]
    pub fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

/// Beyond this nobody reads it.
const LOGGED: usize = 5_000;
const COMMANDS: [&str; 6] =
    [" SELECT ", " EXAMINE ", " UID STORE ", " UID COPY ", " UID MOVE ", " UID EXPUNGE "];
const ANSWERS: [&str; 3] = [" NO ", " BAD ", "OPYUID"];

fn note(log: &Log, bytes: &[u8], words: &[&str], side: &str) {
    let mut log = log.lock().unwrap();
    for line in String::from_utf8_lossy(bytes).lines() {
        if log.len() < LOGGED && words.iter().any(|w| line.contains(w)) {
            log.push(format!("{side} {}", line.chars().take(120).collect::<String>()));
        }
    }
}

async fn upstream(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (gate, log): (Arc<Mutex<Option<Gate>>>, Log),
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..size]);
        let held = gate.lock().unwrap().take_if(|g| text.contains(&g.pattern)).map(|g| g.held);
        if let Some(held) = held {
            held.reached.cancel();
            held.released.cancelled().await;
        }
        note(&log, &buffer[..size], &COMMANDS, "C:");
        if to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn downstream(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (words, log): (Words, Log),
) {
    let mut buffer = vec![0; 64 << 10];
    let mut line: Vec<u8> = Vec::new();
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        line.extend_from_slice(&buffer[..size]);
        // A word may be cut at the end of what came: with words to look for, whole lines go on.
        let whole = match words.is_empty() {
            true => line.len(),
            false => line.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1),
        };
        let mut now: Vec<u8> = line.drain(..whole).collect();
        for (word, other) in words.iter() {
            for at in 0..now.len().saturating_sub(word.len() - 1) {
                if now[at..].starts_with(word) {
                    now[at..at + word.len()].copy_from_slice(other);
                }
            }
        }
        note(&log, &now, &ANSWERS, "S:");
        if to.write_all(&now).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
