//! IMAP: connections to users' servers and one function per protocol verb.
//!
//! Here live the connection ([`connect`], `login`), the guarded reading of responses (`guard`, `parse`), the
//! one loop that ends a command (`command`) and a file for each verb. What to ask and what to make of the
//! answer is not decided here: that is the planner's (`mail::sync`), performed by the driver in `emailclient-core`.
//!
//! We drive every command ourselves. async-imap was measured and read for this: its `into_inner` drops what it
//! has already buffered, its trace log carries passwords, it reads hostile greetings with an unbounded
//! recursive parser, and its typed streams end on a tagged NO as if all were well. Its SASL interface,
//! [`async_imap::Authenticator`], is what mechanisms implement (`crate::login`). imap-proto wants a response in one piece
//! (a second copy of every message) and refuses whole lines for one unknown item, hence our own tokenizer.
//!
//! To add a verb: a file `imap/<verb>.rs` with an `impl Session` block that builds a `Command`, collects the
//! untagged responses it asked for in the closure given to `Session::run`, and hands back the others; then
//! scripted tests in that file and a case against a real server.

use std::time::Duration;

mod append;
mod command;
mod connect;
mod diagnose;
mod facts;
mod fetch;
mod flags;
mod guard;
mod idle;
mod lasting;
mod list;
mod login;
mod long_lines;
mod namespace;
mod notify;
mod parse;
mod promise;
mod proof;
mod room;
mod search;
mod select;
mod store;
mod subscription;
mod transfer;
mod unsolicited;
mod verdict;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod script;

pub use self::command::Session;
pub use self::connect::{Connection, Endpoint, Security, connect};
pub use self::diagnose::diagnose;
pub use self::fetch::{FetchEvent, FetchedMessage};
pub use self::flags::{ChangedSince, FetchedFlags, Uids};
pub use self::guard::{MAX_LITERAL_BYTES, MemoryBudget, Oversized, Transport};
pub use self::idle::{IdleEnd, MAX_IDLE};
pub use self::lasting::LastingIds;
pub use self::list::{ListedMailbox, MailboxStatus};
pub use self::proof::Proof;
pub use self::room::{Room, Rooms};
pub use self::select::{QresyncParam, Selected};
pub use self::store::{StoreMode, StoreOutcome};
pub use self::transfer::CopyUid;
pub use self::unsolicited::Unsolicited;

use crate::login::{Refusal, TokenFault};
use crate::secret::Secret;
use crate::trouble::{Forbidden, NoLine, Trouble, Unopened};

/// Longest text of a server that is kept in an error, in bytes.
const MAX_SERVER_TEXT: usize = 500;
/// Longest response code that is kept, in bytes; the longest registered one has 20.
const MAX_SERVER_CODE: usize = 64;

/// What went wrong, named by what the caller must do. Texts are the server's own words, without control
/// characters, at most 500 bytes; they may name mailboxes and addresses, so they belong to the account's
/// owner, not to a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImapError {
    /// No connection, or no TLS on it: try again later, with the network's backoff.
    #[error("the server could not be reached: {0}")]
    Unreachable(NoLine),
    /// The host or port may not be connected to, or it would have to be without TLS: the settings must change.
    #[error("connecting is not permitted: {0}")]
    NotAllowed(Forbidden),
    /// The server asks us to come back later.
    #[error("the server asks for patience: {text}")]
    Throttled {
        /// When, if it said so.
        retry_after: Option<Duration>,
        /// The response code in capitals (`UNAVAILABLE`, …), where it gave one.
        code: Option<String>,
        /// Its words.
        text: String,
    },
    /// The credentials were not accepted.
    #[error("the server did not accept the credentials: {text}")]
    AuthRejected {
        /// The response code in capitals (`AUTHENTICATIONFAILED`, …), where it gave one.
        code: Option<String>,
        /// The server's words.
        text: String,
        /// What it said of the token, where there was one and it said so.
        refusal: Option<Box<Refusal>>,
    },
    /// The mailbox does not exist (any more), or cannot be selected.
    #[error("there is no such mailbox: {0}")]
    NoSuchMailbox(String),
    /// A tagged NO, or an argument that cannot be sent: the same command would fail again.
    #[error("refused: {text}")]
    Refused {
        /// The response code in capitals (`OVERQUOTA`, `CANNOT`, …), without arguments.
        code: Option<String>,
        /// The server's words.
        text: String,
    },
    /// A tagged BAD, or an answer that breaks the protocol or a limit: do not repeat it in the same way.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// No complete answer in time; the connection is useless.
    #[error("the server did not answer in time")]
    Timeout,
    /// The connection ended; nothing that was under way may be taken for done.
    #[error("the server closed the connection")]
    Closed {
        /// Its last words, if it had any.
        bye: Option<String>,
    },
}

/// Which limit a server keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Of connections at once.
    Connections,
    /// Of what is read in a time.
    Volume,
    /// The mailbox is not open to anybody at the moment.
    Mailbox,
    /// Of commands in a time, or another that it does not name.
    Pace,
}

impl ImapError {
    /// An answer that cannot be so, in our own words.
    #[must_use]
    pub fn protocol(text: impl Into<String>) -> Self {
        Self::Protocol(text.into())
    }

