//! A message as storage and as a reader want it. Neither function fails or panics.

use std::collections::HashSet;
use std::panic::catch_unwind;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::attachment::{self, AttachmentMeta};
use super::body::Reading;
use super::charset::Fallback;
use super::header::{RawHeader, Reader};
use super::limits::MAX_ADDRESSES;
use super::structure::{self, Tree};
use super::{date, ids, mailboxes, text, words};
use crate::address::{Address, clean_text};

/// Text kept for the index; what follows is in the raw message only.
const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// Longest subject kept, in bytes.
const MAX_SUBJECT_BYTES: usize = 8 * 1024;

/// What is stored of a message. No text in it holds NUL, so all of it can be stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParsedMessage {
    /// Message-ID without angle brackets.
    pub message_id: Option<String>,
    /// In-Reply-To, without angle brackets; addresses of people that some programs put there are left out.
    pub in_reply_to: Vec<String>,
    /// References, oldest first, without angle brackets.
    pub references: Vec<String>,
    /// Decoded, on one line.
    pub subject: Option<String>,
    /// From.
    pub from: Vec<Address>,
    /// To; members of groups stand among the others.
    pub to: Vec<Address>,
    /// Cc.
    pub cc: Vec<Address>,
    /// Bcc (in drafts and sent copies of some clients).
    pub bcc: Vec<Address>,
    /// Reply-To.
    pub reply_to: Vec<Address>,
    /// Date, if it can be read.
    pub date: Option<DateTime<Utc>>,
    /// The date has no zone, or one that nobody knows: it is the sender's clock read as UTC.
    pub date_zone_unknown: bool,
    /// List-Id without name and angle brackets.
    pub list_id: Option<String>,
    /// In the order of the message.
    pub attachments: Vec<AttachmentMeta>,
    /// Whether there is an attachment beside what the HTML shows itself and what programs attach for programs.
    pub has_attachments: bool,
    /// Up to 200 characters of the text, on one line.
    pub snippet: String,
    /// Text for the index, at most 1 MiB: all that is shown, in its order; of HTML where there is no plain text.
    pub text: String,
    /// Text of attached messages, for the index only; together with `text` at most 1 MiB.
    pub attached_text: String,
    /// The message was beyond a limit or broke the parser: there is what came before that.
    pub degraded: bool,
}

/// Reads a message for storage.
#[must_use]
pub fn parse(raw: &[u8]) -> ParsedMessage {
    catch_unwind(|| whole(raw, &structure::walk(raw))).unwrap_or_else(|_| degraded(raw))
}

fn whole(raw: &[u8], tree: &Tree<'_>) -> ParsedMessage {
    let mut message = tree.parts.first().map(|p| from_headers(&p.headers, tree.fallback)).unwrap_or_default();
    let reading = Reading::new(raw, tree);
    message.text = reading.index_text(MAX_TEXT_BYTES);
    message.attached_text = reading.attached_text(MAX_TEXT_BYTES.saturating_sub(message.text.len()));
    message.snippet = text::snippet(&message.text);
    let listed = attachment::list(raw, tree, &reading.layout);
    let shown = reading.shown_pictures(&listed);
    message.has_attachments = listed.iter().any(|l| !l.uncounted && !shown.contains(&l.meta.index));
    message.attachments = listed.into_iter().map(|l| l.meta).collect();
    for meta in &mut message.attachments {
        meta.inline |= shown.contains(&meta.index);
    }
    message.degraded = tree.limited.is_some();
    message
}

fn degraded(raw: &[u8]) -> ParsedMessage {
    let headers = || from_headers(&first_block(raw), Fallback::default());
    let message = catch_unwind(headers).unwrap_or_default();
    ParsedMessage { degraded: true, ..message }
}

pub(super) fn first_block(raw: &[u8]) -> Vec<RawHeader<'_>> {
    Reader { top: true, is_boundary: &|_| false }.read(raw, 0).headers
}

fn from_headers(headers: &[RawHeader<'_>], fallback: Fallback) -> ParsedMessage {
    let find = |name: &str| headers.iter().find(|h| h.is(name)).map(|h| words::unfold(h.value, fallback));
    // A list that somebody split over two fields (RFC 5322 §3.6 forbids it) is still all of it.
    let people = |name: &str| -> Vec<Address> {
        let fields = headers.iter().filter(|h| h.is(name));
        fields.flat_map(|h| mailboxes::read(h.value, fallback)).take(MAX_ADDRESSES).collect()
    };
    let written = find("date").and_then(|v| date::parse(&v));
    let mut message = ParsedMessage {
        message_id: find("message-id").and_then(|v| ids::list(&v, true).into_iter().next()),
        references: find("references").map(|v| ids::list(&v, false)).unwrap_or_default(),
        subject: super::header::first(headers, "subject")
            .map(|v| line(&words::decode(v, fallback), MAX_SUBJECT_BYTES)),
        from: people("from"),
        to: people("to"),
        cc: people("cc"),
        bcc: people("bcc"),
        reply_to: people("reply-to"),
        date: written.map(|w| w.at),
        date_zone_unknown: written.is_some_and(|w| !w.zone_known),
        list_id: find("list-id").and_then(|v| list_id(&v)),
        ..ParsedMessage::default()
    };
    if let Some(value) = find("in-reply-to") {
        let known = [&message.from, &message.to, &message.cc, &message.reply_to];
        let known: HashSet<String> = known
            .into_iter()
            .flatten()
            .filter(|a| a.has_address())
            .map(|a| a.address.to_lowercase())
            .collect();
        let is_person = |id: &str| known.contains(&id.to_lowercase());
        message.in_reply_to = ids::answered(&value).into_iter().filter(|id| !is_person(id)).collect();
    }
    message
}

/// One line without control characters; direction marks stay, a subject may need them.
pub(super) fn line(value: &str, max_bytes: usize) -> String {
    // Most values have no control character; those beyond ASCII begin with C2.
    if !value.bytes().any(|b| b.is_ascii_control() || b == 0xc2) {
        return text::truncate(value.trim().to_owned(), max_bytes);
    }
    let spaced = value.chars().map(|c| if matches!(c, '\t' | '\r' | '\n') { ' ' } else { c });
    let kept: String = spaced.filter(|c| !c.is_control()).collect();
    text::truncate(kept.trim().to_owned(), max_bytes)
}

fn list_id(value: &str) -> Option<String> {
    let inner = value.rsplit_once('<').and_then(|(_, r)| r.split_once('>')).map_or(value, |(id, _)| id);
    Some(clean_text(inner, 255)).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests;
