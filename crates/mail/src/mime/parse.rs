//! A message as storage and as a reader want it. Neither function fails or panics.

use std::panic::catch_unwind;

use chrono::{DateTime, Utc};
use mail_parser::{HeaderName, HeaderValue, MessageParser};
use serde::{Deserialize, Serialize};

use super::attachment::{self, AttachmentMeta, Layout};
use super::header::{OnLimit, RawHeader, Reader, normalized, unfold};
use super::structure::{self, Part};
use super::{date, html, text, transfer};
use crate::address::{Address, clean_text};

/// Text kept for the index; what follows is in the raw message only.
const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// Longest Message-ID kept (RFC 5322 line limit).
const MAX_ID_BYTES: usize = 998;
/// References kept: the first, which names the thread, and the newest.
const MAX_REFERENCES: usize = 200;
/// Longest subject kept, in bytes.
const MAX_SUBJECT_BYTES: usize = 8 * 1024;

/// What is stored of a message. No text in it holds NUL, so all of it can be stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParsedMessage {
    /// Message-ID without angle brackets.
    pub message_id: Option<String>,
    /// In-Reply-To, without angle brackets.
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
    /// List-Id without name and angle brackets.
    pub list_id: Option<String>,
    /// In the order of the message.
    pub attachments: Vec<AttachmentMeta>,
    /// Whether there is an attachment beside images that the HTML shows itself.
    pub has_attachments: bool,
    /// Up to 200 characters of the text, on one line.
    pub snippet: String,
    /// Text for the index, at most 1 MiB; that of the HTML where there is no plain text.
    pub text: String,
    /// The message was beyond a limit or broke the parser: there are headers at most.
    pub degraded: bool,
}

/// What a reader sees of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// The plain text parts, one after the other; `None` if there is none.
    pub text: Option<String>,
    /// The first HTML part as it came: sanitise it before showing. `None` if there is none.
    pub html: Option<String>,
    /// All header fields in order, unfolded and decoded.
    pub headers: Vec<(String, String)>,
}

/// Reads a message for storage.
#[must_use]
pub fn parse(raw: &[u8]) -> ParsedMessage {
    match catch_unwind(|| structure::walk(raw).map(|parts| whole(raw, &parts))) {
        Ok(Ok(message)) => message,
        Ok(Err(_)) | Err(_) => degraded(raw),
    }
}

/// Reads a message for showing. Beyond the limits there are headers only.
#[must_use]
pub fn body(raw: &[u8]) -> Body {
    let full = catch_unwind(|| {
        structure::walk(raw).map(|parts| {
            let layout = Layout::new(&parts);
            let texts = text_of(raw, &parts, &layout, usize::MAX);
            Body {
                text: texts,
                html: layout.html.and_then(|i| decoded(raw, parts.get(i)?, usize::MAX)),
                headers: parts.first().map(|p| readable(&p.headers)).unwrap_or_default(),
            }
        })
    });
    match full {
        Ok(Ok(body)) => body,
        Ok(Err(_)) | Err(_) => {
            let headers = catch_unwind(|| readable(&first_block(raw))).unwrap_or_default();
            Body { headers, ..Body::default() }
        }
    }
}

fn whole(raw: &[u8], parts: &[Part<'_>]) -> ParsedMessage {
    let mut message = parts.first().map(|p| from_headers(&p.headers)).unwrap_or_default();
    let layout = Layout::new(parts);
    let html = layout.html.and_then(|i| decoded(raw, parts.get(i)?, MAX_TEXT_BYTES));
    let plain = text_of(raw, parts, &layout, MAX_TEXT_BYTES).filter(|t| !t.trim().is_empty());
    message.text = match (plain, &html) {
        (Some(plain), _) => plain,
        (None, Some(html)) => text::truncate(html::to_text(html), MAX_TEXT_BYTES),
        (None, None) => String::new(),
    };
    message.snippet = text::snippet(&message.text);
    let listed = attachment::list(raw, parts, &layout, html.as_deref());
    message.has_attachments = listed.iter().any(|(_, shown)| !shown);
    message.attachments = listed.into_iter().map(|(meta, _)| meta).collect();
    message
}

fn degraded(raw: &[u8]) -> ParsedMessage {
    let message = catch_unwind(|| from_headers(&first_block(raw))).unwrap_or_default();
    ParsedMessage { degraded: true, ..message }
}

fn first_block(raw: &[u8]) -> Vec<RawHeader<'_>> {
    let reader = Reader { on_limit: OnLimit::Stop, top: true, is_boundary: &|_| false };
    reader.read(raw, 0).map(|b| b.headers).unwrap_or_default()
}

/// The decoded text of a part; of more than `max_bytes` only the beginning is decoded.
fn decoded(raw: &[u8], part: &Part<'_>, max_bytes: usize) -> Option<String> {
    let encoded = raw.get(part.body.clone())?;
    // Encoded text is at most three times as long, so this much is enough to fill the limit.
    let encoded = encoded.get(..max_bytes.saturating_mul(3)).unwrap_or(encoded);
    let bytes = transfer::decode(encoded, part.info.transfer);
    Some(text::truncate(text::decode(&bytes, part.info.charset.as_deref()), max_bytes))
}

