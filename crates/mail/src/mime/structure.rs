//! The tree of parts, found in one pass over the bytes and kept as a flat list.
//!
//! A boundary line ends everything opened since that boundary was declared (RFC 2046 §5.1.2), so a stack of
//! open containers is all the state there is. Nested messages are walked for the limits' sake only: to us
//! each of them is one attachment.

use std::ops::Range;

use mail_parser::{HeaderValue, MessageParser, MimeHeaders as _};

use super::header::{OnLimit, RawHeader, Reader, line_len, normalized, trim_line_end};
use super::limits::{
    LimitExceeded, MAX_BOUNDARY_BYTES, MAX_DEPTH, MAX_HEADERS_BYTES, MAX_MESSAGE_BYTES, MAX_PARTS,
};

/// How a body was made fit for the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Transfer {
    #[default]
    Identity,
    Base64,
    QuotedPrintable,
}

/// What the Content-* fields of a part say.
#[derive(Clone, Debug, Default)]
pub(super) struct PartInfo {
    /// `text`, in lower case; empty if nothing was said.
    pub kind: String,
    /// `plain`, in lower case.
    pub subtype: String,
    pub charset: Option<String>,
    pub boundary: Option<String>,
    pub filename: Option<String>,
    pub attached: bool,
    pub inline: bool,
    pub content_id: Option<String>,
    pub transfer: Transfer,
}

impl PartInfo {
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind == kind && self.subtype == subtype
    }

    fn is_message(&self) -> bool {
        self.is("message", "rfc822") || self.is("message", "global")
    }
}

/// A node of the tree.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub headers: Vec<RawHeader<'a>>,
    pub info: PartInfo,
    /// Index of the enclosing part.
    pub parent: Option<usize>,
    /// Where the still encoded contents stand.
    pub body: Range<usize>,
    /// Belongs to a message inside the message.
    pub nested: bool,
    /// Has parts of its own.
    pub container: bool,
}

struct Open {
    part: usize,
    boundary: Option<Vec<u8>>,
}

struct Walker<'a> {
    raw: &'a [u8],
    parts: Vec<Part<'a>>,
    open: Vec<Open>,
    header_bytes: usize,
}

/// Finds all parts; the first is the message itself. Linear in the size of the message.
pub(super) fn walk(raw: &[u8]) -> Result<Vec<Part<'_>>, LimitExceeded> {
    if raw.len() > MAX_MESSAGE_BYTES {
        return Err(LimitExceeded::Size);
    }
    let mut walker = Walker { raw, parts: Vec::new(), open: Vec::new(), header_bytes: 0 };
    let mut pos = Some(0);
    while let Some(at) = pos {
        pos = walker.part_at(at)?;
    }
    walker.finish();
    Ok(walker.parts)
}

/// A boundary line: which open container it belongs to, and where things end and go on.
struct Found {
    level: usize,
    closing: bool,
    content_end: usize,
    next: usize,
}

impl<'a> Walker<'a> {
    /// Reads the part whose headers begin at `at`; returns where the next one's begin.
    fn part_at(&mut self, at: usize) -> Result<Option<usize>, LimitExceeded> {
        if self.parts.len() >= MAX_PARTS {
            return Err(LimitExceeded::Parts);
        }
        if self.open.len() > MAX_DEPTH {
            return Err(LimitExceeded::Depth);
        }
        let parent = self.open.last().map(|o| o.part);
        let block = {
            let is_boundary = |line: &[u8]| matches(&self.open, line).is_some();
            let nested_message = self.open.last().is_some_and(|o| o.boundary.is_none());
            let top = self.parts.is_empty() || nested_message;
            Reader { on_limit: OnLimit::Refuse, top, is_boundary: &is_boundary }.read(self.raw, at)?
        };
        self.header_bytes += block.body_start - at;
        if self.header_bytes > MAX_HEADERS_BYTES {
            return Err(LimitExceeded::HeadersSize);
        }
        let in_digest =
            parent.and_then(|p| self.parts.get(p)).is_some_and(|p| p.info.is("multipart", "digest"));
        let info = part_info(&block.headers, in_digest);
        let index = self.parts.len();
        let boundary = (info.kind == "multipart")
            .then(|| info.boundary.as_deref().map(|b| b.trim_end().as_bytes().to_vec()))
            .flatten()
            .filter(|b| !b.is_empty());
        if boundary.as_ref().is_some_and(|b| b.len() > MAX_BOUNDARY_BYTES) {
            return Err(LimitExceeded::Boundary);
        }
        let message = info.is_message() && info.transfer == Transfer::Identity;
        let nested = self.open.iter().any(|o| o.boundary.is_none());
        let body = block.body_start..self.raw.len();
        self.parts.push(Part { headers: block.headers, info, parent, body, nested, container: false });
        if message {
            self.open.push(Open { part: index, boundary: None });
            return Ok(Some(block.body_start));
        }
        if boundary.is_some() {
            self.open.push(Open { part: index, boundary });
        }
        Ok(self.next_part(index, block.body_start))
    }

