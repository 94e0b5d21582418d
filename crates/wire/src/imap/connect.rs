//! From a host and a port to a server that has greeted, under TLS where it must be.
//!
//! STARTTLS is stripped of its trap here: what arrives in clear before the switch is refused, and abilities
//! announced before it are forgotten. Login is `login.rs`.

use std::time::Duration;

use tokio::time::Instant;

use super::command::{Command, Session};
use super::guard::{Allowance, Framer, Transport};
use super::parse::{Condition, Response, Status, Untagged};
use super::verdict::bye_error;
use super::{ImapError, server_text};
use crate::dial::{Deadlines, Outbound};
use crate::tls::TlsConfig;
use crate::trouble::{Forbidden, Unopened};

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

impl Security {
    /// As settings, columns and answers have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::StartTls => "starttls",
            Self::Plain => "none",
        }
    }

    /// The kind of a word; `None`: it is none of these.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Tls, Self::StartTls, Self::Plain].into_iter().find(|kind| kind.as_str() == word)
    }
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
    /// The server's words.
    pub(super) greeting: String,
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
    if *security == Security::Plain && !outbound.allows_plain(host, *port).await.map_err(Unopened::from)? {
        return Err(ImapError::NotAllowed(Forbidden::Plain));
    }
    let socket = outbound.dial(host, *port, deadlines).await.map_err(Unopened::from)?;
    match security {
        Security::Tls => {
            let stream = tls.connect(host, socket, deadlines.tls).await.map_err(Unopened::from)?;
            let mut connection = greet(Box::new(stream), deadlines.reply).await?;
            connection.encrypted = true;
            Ok(connection)
        }
        Security::StartTls => {
            let stream = start_tls(Box::new(socket), deadlines.reply).await?;
            let stream = tls.connect(host, stream, deadlines.tls).await.map_err(Unopened::from)?;
            Ok(Connection::over(Box::new(stream), deadlines.reply))
        }
        Security::Plain => greet(Box::new(socket), deadlines.reply).await,
    }
}

