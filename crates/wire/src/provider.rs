//! What each large provider allows, and how it behaves at its limits. One row a provider, found by the host; whatever reads
//! a limit reads it here.
//!
//! The next provider: a row of [`TABLE`], and the test at the end. Numbers that no document of a provider gives say so.

use std::time::Duration;

use crate::imap::{ImapError, Limit};

/// How a provider takes what a client is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provider {
    /// As people call it.
    pub name: &'static str,
    /// Its hosts are these, or stand below them.
    hosts: &'static [&'static str],
    /// Connections to one mailbox that its IMAP server allows, by all programs together.
    pub imap_allows: Option<u16>,
    /// Those of them that are ours at most: the round, the watch and all places.
    pub imap_connections: u16,
    /// Connections of one mailbox to its submission server that are ours at most.
    pub smtp_connections: u16,
    /// Log-ins a second of one process, where it takes fewer than the settings allow.
    pub log_ins_per_second: u32,
    /// Bytes of one mailbox that may be read in a day.
    pub volume: Option<&'static str>,
    /// How long it refuses everything once that is reached: the first wait, and the longest.
    pub volume_pause: (Duration, Duration),
    /// Who files the copy of what is sent: see [`sent_copy`].
    sent_copy: SentCopy,
    /// The hosts that file it, where it is not all of them.
    filing: &'static [&'static str],
    /// For so long it may refuse tokens that its own authorization server has just given.
    pub refuses_good_tokens_for: Option<Duration>,
}

/// Who puts the copy of what is sent into Sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentCopy {
    /// We do.
    Ours,
    /// The provider does, always.
    Theirs,
    /// The provider does, unless a setting of the mailbox says otherwise: it is looked for first, this long after it was sent.
    TheirsMostly(Duration),
}

/// Between tries with tokens that are good, while the server does not know of it yet: the first wait and the longest.
pub const TOKEN_PATIENCE: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(900));

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Everybody else.
const OTHER: Provider = Provider {
    name: "The mail server",
    hosts: &[],
    imap_allows: None,
    imap_connections: 6,
    smtp_connections: 4,
    log_ins_per_second: u32::MAX,
    volume: None,
    volume_pause: (MINUTE, Duration::from_secs(1800)),
    sent_copy: SentCopy::Ours,
    filing: &[],
    refuses_good_tokens_for: None,
};

const TABLE: [Provider; 3] = [
    // Google's help pages: 15 connections, 2,500 MB read by IMAP in a day, then locked for an hour as a rule and a day at most.
    Provider {
        name: "Gmail",
        hosts: &["gmail.com", "googlemail.com"],
        imap_allows: Some(15),
        imap_connections: 10,
        volume: Some("2.5 GB"),
        volume_pause: (HOUR, DAY),
        sent_copy: SentCopy::Theirs,
        // smtp-relay.gmail.com files nothing.
        filing: &["smtp.gmail.com", "smtp.googlemail.com"],
        ..OTHER
    },
    // Exchange Online's documents: 3 connections for submission. 20 for IMAP is what its users report. A licence that was
    // changed takes an hour to arrive, says its support.
    Provider {
        name: "Microsoft",
        hosts: &["office365.com", "outlook.com", "hotmail.com", "office.com"],
        imap_allows: Some(20),
        imap_connections: 8,
        smtp_connections: 3,
        // Shared mailboxes (MessageCopyForSentAsEnabled) and some old ones have none.
        sent_copy: SentCopy::TheirsMostly(MINUTE),
        refuses_good_tokens_for: Some(HOUR),
        ..OTHER
    },
    // 5 connections are what users report, and log-ins that come quickly are refused ("Rate limit hit").
    Provider {
        name: "Yahoo",
        hosts: &["mail.yahoo.com", "mail.yahoo.co.jp", "aol.com"],
        imap_allows: Some(5),
        imap_connections: 4,
        smtp_connections: 2,
        log_ins_per_second: 2,
        ..OTHER
    },
];

/// Who files the copy of what is sent by way of the submission server `host`; `labels`: of an account whose mail is in Gmail.
/// Its submission server may be another one, or Gmail's under another name: then it is looked for first.
#[must_use]
pub fn sent_copy(host: &str, labels: bool) -> SentCopy {
    let provider = of(host);
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let files = provider.filing.is_empty() || provider.filing.contains(&host.as_str());
    match provider.sent_copy {
        SentCopy::Theirs if !files => SentCopy::TheirsMostly(MINUTE),
        SentCopy::Ours if labels => SentCopy::TheirsMostly(MINUTE),
        other => other,
    }
}

