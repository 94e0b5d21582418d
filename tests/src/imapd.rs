//! An IMAP server in memory that is sane until told otherwise, byte by byte.
//!
//! [`Imapd::lock`] gives the [`State`]: mailboxes with UIDs, flags and mod-sequences ([`model`]), which a test changes as
//! another client would. `answers` turns commands into what a correct server says to them. A test then lays rules over
//! that: [`Imapd::instead`] (the command is not carried out) and [`Imapd::spoil`] (it is, and its answer is changed), each
//! with exact bytes, after which the line may close or hang. A command that the product learns gets its arm in `answers`.

mod answers;
mod fetched;
pub mod gmail;
pub mod model;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Notify;

use crate::scripted::{self, Scripted};
use answers::Session;
use model::Mailbox;
use wire::{Heard, hear};

/// What is on the server, and what it offers.
pub struct State {
    /// Words of CAPABILITY after `IMAP4rev1`.
    pub capabilities: String,
    /// First line of a connection.
    pub greeting: Reply,
    /// Separates levels of names.
    pub delimiter: Option<char>,
    /// What NAMESPACE tells, where the word is among the capabilities.
    pub namespaces: String,
    /// Names that CREATE takes begin with this.
    pub made_under: String,
    /// In the order of LIST.
    pub mailboxes: Vec<Mailbox>,
    /// Commands as they came, without tags; a literal is only its `{n}`.
    pub heard: Vec<String>,
    /// Connections so far.
    pub connections: usize,
    /// Those that are logged in.
    pub logged_in: usize,
    /// The most of them at once.
    pub most_logged_in: usize,
    /// It has Gmail's manners ([`State::become_gmail`]).
    pub gmail: Option<gmail::Store>,
    rules: Vec<Rule>,
    used: usize,
}

impl State {
    /// The mailbox of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn mailbox(&mut self, name: &str) -> &mut Mailbox {
        self.mailboxes.iter_mut().find(|m| m.name == name.as_bytes()).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Adds an empty mailbox with a UIDVALIDITY of its own.
    pub fn add(&mut self, name: impl AsRef<[u8]>) -> &mut Mailbox {
        let uidvalidity = 1_000 + u32::try_from(self.mailboxes.len()).unwrap();
        self.mailboxes.push(Mailbox::new(name.as_ref(), uidvalidity));
        self.mailboxes.last_mut().unwrap()
    }

    /// Whether a word stands in [`State::capabilities`].
    #[must_use]
    pub fn offers(&self, extension: &str) -> bool {
        self.capabilities.split(' ').any(|word| word == extension)
    }

    /// How many commands beginning with `start` were heard since [`State::heard`] was cleared.
    #[must_use]
    pub fn count(&self, start: &str) -> usize {
        self.heard.iter().filter(|c| matches(start, c)).count()
    }
}

/// What becomes of the line after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The next command.
    GoOn,
    /// The server closes.
    Close,
    /// The server neither says nor hears anything more.
    Hang,
}

/// Bytes to be said; `{tag}` stands for the command's tag.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What comes then.
    pub then: Then,
}

impl Reply {
    /// Says this and closes.
    #[must_use]
    pub fn close(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), then: Then::Close }
    }

    /// Says this and nothing any more.
    #[must_use]
    pub fn hang(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), then: Then::Hang }
    }
}

impl<T: Into<Vec<u8>>> From<T> for Reply {
    fn from(bytes: T) -> Self {
        Self { bytes: bytes.into(), then: Then::GoOn }
    }
}

/// Which occurrences of a command a rule is for, counted from when it was laid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// All.
    Each,
    /// Only this one; 1: the next.
    Nth(usize),
    /// So many from the next on.
    First(usize),
}

impl Times {
    fn holds(self, seen: usize) -> bool {
        match self {
            Self::Each => true,
            Self::Nth(n) => seen == n,
            Self::First(n) => seen <= n,
        }
    }
}

type Change = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

struct Rule {
    command: String,
    times: Times,
    seen: usize,
    what: What,
}

