//! Draft to bytes.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use chrono::{DateTime, Utc};
use mail_builder::MessageBuilder;
use mail_builder::headers::HeaderType;
use mail_builder::headers::address::Address as BuilderAddress;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::message_id::MessageId;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;
use mail_builder::mime::{BodyPart, MimePart};
use sha2::{Digest as _, Sha256};

use super::{ComposeError, Draft, DraftAttachment, is_id};
use crate::address::{Address, mailbox_key, with_ascii_domain};
use crate::mime::html::to_text_limited;
use crate::mime::safe_filename;
use crate::mime::text::to_crlf;

/// References written: the first, which names the thread, and the newest.
const MAX_REFERENCES: usize = 100;
/// Base64 per line (RFC 2045 §6.8).
const BASE64_LINE: usize = 76;

/// The message: CRLF only, no Bcc, at most 7-bit lines but for an attached message. Equal arguments give equal
/// bytes. `message_id` is without angle brackets; `boundary_seed` should be random, so that a text cannot have
/// been written to hold the boundary.
///
/// # Errors
/// [`ComposeError`] as [`Draft::check`] says, and for an unusable `message_id`.
pub fn build(
    draft: &Draft,
    message_id: &str,
    date: DateTime<Utc>,
    boundary_seed: &[u8],
) -> Result<Vec<u8>, ComposeError> {
    draft.check()?;
    if !is_id(message_id) {
        return Err(ComposeError::InvalidHeader { name: "message_id".to_owned() });
    }
    let mut boundaries = Boundaries { seed: boundary_seed, used: 0 };
    let body = body(draft, &mut boundaries);
    let mut message = headers(draft, message_id, date);
    message.body = Some(body);
    let mut out = Vec::new();
    message.serialize(&mut out);
    Ok(out)
}

fn headers<'d>(draft: &'d Draft, message_id: &'d str, date: DateTime<Utc>) -> MessageBuilder<'d> {
    let mut m = MessageBuilder::new()
        .header("Date", HeaderType::Date(Date::new(date.timestamp())))
        .header("From", addresses(std::slice::from_ref(&draft.from)));
    if !draft.reply_to.is_empty() {
        m = m.header("Reply-To", addresses(&draft.reply_to));
    }
    if !draft.to.is_empty() {
        m = m.header("To", addresses(&draft.to));
    } else if draft.cc.is_empty() {
        // Some servers refuse a message that names nobody.
        m = m.header("To", HeaderType::Raw(Raw::new("undisclosed-recipients:;")));
    }
    if !draft.cc.is_empty() {
        m = m.header("Cc", addresses(&draft.cc));
    }
    m = m.header("Subject", HeaderType::Text(Text::new(draft.subject.trim())));
    m = m.header("Message-ID", HeaderType::MessageId(MessageId::new(message_id)));
    for (name, list) in [("In-Reply-To", &draft.in_reply_to), ("References", &draft.references)] {
        let usable: Vec<&str> = list.iter().map(String::as_str).filter(|id| is_id(id)).collect();
        let skipped = usable.len().saturating_sub(MAX_REFERENCES);
        let mut ids =
            usable.iter().enumerate().filter(|(i, _)| *i == 0 || *i > skipped).map(|(_, id)| *id).peekable();
        if ids.peek().is_some() {
            m = m.header(name, HeaderType::MessageId(MessageId::new_list(ids)));
        }
    }
    for (name, value) in &draft.headers {
        let value = value.trim();
        // Encoded words would be wrong in the fields with a syntax of their own; those are ASCII by now.
        let value = if value.is_ascii() {
            HeaderType::Raw(Raw::new(value))
        } else {
            HeaderType::Text(Text::new(value))
        };
        m = m.header(name.as_str(), value);
    }
    m
}

