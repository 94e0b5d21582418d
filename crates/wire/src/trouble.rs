//! The one table of what can go wrong on the way to a mail server: a word for programs and a sentence for people.
//!
//! Rounds, watches, jobs, a trial of what a client entered and a diagnosis all tell these words. Errors of the protocols
//! name theirs by `trouble()`. The next word: a row of [`Trouble`], told by the error that means it.

use crate::dial::DialError;
use crate::tls::TlsError;

macro_rules! table {
    ($($(#[$doc:meta])+ $name:ident = $code:literal, $text:literal;)+) => {
        /// What went wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Trouble {
            $($(#[$doc])+ $name,)+
        }

        impl Trouble {
            /// Every row.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word for programs.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }

            /// The sentence for people.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

table! {
    /// The policy for outgoing connections forbids the host, or a connection to it without TLS.
    HostNotAllowed = "host-not-allowed", "This host may not be connected to in this way.";
    /// The policy for outgoing connections forbids the port.
    PortNotAllowed = "port-not-allowed", "This port may not be connected to.";
    /// The name has no address that may be dialled.
    HostNotFound = "host-not-found", "The host was not found.";
    /// No connection.
    Unreachable = "upstream-unreachable", "The mail server cannot be reached.";
    /// The certificate is expired, for another name, or of an unknown authority.
    Certificate = "tls-certificate", "The certificate of the mail server was not accepted.";
    /// TLS did not come about for another reason.
    Handshake = "tls-handshake", "No encrypted connection to the mail server could be made.";
    /// No answer in time.
    Timeout = "upstream-timeout", "The mail server does not answer in time.";
    /// The server hung up.
    Closed = "upstream-closed", "The mail server ended the connection.";
    /// The server asks to come back later.
    Throttled = "upstream-throttled", "The mail server asks for patience.";
    /// As many connections of the account are open as it may have.
    ConnectionsInUse = "connections-in-use", "The account has as many connections as it may have at once.";
    /// There is no password, or none that can be opened.
    CredentialsUnusable = "credentials-unusable", "The stored password cannot be used; enter it again.";
    /// The provider gives no tokens any more for what was granted.
    ConsentWithdrawn = "consent-withdrawn", "The consent at the provider was withdrawn or has expired; connect the account again.";
    /// The provider does not take the OAuth app.
    AppRefused = "oauth-app-refused", "The provider does not accept the OAuth app; its owner has to look at its settings.";
    /// The authorization server gives no token at the moment.
    NoToken = "oauth-token-unavailable", "The provider gives no token at the moment.";
    /// The server does not take the credentials.
    AuthFailed = "upstream-auth-failed", "The mail server does not accept the credentials.";
    /// The mailbox is not there, or cannot be opened.
    NoSuchMailbox = "no-such-mailbox", "The mail server has no such mailbox.";
    /// The server said no.
    Refused = "upstream-refused", "The mail server refused a command.";
    /// The answer breaks the protocol or a limit of ours.
    Protocol = "upstream-protocol", "The mail server's answer could not be understood.";
}

impl Trouble {
    /// Whether it lies in what was asked for, so that the same settings come to the same until somebody changes something.
    #[must_use]
    pub const fn lasts(self) -> bool {
        matches!(
            self,
            Self::HostNotAllowed
                | Self::PortNotAllowed
                | Self::HostNotFound
                | Self::CredentialsUnusable
                | Self::ConsentWithdrawn
                | Self::AppRefused
                | Self::AuthFailed
        )
    }
}

/// Why there is no connection, or none that is protected as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoLine {
    /// The name has no address that may be dialled.
    #[error("the host was not found")]
    HostNotFound,
    /// Every address refused or failed; the last reason.
    #[error("the host could not be reached: {0}")]
    Connection(String),
    /// The certificate was not accepted.
    #[error("the server's certificate was not accepted: {0}")]
    Certificate(String),
    /// TLS failed for another reason.
    #[error("{0}")]
    Handshake(String),
}

impl NoLine {
    /// Its row of the table.
    #[must_use]
    pub const fn trouble(&self) -> Trouble {
        match self {
            Self::HostNotFound => Trouble::HostNotFound,
            Self::Connection(_) => Trouble::Unreachable,
            Self::Certificate(_) => Trouble::Certificate,
            Self::Handshake(_) => Trouble::Handshake,
        }
    }
}

/// What the policy for outgoing connections forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// The host.
    #[error("this host may not be connected to")]
    Host,
    /// The port.
    #[error("this port may not be connected to")]
    Port,
    /// The host without TLS.
    #[error("a connection without TLS is only made to allowed hosts")]
    Plain,
}

impl Forbidden {
    /// Its row of the table.
    #[must_use]
    pub const fn trouble(self) -> Trouble {
        match self {
            Self::Host | Self::Plain => Trouble::HostNotAllowed,
            Self::Port => Trouble::PortNotAllowed,
        }
    }
}

/// How a connection was not opened: the same for every protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unopened {
    Forbidden(Forbidden),
    NoLine(NoLine),
    Timeout,
}

impl Unopened {
    pub const fn trouble(&self) -> Trouble {
        match self {
            Self::Forbidden(what) => what.trouble(),
            Self::NoLine(why) => why.trouble(),
            Self::Timeout => Trouble::Timeout,
        }
    }
}

impl From<DialError> for Unopened {
    fn from(error: DialError) -> Self {
        match error {
            DialError::HostNotAllowed => Self::Forbidden(Forbidden::Host),
            DialError::PortNotAllowed => Self::Forbidden(Forbidden::Port),
            DialError::HostNotFound => Self::NoLine(NoLine::HostNotFound),
            DialError::Unreachable(reason) => Self::NoLine(NoLine::Connection(reason)),
            DialError::Timeout => Self::Timeout,
        }
    }
}

impl From<TlsError> for Unopened {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Certificate(reason) => Self::NoLine(NoLine::Certificate(reason)),
            TlsError::Timeout => Self::Timeout,
            other => Self::NoLine(NoLine::Handshake(other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mail::smtp_reply::SmtpReply;

    use super::*;
    use crate::imap::ImapError;
    use crate::smtp::SmtpError;

    fn dial_errors() -> Vec<DialError> {
        let all = vec![
            DialError::HostNotAllowed,
            DialError::PortNotAllowed,
            DialError::HostNotFound,
            DialError::Unreachable("x".into()),
            DialError::Timeout,
        ];
        // A new variant is added above.
        for error in &all {
            match error {
                DialError::HostNotAllowed
                | DialError::PortNotAllowed
                | DialError::HostNotFound
                | DialError::Unreachable(_)
                | DialError::Timeout => {}
            }
        }
        all
    }

    fn tls_errors() -> Vec<TlsError> {
        vec![
            TlsError::Name,
            TlsError::Certificate("x".into()),
            TlsError::Handshake("x".into()),
            TlsError::Timeout,
        ]
    }

    #[test]
    fn a_word_stands_for_one_thing_and_no_two_rows_say_the_same() {
        let codes: BTreeSet<&str> = Trouble::ALL.iter().map(|t| t.code()).collect();
        let texts: BTreeSet<&str> = Trouble::ALL.iter().map(|t| t.text()).collect();
        assert_eq!((codes.len(), texts.len()), (Trouble::ALL.len(), Trouble::ALL.len()));
        assert!(codes.iter().all(|c| c.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')), "{codes:?}");
    }

    /// What hinders a connection has one word, whoever made it and for which protocol.
    #[test]
    fn every_error_of_the_way_has_the_same_word_in_both_protocols_and_in_a_diagnosis() {
        let dialled = dial_errors().into_iter().map(|e| (format!("{e:?}"), Unopened::from(e)));
        let encrypted = tls_errors().into_iter().map(|e| (format!("{e:?}"), Unopened::from(e)));
        for (what, error) in dialled.chain(encrypted) {
            let word = error.trouble();
            assert_eq!(ImapError::from(error.clone()).trouble(), word, "{what}");
            assert_eq!(SmtpError::from(error.clone()).trouble(), word, "{what}");
            assert_eq!(crate::diagnose::Fault::from(error).code, word.code(), "{what}");
        }
    }

    #[test]
    fn every_error_of_a_protocol_has_its_word_and_a_diagnosis_tells_the_same() {
        let (text, reply) = (|| "x".to_owned(), SmtpReply::parse("535 x").unwrap());
        let imap = [
            (ImapError::Unreachable(NoLine::HostNotFound), Trouble::HostNotFound),
            (ImapError::NotAllowed(Forbidden::Plain), Trouble::HostNotAllowed),
            (ImapError::Throttled { retry_after: None, code: None, text: text() }, Trouble::Throttled),
            (ImapError::AuthRejected { code: None, text: text(), refusal: None }, Trouble::AuthFailed),
            (ImapError::NoSuchMailbox(text()), Trouble::NoSuchMailbox),
            (ImapError::Refused { code: None, text: text() }, Trouble::Refused),
            (ImapError::Protocol(text()), Trouble::Protocol),
            (ImapError::Timeout, Trouble::Timeout),
            (ImapError::Closed { bye: None }, Trouble::Closed),
        ];
        for (error, word) in imap {
            assert_eq!(error.trouble(), word, "{error:?}");
            assert_eq!(crate::diagnose::Fault::from(error).code, word.code());
        }
        let smtp = [
            (SmtpError::Unreachable(NoLine::Certificate(text())), Trouble::Certificate),
            (SmtpError::NotAllowed(Forbidden::Port), Trouble::PortNotAllowed),
            (SmtpError::AuthRejected { reply: reply.clone(), refusal: None }, Trouble::AuthFailed),
            (SmtpError::Refused(reply), Trouble::Refused),
            (SmtpError::Timeout, Trouble::Timeout),
            (SmtpError::Protocol(text()), Trouble::Protocol),
            (SmtpError::Closed, Trouble::Closed),
        ];
        for (error, word) in smtp {
            assert_eq!(error.trouble(), word, "{error:?}");
            assert_eq!(crate::diagnose::Fault::from(error).code, word.code());
        }
    }
}