fn text_of(raw: &[u8], parts: &[Part<'_>], layout: &Layout, max_bytes: usize) -> Option<String> {
    let mut out: Option<String> = None;
    for part in layout.texts.iter().filter_map(|&i| parts.get(i)) {
        // A message without any body has an empty text part in the tree, but no text to speak of.
        if part.body.is_empty() && parts.len() > 1 {
            continue;
        }
        let room = max_bytes.saturating_sub(out.as_ref().map_or(0, String::len));
        if room == 0 {
            break;
        }
        let next = decoded(raw, part, room)?;
        out = Some(match out {
            Some(before) => before + "\n" + &next,
            None => next,
        });
    }
    out.map(|t| text::truncate(t, max_bytes))
}

fn from_headers(headers: &[RawHeader<'_>]) -> ParsedMessage {
    let find = |name: &str| headers.iter().find(|h| h.is(name)).map(|h| unfold(h.value));
    let mut message = ParsedMessage {
        message_id: find("message-id").and_then(|v| ids(&v, true).into_iter().next()),
        in_reply_to: find("in-reply-to").map(|v| ids(&v, false)).unwrap_or_default(),
        references: find("references").map(|v| ids(&v, false)).unwrap_or_default(),
        date: find("date").and_then(|v| date::parse(&v)),
        list_id: find("list-id").and_then(|v| list_id(&v)),
        ..ParsedMessage::default()
    };
    const DECODED: [&str; 6] = ["from", "to", "cc", "bcc", "reply-to", "subject"];
    let block = normalized(headers, |h| DECODED.iter().any(|n| h.is(n)));
    let Some(parsed) = MessageParser::default().parse_headers(&block) else { return message };
    for header in parsed.headers() {
        let list = match header.name {
            HeaderName::From => &mut message.from,
            HeaderName::To => &mut message.to,
            HeaderName::Cc => &mut message.cc,
            HeaderName::Bcc => &mut message.bcc,
            HeaderName::ReplyTo => &mut message.reply_to,
            HeaderName::Subject => {
                if message.subject.is_none() {
                    message.subject = header.value.as_text().map(|s| line(s, MAX_SUBJECT_BYTES));
                }
                continue;
            }
            _ => continue,
        };
        list.extend(addresses(&header.value));
    }
    message
}

fn addresses(value: &HeaderValue<'_>) -> Vec<Address> {
    let HeaderValue::Address(list) = value else { return Vec::new() };
    list.iter().filter_map(|a| Address::received(a.name(), a.address()?)).collect()
}

/// One line without control characters; direction marks stay, a subject may need them.
fn line(value: &str, max_bytes: usize) -> String {
    let spaced: String =
        value.chars().map(|c| if matches!(c, '\t' | '\r' | '\n') { ' ' } else { c }).collect();
    let kept: String = spaced.chars().filter(|c| !c.is_control()).collect();
    text::truncate(kept.trim().to_owned(), max_bytes)
}

/// Message-IDs of a field: what stands in angle brackets; without any, words with an `@`, or (for a
/// Message-ID, `bare`) the whole value.
fn ids(value: &str, bare: bool) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('<') {
        let Some((id, tail)) = after.split_once('>') else { break };
        found.extend(id_text(id.rsplit_once('<').map_or(id, |(_, i)| i)));
        rest = tail;
    }
    if found.is_empty() {
        let words = value.split(|c: char| c.is_whitespace() || c == ',').filter(|w| w.contains('@'));
        found = words.filter_map(|w| id_text(w.trim_matches(['<', '>', '"', ';']))).collect();
    }
    if found.is_empty() && bare {
        found.extend(id_text(value.trim().trim_matches(['<', '>'])));
    }
    let mut unique: Vec<String> = Vec::with_capacity(found.len().min(MAX_REFERENCES));
    let skipped = found.len().saturating_sub(MAX_REFERENCES);
    for (i, id) in found.into_iter().enumerate() {
        if (i == 0 || i > skipped) && !unique.contains(&id) {
            unique.push(id);
        }
    }
    unique
}

fn id_text(id: &str) -> Option<String> {
    let id: String = id.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    (!id.is_empty() && id.len() <= MAX_ID_BYTES).then_some(id)
}

fn list_id(value: &str) -> Option<String> {
    let inner = value.rsplit_once('<').and_then(|(_, r)| r.split_once('>')).map_or(value, |(id, _)| id);
    Some(clean_text(inner, 255)).filter(|id| !id.is_empty())
}

/// Every field decoded as unstructured text.
fn readable(headers: &[RawHeader<'_>]) -> Vec<(String, String)> {
    let parser = MessageParser::default();
    let show = |h: &RawHeader<'_>| {
        // One by one: a value that the parser loses must not shift the names of the others.
        let value = unfold(h.value);
        let decoded = value.contains("=?").then(|| {
            let block = normalized(&[RawHeader { name: b"Comments", value: value.as_bytes() }], |_| true);
            parser.parse_headers(&block).and_then(|m| m.headers().first()?.value.as_text().map(str::to_owned))
        });
        let value = decoded.flatten().unwrap_or(value);
        (String::from_utf8_lossy(h.name).into_owned(), line(&value, usize::MAX))
    };
    headers.iter().map(show).collect()
}

#[cfg(test)]
mod tests;