impl Connection {
    /// A connection whose greeting was read before the switch to TLS: nothing said then counts.
    pub(super) fn over(stream: Box<dyn Transport>, reply: Duration) -> Self {
        let framer = Framer::new(stream, first_allowance(reply));
        let session = Session::new(framer, reply);
        let greeting = String::new();
        Self { session, preauth: false, capabilities_known: false, encrypted: true, greeting }
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
    let greeting = server_text(&greeting.text);
    Ok(Connection { session, preauth, capabilities_known, encrypted: false, greeting })
}

/// Greeting, then STARTTLS; hands back the stream, with nothing unread on it.
pub(super) async fn start_tls(
    stream: Box<dyn Transport>,
    reply: Duration,
) -> Result<Box<dyn Transport>, ImapError> {
    upgrade(greet(stream, reply).await?).await
}

/// STARTTLS; hands back the stream, with nothing unread on it.
pub(super) async fn upgrade(mut connection: Connection) -> Result<Box<dyn Transport>, ImapError> {
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

#[cfg(test)]
mod tests {
    use super::super::ImapError;
    use super::super::script::{REPLY, endpoint, is_protocol, server};
    use super::{greet, start_tls};
    use crate::login::Login;
    use crate::secret::Secret;

    fn password() -> Login {
        Login::of("me", Secret::new("secret"))
    }

    #[tokio::test]
    async fn bye_as_greeting_is_an_end_with_its_reason() {
        let (stream, _) = server("* BYE go away\r\n", &[], 64);
        let greeted = greet(Box::new(stream), REPLY).await;
        assert_eq!(greeted.unwrap_err(), ImapError::Closed { bye: Some("go away".into()) });
    }

    #[tokio::test]
    async fn what_is_not_imap_is_a_protocol_error() {
        for greeting in ["220 smtp.example ESMTP\r\n", "* 3 EXISTS\r\n", "HTTP/1.1 400 Bad\r\n", "\r\n"] {
            let (stream, _) = server(greeting, &[], 64);
            assert!(is_protocol(&greet(Box::new(stream), REPLY).await), "{greeting}");
        }
    }

    #[tokio::test]
    async fn preauth_is_no_login_of_ours() {
        let (stream, _) = server("* PREAUTH [CAPABILITY IMAP4rev1] welcome\r\n", &[], 64);
        let connection = greet(Box::new(stream), REPLY).await.unwrap();
        assert!(is_protocol(&connection.login(&endpoint(), &password()).await));
        let (stream, _) = server("* PREAUTH hi\r\n", &[], 64);
        assert!(matches!(start_tls(Box::new(stream), REPLY).await, Err(ImapError::Protocol(_))));
    }

    #[tokio::test]
    async fn bytes_behind_the_answer_to_starttls_are_refused() {
        let injected = "$ OK begin\r\n* CAPABILITY IMAP4rev1 EVIL\r\n";
        let (stream, _) = server("* OK hi\r\n", &[injected], 1 << 10);
        assert!(matches!(start_tls(Box::new(stream), REPLY).await, Err(ImapError::Protocol(_))));
        let (stream, _) = server("* OK hi\r\n", &["$ OK begin\r\n"], 1 << 10);
        assert!(start_tls(Box::new(stream), REPLY).await.is_ok());
        let (stream, _) = server("* OK hi\r\n", &["$ BAD no TLS here\r\n"], 1 << 10);
        assert!(matches!(start_tls(Box::new(stream), REPLY).await, Err(ImapError::Protocol(_))));
    }

    #[tokio::test]
    async fn rejected_credentials_are_told_from_a_server_in_trouble() {
        for (answer, rejected) in [
            ("$ NO [AUTHENTICATIONFAILED] wrong\r\n", true),
            ("$ NO Login failed.\r\n", true),
            ("$ NO [UNAVAILABLE] later\r\n", false),
        ] {
            let (stream, _) = server("* OK [CAPABILITY IMAP4rev1] hi\r\n", &[answer], 1 << 10);
            let connection = greet(Box::new(stream), REPLY).await.unwrap();
            let error = connection.login(&endpoint(), &password()).await.unwrap_err();
            assert_eq!(matches!(error, ImapError::AuthRejected { .. }), rejected, "{error:?}");
            assert_eq!(matches!(error, ImapError::Throttled { .. }), !rejected, "{error:?}");
        }
    }

    #[tokio::test]
    async fn plain_is_spoken_with_and_without_an_initial_response() {
        let greeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi\r\n";
        let (stream, seen) = server(greeting, &["$ OK [CAPABILITY IMAP4rev1 IDLE] in\r\n"], 1 << 10);
        let connection = greet(Box::new(stream), REPLY).await.unwrap();
        let session = connection.login(&endpoint(), &password()).await.unwrap();
        assert!(session.capabilities().idle && !session.capabilities().sasl_ir);
        assert!(seen.lock().unwrap()[0].ends_with("AUTHENTICATE PLAIN AG1lAHNlY3JldA=="));

        let greeting = "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n";
        let (stream, seen) = server(greeting, &["+ \r\n", "$ OK [CAPABILITY IMAP4rev1] in\r\n"], 1 << 10);
        greet(Box::new(stream), REPLY).await.unwrap().login(&endpoint(), &password()).await.unwrap();
        assert_eq!(seen.lock().unwrap()[1..], ["AG1lAHNlY3JldA=="]);
    }

    #[tokio::test]
    async fn nobody_is_not_let_in() {
        let (stream, seen) =
            server("* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] hi\r\n", &["$ OK in\r\n"], 1 << 10);
        let connection = greet(Box::new(stream), REPLY).await.unwrap();
        let refused = connection.login(&endpoint(), &Login::Nobody).await;
        assert!(matches!(refused, Err(ImapError::Refused { .. })), "{refused:?}");
        assert!(seen.lock().unwrap().is_empty());
    }
}