/// The provider behind a host.
#[must_use]
pub fn of(host: &str) -> &'static Provider {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let is =
        |name: &&str| host.strip_suffix(*name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    TABLE.iter().find(|p| p.hosts.iter().any(&is)).unwrap_or(&OTHER)
}

impl Provider {
    /// How long to wait at its limit, where it has bounds of its own: the first wait and the longest.
    #[must_use]
    pub fn pause(&self, error: &ImapError) -> Option<(Duration, Duration)> {
        (error.limit() == Some(Limit::Volume)).then_some(self.volume_pause)
    }

    /// What a person reads about the limit that `error` met; `None`: it is none.
    #[must_use]
    pub fn sentence(&self, error: &ImapError) -> Option<String> {
        let name = self.name;
        Some(match error.limit()? {
            Limit::Connections => {
                let allows = self.imap_allows.map_or("no more".to_owned(), |n| format!("{n}"));
                format!(
                    "{name} allows {allows} connections to this mailbox at once, and others have them: close other mail programs, or wait. It is tried again by itself."
                )
            }
            Limit::Volume => {
                let of =
                    self.volume.map_or("how much".to_owned(), |volume| format!("to {volume} a day what"));
                format!(
                    "{name} limits {of} may be read of this mailbox, and that is reached. Reading goes on by itself; nothing is lost."
                )
            }
            Limit::Mailbox => format!(
                "{name} let us in and does not open the mailbox at present, as after a change of its licence or when asked too often. It is tried again by itself."
            ),
            Limit::Pace => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled(code: Option<&str>, text: &str) -> ImapError {
        ImapError::Throttled { retry_after: None, code: code.map(str::to_owned), text: text.to_owned() }
    }

    #[test]
    fn hosts_belong_to_their_provider_and_look_alikes_to_nobody() {
        for (host, name) in [
            ("imap.gmail.com", "Gmail"),
            ("SMTP.GoogleMail.com.", "Gmail"),
            ("outlook.office365.com", "Microsoft"),
            ("imap-mail.outlook.com", "Microsoft"),
            ("imap.mail.yahoo.com", "Yahoo"),
            ("imap.aol.com", "Yahoo"),
            ("imap.gmail.com.evil.example", OTHER.name),
            ("notgmail.com", OTHER.name),
            ("", OTHER.name),
        ] {
            assert_eq!(of(host).name, name, "{host}");
        }
    }

    #[test]
    fn a_copy_is_left_to_those_alone_who_file_it() {
        let looked_for = SentCopy::TheirsMostly(MINUTE);
        for (host, labels, who) in [
            ("smtp.gmail.com", true, SentCopy::Theirs),
            ("SMTP.googlemail.com.", false, SentCopy::Theirs),
            ("smtp-relay.gmail.com", true, looked_for),
            ("smtp-relay.gmail.com", false, looked_for),
            ("relay.company.example", true, looked_for),
            ("relay.company.example", false, SentCopy::Ours),
            ("smtp.office365.com", false, looked_for),
        ] {
            assert_eq!(sent_copy(host, labels), who, "{host} {labels}");
        }
    }

    #[test]
    fn ours_are_fewer_than_a_provider_allows_and_leave_room_for_a_round_and_a_watch() {
        for provider in TABLE.iter().chain([&OTHER]) {
            assert!(provider.imap_allows.is_none_or(|allows| provider.imap_connections < allows));
            assert!(provider.imap_connections > 2 && provider.smtp_connections > 0);
            assert!(provider.log_ins_per_second > 0 && provider.volume_pause.0 <= provider.volume_pause.1);
        }
        assert_eq!(of("imap.gmail.com").imap_connections, 10);
    }

    #[test]
    fn limits_are_said_in_words_and_waited_out_as_the_provider_does() {
        let gmail = of("imap.gmail.com");
        let many = throttled(Some("ALERT"), "Too many simultaneous connections. (Failure)");
        assert!(gmail.sentence(&many).unwrap().starts_with("Gmail allows 15 connections"));
        assert_eq!(gmail.pause(&many), None);
        let volume = throttled(Some("OVERQUOTA"), "Account exceeded command or bandwidth limits.");
        assert!(gmail.sentence(&volume).unwrap().contains("2.5 GB a day"));
        assert_eq!(gmail.pause(&volume), Some((HOUR, DAY)));
        assert!(OTHER.sentence(&volume).unwrap().contains("how much may be read"));
        let closed = throttled(None, "User is authenticated but not connected.");
        assert!(of("outlook.office365.com").sentence(&closed).unwrap().starts_with("Microsoft let us in"));
        assert_eq!(gmail.sentence(&throttled(Some("UNAVAILABLE"), "later")), None);
        assert_eq!(gmail.sentence(&ImapError::Timeout), None);
    }
}
