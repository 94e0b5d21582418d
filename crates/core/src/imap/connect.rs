//! From a host and a port to a server that has greeted, under TLS where it must be.
//!
//! STARTTLS is stripped of its trap here: what arrives in clear before the switch is refused, and abilities
//! announced before it are forgotten. Login is `login.rs`.

use std::time::Duration;

use tokio::time::Instant;

use super::ImapError;
use super::command::{Command, Session, bye_error};
use super::guard::{Allowance, Framer, Transport};
use super::parse::{Condition, Response, Status, Untagged};
use crate::dial::{Deadlines, DialError, Outbound};
use crate::tls::{TlsConfig, TlsError};

/// Bytes a server may say before we log in.
const GREETING_BYTES: u64 = 64 << 10;

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// TLS from the first byte (port 993).
    Tls,
    /// STARTTLS before anything else is said; a server that does not offer it is refused.
    StartTls,
    /// None. Only to hosts that the operator named.
    Plain,
}

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name or address; with TLS also what the certificate must be for.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How to protect the connection.
    pub security: Security,
}

/// A server that has greeted and waits for a login.
#[derive(Debug)]
pub struct Connection {
    pub(super) session: Session,
    pub(super) preauth: bool,
    pub(super) capabilities_known: bool,
    pub(super) encrypted: bool,
}

/// Connects, protects the connection and reads the greeting.
///
/// # Errors
/// [`ImapError::NotAllowed`] when the policy forbids it, [`ImapError::Unreachable`] when there is no connection or
/// no TLS, [`ImapError::Throttled`] or [`ImapError::Closed`] for a BYE as greeting, [`ImapError::Protocol`] for
/// anything that is not IMAP, [`ImapError::Timeout`].
pub async fn connect(
    outbound: &Outbound,
    tls: &TlsConfig,
    endpoint: &Endpoint,
    deadlines: &Deadlines,
) -> Result<Connection, ImapError> {
    let Endpoint { host, port, security } = endpoint;
    if *security == Security::Plain && !outbound.allows_plain(host, *port).await.map_err(dial_error)? {
        return Err(ImapError::NotAllowed("a connection without TLS is only made to allowed hosts".to_owned()));
    }
    let socket = outbound.dial(host, *port, deadlines).await.map_err(dial_error)?;
    match security {
        Security::Tls => {
            let stream = tls.connect(host, socket, deadlines.tls).await.map_err(tls_error)?;
            let mut connection = greet(Box::new(stream), deadlines.reply).await?;
            connection.encrypted = true;
            Ok(connection)
        }
        Security::StartTls => {
            let stream = start_tls(Box::new(socket), deadlines.reply).await?;
            let stream = tls.connect(host, stream, deadlines.tls).await.map_err(tls_error)?;
            Ok(Connection::over(Box::new(stream), deadlines.reply))
        }
        Security::Plain => greet(Box::new(socket), deadlines.reply).await,
    }
}

impl Connection {
    /// A connection whose greeting was read before the switch to TLS: nothing said then counts.
    fn over(stream: Box<dyn Transport>, reply: Duration) -> Self {
        let framer = Framer::new(stream, first_allowance(reply));
        let session = Session::new(framer, reply);
        Self { session, preauth: false, capabilities_known: false, encrypted: true }
    }
}

fn first_allowance(reply: Duration) -> Allowance {
    Allowance { until: Instant::now() + reply, bytes: GREETING_BYTES }
}

/// Reads the greeting: OK, PREAUTH, or a BYE that is an error.
pub(super) async fn greet(stream: Box<dyn Transport>, reply: Duration) -> Result<Connection, ImapError> {
    let framer = Framer::new(stream, first_allowance(reply));
    let mut session = Session::new(framer, reply);
    let Response::Untagged(Untagged::Condition(greeting)) = session.next().await? else {
        return Err(ImapError::protocol("this is not an IMAP server"));
    };
    let preauth = match greeting.status {
        Status::Ok => false,
        Status::Preauth => true,
        Status::Bye => return Err(bye_error(&greeting)),
        Status::No | Status::Bad => return Err(ImapError::protocol("this is not an IMAP server")),
    };
    let capabilities_known = matches!(&greeting, Condition { code: Some(code), .. }
        if session.note_capability_code(code));
    Ok(Connection { session, preauth, capabilities_known, encrypted: false })
}

/// Greeting, then STARTTLS; hands back the stream, with nothing unread on it.
pub(super) async fn start_tls(
    stream: Box<dyn Transport>,
    reply: Duration,
) -> Result<Box<dyn Transport>, ImapError> {
    let mut connection = greet(stream, reply).await?;
    if connection.preauth {
        // RFC 9051 §11.1: a PREAUTH greeting rules STARTTLS out, and an attacker may have put it there.
        return Err(ImapError::protocol("the server skips login and so prevents TLS"));
    }
    connection.session.run(Command::new("STARTTLS"), Some).await.map_err(|e| match e {
        ImapError::Refused { text, .. } | ImapError::Protocol(text) => {
            ImapError::Protocol(format!("the server does not offer STARTTLS: {text}"))
        }
        other => other,
    })?;
    connection.session.framer.into_stream()
}

fn dial_error(error: DialError) -> ImapError {
    match error {
        DialError::HostNotAllowed | DialError::PortNotAllowed => ImapError::NotAllowed(error.to_string()),
        DialError::Timeout => ImapError::Timeout,
        DialError::HostNotFound | DialError::Unreachable(_) => ImapError::Unreachable(error.to_string()),
    }
}

fn tls_error(error: TlsError) -> ImapError {
    match error {
        TlsError::Timeout => ImapError::Timeout,
        other => ImapError::Unreachable(other.to_string()),
    }
}
