//! What the Content-* fields of a part say (RFC 2045, RFC 2183, RFC 2557).

use super::charset::Fallback;
use super::header::{RawHeader, first};
use super::limits::MAX_BOUNDARY_BYTES;
use super::parameters::{self, Fields};
use super::words;

/// Top-level types (RFC 2045 §5.1 and those registered since); `plain/text` is none.
const KINDS: [&str; 11] = [
    "application",
    "audio",
    "chemical",
    "font",
    "haptics",
    "image",
    "message",
    "model",
    "multipart",
    "text",
    "video",
];

/// How a body was made fit for the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Transfer {
    #[default]
    Identity,
    Base64,
    QuotedPrintable,
    Uuencode,
}

/// The fields of one part, understood.
#[derive(Clone, Debug, Default)]
pub(super) struct PartInfo {
    /// `text`, in lower case; empty if what was said is no type.
    pub kind: String,
    /// `plain`, in lower case.
    pub subtype: String,
    pub charset: Option<String>,
    pub boundary: Option<String>,
    pub filename: Option<String>,
    /// A disposition of `attachment`, or of a word that nobody knows (RFC 2183 §2.8).
    pub attached: bool,
    pub inline: bool,
    /// Without angle brackets.
    pub content_id: Option<String>,
    /// Content-Location, on one line.
    pub location: Option<String>,
    /// The root of a multipart/related, without angle brackets (RFC 2387 §3.2).
    pub start: Option<String>,
    /// Of a calendar (RFC 6047 §2.4).
    pub method: Option<String>,
    /// `format=flowed` (RFC 3676); the flag is DelSp.
    pub flowed: Option<bool>,
    pub transfer: Transfer,
    /// There were more parameters than are read.
    pub limited: bool,
}

impl PartInfo {
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind == kind && self.subtype == subtype
    }

    pub fn is_message(&self) -> bool {
        self.is("message", "rfc822") || self.is("message", "global")
    }

    /// Something that is not looked into.
    pub fn hidden() -> Self {
        Self { kind: "application".into(), subtype: "octet-stream".into(), ..Self::default() }
    }
}

/// Reads the fields; of two of a name the first counts.
pub(super) fn read(headers: &[RawHeader<'_>], in_digest: bool, fallback: Fallback) -> PartInfo {
    let mut info = PartInfo::default();
    let is_mime = |h: &RawHeader<'_>| h.name.get(..8).is_some_and(|n| n.eq_ignore_ascii_case(b"content-"));
    let mut typed = false;
    if headers.iter().any(is_mime) {
        let disposition = first(headers, "content-disposition").map(|v| parameters::read(v, fallback));
        if let Some(d) = &disposition {
            info.inline = d.value == "inline";
            info.attached = !info.inline && !d.value.is_empty();
            info.filename =
                d.get("filename").or_else(|| d.get("name")).map(str::to_owned).filter(|n| !n.is_empty());
            info.limited = d.limited;
        }
        if let Some(t) = first(headers, "content-type").map(|v| parameters::read(v, fallback)) {
            typed = true;
            read_type(&t, &mut info);
        }
        read_others(headers, &mut info, fallback);
    }
    if !typed {
        let (kind, subtype) = if in_digest { ("message", "rfc822") } else { ("text", "plain") };
        (info.kind, info.subtype) = (kind.to_owned(), subtype.to_owned());
    }
    info
}

fn read_type(t: &Fields, info: &mut PartInfo) {
    let (kind, subtype) = t.value.split_once('/').unwrap_or((&t.value, ""));
    (info.kind, info.subtype) = (token(kind), token(subtype));
    let some = |name: &str| t.get(name).map(str::to_owned).filter(|v| !v.is_empty());
    info.charset = some("charset");
    info.boundary = some("boundary");
    info.filename = info.filename.take().or_else(|| some("name")).or_else(|| some("filename"));
    info.start = some("start").map(|id| without_brackets(&id));
    info.method = some("method").map(|m| token(&m).to_ascii_uppercase()).filter(|m| !m.is_empty());
    let is = |name: &str, value: &str| t.get(name).is_some_and(|v| v.trim().eq_ignore_ascii_case(value));
    info.flowed = is("format", "flowed").then(|| is("delsp", "yes"));
    info.limited |= t.limited;
    match (info.kind.as_str(), info.subtype.as_str()) {
        ("text", "") => info.subtype = "plain".to_owned(),
        ("multipart", "") => info.subtype = "mixed".to_owned(),
        (kind, subtype) if subtype.is_empty() || !KINDS.contains(&kind) && !kind.starts_with("x-") => {
            // RFC 2045 §5.2: what is no type is plain text; a file stays one.
            let text = info.filename.is_none() && !info.attached;
            let (kind, subtype) = if text { ("text", "plain") } else { ("", "") };
            (info.kind, info.subtype) = (kind.to_owned(), subtype.to_owned());
        }
        _ => {}
    }
}

fn read_others(headers: &[RawHeader<'_>], info: &mut PartInfo, fallback: Fallback) {
    let line = |name: &str| first(headers, name).map(|v| words::decode(v, fallback));
    info.content_id = line("content-id").map(|id| without_brackets(&id)).filter(|id| !id.is_empty());
    // RFC 2557 §4.1: blanks that folding brought are no part of the address.
    let whole = |v: String| v.split_whitespace().collect::<String>();
    info.location = line("content-location").map(whole).filter(|l| !l.is_empty() && l.len() <= 2048);
    let transfer = first(headers, "content-transfer-encoding").map(|v| parameters::read(v, fallback).value);
    info.transfer = match transfer.as_deref().unwrap_or_default() {
        "base64" | "base-64" | "b64" => Transfer::Base64,
        "quoted-printable" | "quoted_printable" | "quotedprintable" => Transfer::QuotedPrintable,
        "x-uuencode" | "uuencode" | "x-uue" | "uue" => Transfer::Uuencode,
        _ => Transfer::Identity,
    };
}

fn without_brackets(id: &str) -> String {
    id.trim().trim_matches(['<', '>']).trim().to_owned()
}

/// The boundary that a Content-Type declares; `None` for one beyond the limit, which parts nothing.
pub(super) fn declared_boundary(field: &[u8]) -> Option<Vec<u8>> {
    let t = parameters::read(field, Fallback::default());
    let boundary = t.get("boundary").filter(|_| t.value.starts_with("multipart"))?;
    let boundary = boundary.trim_end().as_bytes();
    (1..=MAX_BOUNDARY_BYTES).contains(&boundary.len()).then(|| boundary.to_vec())
}

/// Whether a line is this boundary, opening or closing (RFC 2046 §5.1.1).
pub(super) fn is_boundary_line(boundary: &[u8], line: &[u8]) -> bool {
    let rest = line.strip_prefix(b"--").unwrap_or_default().trim_ascii_end();
    rest.strip_prefix(boundary).is_some_and(|r| matches!(r, b"" | b"--"))
}

/// A type name that is safe to send on: RFC 2045 token characters, lower case, 127 bytes at most.
fn token(text: &str) -> String {
    let ok = |c: &char| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(*c);
    text.chars().filter(ok).take(127).collect::<String>().to_ascii_lowercase()
}
