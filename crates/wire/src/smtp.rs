//! SMTP: handing a finished message to a user's submission server (RFC 5321, 6409).
//!
//! Here live the connection ([`connect`]), its login, and the one function that hands a message over ([`send`]).
//! Which submission is sent, when it is tried again and what its recipients see is `submission.rs`; the bytes are
//! `mail::compose`'s.
//!
//! The conversation is our own; lettre supplies the typed commands and their escaping. Its connection cannot be used:
//! `AsyncSmtpConnection::message` writes body, final dot and reads the answer in one call, and we have to commit a row
//! between body and dot; its reader grew to 4.7 GB on a reply without a newline and its timeout covers connecting only;
//! it stops at the first refused recipient without saying which (all 0.11.23).
//!
//! To use another extension: a field in [`Features`], its parameter in `send.rs`, and a scripted server in the tests
//! with it and without it.

mod connect;
mod diagnose;
mod login;
mod send;
mod stream;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod script;

use mail::smtp_reply::{ReplyClass, SmtpReply};

pub use self::connect::{Connection, Features};
pub use self::diagnose::diagnose;
pub use self::send::{Point, Progress, SendError, Sent, Stopped, send};
pub use crate::imap::{Endpoint, Security};

use crate::dial::{Deadlines, DialError, Outbound};
use crate::secret::Secret;
use crate::tls::{TlsConfig, TlsError};

/// Why the server did not do as asked, named by what the caller can do about it. Texts of servers are cleaned of control
/// characters and cut; they may name addresses, so they belong to the account's owner and not into a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SmtpError {
    /// No connection, or no TLS on it: try again later.
    #[error("the server could not be reached: {0}")]
    Unreachable(String),
    /// Host or port may not be connected to, or it would have to be without TLS: the settings must change.
    #[error("connecting is not permitted: {0}")]
    NotAllowed(String),
    /// The credentials were not accepted: the user must act.
    #[error("the server did not accept the credentials: {} {}", .0.code, .0.text)]
    AuthRejected(SmtpReply),
    /// A refusal with its code; 4xx may pass later, 5xx will not.
    #[error("refused: {} {}", .0.code, .0.text)]
    Refused(SmtpReply),
    /// A step took longer than its deadline; the connection is useless.
    #[error("the server did not answer in time")]
    Timeout,
    /// The answer breaks the protocol or a limit.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// The connection ended in the middle.
    #[error("the server closed the connection")]
    Closed,
}

impl SmtpError {
    /// Whether the same may succeed later. Only a server's 5xx and our own policy are final.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::NotAllowed(_) => false,
            Self::AuthRejected(reply) | Self::Refused(reply) => reply.class() != ReplyClass::Permanent,
            Self::Unreachable(_) | Self::Timeout | Self::Protocol(_) | Self::Closed => true,
        }
    }

    /// The server's code, where it gave one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::AuthRejected(reply) | Self::Refused(reply) => Some(reply.code),
            _ => None,
        }
    }

    /// The server's words with the enhanced status (RFC 3463), or ours where it said nothing.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::AuthRejected(reply) | Self::Refused(reply) => reply_text(reply),
            other => other.to_string(),
        }
    }

    /// The server's own words, with the enhanced status, where it said something.
    #[must_use]
    pub fn server_text(&self) -> Option<String> {
        match self {
            Self::AuthRejected(reply) | Self::Refused(reply) => {
                Some(reply_text(reply)).filter(|text| !text.is_empty())
            }
            _ => None,
        }
    }

    fn protocol(text: &str) -> Self {
        Self::Protocol(text.to_owned())
    }
}

/// A reply's text with its enhanced status in front, as it is shown to users.
#[must_use]
pub fn reply_text(reply: &SmtpReply) -> String {
    match reply.enhanced_text() {
        Some(status) => format!("{status} {}", reply.text),
        None => reply.text.clone(),
    }
}

/// An account's submission server. An empty user name means no login.
#[derive(Clone, Debug)]
pub struct SmtpServer {
    /// Where it is and how the connection is protected.
    pub endpoint: Endpoint,
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// What every connection needs from this process.
#[derive(Clone, Copy, Debug)]
pub struct Dialler<'a> {
    /// The one way out.
    pub outbound: &'a Outbound,
    /// Trust.
    pub tls: &'a TlsConfig,
    /// Our name in EHLO.
    pub helo_name: &'a str,
    /// Time for each step.
    pub deadlines: Deadlines,
}

/// Connects, protects the connection, greets and logs in.
///
/// # Errors
/// Any [`SmtpError`]; nothing was said about a message yet, so all of them are safe to repeat.
pub async fn connect(dialler: &Dialler<'_>, server: &SmtpServer) -> Result<Connection, SmtpError> {
    let mut connection = connect::connect(dialler, &server.endpoint).await?;
    connection.login(&server.username, &server.password).await?;
    Ok(connection)
}

/// Tries the settings as far as a login goes, sends nothing, and says goodbye.
///
/// # Errors
/// As [`connect`].
pub async fn verify(dialler: &Dialler<'_>, server: &SmtpServer) -> Result<(), SmtpError> {
    connect(dialler, server).await?.quit().await;
    Ok(())
}

impl From<DialError> for SmtpError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::HostNotAllowed | DialError::PortNotAllowed => Self::NotAllowed(error.to_string()),
            DialError::Timeout => Self::Timeout,
            DialError::HostNotFound | DialError::Unreachable(_) => Self::Unreachable(error.to_string()),
        }
    }
}

impl From<TlsError> for SmtpError {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Timeout => Self::Timeout,
            other => Self::Unreachable(other.to_string()),
        }
    }
}