    /// Ends what the next boundary lines end; returns where the headers of the next part begin.
    fn next_part(&mut self, current: usize, from: usize) -> Option<usize> {
        let mut pos = from;
        let mut leaf = Some(current);
        loop {
            let found = self.find_boundary(pos)?;
            if let Some(part) = leaf.take() {
                // A multipart's own boundary does not end it.
                if self.open.get(found.level).is_none_or(|o| o.part != part) {
                    self.end(part, found.content_end);
                }
            }
            for open in self.open.split_off(found.level + 1) {
                self.end(open.part, found.content_end);
            }
            let part = self.open.get(found.level).map(|o| o.part)?;
            if !found.closing {
                if let Some(p) = self.parts.get_mut(part) {
                    p.container = true;
                }
                return Some(found.next);
            }
            self.open.truncate(found.level);
            self.end(part, found.next);
            pos = found.next;
        }
    }

    fn end(&mut self, part: usize, at: usize) {
        if let Some(p) = self.parts.get_mut(part) {
            p.body.end = at.max(p.body.start);
        }
    }

    /// The next line that is a boundary of an open multipart.
    fn find_boundary(&self, from: usize) -> Option<Found> {
        if self.open.iter().all(|o| o.boundary.is_none()) {
            return None;
        }
        let mut pos = from;
        while let Some(rest) = self.raw.get(pos..).filter(|r| !r.is_empty()) {
            let len = line_len(rest);
            if rest.starts_with(b"--") {
                let line = trim_line_end(rest.get(..len).unwrap_or_default());
                if let Some((level, closing)) = matches(&self.open, line) {
                    let before = trim_line_end(self.raw.get(from..pos).unwrap_or_default());
                    return Some(Found { level, closing, content_end: from + before.len(), next: pos + len });
                }
            }
            pos += len;
        }
        None
    }

    /// A multipart in which its boundary never came is the text it is.
    fn finish(&mut self) {
        for part in &mut self.parts {
            if part.info.kind == "multipart" && !part.container {
                part.info.kind = "text".into();
                part.info.subtype = "plain".into();
            }
        }
    }
}

/// Which open multipart a line is a boundary of, innermost first, and whether it closes it.
fn matches(open: &[Open], line: &[u8]) -> Option<(usize, bool)> {
    let line = line.strip_prefix(b"--")?.trim_ascii_end();
    open.iter().enumerate().rev().find_map(|(level, o)| {
        let rest = line.strip_prefix(o.boundary.as_deref()?)?;
        match rest {
            b"" => Some((level, false)),
            b"--" => Some((level, true)),
            _ => None,
        }
    })
}

