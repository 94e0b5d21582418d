//! What hangs on a message beside its text, and names under which it is safe to hand out.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::header::{Reader, first};
use super::layout::{File, Layout};
use super::part::{PartInfo, Transfer};
use super::structure::{self, Part, Tree};
use super::transfer::{self, Decoder};
use super::words;
use crate::address::{clean_text, is_invisible};

/// Longest file name kept, in bytes: what file systems take.
const MAX_FILENAME_BYTES: usize = 255;
/// What is decoded of an attached message to find its subject.
const MAX_SUBJECT_SAMPLE: usize = 64 * 1024;

/// An attachment as it is listed; the contents come by [`attachment`] with the same index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentMeta {
    /// From 0, in the order of the message.
    pub index: usize,
    /// Safe to show and to save under, if the message gave one.
    pub filename: Option<String>,
    /// `type/subtype` in lower case, token characters only; of a text with its charset, of a calendar with its method.
    pub content_type: String,
    /// Decoded size.
    pub size_bytes: u64,
    /// Meant to be shown within the text.
    pub inline: bool,
    /// Content-ID without angle brackets.
    pub content_id: Option<String>,
    /// What a calendar is sent for (`REQUEST`, `REPLY`, `CANCEL` …), RFC 5546 §1.4.
    #[serde(default)]
    pub method: Option<String>,
}

/// Where an attachment lies in the source of its message, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentPlace {
    /// Its encoded bytes in the source.
    pub range: Range<usize>,
    /// As in [`AttachmentMeta`].
    pub content_type: String,
    /// As in [`AttachmentMeta`].
    pub filename: Option<String>,
    /// Decoded size.
    pub size_bytes: usize,
    transfer: Transfer,
}

impl AttachmentPlace {
    /// What decodes its bytes as they come.
    #[must_use]
    pub fn decoder(&self) -> AttachmentDecoder {
        AttachmentDecoder(Decoder::new(self.transfer))
    }

    /// Its contents, out of the source that it was found in.
    #[must_use]
    pub fn contents(&self, raw: &[u8]) -> Vec<u8> {
        transfer::decode(raw.get(self.range.clone()).unwrap_or_default(), self.transfer).into_owned()
    }
}

/// Decodes an attachment that is read in pieces, so that none is ever in memory as a whole.
#[derive(Debug)]
pub struct AttachmentDecoder(Decoder);

impl AttachmentDecoder {
    /// What the next piece of the source decodes to.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len());
        self.0.push(piece, &mut |bytes| out.extend_from_slice(bytes));
        out
    }

    /// What is left after the last piece.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        self.0.finish(&mut |bytes| out.extend_from_slice(bytes));
        out
    }
}

/// The attachment at `index` as counted by [`super::parse()`]; `None` if there is no such one or the message is
/// beyond the limits.
#[must_use]
pub fn find_attachment(raw: &[u8], index: usize) -> Option<AttachmentPlace> {
    find_attachments(raw, HashSet::from([index])).remove(&index)
}

/// All of them by one reading of the message.
fn find_attachments(raw: &[u8], wanted: HashSet<usize>) -> HashMap<usize, AttachmentPlace> {
    let find = || {
        let tree = structure::walk(raw);
        let layout = Layout::new(raw, &tree.parts);
        let place = |index: usize| {
            let found = Found::new(raw, &tree, layout.files.get(index)?)?;
            Some(AttachmentPlace {
                size_bytes: transfer::decoded_len(raw.get(found.range.clone())?, found.transfer),
                range: found.range,
                content_type: found.content_type,
                filename: found.filename,
                transfer: found.transfer,
            })
        };
        wanted.iter().filter_map(|n| Some((*n, place(*n)?))).collect()
    };
    std::panic::catch_unwind(find).unwrap_or_default()
}

/// The contents of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentData {
    /// Decoded.
    pub bytes: Vec<u8>,
    /// As in [`AttachmentMeta`].
    pub content_type: String,
    /// As in [`AttachmentMeta`].
    pub filename: Option<String>,
}

/// [`find_attachment`] with the contents.
#[must_use]
pub fn attachment(raw: &[u8], index: usize) -> Option<AttachmentData> {
    let place = find_attachment(raw, index)?;
    let bytes = place.contents(raw);
    Some(AttachmentData { bytes, content_type: place.content_type, filename: place.filename })
}

/// The contents of several attachments, each by its number. Those that there are not are left out.
#[must_use]
pub fn attachments(raw: &[u8], wanted: impl IntoIterator<Item = usize>) -> HashMap<usize, AttachmentData> {
    let data = |place: AttachmentPlace| AttachmentData {
        bytes: place.contents(raw),
        content_type: place.content_type,
        filename: place.filename,
    };
    let found = find_attachments(raw, wanted.into_iter().collect());
    found.into_iter().map(|(index, place)| (index, data(place))).collect()
}

