//! From what the server sent to rows: hashing and parsing, which is processor work and must not run on async threads.

use chrono::{DateTime, Utc};
use mail::address::Address;
use mail::flags::{Flags, Keywords};
use mail::mime::ParsedMessage;
use mail::search_index::{Document, TSVECTOR_MAX_BYTES, tsvector_text};
use mail::uid::Uid;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Content, Prepared};

/// References beyond these say nothing new of a conversation: the first, which names it, and the newest.
const MAX_THREAD_KEYS: usize = 64;

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
}

/// What is done with a message beyond storing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Look into it; without, only headers are understood later by nobody and the row is marked degraded.
    pub parse: bool,
    /// Make its text searchable in the same transaction.
    pub index: bool,
}

/// Hashes and parses. Never fails: what cannot be understood is marked degraded.
#[must_use]
pub fn prepare(arrival: Arrival, options: Options) -> Prepared {
    let hash: [u8; 32] = Sha256::digest(&arrival.raw).into();
    let content = if options.parse {
        content(&mail::mime::parse(&arrival.raw), options.index)
    } else {
        Content { degraded: true, ..empty() }
    };
    let Arrival { uid, flags, keywords, modseq, internal_date, raw } = arrival;
    Prepared { uid, flags, keywords, modseq, internal_date, email_id: None, raw, hash, content }
}

fn empty() -> Content {
    let list = || "[]".to_owned();
    Content { from: list(), to: list(), cc: list(), bcc: list(), reply_to: list(), attachments: list(), ..Content::default() }
}

/// The columns of a parsed message.
#[must_use]
pub fn content(message: &ParsedMessage, index: bool) -> Content {
    Content {
        message_id_header: message.message_id.clone(),
        in_reply_to: message.in_reply_to.clone(),
        refs: message.references.clone(),
        thread_keys: thread_keys(message),
        subject: message.subject.clone(),
        from: json(&message.from),
        to: json(&message.to),
        cc: json(&message.cc),
        bcc: json(&message.bcc),
        reply_to: json(&message.reply_to),
        date: message.date,
        snippet: message.snippet.clone(),
        attachments: json(&message.attachments),
        has_attachments: message.has_attachments,
        degraded: message.degraded,
        tsvector: index.then(|| tsvector(message)),
    }
}

/// The text index of a message, as a literal to be cast.
#[must_use]
pub fn tsvector(message: &ParsedMessage) -> String {
    fn people(list: &[Address]) -> Vec<&str> {
        list.iter().flat_map(|a| a.name.as_deref().into_iter().chain([a.address.as_str()])).collect()
    }
    let document = Document {
        subject: message.subject.as_deref().unwrap_or_default(),
        from: people(&message.from),
        to: people(&message.to),
        cc: people(&message.cc),
        bcc: people(&message.bcc),
        list_id: message.list_id.as_deref().unwrap_or_default(),
        filenames: message.attachments.iter().filter_map(|a| a.filename.as_deref()).collect(),
        body: &message.text,
    };
    tsvector_text(&document, TSVECTOR_MAX_BYTES)
}

fn json<T: Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).unwrap_or_else(|_| "[]".to_owned())
}

/// Hashes of the ids that connect the message with others.
fn thread_keys(message: &ParsedMessage) -> Vec<[u8; 16]> {
    let (first, rest) = message.references.split_at(message.references.len().min(1));
    let newest = rest.iter().rev().take(MAX_THREAD_KEYS);
    let ids = message.message_id.iter().chain(&message.in_reply_to).chain(first).chain(newest);
    let mut keys: Vec<[u8; 16]> = ids.filter(|id| !id.is_empty()).take(2 * MAX_THREAD_KEYS).map(|id| key_of(id)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn key_of(id: &str) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(id.as_bytes()).into();
    let mut key = [0; 16];
    for (to, from) in key.iter_mut().zip(digest) {
        *to = from;
    }
    key
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
        }
    }

    #[test]
    fn a_reply_shares_a_key_with_what_it_answers() {
        let all = Options { parse: true, index: true };
        let first = prepare(arrival("Message-ID: <a@x>\r\nSubject: Hi\r\n\r\nhello"), all);
        let reply = prepare(arrival("Message-ID: <b@x>\r\nReferences: <a@x>\r\nSubject: Re: Hi\r\n\r\nworld"), all);
        assert_eq!(first.content.thread_keys.len(), 1);
        assert!(reply.content.thread_keys.contains(&first.content.thread_keys[0]));
        assert!(reply.content.tsvector.unwrap().contains("world"));
        assert_ne!(first.hash, reply.hash);
    }

    #[test]
    fn without_parsing_the_bytes_are_all_there_is() {
        let raw = prepare(arrival("Subject: Hi\r\n\r\nhello"), Options { parse: false, index: false });
        assert!(raw.content.degraded && raw.content.subject.is_none() && raw.content.tsvector.is_none());
        assert_eq!(raw.content.from, "[]");
    }
}