fn addresses(list: &[Address]) -> HeaderType<'_> {
    // A-labels, so that the message needs no SMTPUTF8 for a domain; the same bytes go to every server.
    let one = |a: &'_ Address| {
        BuilderAddress::new_address(a.name.clone(), with_ascii_domain(&a.address).into_owned())
    };
    HeaderType::Address(BuilderAddress::new_list(list.iter().map(one).collect()))
}

/// The message with a Bcc field for those of `recipients` whom no other field names: what the sender keeps, not what leaves.
/// All else is the same bytes.
#[must_use]
pub fn with_bcc(message: &[u8], recipients: &[String]) -> Vec<u8> {
    let named = named(message);
    let blind: Vec<Cow<'_, str>> = recipients
        .iter()
        .map(|r| with_ascii_domain(r))
        .filter(|r| !named.contains(&mailbox_key(r)))
        .collect();
    if blind.is_empty() {
        return message.to_vec();
    }
    let field = format!("Bcc: {}\r\n", blind.join(",\r\n "));
    [field.as_bytes(), message].concat()
}

/// Keys of all whom To, Cc and Bcc of a message made by [`build`] name, however many. The reader for messages of others has
/// limits: whom it leaves out would be taken for a blind copy.
fn named(message: &[u8]) -> HashSet<String> {
    let mut named = HashSet::new();
    let (mut wanted, mut value) = (false, Vec::new());
    let lines = message.split(|b| *b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l));
    for line in lines.take_while(|l| !l.is_empty()) {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            name_all(&String::from_utf8_lossy(&value), &mut named);
            value.clear();
            let name = line.split(|b| *b == b':').next().unwrap_or_default();
            wanted = ["to", "cc", "bcc"].iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()));
        }
        if wanted {
            value.extend_from_slice(line);
        }
    }
    name_all(&String::from_utf8_lossy(&value), &mut named);
    named
}

/// Adds what stands in angle brackets, as the builder writes every address. In a quoted name they mean nothing.
fn name_all(value: &str, named: &mut HashSet<String>) {
    let (mut quoted, mut escaped) = (false, false);
    let mut address: Option<String> = None;
    for c in value.chars() {
        match c {
            _ if std::mem::take(&mut escaped) => {}
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '<' => address = Some(String::new()),
            '>' => named.extend(address.take().map(|a| mailbox_key(&a))),
            c => address.iter_mut().for_each(|a| a.push(c)),
        }
    }
}

struct Boundaries<'s> {
    seed: &'s [u8],
    used: u32,
}

impl Boundaries<'_> {
    /// The underscore pair cannot occur in quoted-printable or base64.
    fn multipart<'p>(&mut self, kind: &'static str, parts: Vec<MimePart<'p>>) -> MimePart<'p> {
        let digest = Sha256::new().chain_update(self.used.to_be_bytes()).chain_update(self.seed).finalize();
        self.used += 1;
        let name = hex::encode(digest.get(..15).unwrap_or(&digest));
        let mut content_type = ContentType::new(kind).attribute("boundary", format!("=_{name}"));
        if kind == "multipart/related" {
            content_type = content_type.attribute("type", "text/html");
        }
        MimePart::new(content_type, BodyPart::Multipart(parts))
    }
}

fn body<'d>(draft: &'d Draft, boundaries: &mut Boundaries<'_>) -> MimePart<'d> {
    // HTML alone is unreadable for some and suspicious to many: its text goes along.
    let made = || draft.html.as_deref().map(to_text_limited).filter(|t| !t.trim().is_empty());
    let text = match &draft.text {
        Some(text) if !text.trim().is_empty() || draft.html.is_none() => Some(text_part("text/plain", text)),
        _ => made().map(|text| text_part("text/plain", &text)),
    };
    let (related, attached): (Vec<_>, Vec<_>) =
        draft.attachments.iter().partition(|a| draft.html.is_some() && a.inline && a.content_id.is_some());
    let html = draft.html.as_deref().map(|h| {
        let html = text_part("text/html", h);
        if related.is_empty() {
            html
        } else {
            let parts = std::iter::once(html).chain(related.iter().map(|a| attachment_part(a, true)));
            boundaries.multipart("multipart/related", parts.collect())
        }
    });
    let shown = match (text, html) {
        (Some(text), Some(html)) => boundaries.multipart("multipart/alternative", vec![text, html]),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => text_part("text/plain", ""),
    };
    if attached.is_empty() {
        return shown;
    }
    let parts = std::iter::once(shown).chain(attached.iter().map(|a| attachment_part(a, a.inline)));
    boundaries.multipart("multipart/mixed", parts.collect())
}

