//! The one walk over the tree that decides what is shown, in which order, and what is a file (RFC 2046 §5.1, RFC 2183,
//! RFC 2387; the order is that of RFC 8621 §4.1.4).
//!
//! Parts of a mixed multipart stand one after the other, of alternatives the reader gets one as text and one as HTML, of
//! related parts the root. A part can be shown and be a file: a picture, a text with a name that is meant to be read. To
//! teach it another type: [`Walk::leaf`] for how it is shown, [`is_for_machines`] for what no person calls an attachment.

mod uu;

use std::ops::Range;

pub(super) use self::uu::without_files;
use super::part::PartInfo;
use super::structure::Part;

/// Something that the reader sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Text without markup, of whatever type.
    Plain(usize),
    Html(usize),
    /// A picture or a file that stands among the texts.
    File(usize),
    /// The same twice: as text and as HTML.
    Choice {
        text: Vec<Shown>,
        html: Vec<Shown>,
    },
}

impl Shown {
    fn any(&self, is: &dyn Fn(&Self) -> bool) -> bool {
        match self {
            Self::Choice { text, html } => text.iter().chain(html).any(|s| s.any(is)),
            other => is(other),
        }
    }
}

/// Whether something of these is HTML.
pub(super) fn has_html(list: &[Shown]) -> bool {
    list.iter().any(|s| s.any(&|s| matches!(s, Shown::Html(_))))
}

/// Whether something of these is plain text.
pub(super) fn has_plain(list: &[Shown]) -> bool {
    list.iter().any(|s| s.any(&|s| matches!(s, Shown::Plain(_))))
}

/// A file of the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    /// The part that it is, or that holds it.
    pub part: usize,
    /// A uuencoded file within a text: where it stands in the message, and its name.
    pub within: Option<(Range<usize>, String)>,
    /// For programs, or another form of what is shown: listed, but not what a person calls an attachment.
    pub uncounted: bool,
}

/// What is shown and what is attached.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// In the order of the message.
    pub shown: Vec<Shown>,
    /// In the order of the message; their place in this list is their number.
    pub files: Vec<File>,
}

impl Layout {
    pub fn new(raw: &[u8], parts: &[Part<'_>]) -> Self {
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); parts.len()];
        for (i, part) in parts.iter().enumerate().filter(|(_, p)| !p.nested) {
            if let Some(list) = part.parent.and_then(|p| children.get_mut(p)) {
                list.push(i);
            }
        }
        let mut walk = Walk { raw, parts, children, files: Vec::new() };
        let mut shown = if parts.is_empty() { Vec::new() } else { walk.part(0, true) };
        let is_picture = |part: usize| parts.get(part).is_some_and(|p| p.info.kind == "image");
        trim_files(&mut shown, &is_picture);
        let mut files = walk.files;
        files.sort_by_key(|f| (f.part, f.within.as_ref().map_or(0, |(range, _)| range.start)));
        Self { shown, files }
    }
}

/// Files stand among the texts where there is text on both sides; before and behind they are just attached. Pictures are
/// part of what is shown wherever they are.
fn trim_files(shown: &mut Vec<Shown>, is_picture: &dyn Fn(usize) -> bool) {
    let is_text = |s: &Shown| match s {
        Shown::File(part) => is_picture(*part),
        _ => true,
    };
    let last = shown.iter().rposition(is_text).map_or(0, |at| at + 1);
    let first = shown.iter().position(is_text).unwrap_or(0);
    shown.truncate(last);
    shown.drain(..first);
}

struct Walk<'a> {
    raw: &'a [u8],
    parts: &'a [Part<'a>],
    children: Vec<Vec<usize>>,
    files: Vec<File>,
}

