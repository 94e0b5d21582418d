//! What a round of synchronisation writes: bulk statements over arrays, each transaction under the account's lease.
//!
//! - `tree`: mailboxes made, renamed, gone, reset
//! - `contents`: what proves that a mailbox is the one we know
//! - `bytes`: the sources of messages, ahead of their rows
//! - `ingest`: messages that arrived (`resolve` decides which row an arrival belongs to, `thread` which conversation)
//! - `lasting`: messages that are known by the server's own ids before their bytes are fetched
//! - `attempts`: messages that end a process or that the server cannot deliver, counted before they are looked into
//! - `flags`, `vanish`: what changed and what went
//! - `removal`: mailboxes that go with much in them, in portions
//! - `keep`: what of an account is kept here; `narrow`: how the rest leaves
//! - `relink`: placements carried over a new UIDVALIDITY
//! - `edits`: our users' edits of messages on their way to the server
//! - `pending`: their changes of the tree; `refusal`: what the server said to those of mailboxes it refused
//! - `checkpoint`: how far a mailbox is vouched for; `status`: states and causes clients see
//! - `audit`: the daily comparison with the server
//! - `view`: what the planner is told about our copy
//! - `reread`: stored mail that a newer parser reads again
//!
//! Rows and the checkpoint that vouches for them go in one transaction, so a process that dies resumes where it stopped.
//! Nothing here decides what to read or write next: that is `mail::sync`. Nothing here talks to a server. A new fact from
//! servers gets a file here, with functions that take a transaction from [`crate::queue::lease::Lease::begin`] and one
//! statement for a batch, never one for a row.

pub mod attempts;
pub mod audit;
pub mod bytes;
pub mod checkpoint;
pub mod contents;
pub mod edits;
pub mod flags;
pub mod ingest;
pub mod keep;
pub mod lasting;
pub mod narrow;
pub mod pending;
pub mod prepare;
pub mod refusal;
pub mod relink;
pub mod removal;
pub mod reread;
mod resolve;
pub mod status;
pub mod take_back;
mod thread;
pub mod tree;
pub mod vanish;
pub mod view;

use ::bytes::Bytes;
use chrono::{DateTime, Utc};
use mail::flags::{Flags, Keywords};
use mail::search_index::TsVector;
use mail::uid::Uid;

use crate::platform::id::{AccountId, MailboxId};

/// A mailbox in one of its generations; a new UIDVALIDITY begins a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The account.
    pub account: AccountId,
    /// The mailbox.
    pub mailbox: MailboxId,
    /// Which reading of its UIDs.
    pub generation: i32,
}

/// What the server said of one message, with its bytes and what was understood of them.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Where it stands in the mailbox.
    pub uid: Uid,
    /// System flags.
    pub flags: Flags,
    /// Keywords.
    pub keywords: Keywords,
    /// The server's mod-sequence; 0 when unknown.
    pub modseq: i64,
    /// When the server got it.
    pub internal_date: DateTime<Utc>,
    /// What the server calls it in every mailbox, if it tells.
    pub email_id: Option<String>,
    /// Its bytes are here, and were not fetched again: `hash` is theirs, `raw` and `content` are empty. It is a further place
    /// of a message or nothing.
    pub known: bool,
    /// Size as sent, also when `raw` was not kept.
    pub size_bytes: u64,
    /// The message as sent; empty when it was too large.
    pub raw: Bytes,
    /// SHA-256 of `raw`; of a message that was too large, a hash that stands for its bytes all the same.
    pub hash: [u8; 32],
    /// What a list shows, ready for its columns.
    pub content: Content,
}

/// The parsed columns of a message, without NUL characters; lists as JSON text.
#[derive(Debug, Clone, Default)]
pub struct Content {
    /// Message-ID, without angle brackets.
    pub message_id_header: Option<String>,
    /// In-Reply-To.
    pub in_reply_to: Vec<String>,
    /// References.
    pub refs: Vec<String>,
    /// Keys of the conversation: hashes of all ids above, or of the one the server has for it.
    pub thread_keys: Vec<[u8; 16]>,
    /// Where the server has an id for the conversation: hashes of the ids above. By them it finds what was stored before the
    /// server told its ids.
    pub header_keys: Vec<[u8; 16]>,
    /// Decoded Subject.
    pub subject: Option<String>,
    /// Subject without the marks of answers and forwards.
    pub thread_subject: Option<String>,
    /// JSON array of addresses.
    pub from: String,
    /// JSON array of addresses.
    pub to: String,
    /// JSON array of addresses.
    pub cc: String,
    /// JSON array of addresses.
    pub bcc: String,
    /// JSON array of addresses.
    pub reply_to: String,
    /// The Date header.
    pub date: Option<DateTime<Utc>>,
    /// It has no zone, or one that nobody knows.
    pub date_zone_unknown: bool,
    /// First words of the text.
    pub snippet: String,
    /// JSON array of attachments.
    pub attachments: String,
    /// At least one attachment that is not part of the text.
    pub has_attachments: bool,
    /// Could not be understood within the limits; only the bytes are complete.
    pub degraded: bool,
    /// Must not be looked into later either.
    pub never_parse: bool,
    /// Its words, when the text is to be searchable at once.
    pub tsvector: Option<TsVector>,
}

/// Dates outside 1970..2100 sort at the edge: servers and senders write 1901 and 2038 for none.
#[must_use]
pub fn sort_date(date: DateTime<Utc>) -> DateTime<Utc> {
    const YEAR_2100: i64 = 4_102_444_800;
    DateTime::from_timestamp(date.timestamp().clamp(0, YEAR_2100), 0)
        .map_or(date, |edge| if edge.timestamp() == date.timestamp() { date } else { edge })
}

#[cfg(test)]
mod tests {
    use super::sort_date;
    use chrono::DateTime;

    #[test]
    fn absurd_dates_sort_at_the_edges_and_others_keep_their_fraction() {
        let at = |s: &str| DateTime::parse_from_rfc3339(s).unwrap().to_utc();
        assert_eq!(sort_date(at("1901-12-13T20:45:52Z")), at("1970-01-01T00:00:00Z"));
        assert_eq!(sort_date(at("9999-01-01T00:00:00Z")), at("2100-01-01T00:00:00Z"));
        assert_eq!(sort_date(at("2024-05-06T07:08:09.123Z")), at("2024-05-06T07:08:09.123Z"));
    }
}