/// A file of the layout, with all that is said of it.
struct Found<'t> {
    info: &'t PartInfo,
    range: Range<usize>,
    content_type: String,
    filename: Option<String>,
    transfer: Transfer,
}

impl<'t> Found<'t> {
    fn new(raw: &[u8], tree: &'t Tree<'_>, file: &File) -> Option<Self> {
        let part = tree.parts.get(file.part)?;
        let info = &part.info;
        Some(match &file.within {
            Some((range, name)) => Self {
                info,
                range: range.clone(),
                content_type: guessed_type(name),
                filename: Some(safe_filename(name)).filter(|n| !n.is_empty()),
                transfer: Transfer::Uuencode,
            },
            None => Self {
                info,
                range: part.body.clone(),
                content_type: content_type(info),
                filename: filename(raw, tree, file.part, part),
                transfer: info.transfer,
            },
        })
    }
}

/// A listed file, and by which names the HTML may show it.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub meta: AttachmentMeta,
    /// Content-Location.
    pub location: Option<String>,
    /// Not what a person calls an attachment.
    pub uncounted: bool,
    /// A disposition of `inline`.
    pub said_inline: bool,
}

/// Lists the files of a message.
pub(super) fn list(raw: &[u8], tree: &Tree<'_>, layout: &Layout) -> Vec<Listed> {
    let listed = layout.files.iter().enumerate().filter_map(|(index, file)| {
        let found = Found::new(raw, tree, file)?;
        let info = found.info;
        let own = file.within.is_none();
        let content_id =
            info.content_id.as_deref().map(|id| clean_text(id, 998)).filter(|id| own && !id.is_empty());
        let meta = AttachmentMeta {
            index,
            filename: found.filename,
            content_type: found.content_type,
            size_bytes: transfer::decoded_len(raw.get(found.range)?, found.transfer) as u64,
            inline: own && info.inline,
            content_id,
            method: info.method.clone().filter(|_| own && info.is("text", "calendar")),
        };
        let location = info.location.clone().filter(|_| own);
        Some(Listed { meta, location, uncounted: file.uncounted, said_inline: own && info.inline })
    });
    listed.collect()
}

fn content_type(info: &PartInfo) -> String {
    if info.kind.is_empty() || info.subtype.is_empty() {
        return info.filename.as_deref().map_or_else(|| "application/octet-stream".to_owned(), guessed_type);
    }
    let mut out = format!("{}/{}", info.kind, info.subtype);
    if info.kind == "text" {
        let method = info.method.as_deref().filter(|_| info.subtype == "calendar");
        for (name, value) in [("charset", info.charset.as_deref()), ("method", method)] {
            let token = |v: &&str| {
                v.len() <= 64 && v.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:+".contains(&b))
            };
            if let Some(value) = value.map(str::trim).filter(|v| !v.is_empty()).filter(token) {
                out.push_str(&format!("; {name}={value}"));
            }
        }
    }
    out
}

fn guessed_type(name: &str) -> String {
    mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream").to_owned()
}

/// The name that was given; of invitations and attached messages one that tells what they are.
fn filename(raw: &[u8], tree: &Tree<'_>, index: usize, part: &Part<'_>) -> Option<String> {
    let given = part.info.filename.as_deref().map(safe_filename).filter(|n| !n.is_empty());
    given.or_else(|| {
        if part.info.is("text", "calendar") {
            return Some("invite.ics".to_owned());
        }
        if !part.info.is_message() {
            return None;
        }
        let subject = subject_of(raw, tree, index, part).unwrap_or_default();
        let stem = safe_filename(&super::text::truncate(subject, MAX_FILENAME_BYTES - 8));
        Some(if stem.is_empty() { "message.eml".to_owned() } else { format!("{stem}.eml") })
    })
}

/// The subject of a message inside this one.
fn subject_of(raw: &[u8], tree: &Tree<'_>, index: usize, part: &Part<'_>) -> Option<String> {
    if part.info.transfer == Transfer::Identity {
        let inner = tree.parts.get(index + 1).filter(|p| p.parent == Some(index))?;
        return first(&inner.headers, "subject").map(|v| words::decode(v, tree.fallback));
    }
    let encoded = raw.get(part.body.clone())?;
    let sample = encoded.get(..MAX_SUBJECT_SAMPLE).unwrap_or(encoded);
    let decoded = transfer::decode(sample, part.info.transfer);
    let block = Reader { top: true, is_boundary: &|_| false }.read(&decoded, 0);
    first(&block.headers, "subject").map(|v| words::decode(v, tree.fallback))
}

