//! What hangs on a message beside its text, and names under which it is safe to hand out.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::structure::{self, Part, PartInfo, Transfer};
use super::transfer::{self, Decoder};
use crate::address::{clean_text, is_invisible};

/// Longest file name kept, in bytes: what file systems take.
const MAX_FILENAME_BYTES: usize = 255;

/// An attachment as it is listed; the contents come by [`attachment`] with the same index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentMeta {
    /// From 0, in the order of the message.
    pub index: usize,
    /// Safe to show and to save under, if the message gave one.
    pub filename: Option<String>,
    /// `type/subtype` in lower case, token characters only.
    pub content_type: String,
    /// Decoded size.
    pub size_bytes: u64,
    /// Meant to be shown within the text.
    pub inline: bool,
    /// Content-ID without angle brackets.
    pub content_id: Option<String>,
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
    std::panic::catch_unwind(|| {
        let parts = structure::walk(raw).ok()?;
        let part = parts.get(*Layout::new(&parts).attachments.get(index)?)?;
        let encoded = raw.get(part.body.clone())?;
        Some(AttachmentPlace {
            range: part.body.clone(),
            content_type: content_type(&part.info),
            filename: filename(&part.info),
            size_bytes: transfer::decoded_len(encoded, part.info.transfer),
            transfer: part.info.transfer,
        })
    })
    .ok()
    .flatten()
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

/// Which parts are the text, which the HTML, which are attached. Every leaf is in exactly one of them.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub texts: Vec<usize>,
    pub html: Option<usize>,
    pub attachments: Vec<usize>,
}

impl Layout {
    pub fn new(parts: &[Part<'_>]) -> Self {
        let mut layout = Self::default();
        let mut alternatives_with_text = Vec::new();
        for (i, part) in parts.iter().enumerate().filter(|(_, p)| !p.container && !p.nested) {
            let shown = !part.info.attached && (part.info.filename.is_none() || part.info.inline || i == 0);
            let plain = part.info.is("text", "plain");
            let alternative =
                part.parent.filter(|p| parts.get(*p).is_some_and(|p| p.info.is("multipart", "alternative")));
            // A second plain text among alternatives says the same again.
            let repeated = plain && alternative.is_some_and(|a| alternatives_with_text.contains(&a));
            if shown && plain && !repeated {
                alternatives_with_text.extend(alternative);
                layout.texts.push(i);
            } else if shown && part.info.is("text", "html") && layout.html.is_none() {
                layout.html = Some(i);
            } else {
                layout.attachments.push(i);
            }
        }
        layout
    }
}

/// Lists attachments; `html` is the HTML text of the message, which tells the images it shows itself.
pub(super) fn list(
    raw: &[u8],
    parts: &[Part<'_>],
    layout: &Layout,
    html: Option<&str>,
) -> Vec<(AttachmentMeta, bool)> {
    let mentioned = html.map(super::html::find_cids).unwrap_or_default();
    let metas = layout.attachments.iter().enumerate().filter_map(|(index, &i)| {
        let part = parts.get(i)?;
        let content_id =
            part.info.content_id.as_deref().map(|id| clean_text(id, 998)).filter(|id| !id.is_empty());
        let shown = part.info.kind == "image" && content_id.as_ref().is_some_and(|id| mentioned.contains(id));
        let meta = AttachmentMeta {
            index,
            filename: filename(&part.info),
            content_type: content_type(&part.info),
            size_bytes: transfer::decoded_len(raw.get(part.body.clone())?, part.info.transfer) as u64,
            inline: shown || part.info.inline,
            content_id,
        };
        Some((meta, shown))
    });
    metas.collect()
}

fn content_type(info: &PartInfo) -> String {
    if info.kind.is_empty() || info.subtype.is_empty() {
        "application/octet-stream".to_owned()
    } else {
        format!("{}/{}", info.kind, info.subtype)
    }
}

fn filename(info: &PartInfo) -> Option<String> {
    info.filename.as_deref().map(safe_filename).filter(|n| !n.is_empty())
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
    let mut coded = String::with_capacity(name.len() * 3);
    for b in name.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            coded.push(char::from(b));
        } else {
            coded.push_str(&format!("%{b:02X}"));
        }
    }
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
