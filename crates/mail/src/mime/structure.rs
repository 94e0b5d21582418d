//! The tree of parts, found in one pass over the bytes and kept as a flat list.
//!
//! A boundary line ends everything opened since that boundary was declared (RFC 2046 §5.1.2), so a stack of
//! open containers is all the state there is. Nested messages are walked for the limits' and the search's sake: to the
//! reader each of them is one attachment. Beyond a limit the walk ends, and what came before it stays.

use std::ops::Range;

use super::charset::Fallback;
use super::header::{RawHeader, Reader, line_len, trim_line_end};
use super::limits::{
    LimitExceeded, MAX_BOUNDARY_BYTES, MAX_DEPTH, MAX_HEADERS_BYTES, MAX_MESSAGE_BYTES, MAX_PARTS,
};
use super::part::{PartInfo, Transfer};
use super::{part, transfer};

/// Lines looked at for a boundary that nobody declared.
const MAX_PREAMBLE_LINES: usize = 64;
/// What is looked at of a body to tell the charset of header fields.
const SAMPLE_BYTES: usize = 16 * 1024;

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

/// All parts of a message; the first is the message itself.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    pub parts: Vec<Part<'a>>,
    /// The first limit that the message goes beyond: something of it is not in `parts`.
    pub limited: Option<LimitExceeded>,
    /// How raw bytes in header fields are read.
    pub fallback: Fallback,
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
    limited: Option<LimitExceeded>,
}

/// Finds all parts. Linear in the size of the message.
pub(super) fn walk(raw: &[u8]) -> Tree<'_> {
    let mut walker = Walker { raw, parts: Vec::new(), open: Vec::new(), header_bytes: 0, limited: None };
    let mut pos = Some(0);
    if raw.len() > MAX_MESSAGE_BYTES {
        walker.fields_only();
        pos = None;
    }
    while let Some(at) = pos {
        pos = walker.part_at(at);
    }
    walker.finish();
    let mut tree = Tree { parts: walker.parts, limited: walker.limited, fallback: Fallback::default() };
    tree.settle_raw_bytes(raw);
    tree
}

impl Tree<'_> {
    /// Raw bytes in header fields mean little alone; they are in the charset that a body declares, or else are guessed
    /// together with the bodies that declare none.
    fn settle_raw_bytes(&mut self, raw: &[u8]) {
        let is_raw = |h: &RawHeader<'_>| std::str::from_utf8(h.value).is_err();
        if !self.parts.iter().any(|p| p.headers.iter().any(is_raw)) {
            return;
        }
        let texts = || self.parts.iter().filter(|p| p.info.kind == "text" && !p.nested);
        let declared =
            texts().filter_map(|p| p.info.charset.as_deref()).map(Fallback::labelled).find(|f| f.is_some());
        self.fallback = declared.unwrap_or_else(|| {
            let bodies: Vec<_> = texts()
                .filter_map(|p| raw.get(p.body.clone()).map(|b| (b.get(..SAMPLE_BYTES).unwrap_or(b), p)))
                .take(4)
                .map(|(sample, p)| transfer::decode(sample, p.info.transfer))
                .collect();
            let fields = self.parts.iter().flat_map(|p| &p.headers).filter(|h| is_raw(h)).take(50);
            let samples = fields.map(|h| h.value).chain(bodies.iter().map(AsRef::as_ref));
            Fallback::detected(samples.filter(|s| std::str::from_utf8(s).is_err()))
        });
        let fallback = self.fallback;
        for part in self.parts.iter_mut().filter(|p| p.headers.iter().any(is_raw)) {
            if part.info.filename.is_some() {
                part.info.filename = part::read(&part.headers, false, fallback).filename;
            }
        }
    }
}

/// A boundary line: which open container it belongs to, and where things end and go on.
struct Found {
    level: usize,
    closing: bool,
    content_end: usize,
    next: usize,
}

impl<'a> Walker<'a> {
    fn limit(&mut self, limit: LimitExceeded) {
        self.limited = self.limited.or(Some(limit));
    }

    /// Of a message that is too large the first block is all that is read.
    fn fields_only(&mut self) {
        self.limit(LimitExceeded::Size);
        let block = Reader { top: true, is_boundary: &|_| false }.read(self.raw, 0);
        self.push_fields(block.headers);
    }

