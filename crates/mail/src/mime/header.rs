//! One block of header fields: lines in, `(name, value)` out (RFC 5322 §2.2, obsolete forms of §4 included).
//!
//! Odd blocks that real mail has are repaired here: leading blank lines and mbox lines, blanks before the
//! colon, lines that are no field, raw 8-bit values.

use std::borrow::Cow;
use std::io::BufRead as _;

use super::limits::{
    LimitExceeded, MAX_ADDRESSES, MAX_HEADER_BYTES, MAX_HEADERS, MAX_HEADERS_BYTES, MAX_PARAMETERS,
};
use super::text;

/// A field as it stands in the message; the value still folded, without its last line end.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawHeader<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
}

impl RawHeader<'_> {
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// A block and where its body begins.
#[derive(Debug, Default)]
pub(super) struct HeaderBlock<'a> {
    pub headers: Vec<RawHeader<'a>>,
    pub body_start: usize,
}

/// Length of the line at the start of `rest`, line end included.
pub(super) fn line_len(rest: &[u8]) -> usize {
    // The standard library's search behind this runs at memory speed, a byte loop does not.
    let mut cursor = rest;
    cursor.skip_until(b'\n').unwrap_or(rest.len())
}

pub(super) fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What to do beyond a limit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnLimit {
    /// Say which.
    Refuse,
    /// Return what was read so far.
    Stop,
}

/// How a block is to be read.
pub(super) struct Reader<'f> {
    pub on_limit: OnLimit,
    /// The block opens the whole message, not a part: stray lines are skipped, not taken for the body.
    pub top: bool,
    /// Says whether a line is a boundary that ends everything before it.
    pub is_boundary: &'f dyn Fn(&[u8]) -> bool,
}

impl Reader<'_> {
    /// Reads the block that begins at `start`.
    pub fn read<'a>(&self, raw: &'a [u8], start: usize) -> Result<HeaderBlock<'a>, LimitExceeded> {
        let mut block = HeaderBlock { headers: Vec::new(), body_start: start };
        let mut pos = if self.top { skip_prelude(raw, start) } else { start };
        let first = pos;
        let mut addresses = 0;
        while let Some(rest) = raw.get(pos..).filter(|r| !r.is_empty()) {
            let line_end = pos + line_len(rest);
            let line = trim_line_end(raw.get(pos..line_end).unwrap_or_default());
            if line.is_empty() {
                pos = line_end;
                break;
            }
            if line.starts_with(b"--") && (self.is_boundary)(line) {
                break;
            }
            let Some(name) = field_name(line) else {
                if !self.top && block.headers.is_empty() {
                    break;
                }
                pos = line_end;
                continue;
            };
            let end = field_end(raw, line_end, pos + MAX_HEADER_BYTES);
            let field = trim_line_end(raw.get(pos..end).unwrap_or_default());
            let header = RawHeader { name, value: value_of(field) };
            addresses += count_addresses(&header);
            let over = over_limit(&block, &header, end - pos, end - first, addresses);
            if let Some(limit) = over {
                if self.on_limit == OnLimit::Refuse {
                    return Err(limit);
                }
                break;
            }
            block.headers.push(header);
            pos = end;
        }
        block.body_start = pos;
        Ok(block)
    }
}

fn over_limit(
    block: &HeaderBlock<'_>,
    header: &RawHeader<'_>,
    field_bytes: usize,
    block_bytes: usize,
    addresses: usize,
) -> Option<LimitExceeded> {
    let structured = header.is("content-type") || header.is("content-disposition");
    if field_bytes > MAX_HEADER_BYTES {
        Some(LimitExceeded::HeaderSize)
    } else if block.headers.len() >= MAX_HEADERS {
        Some(LimitExceeded::Headers)
    } else if block_bytes > MAX_HEADERS_BYTES {
        Some(LimitExceeded::HeadersSize)
    } else if addresses > MAX_ADDRESSES {
        Some(LimitExceeded::Addresses)
    } else if structured && header.value.iter().filter(|&&b| b == b';').count() > MAX_PARAMETERS {
        Some(LimitExceeded::Parameters)
    } else {
        None
    }
}

/// Blank lines before the first field, and the `From ` line of an mbox, are no part of the message.
fn skip_prelude(raw: &[u8], start: usize) -> usize {
    let mut pos = start;
    // A handful: a message that really is one long run of blank lines must not cost a second pass.
    for _ in 0..16 {
        let Some(rest) = raw.get(pos..).filter(|r| !r.is_empty()) else { return start };
        let len = line_len(rest);
        let line = trim_line_end(rest.get(..len).unwrap_or_default());
        let blank = line.iter().all(|b| matches!(b, b' ' | b'\t'));
        let mbox = (line.starts_with(b"From ") || line.starts_with(b">From ")) && field_name(line).is_none();
        if !blank && !mbox {
            return if field_name(line).is_some() { pos } else { start };
        }
        pos += len;
    }
    start
}