    /// A refusal in our own words, of what must not be done.
    #[must_use]
    pub fn refused(text: &str) -> Self {
        Self::Refused { code: None, text: text.to_owned() }
    }

    /// The server's response code in capitals (RFC 9051 §7.1, RFC 5530), where it gave one.
    #[must_use]
    pub fn response_code(&self) -> Option<&str> {
        match self {
            Self::Throttled { code, .. } | Self::AuthRejected { code, .. } | Self::Refused { code, .. } => {
                code.as_deref()
            }
            _ => None,
        }
    }

    /// What is the matter with the token, where the server refused it and told.
    #[must_use]
    pub fn token_fault(&self) -> Option<TokenFault> {
        match self {
            Self::AuthRejected { refusal: Some(refusal), .. } => Some(refusal.fault()),
            _ => None,
        }
    }

    /// Its row of the one table.
    #[must_use]
    pub const fn trouble(&self) -> Trouble {
        match self {
            Self::Unreachable(why) => why.trouble(),
            Self::NotAllowed(what) => what.trouble(),
            Self::Timeout => Trouble::Timeout,
            Self::Closed { .. } => Trouble::Closed,
            Self::Throttled { .. } => Trouble::Throttled,
            Self::AuthRejected { .. } => Trouble::AuthFailed,
            Self::NoSuchMailbox(_) => Trouble::NoSuchMailbox,
            Self::Refused { .. } => Trouble::Refused,
            Self::Protocol(_) => Trouble::Protocol,
        }
    }

    /// Whether the same may succeed later, with nothing changed by anybody here.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        !matches!(self, Self::AuthRejected { .. } | Self::NotAllowed(_) | Self::Refused { .. })
    }

    /// The server's words, or ours where the network or the protocol failed.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Unreachable(why) => Some(why.to_string()),
            Self::Protocol(text)
            | Self::NoSuchMailbox(text)
            | Self::Throttled { text, .. }
            | Self::AuthRejected { text, .. }
            | Self::Refused { text, .. } => Some(text.clone()),
            Self::Closed { bye } => bye.clone(),
            Self::NotAllowed(_) | Self::Timeout => None,
        }
    }

    /// The server's own words, where it said something.
    #[must_use]
    pub fn server_text(&self) -> Option<&str> {
        let text = match self {
            Self::Throttled { text, .. }
            | Self::AuthRejected { text, .. }
            | Self::NoSuchMailbox(text)
            | Self::Refused { text, .. }
            | Self::Closed { bye: Some(text) } => text,
            Self::Unreachable(_)
            | Self::NotAllowed(_)
            | Self::Protocol(_)
            | Self::Timeout
            | Self::Closed { bye: None } => return None,
        };
        Some(text.as_str()).filter(|text| !text.is_empty())
    }

    /// The same error without `secret` in the server's words: some servers repeat the command that they refuse.
    fn without(mut self, secret: &Secret) -> Self {
        if let Self::AuthRejected { refusal: Some(refusal), .. } = &mut self {
            **refusal = std::mem::take(&mut **refusal).without(secret);
        }
        match &mut self {
            Self::Throttled { text, .. }
            | Self::AuthRejected { text, .. }
            | Self::NoSuchMailbox(text)
            | Self::Refused { text, .. }
            | Self::Protocol(text)
            | Self::Closed { bye: Some(text) } => *text = secret.strike_out(text),
            Self::Unreachable(_) | Self::NotAllowed(_) | Self::Timeout | Self::Closed { bye: None } => {}
        }
        self
    }

    /// Which limit the server met us with; `None`: it asked for no patience.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::Throttled { code, text, .. } => Some(verdict::limit(code.as_deref(), text)),
            _ => None,
        }
    }

    /// Whether the server let us not in because of other connections of the same user: with one less it would have.
    #[must_use]
    pub fn is_too_many_connections(&self) -> bool {
        verdict::is_too_many_connections(self)
    }

    /// Whether the session ended because its token did: the next one has another, and nothing else is wrong.
    #[must_use]
    pub fn is_end_of_token(&self) -> bool {
        matches!(self, Self::Closed { bye: Some(text) } if verdict::tells_of_token(text))
    }

    /// Whether the connection can still be used after this error: only a tagged NO or BAD leaves it so, and
    /// [`Session::is_usable`] knows for sure.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Timeout | Self::Closed { .. })
    }
}

impl From<Unopened> for ImapError {
    fn from(error: Unopened) -> Self {
        match error {
            Unopened::Forbidden(what) => Self::NotAllowed(what),
            Unopened::NoLine(why) => Self::Unreachable(why),
            Unopened::Timeout => Self::Timeout,
        }
    }
}

/// A server's words, fit to be stored and shown: valid UTF-8, one line without control and reordering characters,
/// bounded.
fn server_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(MAX_SERVER_TEXT)).unwrap_or_default());
    let mut out = String::new();
    let shown = |c: &char| !mail::address::is_invisible(*c);
    for c in text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).filter(shown) {
        if out.len() + c.len_utf8() > MAX_SERVER_TEXT {
            break;
        }
        out.push(c);
    }
    out
}

/// A response code as it is kept: the atom that RFC 9051 §9 makes of it, or nothing.
fn server_code(name: &str) -> Option<String> {
    let atom = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (!name.is_empty() && name.len() <= MAX_SERVER_CODE && name.bytes().all(atom)).then(|| name.to_owned())
}