    /// The first part as its fields and nothing else.
    fn push_fields(&mut self, headers: Vec<RawHeader<'a>>) {
        let (info, body) = (PartInfo::hidden(), 0..0);
        self.parts.push(Part { headers, info, parent: None, body, nested: false, container: false });
    }

    /// Reads the part whose headers begin at `at`; returns where the next one's begin.
    fn part_at(&mut self, at: usize) -> Option<usize> {
        if self.parts.len() >= MAX_PARTS {
            self.limit(LimitExceeded::Parts);
            return None;
        }
        if self.open.len() > MAX_DEPTH {
            self.limit(LimitExceeded::Depth);
            return None;
        }
        let parent = self.open.last().map(|o| o.part);
        let block = {
            let is_boundary = |line: &[u8]| matches(&self.open, line).is_some();
            let nested_message = self.open.last().is_some_and(|o| o.boundary.is_none());
            let top = self.parts.is_empty() || nested_message;
            Reader { top, is_boundary: &is_boundary }.read(self.raw, at)
        };
        self.limited = self.limited.or(block.limited);
        self.header_bytes += block.body_start - at;
        if self.header_bytes > MAX_HEADERS_BYTES {
            self.limit(LimitExceeded::HeadersSize);
            if self.parts.is_empty() {
                self.push_fields(block.headers);
            }
            return None;
        }
        let in_digest =
            parent.and_then(|p| self.parts.get(p)).is_some_and(|p| p.info.is("multipart", "digest"));
        let mut info = part::read(&block.headers, in_digest, Fallback::default());
        if info.limited {
            self.limit(LimitExceeded::Parameters);
        }
        let index = self.parts.len();
        let boundary = self.boundary_of(&mut info, block.body_start);
        let message = info.is_message() && info.transfer == Transfer::Identity;
        let nested = self.open.iter().any(|o| o.boundary.is_none());
        let body = block.body_start..self.raw.len();
        if info.transfer == Transfer::Base64
            && info.kind == "text"
            && transfer::is_text_after_all(self.raw.get(body.clone()).unwrap_or_default())
        {
            info.transfer = Transfer::Identity;
        }
        self.parts.push(Part { headers: block.headers, info, parent, body, nested, container: false });
        if message {
            self.open.push(Open { part: index, boundary: None });
            return Some(block.body_start);
        }
        if boundary.is_some() {
            self.open.push(Open { part: index, boundary });
        }
        self.next_part(index, block.body_start)
    }

    /// The boundary of a multipart: declared, or where that was forgotten the first that is drawn.
    fn boundary_of(&mut self, info: &mut PartInfo, body: usize) -> Option<Vec<u8>> {
        if info.kind != "multipart" {
            return None;
        }
        let declared =
            info.boundary.as_deref().map(|b| b.trim_end().as_bytes().to_vec()).filter(|b| !b.is_empty());
        let boundary = declared.or_else(|| self.drawn_boundary(body))?;
        if boundary.len() > MAX_BOUNDARY_BYTES {
            self.limit(LimitExceeded::Boundary);
            *info = PartInfo::hidden();
            return None;
        }
        Some(boundary)
    }