/// The name before the colon, blanks in front of the colon dropped (`From :`).
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().take(256).position(|&b| b == b':')?;
    let name = line.get(..colon)?.trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}

fn value_of(field: &[u8]) -> &[u8] {
    let colon = field.iter().position(|&b| b == b':').map_or(field.len(), |c| c + 1);
    field.get(colon..).unwrap_or_default().trim_ascii()
}

/// Where the field ends that began before `pos`: folded lines begin with a blank. Stops looking past `limit`.
fn field_end(raw: &[u8], mut pos: usize, limit: usize) -> usize {
    while pos <= limit && matches!(raw.get(pos), Some(b' ' | b'\t')) {
        let rest = raw.get(pos..).unwrap_or_default();
        let len = line_len(rest);
        if trim_line_end(rest.get(..len).unwrap_or_default()).trim_ascii().is_empty() {
            // A line of blanks alone: by the letter still the header, in practice the lost empty line.
            break;
        }
        pos += len;
    }
    pos
}

fn count_addresses(header: &RawHeader<'_>) -> usize {
    const FIELDS: [&str; 6] = ["from", "to", "cc", "bcc", "reply-to", "sender"];
    if FIELDS.iter().any(|f| header.is(f)) {
        header.value.iter().filter(|&&b| b == b',' || b == b';').count() + 1
    } else {
        0
    }
}

/// Unfolded value as text: line ends dropped, raw 8-bit bytes read as UTF-8 or else windows-1252, controls out.
pub(super) fn unfold(value: &[u8]) -> String {
    let text = eight_bit(value);
    let mut out = String::with_capacity(text.len());
    out.extend(text.chars().filter(|c| !matches!(c, '\r' | '\n')).map(|c| if c == '\t' { ' ' } else { c }));
    out.retain(|c| !c.is_control());
    out
}

fn eight_bit(value: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(value) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(text::from_windows_1252(value)),
    }
}

/// The fields that `keep` picks, written cleanly for the borrowed parser: one line end, valid UTF-8, no NUL.
pub(super) fn normalized(headers: &[RawHeader<'_>], keep: impl Fn(&RawHeader<'_>) -> bool) -> Vec<u8> {
    let mut out = Vec::new();
    for h in headers.iter().filter(|h| keep(h)) {
        out.extend_from_slice(h.name);
        out.extend_from_slice(b": ");
        let at = out.len();
        out.extend_from_slice(eight_bit(h.value).as_bytes());
        for b in out.iter_mut().skip(at).filter(|b| **b == 0) {
            *b = b' ';
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::{HeaderBlock, OnLimit, Reader, unfold};

    fn read(raw: &[u8]) -> HeaderBlock<'_> {
        Reader { on_limit: OnLimit::Refuse, top: true, is_boundary: &|_| false }.read(raw, 0).unwrap()
    }

    fn names(raw: &str) -> Vec<String> {
        read(raw.as_bytes()).headers.iter().map(|h| String::from_utf8_lossy(h.name).into_owned()).collect()
    }

    #[test]
    fn folded_fields_are_one() {
        let block = read(b"Subject: a\r\n b\r\n\tc\r\nX:y\r\n\r\nbody");
        assert_eq!(unfold(block.headers[0].value), "a b c");
        assert_eq!(block.body_start, 27);
    }

    #[test]
    fn odd_beginnings_are_forgiven() {
        assert_eq!(names("   \r\n\r\nSubject: x\r\n\r\nb"), ["Subject"]);
        assert_eq!(names("From a@b Mon Jan 1 00:00:00 2024\nSubject: x\n\nb"), ["Subject"]);
        assert_eq!(names("From : a@b\r\nTo: c@d\r\n\r\n"), ["From", "To"]);
        assert_eq!(names("From: a@b\r\nnonsense\r\nTo: c@d\r\n\r\n"), ["From", "To"]);
    }

    #[test]
    fn text_without_headers_is_all_body() {
        let block = read(b"\r\nhello world\r\n");
        assert!(block.headers.is_empty());
    }

    #[test]
    fn raw_latin_1_is_read() {
        assert_eq!(unfold(b"Gr\xfc\xdfe"), "Grüße");
        assert_eq!(unfold("Grüße\0".as_bytes()), "Grüße");
    }
}