#[derive(Clone)]
enum What {
    Instead(Reply),
    Spoil(Change),
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

/// A running server; it ends when it is dropped.
pub struct Imapd {
    /// Where it listens on 127.0.0.1, without TLS. Any user name and password will do.
    pub port: u16,
    shared: Arc<Shared>,
    _server: Scripted,
}

impl Imapd {
    /// With an empty INBOX and these extensions.
    pub async fn start(capabilities: &str) -> Self {
        let mut state = State {
            capabilities: capabilities.to_owned(),
            greeting: "* OK ready\r\n".into(),
            delimiter: Some('/'),
            namespaces: "((\"\" \"/\")) NIL NIL".to_owned(),
            made_under: String::new(),
            mailboxes: Vec::new(),
            heard: Vec::new(),
            connections: 0,
            logged_in: 0,
            most_logged_in: 0,
            gmail: None,
            rules: Vec::new(),
            used: 0,
        };
        state.add("INBOX");
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() });
        let of_sessions = shared.clone();
        let server = scripted::serve(move |stream| converse(stream, of_sessions.clone())).await;
        Self { port: server.port, shared, _server: server }
    }

    /// What is on the server, to look at and to change. Sessions in IDLE are told when it is let go.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.changed.notify_waiters();
        self.shared.state.lock().unwrap()
    }

    /// Tells sessions in IDLE what changed.
    pub fn tell(&self) {
        self.shared.changed.notify_waiters();
    }

    /// To commands beginning with `command` (`*text`: containing it) the server says this and does nothing.
    pub fn instead(&self, command: &str, times: Times, reply: impl Into<Reply>) {
        self.rule(command, times, What::Instead(reply.into()));
    }

    /// Commands beginning with `command` (`*text`: containing it) are carried out and answered with what `change` makes
    /// of the right answer. Bytes that are no UTF-8 are lost on the way.
    pub fn spoil<R: Into<Reply>>(
        &self,
        command: &str,
        times: Times,
        change: impl Fn(&str) -> R + Send + Sync + 'static,
    ) {
        self.rule(command, times, What::Spoil(Arc::new(move |sane| change(sane).into())));
    }

    fn rule(&self, command: &str, times: Times, what: What) {
        self.lock().rules.push(Rule { command: command.to_owned(), times, seen: 0, what });
    }

    /// Takes all rules back. Returns how often one was followed since the last time.
    pub fn sane(&self) -> usize {
        let mut state = self.lock();
        state.rules.clear();
        std::mem::take(&mut state.used)
    }

    /// How often a rule was followed since [`Imapd::sane`].
    #[must_use]
    pub fn used(&self) -> usize {
        self.lock().used
    }
}

fn matches(start: &str, command: &str) -> bool {
    match start.strip_prefix('*') {
        Some(part) => command.contains(part),
        None => command.starts_with(start),
    }
}

/// Lines of an answer without those that contain `part`.
#[must_use]
pub fn without_lines(answer: &str, part: &str) -> String {
    answer.split_inclusive("\r\n").filter(|line| !line.contains(part)).collect()
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let greeting = {
        let mut state = shared.state.lock().unwrap();
        state.connections += 1;
        state.greeting.clone()
    };
    if !say(&mut write, greeting).await {
        return;
    }
    let mut session = Session::default();
    while let Ok(Some(heard)) = hear(&mut read, &mut write, &shared.state).await {
        let reply = reply(&mut shared.state.lock().unwrap(), &mut session, &heard);
        let idles = heard.text == "IDLE" && reply.bytes.starts_with(b"+");
        if !say(&mut write, reply).await
            || (idles && !idle(&mut read, &mut write, &shared, &mut session, &heard.tag).await)
        {
            break;
        }
    }
    if session.logged_in {
        shared.state.lock().unwrap().logged_in -= 1;
    }
}

/// Whether the line goes on.
async fn say(write: &mut OwnedWriteHalf, reply: Reply) -> bool {
    let said = write.write_all(&reply.bytes).await.is_ok();
    match reply.then {
        Then::GoOn => said,
        Then::Close => false,
        Then::Hang => std::future::pending().await,
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|w| w == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

fn reply(state: &mut State, session: &mut Session, heard: &Heard) -> Reply {
    state.heard.push(heard.text.clone());
    let mut followed = None;
    for rule in state.rules.iter_mut().filter(|r| matches(&r.command, &heard.text)) {
        rule.seen += 1;
        if followed.is_none() && rule.times.holds(rule.seen) {
            followed = Some(rule.what.clone());
        }
    }
    state.used += usize::from(followed.is_some());
    let mut reply = match followed {
        Some(What::Instead(reply)) => reply,
        Some(What::Spoil(change)) => change(&String::from_utf8_lossy(&session.answer(state, heard))),
        None => {
            let then = if heard.text == "LOGOUT" { Then::Close } else { Then::GoOn };
            return Reply { bytes: session.answer(state, heard), then };
        }
    };
    reply.bytes = replace(&reply.bytes, b"{tag}", heard.tag.as_bytes());
    reply
}

/// From the go-ahead to the tagged line. Whether the line goes on.
async fn idle(
    read: &mut BufReader<tokio::net::tcp::OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
    shared: &Shared,
    session: &mut Session,
    tag: &str,
) -> bool {
    use tokio::io::AsyncBufReadExt as _;
    let mut line = Vec::new();
    loop {
        let news = session.news(&mut shared.state.lock().unwrap());
        if write.write_all(&news).await.is_err() {
            return false;
        }
        let poll = tokio::time::sleep(std::time::Duration::from_millis(50));
        tokio::select! {
            read = read.read_until(b'\n', &mut line) => {
                if read.unwrap_or(0) == 0 {
                    return false;
                }
                let done = Heard { tag: tag.to_owned(), text: String::from_utf8_lossy(&line).trim_end().to_owned(), words: Vec::new() };
                let reply = reply(&mut shared.state.lock().unwrap(), session, &done);
                return say(write, reply).await;
            }
            () = shared.changed.notified() => {}
            // A change made while nobody waited.
            () = poll => {}
        }
    }
}

#[cfg(test)]
mod tests;