    fn drawn_boundary(&self, body: usize) -> Option<Vec<u8>> {
        let mut rest = self.raw.get(body..)?;
        for _ in 0..MAX_PREAMBLE_LINES {
            let (line, tail) = rest.split_at(line_len(rest));
            let line = trim_line_end(line);
            if line.starts_with(b"--") && line.len() > 4 && matches(&self.open, line).is_none() {
                let follows = trim_line_end(tail.get(..line_len(tail))?);
                let field = follows.get(..8).is_some_and(|f| f.eq_ignore_ascii_case(b"content-"));
                return (field || follows.is_empty())
                    .then(|| line.trim_ascii_end().get(2..).map(<[u8]>::to_vec))?;
            }
            rest = tail;
        }
        None
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
            // Of a multipart that is closed before it was opened the text before that line is all there is.
            let has_parts = self.parts.get(part).is_some_and(|p| p.container);
            self.end(part, if has_parts { found.next } else { found.content_end });
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::walk;

    fn bodies(raw: &str) -> Vec<(String, String)> {
        walk(raw.as_bytes())
            .parts
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
    fn of_header_fields_that_are_too_much_together_the_first_are_read() {
        let field = |n: usize| format!("X-{n}: y\r\n{}", format!(" {}\r\n", "x".repeat(900)).repeat(108));
        let raw = format!("Subject: Seen\r\n{}\r\nx", (0..120).map(field).collect::<String>());
        let parsed = crate::mime::parse(raw.as_bytes());
        assert_eq!((parsed.subject.as_deref(), parsed.degraded), (Some("Seen"), true));
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
    fn a_multipart_that_is_only_closed_is_the_text_before_that_line() {
        expect("Content-Type: multipart/mixed; boundary=a\r\n\r\n--a--\r\n", &[("text/plain", "")]);
        expect("Content-Type: multipart/mixed; boundary=a\n\nhello\n--a--\nrest", &[("text/plain", "hello")]);
        expect(
            "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/mixed; boundary=b\n\n--b--\n--a\n\nx\n--a--",
            &[("text/plain", ""), ("text/plain", "x")],
        );
    }

    #[test]
    fn a_boundary_may_follow_the_fields_directly() {
        let raw = "Subject: x\nContent-Type: multipart/mixed; boundary=\"a\"\n--a\nContent-Type: text/html\n\nhi\n--a--\n";
        expect(raw, &[("text/html", "hi")]);
        assert_eq!(walk(raw.as_bytes()).parts[0].headers.len(), 2);
        expect(
            "Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: multipart/alternative;\n boundary=b\n--b\n\nx\n--b--\n--a--",
            &[("text/plain", "x")],
        );
    }

    #[test]
    fn a_boundary_that_nobody_declared_is_seen() {
        expect(
            "Content-Type: multipart/mixed\n\n--xyz\nContent-Type: text/html\n\na\n--xyz\n\nb\n--xyz--\n",
            &[("text/html", "a"), ("text/plain", "b")],
        );
        expect("Content-Type: multipart/mixed\n\n-- \nAnn\n", &[("text/plain", "-- \nAnn\n")]);
    }

    #[test]
    fn of_two_fields_the_first_counts() {
        expect("Content-Type: text/html\nContent-Type: text/plain\n\nx", &[("text/html", "x")]);
    }

    #[test]
    fn beyond_a_limit_what_came_before_stays() {
        let mut deep = String::from("Content-Type: multipart/mixed; boundary=a\n\n--a\n\nbefore\n--a\n");
        for i in 0..150 {
            deep.push_str(&format!("Content-Type: multipart/mixed; boundary=b{i}\n\n--b{i}\n"));
        }
        let tree = walk(deep.as_bytes());
        assert!(tree.limited.is_some());
        assert_eq!(deep.get(tree.parts[1].body.clone()).unwrap(), "before");
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
        let parts = walk(raw).parts;
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
        assert_eq!(walk(raw.as_bytes()).parts.len(), 9001);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked(raw in prop::collection::vec(any::<u8>(), 0..400)) {
            let parts = walk(&raw).parts;
            prop_assert!(parts.iter().all(|p| p.body.start <= p.body.end && p.body.end <= raw.len()));
        }

        #[test]
        fn any_shuffle_of_pieces_is_walked(pieces in prop::collection::vec(prop::sample::select(vec![
            "--a\r\n", "--a--\r\n", "--b\n", "--b--", "\r\n", "\n", "x\r\n", " \r\n", "Content-Type: message/rfc822\r\n",
            "Content-Type: multipart/mixed; boundary=a\r\n", "Content-Type: multipart/digest; boundary=\"b\"\n",
            "Content-Transfer-Encoding: base64\r\n", "Subject: =?utf-8?q?x?=\r\n", "YQ==\r\n",
        ]), 0..60)) {
            let raw = pieces.concat();
            let parts = walk(raw.as_bytes()).parts;
            prop_assert!(parts.iter().all(|p| p.body.start <= p.body.end && p.body.end <= raw.len()));
            prop_assert!(parts.iter().enumerate().all(|(i, p)| p.parent.is_none_or(|q| q < i)));
        }
    }
}
