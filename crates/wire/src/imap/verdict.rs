//! What a tagged line or a BYE means for the caller: the one place that reads the words of servers.
//!
//! A server's way of saying "later" or "no such mailbox" in prose is added here, with its name and date.

use std::time::Duration;

use super::parse::{Code, Condition, Status};
use super::{ImapError, Limit, server_code, server_text};

/// The tagged OK of a command.
#[derive(Debug)]
pub(super) struct Done {
    pub code: Option<Code>,
}

/// OK is success; NO and BAD become what the caller must do.
pub(super) fn judge(condition: Condition) -> Result<Done, ImapError> {
    if condition.status == Status::Ok {
        return Ok(Done { code: condition.code });
    }
    let text = server_text(&condition.text);
    let code = condition.code.and_then(|c| server_code(&c.name));
    if let Some(error) = throttled(code.as_deref(), &text) {
        return Err(error);
    }
    match (condition.status, code.as_deref()) {
        (Status::No, Some("NONEXISTENT" | "TRYCREATE")) => Err(ImapError::NoSuchMailbox(text)),
        (Status::No, Some("AUTHENTICATIONFAILED" | "AUTHORIZATIONFAILED" | "EXPIRED")) => {
            Err(ImapError::AuthRejected { code, text, refusal: None })
        }
        (Status::No, _) => Err(ImapError::Refused { code, text }),
        _ => Err(ImapError::Protocol(if text.is_empty() { "the server answered BAD".into() } else { text })),
    }
}

/// The error of a BYE: a plea for patience, or just the end.
pub(super) fn bye_error(condition: &Condition) -> ImapError {
    let text = server_text(&condition.text);
    let code = condition.code.as_ref().and_then(|c| server_code(&c.name));
    let lower = text.to_ascii_lowercase();
    if ENDED.iter().any(|said| lower.contains(said)) && !tells_of_token(&text) {
        return ImapError::Throttled { retry_after: backoff(&lower), code, text };
    }
    throttled(code.as_deref(), &text).unwrap_or(ImapError::Closed { bye: Some(text) })
}

/// How servers say that a user has as many connections as they allow.
const TOO_MANY: [&str; 11] = [
    // Gmail.
    "too many simultaneous",
    "too many connections",
    // Cyrus.
    "too many open connections",
    "too many concurrent",
    "too many sessions",
    // Dovecot 2.3, where mail_max_userip_connections is reached.
    "maximum number of connections",
    // Courier, for an address.
    "connection limit",
    "connections exceeded",
    "simultaneous connections",
    "concurrent connections",
    "concurrent sessions",
];

/// How Gmail says that a mailbox was read as much as it may be: an hour to a day passes with this
/// (`NO [OVERQUOTA] Account exceeded command or bandwidth limits.`, 2019 to 2022).
const VOLUME: &str = "bandwidth limit";
/// Exchange Online, after AUTHENTICATE: BAD, of a mailbox that nobody can open at the moment, or a shared one that never can be.
const NOT_CONNECTED: &str = "authenticated but not connected";
/// Exchange Online's ways of ending sessions that ask for too much, in BYE.
const ENDED: [&str; 2] = ["session invalidated", "connection is closed. 13"];
/// Its word for the end of a token, within the first of these: the next session has another token.
const TOKEN_ENDED: &str = "tokenexpired";

/// Whether a BYE is about the end of a token.
pub(super) fn tells_of_token(text: &str) -> bool {
    text.to_ascii_lowercase().contains(TOKEN_ENDED)
}

/// Which limit a plea for patience is about.
pub(super) fn limit(code: Option<&str>, text: &str) -> Limit {
    let lower = text.to_ascii_lowercase();
    if code == Some(OVERQUOTA) || lower.contains(VOLUME) {
        Limit::Volume
    } else if lower.contains(NOT_CONNECTED) {
        Limit::Mailbox
    } else if is_of_connections(code, &lower) {
        Limit::Connections
    } else {
        Limit::Pace
    }
}

const OVERQUOTA: &str = "OVERQUOTA";

