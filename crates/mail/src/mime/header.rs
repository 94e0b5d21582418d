//! One block of header fields: lines in, `(name, value)` out (RFC 5322 §2.2, obsolete forms of §4 included).
//!
//! Odd blocks that real mail has are repaired here: a byte order mark, leading blank lines and mbox lines, blanks before the
//! colon, lines that are no field, an empty line that holds a blank or is missing. A field beyond a limit is left out and
//! the others stay.

use std::io::BufRead as _;

use super::limits::{LimitExceeded, MAX_ADDRESSES, MAX_HEADER_BYTES, MAX_HEADERS, MAX_HEADERS_BYTES};
use super::part;

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

/// The first field of this name: what comes twice is read once, and by everybody in the same way.
pub(super) fn first<'a>(headers: &[RawHeader<'a>], name: &str) -> Option<&'a [u8]> {
    headers.iter().find(|h| h.is(name)).map(|h| h.value)
}

/// A block and where its body begins.
#[derive(Debug, Default)]
pub(super) struct HeaderBlock<'a> {
    pub headers: Vec<RawHeader<'a>>,
    pub body_start: usize,
    /// The first limit for which a field was left out.
    pub limited: Option<LimitExceeded>,
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

/// A line of a header block; gateways have written `\r\r\n`.
fn bare(line: &[u8]) -> &[u8] {
    let mut line = trim_line_end(line);
    while let Some(shorter) = line.strip_suffix(b"\r") {
        line = shorter;
    }
    line
}

/// How a block is to be read.
pub(super) struct Reader<'f> {
    /// The block opens a message, not a part.
    pub top: bool,
    /// Says whether a line is a boundary of a multipart around it, which ends everything before it.
    pub is_boundary: &'f dyn Fn(&[u8]) -> bool,
}

/// What a line that is no field means.
enum Stray {
    /// Fields go on there.
    Noise(usize),
    /// The body has begun.
    Body,
}

impl Reader<'_> {
    /// Reads the block that begins at `start`.
    pub fn read<'a>(&self, raw: &'a [u8], start: usize) -> HeaderBlock<'a> {
        let mut block = HeaderBlock { headers: Vec::new(), body_start: start, limited: None };
        let mut pos = if self.top { skip_prelude(raw, start) } else { start };
        let first = pos;
        let mut addresses = 0;
        let (mut typed, mut own) = (false, None);
        while let Some(rest) = raw.get(pos..).filter(|r| !r.is_empty()) {
            let line_end = pos + line_len(rest);
            let line = bare(raw.get(pos..line_end).unwrap_or_default());
            if line.is_empty() {
                pos = line_end;
                break;
            }
            if self.ends_block(line, own.as_deref()) {
                break;
            }
            let Some(name) = field_name(line) else {
                match self.stray(raw, pos, &block, own.as_deref()) {
                    Stray::Noise(next) => pos = next,
                    Stray::Body => {
                        // A line of blanks alone is the empty line that somebody filled.
                        pos = if is_blank(line) { line_end } else { pos };
                        break;
                    }
                }
                continue;
            };
            let end = field_end(raw, line_end);
            let field = bare(raw.get(pos..end).unwrap_or_default());
            let header = RawHeader { name, value: value_of(field) };
            let more = count_addresses(&header);
            match over_limit(&block, end - pos, end - first, addresses + more) {
                Some(limit) => block.limited = block.limited.or(Some(limit)),
                None => {
                    addresses += more;
                    // Read once for all lines, and of two fields the first, as everywhere.
                    if !typed && header.is("content-type") {
                        (typed, own) = (true, part::declared_boundary(header.value));
                    }
                    block.headers.push(header);
                }
            }
            pos = end;
        }
        block.body_start = pos;
        block
    }

    /// Whether a line is a boundary: of a multipart around it, or `own`, so that the empty line is missing.
    fn ends_block(&self, line: &[u8], own: Option<&[u8]>) -> bool {
        line.starts_with(b"--")
            && ((self.is_boundary)(line) || own.is_some_and(|b| part::is_boundary_line(b, line)))
    }

    /// A line that is no field is noise if fields follow before the next empty line, else the empty line is missing. Each
    /// line is looked at once: where fields follow, reading goes on at the first of them.
    fn stray(&self, raw: &[u8], at: usize, block: &HeaderBlock<'_>, own: Option<&[u8]>) -> Stray {
        if !self.top && block.headers.is_empty() {
            return Stray::Body;
        }
        let mut pos = at;
        let mut blank = false;
        while let Some(rest) = raw.get(pos..).filter(|r| !r.is_empty()) {
            let length = line_len(rest);
            let line = bare(rest.get(..length).unwrap_or_default());
            if pos > at && line.is_empty() {
                // Nothing but blanks between the last field and the empty line.
                return if blank { Stray::Noise(pos) } else { Stray::Body };
            }
            if self.ends_block(line, own) {
                return Stray::Body;
            }
            if is_likely_field(line) {
                return Stray::Noise(pos);
            }
            let is_blank = is_blank(line);
            if blank && !is_blank {
                // A line of blanks parts header and body as the empty line does, unless a field comes next.
                return Stray::Body;
            }
            blank = is_blank && (blank || pos == at);
            pos += length;
        }
        Stray::Body
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|b| matches!(b, b' ' | b'\t'))
}

