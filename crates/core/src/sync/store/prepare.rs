//! From what the server sent to rows: hashing and parsing, which is processor work and must not run on async threads.

use aws_lc_rs::digest;
use chrono::{DateTime, Utc};
use mail::flags::{Flags, Keywords};
use mail::mime::ParsedMessage;
use mail::search_index::TsVector;
use mail::uid::Uid;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::{Content, Prepared, lasting};
use wire::imap::{FetchedMessage, LastingIds, Oversized};

/// A message as it came, before anybody looked into it.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Where it stands in the mailbox.
    pub uid: Uid,
    /// System flags.
    pub flags: Flags,
    /// Keywords.
    pub keywords: Keywords,
    /// The server's mod-sequence; 0 when unknown.
    pub modseq: i64,
    /// When the server got it; the present moment when it gave no date.
    pub internal_date: DateTime<Utc>,
    /// The message as sent.
    pub raw: bytes::Bytes,
    /// What is known of it, when it was too large to be kept and `raw` is empty.
    pub oversized: Option<Oversized>,
    /// What the server calls it in every mailbox.
    pub ids: Option<LastingIds>,
    /// The hash of its bytes, when they are here and were not fetched: `raw` is empty.
    pub known: Option<[u8; 32]>,
}

impl Arrival {
    /// What came, at the moment `now`; and what its bytes took of a budget, to be kept as long as they.
    #[must_use]
    pub fn of(m: FetchedMessage, now: DateTime<Utc>) -> (Self, Option<OwnedSemaphorePermit>) {
        let arrival = Self {
            uid: m.uid,
            flags: m.flags,
            keywords: m.keywords,
            modseq: m.modseq.map_or(0, |n| n.to_i64()),
            internal_date: m.internal_date.map_or(now, |d| d.to_utc()),
            raw: m.raw,
            oversized: m.oversized,
            ids: m.ids,
            known: m.known,
        };
        (arrival, m.permit)
    }
}

/// Whether a message is looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parse {
    /// Now.
    Now,
    /// Not now: the row is marked degraded.
    Not,
    /// Never: processes ended over it. The row is marked so, and no job looks for its text.
    Never,
}

/// What is done with a message beyond storing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether it is looked into.
    pub parse: Parse,
    /// Make its text searchable in the same transaction.
    pub index: bool,
}

/// Hashes and parses. Never fails: what cannot be understood is marked degraded.
#[must_use]
pub fn prepare(arrival: Arrival, options: Options) -> Prepared {
    let hash = arrival.known.unwrap_or_else(|| hash_of(&arrival));
    let mut content = match options.parse {
        _ if arrival.known.is_some() => empty(),
        Parse::Now if arrival.oversized.is_none() => content(&mail::mime::parse(&arrival.raw), options.index),
        Parse::Now | Parse::Not => Content { degraded: true, ..empty() },
        Parse::Never => {
            Content { degraded: true, never_parse: true, tsvector: Some(TsVector::empty()), ..empty() }
        }
    };
    let size_bytes = arrival.oversized.map_or(arrival.raw.len() as u64, |o| o.size_bytes);
    // The server's word on what belongs together goes before what the headers make of it.
    if let Some(key) = arrival.ids.and_then(lasting::thread_key) {
        content.header_keys = std::mem::replace(&mut content.thread_keys, vec![key]);
    }
    let email_id = arrival.ids.map(lasting::email_id);
    let Arrival { uid, flags, keywords, modseq, internal_date, raw, known, .. } = arrival;
    let known = known.is_some();
    Prepared { uid, flags, keywords, modseq, internal_date, email_id, known, size_bytes, raw, hash, content }
}

/// Of the bytes. Of a message that was not kept, of their hash: so it is known again wherever it is moved, and no bytes that
/// are kept, under a larger limit one day, are ever taken for its empty ones.
fn hash_of(arrival: &Arrival) -> [u8; 32] {
    match arrival.oversized {
        // Not sha2 0.11, which without SHA instructions took an eighth of all work of a first synchronisation.
        None => {
            let mut hash = [0; 32];
            hash.copy_from_slice(digest::digest(&digest::SHA256, &arrival.raw).as_ref());
            hash
        }
        Some(oversized) => {
            Sha256::new().chain_update("oversized ").chain_update(oversized.hash).finalize().into()
        }
    }
}