/// Whether a command leaves the server as it is.
pub(super) fn only_reads(command: &[u8]) -> bool {
    const VERBS: [&str; 10] = [
        "SELECT",
        "EXAMINE",
        "UID FETCH",
        "UID SEARCH",
        "LIST",
        "LSUB",
        "STATUS",
        "NOOP",
        "NAMESPACE",
        "ENABLE",
    ];
    VERBS.iter().any(|verb| command.starts_with(verb.as_bytes()))
}

/// What a command that only reads is refused for want of quota is not the room for mail (RFC 9208), which reading needs none
/// of: the provider limits how much is read. Of Gmail; elsewhere it may be the fault of one mailbox (a full one that cannot
/// write its index), which the others do not suffer for.
pub(super) fn of_reading(error: ImapError) -> ImapError {
    match error {
        ImapError::Refused { code: Some(code), text } if code == OVERQUOTA => {
            ImapError::Throttled { retry_after: None, code: Some(code), text }
        }
        other => other,
    }
}

/// Whether a refusal to let us in is about other connections of the same user. A rate is none: it passes with time alone.
pub(super) fn is_too_many_connections(error: &ImapError) -> bool {
    let ImapError::Throttled { code, text, .. } = error else { return false };
    is_of_connections(code.as_deref(), &text.to_ascii_lowercase())
}

fn is_of_connections(code: Option<&str>, lower: &str) -> bool {
    TOO_MANY.iter().any(|s| lower.contains(s)) || (code == Some("LIMIT") && !lower.contains("rate"))
}

/// RFC 5530's UNAVAILABLE, LIMIT and INUSE; Gmail's and Exchange's ways of saying the same in prose
/// ("Account exceeded command or bandwidth limits", "Too many simultaneous connections", "Request is
/// throttled. Suggested Backoff Time: 1234 milliseconds").
fn throttled(code: Option<&str>, text: &str) -> Option<ImapError> {
    let lower = text.to_ascii_lowercase();
    let said = ["throttled", VOLUME, "rate limit", NOT_CONNECTED];
    let by_code = matches!(code, Some("UNAVAILABLE" | "LIMIT" | "INUSE" | "THROTTLED" | "SERVERBUG"));
    if !by_code && !said.iter().chain(&TOO_MANY).any(|s| lower.contains(s)) {
        return None;
    }
    Some(ImapError::Throttled {
        retry_after: backoff(&lower),
        code: code.map(str::to_owned),
        text: text.to_owned(),
    })
}

/// How long Exchange wants to be left alone.
fn backoff(lower: &str) -> Option<Duration> {
    let (_, rest) = lower.split_once("backoff time:")?;
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).take(9).collect();
    digits.parse().ok().map(Duration::from_millis)
}

/// Whether a server that offers a SASL mechanism says that it does not know it after all, which is not about the credentials.
pub(super) fn lacks_mechanism(error: &ImapError) -> bool {
    match error {
        ImapError::Protocol(_) => true,
        // Dovecot 2.3: "Unsupported authentication mechanism.".
        ImapError::Refused { code, text } => {
            let lower = text.to_ascii_lowercase();
            code.as_deref() == Some("CANNOT") || (lower.contains("mechanism") && lower.contains("support"))
        }
        _ => false,
    }
}