fn over_limit(
    block: &HeaderBlock<'_>,
    field_bytes: usize,
    block_bytes: usize,
    addresses: usize,
) -> Option<LimitExceeded> {
    if field_bytes > MAX_HEADER_BYTES {
        Some(LimitExceeded::HeaderSize)
    } else if block.headers.len() >= MAX_HEADERS {
        Some(LimitExceeded::Headers)
    } else if block_bytes > MAX_HEADERS_BYTES {
        Some(LimitExceeded::HeadersSize)
    } else if addresses > MAX_ADDRESSES {
        Some(LimitExceeded::Addresses)
    } else {
        None
    }
}

/// A byte order mark, blank lines before the first field, and the `From ` line of an mbox, are no part of the message.
fn skip_prelude(raw: &[u8], start: usize) -> usize {
    let marked = raw.get(start..).is_some_and(|r| r.starts_with(b"\xef\xbb\xbf"));
    let start = if marked { start + 3 } else { start };
    let mut pos = start;
    // A handful: a message that really is one long run of blank lines must not cost a second pass.
    for _ in 0..16 {
        let Some(rest) = raw.get(pos..).filter(|r| !r.is_empty()) else { return start };
        let len = line_len(rest);
        let line = bare(rest.get(..len).unwrap_or_default());
        let mbox = (line.starts_with(b"From ") || line.starts_with(b">From ")) && field_name(line).is_none();
        if !is_blank(line) && !mbox {
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

/// Whether a line among strange ones is a field and no sentence with a colon: its name is known, or made of two words.
fn is_likely_field(line: &[u8]) -> bool {
    const KNOWN: [&str; 22] = [
        "from",
        "to",
        "cc",
        "bcc",
        "subject",
        "date",
        "sender",
        "received",
        "comments",
        "keywords",
        "importance",
        "priority",
        "precedence",
        "organization",
        "sensitivity",
        "status",
        "lines",
        "xref",
        "path",
        "newsgroups",
        "references",
        "encrypted",
    ];
    field_name(line).is_some_and(|name| {
        let known = KNOWN.iter().any(|k| name.eq_ignore_ascii_case(k.as_bytes()));
        let token = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let words = name.iter().skip(1).any(|b| *b == b'-') && name.iter().all(token);
        known || (words && name.first().is_some_and(u8::is_ascii_alphabetic))
    })
}

fn value_of(field: &[u8]) -> &[u8] {
    let colon = field.iter().position(|&b| b == b':').map_or(field.len(), |c| c + 1);
    field.get(colon..).unwrap_or_default().trim_ascii()
}

/// Where the field ends that began before `pos`: folded lines begin with a blank. Lines of blanks alone belong to it if
/// a folded line follows (RFC 5322 §4.2); else they may be the lost empty line, which is for the caller to judge.
fn field_end(raw: &[u8], mut pos: usize) -> usize {
    let mut end = pos;
    while matches!(raw.get(pos), Some(b' ' | b'\t')) {
        let rest = raw.get(pos..).unwrap_or_default();
        let len = line_len(rest);
        pos += len;
        if !is_blank(bare(rest.get(..len).unwrap_or_default())) {
            end = pos;
        }
    }
    end
}

fn count_addresses(header: &RawHeader<'_>) -> usize {
    const FIELDS: [&str; 6] = ["from", "to", "cc", "bcc", "reply-to", "sender"];
    if FIELDS.iter().any(|f| header.is(f)) {
        header.value.iter().filter(|&&b| b == b',' || b == b';').count() + 1
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::charset::Fallback;
    use super::super::words;
    use super::{HeaderBlock, Reader};

    fn read_as(raw: &[u8], top: bool) -> HeaderBlock<'_> {
        Reader { top, is_boundary: &|line| line == b"--b" }.read(raw, 0)
    }

    fn names(raw: &str) -> Vec<String> {
        let block = read_as(raw.as_bytes(), true);
        block.headers.iter().map(|h| String::from_utf8_lossy(h.name).into_owned()).collect()
    }

    fn value(raw: &str) -> String {
        let block = read_as(raw.as_bytes(), true);
        words::unfold(block.headers[0].value, Fallback::default())
    }

    /// The names, and the body.
    fn split(raw: &str) -> (Vec<String>, &str) {
        (names(raw), raw.get(read_as(raw.as_bytes(), true).body_start..).unwrap())
    }

    #[test]
    fn folded_fields_are_one() {
        let block = read_as(b"Subject: a\r\n b\r\n\tc\r\nX:y\r\n\r\nbody", true);
        assert_eq!(words::unfold(block.headers[0].value, Fallback::default()), "a b c");
        assert_eq!(block.body_start, 27);
    }

    #[test]
    fn a_blank_line_within_a_field_is_folding() {
        for raw in ["To: a@b,\r\n \r\n c@d\r\n\r\nbody", "To: a@b,\n\t\n  \n c@d\nSubject: x\n\nbody"] {
            assert_eq!(value(raw).split_whitespace().collect::<String>(), "a@b,c@d", "{raw:?}");
            assert_eq!(split(raw).1, "body", "{raw:?}");
        }
    }

    #[test]
    fn odd_beginnings_are_forgiven() {
        assert_eq!(names("   \r\n\r\nSubject: x\r\n\r\nb"), ["Subject"]);
        assert_eq!(names("From a@b Mon Jan 1 00:00:00 2024\nSubject: x\n\nb"), ["Subject"]);
        assert_eq!(names("From : a@b\r\nTo: c@d\r\n\r\n"), ["From", "To"]);
        assert_eq!(names("From: a@b\r\nnonsense\r\nTo: c@d\r\n\r\n"), ["From", "To"]);
        assert_eq!(names("\u{feff}From: a@b\r\nTo: c@d\r\n\r\n"), ["From", "To"]);
        assert_eq!(names("nonsense\r\nFrom: a@b\r\n\r\n"), ["From"]);
    }

    #[test]
    fn the_body_begins_where_no_field_follows() {
        for (raw, fields, body) in [
            ("Subject: x\r\n \r\nbody\r\n\r\nmore", 1, "body\r\n\r\nmore"),
            ("Subject: x\n\t\nhttp://x.example/\n", 1, "http://x.example/\n"),
            ("Subject: x\n \n\nbody", 1, "body"),
            ("Subject: x\nbody begins\nhere: so\n\nmore", 1, "body begins\nhere: so\n\nmore"),
            ("Subject: x\nbody", 1, "body"),
            ("Subject: x\n \nFrom: a@b\n\nbody", 2, "body"),
            ("Subject: x\nodd line\nodder\nMessage-ID: <1@x>\n\nbody", 2, "body"),
            ("hello world\nsecond\n\nSubject: no\n", 0, "hello world\nsecond\n\nSubject: no\n"),
            ("\r\nhello world\r\n", 0, "hello world\r\n"),
            ("hello", 0, "hello"),
            ("Subject: x\r\r\nTo: a@b\r\r\n\r\r\nhi\r\r\nFrom: Ann\r\r\n", 2, "hi\r\r\nFrom: Ann\r\r\n"),
        ] {
            let (names, rest) = split(raw);
            assert_eq!((names.len(), rest.trim_start()), (fields, body), "{raw:?}");
        }
    }

    #[test]
    fn the_bytes_of_a_part_may_follow_its_fields_directly() {
        let raw = b"Content-Type: application/pdf\nContent-Transfer-Encoding: base64\nJVBERi0x\nLjQK\n--b\nX-A: b\n";
        let block = read_as(raw, false);
        assert_eq!(block.headers.len(), 2);
        assert_eq!(&raw[block.body_start..], b"JVBERi0x\nLjQK\n--b\nX-A: b\n");
        assert_eq!(read_as(b"hello\nX-A: b\n", false).body_start, 0);
    }

    #[test]
    fn a_field_beyond_a_limit_is_left_out_alone() {
        let long = format!("Subject: x\r\nTo: {}\r\nDate: now\r\n\r\nbody", "a@b,\r\n ".repeat(20_000));
        assert_eq!(split(&long), (vec!["Subject".into(), "Date".into()], "body"));
        assert!(read_as(long.as_bytes(), true).limited.is_some());
        let many = format!("{}\r\nbody", "A: b\r\n".repeat(1500));
        assert_eq!((split(&many).0.len(), split(&many).1), (1000, "body"));
    }

    #[test]
    fn a_crowd_of_stray_lines_is_linear() {
        for unit in ["x\n", " \n", "x\nX-A: b\n", " \nX-A: b\n", "\t\n \nx\n"] {
            let _ = read_as(unit.repeat(2_000_000 / unit.len()).as_bytes(), true);
        }
        // Each such line is compared with the boundary that the fields declare.
        let long = "x".repeat(95_000);
        for (declared, unit) in
            [(long.as_str(), "--a\n"), ("b", "--bb\n"), ("", "--\n"), (&long, "--a\nX-A: b\n")]
        {
            let raw = format!("Content-Type: multipart/mixed; boundary={declared}\n{}", unit.repeat(500_000));
            let _ = read_as(raw.as_bytes(), true);
        }
    }

    proptest! {
        #[test]
        fn any_pile_of_lines_is_read(pieces in prop::collection::vec(prop::sample::select(vec![
            "Subject: x", "From: a", "x", " ", "\t", " y", "\n", "\r\n", "--b", ":", "\u{feff}", "From ",
        ]), 0..60), top in any::<bool>()) {
            let raw = pieces.concat();
            let block = read_as(raw.as_bytes(), top);
            prop_assert!(block.body_start <= raw.len());
        }
    }
}