/// A name without path, control or reordering characters, reserved signs replaced, 255 bytes at most with the
/// extension kept. Empty if nothing is left.
#[must_use]
pub fn safe_filename(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).find(|p| !p.trim().is_empty()).unwrap_or_default();
    let cleaned: String = clean_text(last, 4096)
        .chars()
        .filter(|c| !is_invisible(*c))
        .map(|c| if "<>:\"|?*".contains(c) { '_' } else { c })
        .collect();
    // Leading dots hide a file, trailing dots and blanks change its extension on Windows.
    let cleaned = cleaned.trim_matches(|c: char| c == '.' || c.is_whitespace());
    let named = if is_device(cleaned) { format!("_{cleaned}") } else { cleaned.to_owned() };
    let cleaned = named.as_str();
    if cleaned.len() <= MAX_FILENAME_BYTES {
        return cleaned.to_owned();
    }
    let extension = cleaned.rsplit_once('.').map(|(_, e)| e).filter(|e| e.len() <= 20);
    let room = MAX_FILENAME_BYTES - extension.map_or(0, |e| e.len() + 1);
    let stem = super::text::truncate(cleaned.to_owned(), room);
    extension.map_or_else(|| stem.clone(), |e| format!("{stem}.{e}"))
}

/// Names that Windows opens as a device, with any extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |kind: &str| {
        let rest = stem.strip_prefix(kind).unwrap_or_default();
        matches!(rest.chars().collect::<Vec<_>>().as_slice(), ['1'..='9' | '¹' | '²' | '³'])
    };
    ["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str()) || numbered("COM") || numbered("LPT")
}

/// What stands as itself in an extended parameter (RFC 8187 §3.2.1, without the signs that some clients misread).
const CODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The value of Content-Disposition for a download (RFC 6266): always `attachment`, an ASCII name for old
/// clients and the real one beside it. Safe as a header value whatever the name holds.
#[must_use]
pub fn content_disposition(filename: Option<&str>) -> String {
    let name =
        filename.map(safe_filename).filter(|n| !n.is_empty()).unwrap_or_else(|| "attachment".to_owned());
    let plain: String =
        name.chars().map(|c| if c.is_ascii_graphic() && c != '%' || c == ' ' { c } else { '_' }).collect();
    if plain == name {
        return format!("attachment; filename=\"{plain}\"");
    }
    let coded = utf8_percent_encode(&name, CODED);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{coded}")
}

#[cfg(test)]
mod tests {
    use super::{attachment, content_disposition, safe_filename};

    #[test]
    fn names_lose_what_is_dangerous() {
        assert_eq!(safe_filename("../../etc/passwd"), "passwd");
        assert_eq!(safe_filename("C:\\Windows\\evil.exe"), "evil.exe");
        assert_eq!(safe_filename("invoice\u{202e}fdp.exe\r\n"), "invoicefdp.exe");
        assert_eq!(safe_filename(".."), "");
        assert_eq!(safe_filename("nul.txt"), "_nul.txt");
        assert_eq!((safe_filename("com¹"), safe_filename("COM10")), ("_com¹".to_owned(), "COM10".to_owned()));
        assert_eq!(safe_filename("a\"b;c?.txt. "), "a_b;c_.txt");
        let long = safe_filename(&format!("{}.pdf", "ü".repeat(300)));
        assert!(long.len() <= 255 && long.ends_with(".pdf"));
    }

    #[test]
    fn the_header_cannot_be_broken_out_of() {
        assert_eq!(content_disposition(Some("a.pdf")), "attachment; filename=\"a.pdf\"");
        assert_eq!(content_disposition(None), "attachment; filename=\"attachment\"");
        assert_eq!(
            content_disposition(Some("Rechnung ä\"\r\n.pdf")),
            "attachment; filename=\"Rechnung __ .pdf\"; filename*=UTF-8''Rechnung%20%C3%A4_%20.pdf"
        );
    }

    #[test]
    fn an_attachment_comes_back_by_its_index() {
        let raw = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n\
            Content-Type: application/PDF; name*=utf-8''%C3%A4.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n\
            aGVsbG8=\r\n--b--\r\n";
        let a = attachment(raw, 0).unwrap();
        assert_eq!((a.bytes.as_slice(), a.content_type.as_str()), (b"hello".as_slice(), "application/pdf"));
        assert_eq!(a.filename.as_deref(), Some("ä.pdf"));
        assert_eq!(attachment(raw, 1), None);
        assert_eq!(attachment(b"", 0), None);
    }
}