/// A NO without a code to a command on one mailbox: Dovecot's phantoms and the prose of older servers.
pub(super) fn as_missing(error: ImapError) -> ImapError {
    const SAID: [&str; 6] =
        ["doesn't exist", "does not exist", "not found", "no such mailbox", "unknown mailbox", "nonexistent"];
    match error {
        ImapError::Refused { code: None, text } => {
            let lower = text.to_ascii_lowercase();
            if SAID.iter().any(|s| lower.contains(s)) {
                ImapError::NoSuchMailbox(text)
            } else {
                ImapError::Refused { code: None, text }
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::script::session;
    use super::super::{ImapError, Limit};

    #[tokio::test]
    async fn too_many_connections_are_told_from_other_pleas_for_patience() {
        for (answer, of_connections) in [
            (
                "NO [LIMIT] Maximum number of connections from user+IP exceeded (mail_max_userip_connections=1)",
                true,
            ),
            ("NO [ALERT] Too many simultaneous connections. (Failure)", true),
            ("NO [LIMIT] no more", true),
            ("NO Too many open connections from this user", true),
            ("BAD User exceeded number of concurrent connections", true),
            ("NO [LIMIT] LOGIN Rate limit hit.", false),
            ("NO [UNAVAILABLE] later", false),
            ("BAD Request is throttled. Suggested Backoff Time: 5 milliseconds", false),
        ] {
            let (mut s, _) = session("", &[&format!("$ {answer}\r\n")]).await;
            let error = s.noop().await.unwrap_err();
            assert!(matches!(error, ImapError::Throttled { .. }), "{answer}: {error:?}");
            assert_eq!(super::is_too_many_connections(&error), of_connections, "{answer}");
        }
        let (mut s, _) = session("", &["* BYE [ALERT] Maximum connection limit reached\r\n"]).await;
        assert!(super::is_too_many_connections(&s.noop().await.unwrap_err()));
    }

    #[tokio::test]
    async fn which_limit_was_met_is_read_from_the_words() {
        for (answer, limit) in [
            ("$ NO [OVERQUOTA] Account exceeded command or bandwidth limits.\r\n", Limit::Volume),
            ("$ NO [ALERT] Account exceeded command or bandwidth limits. (Failure)\r\n", Limit::Volume),
            ("* BYE Account exceeded command or bandwidth limits.\r\n", Limit::Volume),
            ("$ NO [OVERQUOTA] enough for today\r\n", Limit::Volume),
            ("$ NO [ALERT] Too many simultaneous connections. (Failure)\r\n", Limit::Connections),
            ("$ BAD User is authenticated but not connected.\r\n", Limit::Mailbox),
            ("$ NO User is authenticated but not connected.\r\n", Limit::Mailbox),
            ("$ BAD Request is throttled. Suggested Backoff Time: 5 milliseconds\r\n", Limit::Pace),
            ("* BYE Session invalidated - Throttled\r\n", Limit::Pace),
            ("* BYE Session invalidated\r\n", Limit::Pace),
            ("* BYE Connection is closed. 13\r\n", Limit::Pace),
        ] {
            let (mut s, _) = session("X-GM-EXT-1", &[answer]).await;
            let error = s.noop().await.unwrap_err();
            assert_eq!(error.limit(), Some(limit), "{answer}: {error:?}");
        }
        for end in
            ["* BYE Session invalidated - AccessTokenExpired\r\n", "* BYE Connection is closed. 14\r\n"]
        {
            let (mut s, _) = session("", &[end]).await;
            let error = s.noop().await.unwrap_err();
            assert!(matches!(error, ImapError::Closed { .. }) && error.limit().is_none(), "{end}: {error:?}");
        }
    }

    #[tokio::test]
    async fn no_room_for_mail_is_a_refusal_and_no_quota_for_reading_a_plea_for_patience() {
        let answers = ["$ NO [OVERQUOTA] full\r\n", "$ NO [OVERQUOTA] read enough\r\n"];
        let (mut s, _) = session("", &answers).await;
        assert!(matches!(s.create_mailbox(b"a", None).await, Err(ImapError::Refused { .. })));
        assert!(matches!(s.select(b"a", None, false).await, Err(ImapError::Refused { .. })), "not of Gmail");
        let (mut s, _) = session("X-GM-EXT-1", &answers).await;
        assert!(matches!(s.create_mailbox(b"a", None).await, Err(ImapError::Refused { .. })));
        assert!(matches!(s.select(b"a", None, false).await, Err(ImapError::Throttled { .. })));
    }

    #[tokio::test]
    async fn exchange_says_how_long_to_wait() {
        let (mut s, _) =
            session("", &["$ BAD Request is throttled. Suggested Backoff Time: 299961 milliseconds\r\n"])
                .await;
        let Err(ImapError::Throttled { retry_after, .. }) = s.noop().await else { panic!("not throttled") };
        assert_eq!(retry_after, Some(Duration::from_millis(299_961)));
        let end =
            "* BYE Session invalidated - Request is throttled. Suggested Backoff Time: 5 milliseconds\r\n";
        let (mut s, _) = session("", &[end]).await;
        let Err(ImapError::Throttled { retry_after, .. }) = s.noop().await else { panic!("not throttled") };
        assert_eq!(retry_after, Some(Duration::from_millis(5)));
    }
}