fn empty() -> Content {
    let list = || "[]".to_owned();
    Content {
        from: list(),
        to: list(),
        cc: list(),
        bcc: list(),
        reply_to: list(),
        attachments: list(),
        ..Content::default()
    }
}

/// The columns of a parsed message.
#[must_use]
pub fn content(message: &ParsedMessage, index: bool) -> Content {
    Content {
        message_id_header: message.message_id.clone(),
        in_reply_to: message.in_reply_to.clone(),
        refs: message.references.clone(),
        thread_keys: thread_keys(message),
        header_keys: Vec::new(),
        subject: message.subject.clone(),
        thread_subject: message.subject.as_deref().map(mail::thread::base_subject),
        from: json(&message.from),
        to: json(&message.to),
        cc: json(&message.cc),
        bcc: json(&message.bcc),
        reply_to: json(&message.reply_to),
        date: message.date,
        date_zone_unknown: message.date_zone_unknown,
        snippet: message.snippet.clone(),
        attachments: json(&message.attachments),
        has_attachments: message.has_attachments,
        degraded: message.degraded,
        never_parse: false,
        tsvector: index.then(|| crate::domain::search::index::tsvector(message)),
    }
}

fn json<T: Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).unwrap_or_else(|_| "[]".to_owned())
}

fn thread_keys(message: &ParsedMessage) -> Vec<[u8; 16]> {
    mail::thread::thread_keys(message).iter().filter_map(|id| key_of(id)).collect()
}

/// First half of the hash: an id of any length costs the same in the index.
pub(super) fn key_of(id: &str) -> Option<[u8; 16]> {
    Sha256::digest(id.as_bytes()).first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(raw: &'static str) -> Arrival {
        Arrival {
            uid: Uid::MIN,
            flags: Flags::NONE,
            keywords: Keywords::new(),
            modseq: 0,
            internal_date: DateTime::UNIX_EPOCH,
            raw: raw.into(),
            oversized: None,
            ids: None,
            known: None,
        }
    }

    #[test]
    fn the_servers_word_on_a_conversation_goes_before_the_headers() {
        let all = Options { parse: Parse::Now, index: false };
        let raw = "Message-ID: <a@x.example>\r\nReferences: <b@x.example>\r\n\r\nhello";
        let ids = |message, thread| Some(LastingIds { message, thread });
        let of = |ids| prepare(Arrival { ids, ..arrival(raw) }, all);
        assert_eq!(of(ids(1, 7)).content.thread_keys.len(), 1);
        assert_eq!(of(ids(1, 7)).content.thread_keys, of(ids(2, 7)).content.thread_keys);
        assert_ne!(of(ids(1, 7)).content.thread_keys, of(ids(1, 8)).content.thread_keys);
        assert_eq!(of(None).content.thread_keys.len(), 2);
        let known = prepare(Arrival { ids: ids(1, 7), known: Some([3; 32]), ..arrival("") }, all);
        assert_eq!((known.hash, known.known, known.email_id.as_deref()), ([3; 32], true, Some("gm:1")));
    }

    #[test]
    fn a_reply_shares_a_key_with_what_it_answers() {
        let all = Options { parse: Parse::Now, index: true };
        let first = prepare(arrival("Message-ID: <a@x.example>\r\nSubject: Hi\r\n\r\nhello"), all);
        let reply = prepare(
            arrival("Message-ID: <b@x.example>\r\nReferences: <a@x.example>\r\nSubject: Re: Hi\r\n\r\nworld"),
            all,
        );
        assert_eq!(first.content.thread_keys.len(), 1);
        assert!(reply.content.thread_keys.contains(&first.content.thread_keys[0]));
        assert!(reply.content.tsvector.unwrap().to_string().contains("world"));
        assert_ne!(first.hash, reply.hash);
    }

    #[test]
    fn without_parsing_the_bytes_are_all_there_is() {
        let raw = prepare(arrival("Subject: Hi\r\n\r\nhello"), Options { parse: Parse::Not, index: false });
        assert!(raw.content.degraded && raw.content.subject.is_none() && raw.content.tsvector.is_none());
        assert_eq!(raw.content.from, "[]");
        let never =
            prepare(arrival("Subject: Hi\r\n\r\nhello"), Options { parse: Parse::Never, index: false });
        assert_eq!(never.content.tsvector, Some(TsVector::empty()), "no job may look into it later");
    }
}
