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

use crate::dial::{Deadlines, Outbound};
use crate::login::{Login, Refusal, TokenFault};
use crate::secret::Secret;
use crate::tls::TlsConfig;
use crate::trouble::{Forbidden, NoLine, Trouble, Unopened};

/// Why the server did not do as asked, named by what the caller can do about it. Texts of servers are cleaned of control
/// characters and cut; they may name addresses, so they belong to the account's owner and not into a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SmtpError {
    /// No connection, or no TLS on it: try again later.
    #[error("the server could not be reached: {0}")]
    Unreachable(NoLine),
    /// Host or port may not be connected to, or it would have to be without TLS: the settings must change.
    #[error("connecting is not permitted: {0}")]
    NotAllowed(Forbidden),
    /// The credentials were not accepted: the user must act.
    #[error("the server did not accept the credentials: {} {}", .reply.code, .reply.text)]
    AuthRejected {
        /// How it refused them.
        reply: SmtpReply,
        /// What it said of the token, where there was one and it said so.
        refusal: Option<Box<Refusal>>,
    },
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
    /// Its row of the one table.
    #[must_use]
    pub const fn trouble(&self) -> Trouble {
        match self {
            Self::Unreachable(why) => why.trouble(),
            Self::NotAllowed(what) => what.trouble(),
            Self::AuthRejected { .. } => Trouble::AuthFailed,
            Self::Refused(_) => Trouble::Refused,
            Self::Timeout => Trouble::Timeout,
            Self::Protocol(_) => Trouble::Protocol,
            Self::Closed => Trouble::Closed,
        }
    }

    /// Whether the same may succeed later. Only a server's 5xx and our own policy are final.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::NotAllowed(_) => false,
            Self::AuthRejected { reply, .. } | Self::Refused(reply) => reply.class() != ReplyClass::Permanent,
            Self::Unreachable(_) | Self::Timeout | Self::Protocol(_) | Self::Closed => true,
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

    /// The server's code, where it gave one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::AuthRejected { reply, .. } | Self::Refused(reply) if !reply.own => Some(reply.code),
            _ => None,
        }
    }

    /// The server's words with the enhanced status (RFC 3463), or ours where it said nothing.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::AuthRejected { reply, .. } | Self::Refused(reply) => reply_text(reply),
            other => other.to_string(),
        }
    }

    /// The server's own words, with the enhanced status, where it said something.
    #[must_use]
    pub fn server_text(&self) -> Option<String> {
        match self {
            Self::AuthRejected { reply, .. } | Self::Refused(reply) if !reply.own => {
                Some(reply_text(reply)).filter(|text| !text.is_empty())
            }
            _ => None,
        }
    }

    /// The same error without `secret` in the server's words: some servers repeat the command that they refuse.
    fn without(mut self, secret: &Secret) -> Self {
        match &mut self {
            Self::AuthRejected { reply, refusal } => {
                reply.text = secret.strike_out(&reply.text);
                if let Some(refusal) = refusal {
                    **refusal = std::mem::take(&mut **refusal).without(secret);
                }
            }
            Self::Refused(reply) => reply.text = secret.strike_out(&reply.text),
            Self::Protocol(text) => *text = secret.strike_out(text),
            Self::Unreachable(_) | Self::NotAllowed(_) | Self::Timeout | Self::Closed => {}
        }
        self
    }

    fn protocol(text: &str) -> Self {
        Self::Protocol(text.to_owned())
    }
}

/// A reply's text with its enhanced status in front, as it is shown to users.
#[must_use]
pub fn reply_text(reply: &SmtpReply) -> String {
    match reply.enhanced_text() {
        // What we refuse ourselves is told in our words, never as a status of the server.
        Some(_) if reply.own => format!("not handed over: {}", reply.text),
        Some(status) => format!("{status} {}", reply.text),
        None => reply.text.clone(),
    }
}

/// An account's submission server.
#[derive(Clone, Debug)]
pub struct SmtpServer {
    /// Where it is and how the connection is protected.
    pub endpoint: Endpoint,
    /// Who we are there.
    pub login: Login,
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
    connection.login(&server.endpoint, &server.login).await?;
    Ok(connection)
}

impl From<Unopened> for SmtpError {
    fn from(error: Unopened) -> Self {
        match error {
            Unopened::Forbidden(what) => Self::NotAllowed(what),
            Unopened::NoLine(why) => Self::Unreachable(why),
            Unopened::Timeout => Self::Timeout,
        }
    }
}