impl Walk<'_> {
    fn info(&self, part: usize) -> Option<&PartInfo> {
        self.parts.get(part).map(|p| &p.info)
    }

    fn file(&mut self, part: usize, uncounted: bool) {
        let uncounted = uncounted || self.info(part).is_some_and(is_for_machines);
        self.files.push(File { part, within: None, uncounted });
    }

    /// What is shown of a part. `first`: it is where a body is expected, so that a name alone makes no file of it. The depth
    /// of the tree is limited, so this may recurse.
    fn part(&mut self, part: usize, first: bool) -> Vec<Shown> {
        let Some(node) = self.parts.get(part) else { return Vec::new() };
        if !node.container || node.info.is_message() {
            return self.leaf(part, first);
        }
        let children = self.children.get(part).cloned().unwrap_or_default();
        match node.info.subtype.as_str() {
            "alternative" => self.alternative(&children),
            "related" => {
                let start = node.info.start.clone();
                self.related(&children, start.as_deref())
            }
            _ => {
                // The body is the first that can be read; a picture or a file may stand before it.
                let mut shown = Vec::new();
                for &child in &children {
                    let expected = first && shown.iter().all(|s| matches!(s, Shown::File(_)));
                    shown.extend(self.part(child, expected));
                }
                shown
            }
        }
    }

    fn leaf(&mut self, part: usize, first: bool) -> Vec<Shown> {
        let Some(info) = self.info(part) else { return Vec::new() };
        let (inline, named) = (info.inline, info.filename.is_some());
        if info.attached {
            self.file(part, false);
            return Vec::new();
        }
        match (info.kind.as_str(), info.subtype.as_str()) {
            ("text", "plain" | "html") if named && !first => {
                self.file(part, false);
                if inline { self.text(part) } else { Vec::new() }
            }
            ("text", "plain" | "html") => self.text(part),
            ("text", subtype) if first && is_readable(subtype) => {
                if named || matches!(subtype, "calendar" | "vcard" | "x-vcard" | "directory") {
                    self.file(part, false);
                }
                vec![Shown::Plain(part)]
            }
            ("image", _) => {
                self.file(part, false);
                vec![Shown::File(part)]
            }
            _ => {
                self.file(part, false);
                if named { vec![Shown::File(part)] } else { Vec::new() }
            }
        }
    }

    fn text(&mut self, part: usize) -> Vec<Shown> {
        let Some(node) = self.parts.get(part) else { return Vec::new() };
        if node.info.subtype == "html" {
            return vec![Shown::Html(part)];
        }
        let files = uu::files(self.raw, node);
        self.files.extend(files.map(|within| File { part, within: Some(within), uncounted: false }));
        vec![Shown::Plain(part)]
    }

    /// RFC 2046 §5.1.4: the last that can be shown is the best; as text the first that is text.
    fn alternative(&mut self, children: &[usize]) -> Vec<Shown> {
        let fancy =
            |info: &PartInfo| info.kind == "text" && !matches!(info.subtype.as_str(), "plain" | "html");
        let (others, main): (Vec<usize>, Vec<usize>) = children
            .iter()
            .partition(|c| self.parts.get(**c).is_some_and(|p| !p.container && fancy(&p.info)));
        let mut views: Vec<Vec<Shown>> = main.iter().map(|&c| self.part(c, true)).collect();
        let html = views.iter().rposition(|v| has_html(v));
        let text =
            views.iter().enumerate().position(|(n, v)| Some(n) != html && has_plain(v) && !has_html(v));
        let mut take = |n: Option<usize>| n.and_then(|n| views.get_mut(n)).map(std::mem::take);
        let chosen = match (take(text), take(html)) {
            (Some(text), Some(html)) => vec![Shown::Choice { text, html }],
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Vec::new(),
        };
        let nothing = chosen.is_empty();
        // A second text among alternatives says the same again.
        for rest in views.into_iter().flatten() {
            self.leftover(rest);
        }
        let mut chosen = chosen;
        for part in others {
            if nothing && chosen.is_empty() {
                chosen = self.leaf(part, true);
            } else {
                let calendar = self.info(part).is_some_and(|i| i.subtype == "calendar" || i.attached);
                self.file(part, !calendar);
            }
        }
        chosen
    }

    fn leftover(&mut self, shown: Shown) {
        match shown {
            Shown::Plain(part) | Shown::Html(part) => {
                if !self.files.iter().any(|f| f.part == part) {
                    self.file(part, true);
                }
            }
            Shown::File(_) => {}
            Shown::Choice { text, html } => text.into_iter().chain(html).for_each(|s| self.leftover(s)),
        }
    }

    /// The root is shown, the rest is there for it. A text that nothing can refer to was meant to be read.
    fn related(&mut self, children: &[usize], start: Option<&str>) -> Vec<Shown> {
        let named = start.and_then(|id| {
            children.iter().find(|c| self.info(**c).is_some_and(|i| i.content_id.as_deref() == Some(id)))
        });
        let is_body = |c: &&usize| self.parts.get(**c).is_some_and(|p| p.container || p.info.kind == "text");
        let root = named.or_else(|| children.iter().find(is_body)).or_else(|| children.first()).copied();
        let mut shown = Vec::new();
        for &child in children {
            let Some(node) = self.parts.get(child) else { continue };
            let info = &node.info;
            let loose = info.kind == "text" && info.content_id.is_none() && info.location.is_none();
            if Some(child) == root {
                shown.extend(self.part(child, true));
            } else if node.container || (loose && info.filename.is_none()) {
                shown.extend(self.part(child, false));
            } else {
                self.file(child, false);
            }
        }
        shown
    }
}

/// Types of text that are readable as they stand (RFC 2046 §4.1.4).
fn is_readable(subtype: &str) -> bool {
    !matches!(subtype, "rtf" | "x-amp-html" | "x-watch-html" | "watch-html")
}

/// Signatures, forms of the message for other programs, reports: nobody attached them.
fn is_for_machines(info: &PartInfo) -> bool {
    match info.kind.as_str() {
        "application" => {
            matches!(info.subtype.as_str(), "pkcs7-signature" | "x-pkcs7-signature" | "pgp-signature")
        }
        "text" => {
            matches!(info.subtype.as_str(), "x-amp-html" | "x-watch-html" | "watch-html" | "rfc822-headers")
        }
        "message" => matches!(
            info.subtype.as_str(),
            "delivery-status" | "global-delivery-status" | "disposition-notification" | "feedback-report"
        ),
        _ => false,
    }
}

#[cfg(test)]
pub(super) mod tests;
