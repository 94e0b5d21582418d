//! What is counted here, for who installed a recorder of the crate `metrics`; without one it costs next to nothing. The help of
//! each stands with those of all services.

use std::time::Duration;

use metrics::{Gauge, counter, gauge, histogram};

/// IMAP commands, by verb and outcome.
pub const IMAP_COMMANDS: &str = "emailclient_imap_commands_total";
/// How long they took, by verb.
pub const IMAP_DURATION: &str = "emailclient_imap_command_duration_seconds";
/// Connections tried, by protocol and outcome.
pub const CONNECTS: &str = "emailclient_mail_connects_total";
/// Connections open, by protocol.
pub const CONNECTIONS: &str = "emailclient_mail_connections";
/// Connections that waited for their turn.
pub const PACED: &str = "emailclient_mail_paced_total";

/// The verbs that are told apart.
const VERBS: [&str; 24] = [
    "APPEND",
    "AUTHENTICATE",
    "CAPABILITY",
    "COPY",
    "CREATE",
    "DELETE",
    "ENABLE",
    "EXAMINE",
    "EXPUNGE",
    "FETCH",
    "GETMETADATA",
    "ID",
    "LIST",
    "LOGIN",
    "LOGOUT",
    "LSUB",
    "MOVE",
    "NAMESPACE",
    "NOOP",
    "RENAME",
    "SEARCH",
    "SELECT",
    "STATUS",
    "STORE",
];

/// The verb of a command's text; `OTHER` for what is not told apart.
pub(crate) fn verb(text: &[u8]) -> &'static str {
    let mut words = text.split(|b| matches!(b, b' ' | b'\r'));
    let first = words.next().unwrap_or_default();
    let word = if first.eq_ignore_ascii_case(b"UID") { words.next().unwrap_or_default() } else { first };
    VERBS.into_iter().find(|verb| verb.as_bytes().eq_ignore_ascii_case(word)).unwrap_or("OTHER")
}

pub(crate) fn imap_command(verb: &'static str, outcome: &'static str, took: Duration) {
    counter!(IMAP_COMMANDS, "verb" => verb, "outcome" => outcome).increment(1);
    histogram!(IMAP_DURATION, "verb" => verb).record(took.as_secs_f64());
}

/// A connection with log-in was tried.
pub fn connected(protocol: &'static str, outcome: &'static str) {
    counter!(CONNECTS, "protocol" => protocol, "outcome" => outcome).increment(1);
}

/// Something that is there: its gauge counts it until it is dropped, however that comes.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    /// One more.
    #[must_use]
    pub fn new(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// An open connection.
pub(crate) fn open(protocol: &'static str) -> Held {
    Held::new(gauge!(CONNECTIONS, "protocol" => protocol))
}

/// A connection waits for its turn.
pub(crate) fn paced() {
    counter!(PACED).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_sent_there_are_few_verbs() {
        for (text, wanted) in [
            ("UID FETCH 1:* (FLAGS)", "FETCH"),
            ("select INBOX", "SELECT"),
            ("NOOP", "NOOP"),
            ("UID", "OTHER"),
            ("XSTRANGE 1", "OTHER"),
            ("", "OTHER"),
        ] {
            assert_eq!(verb(text.as_bytes()), wanted, "{text}");
        }
    }
}