fn part_info(headers: &[RawHeader<'_>], in_digest: bool) -> PartInfo {
    let mut info = PartInfo::default();
    let is_mime = |h: &RawHeader<'_>| h.name.get(..8).is_some_and(|n| n.eq_ignore_ascii_case(b"content-"));
    if headers.iter().any(is_mime) {
        let block = normalized(headers, is_mime);
        if let Some(message) = MessageParser::default().parse_headers(&block) {
            read_mime_headers(message.root_part(), &mut info);
        }
    }
    if info.kind.is_empty() {
        let (kind, subtype) = if in_digest { ("message", "rfc822") } else { ("text", "plain") };
        info.kind = kind.to_owned();
        info.subtype = subtype.to_owned();
    }
    info
}

fn read_mime_headers(part: &mail_parser::MessagePart<'_>, info: &mut PartInfo) {
    if let Some(t) = part.content_type() {
        info.kind = token(t.ctype());
        info.subtype = token(t.subtype().unwrap_or(if info.kind == "text" { "plain" } else { "" }));
        info.charset = t.attribute("charset").map(str::to_owned);
        info.boundary = t.attribute("boundary").map(str::to_owned);
        info.filename = t.attribute("name").map(str::to_owned);
    }
    if let Some(d) = part.content_disposition() {
        info.attached = d.is_attachment();
        info.inline = d.is_inline();
        if let Some(name) = d.attribute("filename") {
            info.filename = Some(name.to_owned());
        }
    }
    info.content_id = part.content_id().map(|id| id.trim().trim_matches(['<', '>']).to_owned());
    let transfer =
        match part.headers.iter().find(|h| h.name == mail_parser::HeaderName::ContentTransferEncoding) {
            Some(h) => match &h.value {
                HeaderValue::Text(t) => t.trim().to_ascii_lowercase(),
                _ => String::new(),
            },
            None => String::new(),
        };
    info.transfer = match transfer.as_str() {
        "base64" => Transfer::Base64,
        "quoted-printable" => Transfer::QuotedPrintable,
        _ => Transfer::Identity,
    };
}

/// A type name that is safe to send on: RFC 2045 token characters, lower case, 127 bytes at most.
fn token(text: &str) -> String {
    let ok = |c: &char| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(*c);
    text.chars().filter(ok).take(127).collect::<String>().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::walk;

    fn bodies(raw: &str) -> Vec<(String, String)> {
        walk(raw.as_bytes())
            .unwrap()
            .iter()
            .filter(|p| !p.container && !p.nested)
            .map(|p| {
                (format!("{}/{}", p.info.kind, p.info.subtype), raw.get(p.body.clone()).unwrap().to_owned())
            })
            .collect()
    }

    fn expect(raw: &str, wanted: &[(&str, &str)]) {
        let wanted: Vec<_> = wanted.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(bodies(raw), wanted);
    }

    #[test]
    fn nested_multiparts_come_apart() {
        expect(
            "Content-Type: multipart/mixed; boundary=\"a\"\r\n\r\npreamble\r\n--a\r\n\
             Content-Type: multipart/alternative; boundary=ab\r\n\r\n--ab\r\n\r\none\r\n--ab\r\n\
             Content-Type: TEXT/HTML\r\n\r\ntwo\r\n\r\n--ab--\r\nepilogue\r\n--a\r\n\
             Content-Type: image/png\r\n\r\nthree\r\n--a--\r\nrest",
            &[("text/plain", "one"), ("text/html", "two\r\n"), ("image/png", "three")],
        );
    }

    #[test]
    fn a_missing_inner_end_is_closed_by_the_outer_boundary() {
        expect(
            "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/mixed; boundary=b\n\n\
             --b\n\nx\n--a\n\ny\n--a--\n",
            &[("text/plain", "x"), ("text/plain", "y")],
        );
    }

    #[test]
    fn a_boundary_that_never_comes_leaves_text() {
        expect(
            "Content-Type: multipart/mixed; boundary=zz\r\n\r\n--aa\r\nhello",
            &[("text/plain", "--aa\r\nhello")],
        );
        expect("Content-Type: multipart/mixed\r\n\r\nhello", &[("text/plain", "hello")]);
    }

    #[test]
    fn a_message_inside_is_one_part() {
        expect(
            "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: message/rfc822\r\n\r\n\
             Subject: in\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\ninner\r\n--i--\r\n\
             --a\r\n\r\nouter\r\n--a--\r\n",
            &[
                (
                    "message/rfc822",
                    "Subject: in\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\ninner\r\n--i--\r\n",
                ),
                ("text/plain", "outer"),
            ],
        );
        let raw = b"Content-Type: multipart/digest; boundary=a\r\n\r\n--a\r\n\r\nSubject: one\r\n\r\nx\r\n--a--\r\n";
        let parts = walk(raw).unwrap();
        assert_eq!((parts[1].info.kind.as_str(), parts[2].nested), ("message", true));
        assert_eq!(&raw[parts[1].body.clone()], b"Subject: one\r\n\r\nx");
    }

    #[test]
    fn a_part_without_headers_or_blank_line_is_its_text() {
        expect(
            "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nhello\r\n--a--",
            &[("text/plain", "hello")],
        );
    }

    #[test]
    fn a_crowd_of_boundaries_that_never_come_is_linear() {
        let part = "--a\r\nContent-Type: multipart/mixed; boundary=never\r\n\r\n";
        let raw = format!(
            "Content-Type: multipart/mixed; boundary=a\r\n\r\n{}{}",
            part.repeat(9000),
            "x\r\n".repeat(1_000_000)
        );
        assert_eq!(walk(raw.as_bytes()).unwrap().len(), 9001);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked(raw in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(parts) = walk(&raw) {
                prop_assert!(parts.iter().all(|p| p.body.start <= p.body.end && p.body.end <= raw.len()));
            }
        }

        #[test]
        fn any_shuffle_of_pieces_is_walked(pieces in prop::collection::vec(prop::sample::select(vec![
            "--a\r\n", "--a--\r\n", "--b\n", "--b--", "\r\n", "\n", "x\r\n", " \r\n", "Content-Type: message/rfc822\r\n",
            "Content-Type: multipart/mixed; boundary=a\r\n", "Content-Type: multipart/digest; boundary=\"b\"\n",
            "Content-Transfer-Encoding: base64\r\n", "Subject: =?utf-8?q?x?=\r\n", "YQ==\r\n",
        ]), 0..60)) {
            let raw = pieces.concat();
            if let Ok(parts) = walk(raw.as_bytes()) {
                prop_assert!(parts.iter().all(|p| p.body.start <= p.body.end && p.body.end <= raw.len()));
                prop_assert!(parts.iter().enumerate().all(|(i, p)| p.parent.is_none_or(|q| q < i)));
            }
        }
    }
}