fn text_part(kind: &'static str, text: &str) -> MimePart<'static> {
    let text = to_crlf(text).replace('\0', "\u{fffd}");
    MimePart::new(ContentType::new(kind).attribute("charset", "utf-8"), BodyPart::Text(text.into()))
}

fn attachment_part(a: &DraftAttachment, inline: bool) -> MimePart<'_> {
    let name = a.filename.as_deref().map(safe_filename).filter(|n| !n.is_empty());
    let kind = content_type(a, name.as_deref());
    let mut content_type = ContentType::new(kind.clone());
    let mut disposition = ContentType::new(if inline { "inline" } else { "attachment" });
    if let Some(name) = name {
        content_type = content_type.attribute("name", name.clone());
        disposition = disposition.attribute("filename", name);
    }
    let mut headers = vec![
        ("Content-Type".into(), HeaderType::ContentType(content_type)),
        ("Content-Disposition".into(), HeaderType::ContentType(disposition)),
    ];
    if let Some(id) = &a.content_id {
        headers.push(("Content-ID".into(), HeaderType::MessageId(MessageId::new(id.as_str()))));
    }
    // Encoded here, not by the builder: it would take text files for text and mend their line ends.
    let (encoding, bytes) = match message_bytes(a, &kind) {
        Some(message) => (if message.is_ascii() { "7bit" } else { "8bit" }, message),
        None => ("base64", base64_lines(&a.bytes)),
    };
    headers.push(("Content-Transfer-Encoding".into(), HeaderType::Raw(Raw::new(encoding))));
    MimePart { headers, contents: BodyPart::Binary(bytes.into()) }
}

/// An attached message must not be encoded (RFC 2046 §5.2.1), so it goes as it is where lines allow.
fn message_bytes(a: &DraftAttachment, kind: &str) -> Option<Vec<u8>> {
    if kind != "message/rfc822" {
        return None;
    }
    let text = std::str::from_utf8(&a.bytes).ok()?;
    let fits = !text.contains('\0') && text.split('\n').all(|l| l.len() <= 998);
    fits.then(|| to_crlf(text).into_bytes())
}

fn base64_lines(bytes: &[u8]) -> Vec<u8> {
    let coded = base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut out = Vec::with_capacity(coded.len() + coded.len() / BASE64_LINE * 2 + 2);
    for (i, line) in coded.as_bytes().chunks(BASE64_LINE).enumerate() {
        if i > 0 {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(line);
    }
    out
}

/// A content type that cannot change the structure: no multipart, no parameters; a message only if it can go
/// unencoded.
fn content_type(a: &DraftAttachment, name: Option<&str>) -> String {
    let given =
        a.content_type.as_deref().and_then(|t| t.split(';').next()).map(|t| t.trim().to_ascii_lowercase());
    let token = |t: &str| {
        !t.is_empty()
            && t.len() <= 100
            && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    let usable = given.filter(|t| t.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub)));
    let kind = usable.unwrap_or_else(|| {
        name.and_then(|n| mime_guess::from_path(n).first_raw())
            .unwrap_or("application/octet-stream")
            .to_owned()
    });
    let structural = kind.starts_with("multipart/") || kind.starts_with("message/");
    let message = kind == "message/rfc822" && message_bytes(a, &kind).is_some();
    if structural && !message { "application/octet-stream".to_owned() } else { kind }
}
