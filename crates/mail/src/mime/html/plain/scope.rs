//! Where line ends and blanks count: what an element says of them holds for what the HTML tree has within it (HTML §13.2.6),
//! not up to the next end tag of its name.

use super::super::budget::{CLOSES_P, FORMATTING, INLINE_HOLDERS, TABLE, Tag, VOID};
use super::attribute;

/// Elements inside each other that are followed; browsers make deeper ones siblings.
const MAX_DEPTH: usize = 256;

/// The open elements.
#[derive(Debug)]
pub(super) struct Scope {
    open: Vec<Open>,
    /// Open beyond [`MAX_DEPTH`].
    over: usize,
    /// How many are open, by [`Name::place`]: most end tags and paragraphs are looked for in vain.
    counts: [u16; PLACES],
}

impl Default for Scope {
    fn default() -> Self {
        Self { open: Vec::new(), over: 0, counts: [0; PLACES] }
    }
}

const PLACES: usize = 64;

/// The beginning of a name, by which all elements with rules of their own differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name([u8; 8]);

impl Name {
    fn new(name: &str) -> Self {
        let mut short = [0; 8];
        short.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        Self(short)
    }

    fn place(self) -> usize {
        let sum: usize = self.0.iter().enumerate().map(|(n, b)| usize::from(*b) * (n + 1)).sum();
        sum % PLACES
    }
}

#[derive(Debug)]
struct Open {
    name: Name,
    /// Line ends count within it.
    kept: bool,
    /// It is part of a table.
    table: bool,
    /// Items of a list are looked for through it.
    transparent: bool,
}

impl Scope {
    /// Whether line ends count here.
    pub fn keeps_lines(&self) -> bool {
        self.open.last().is_some_and(|o| o.kept)
    }

    /// Follows a tag, whose name is given in lower case too.
    pub fn tag(&mut self, tag: &Tag<'_>, name: &str) {
        if VOID.contains(&name) {
            return;
        }
        if tag.closing {
            if self.over > 0 {
                self.over -= 1;
            } else {
                self.close(name);
            }
            return;
        }
        self.end_before(name);
        if self.open.len() >= MAX_DEPTH {
            self.over += 1;
            return;
        }
        let kept = said(tag, name).unwrap_or_else(|| self.keeps_lines());
        let transparent = FORMATTING.contains(&name) || INLINE_HOLDERS.contains(&name);
        let short = Name::new(name);
        self.count(short, |n| n + 1);
        self.open.push(Open { name: short, kept, table: TABLE.contains(&name), transparent });
    }

    /// Ends what cannot stand open before such an element.
    fn end_before(&mut self, name: &str) {
        let table = Name::new("table");
        if CLOSES_P.contains(&name) {
            self.pop_to("p", |o| o.table);
        }
        match name {
            "li" => self.pop_to("li", |o| !o.transparent),
            "dt" | "dd" => ["dt", "dd"].iter().for_each(|n| self.pop_to(n, |o| !o.transparent)),
            "td" | "th" => ["td", "th"].iter().for_each(|n| self.pop_to(n, |o| o.name == table)),
            "tr" => self.pop_to("tr", |o| o.name == table),
            "a" => self.close("a"),
            _ => {}
        }
    }

    fn close(&mut self, name: &str) {
        let short = Name::new(name);
        if FORMATTING.contains(&name) {
            // Only the element itself goes: blocks opened within it stay open.
            if self.has(short)
                && let Some(at) = self.open.iter().rposition(|o| o.name == short)
            {
                self.open.remove(at);
                self.count(short, |n| n.saturating_sub(1));
            }
        } else if TABLE.contains(&name) {
            let table = Name::new("table");
            self.pop_to(name, |o| name != "table" && o.name == table);
        } else {
            self.pop_to(name, |o| o.table);
        }
    }

    fn pop_to(&mut self, name: &str, stops: impl Fn(&Open) -> bool) {
        let name = Name::new(name);
        if !self.has(name) {
            return;
        }
        let Some(at) = self.open.iter().rposition(|o| o.name == name || stops(o)) else { return };
        if self.open.get(at).is_some_and(|o| o.name == name) {
            for gone in self.open.split_off(at) {
                self.count(gone.name, |n| n.saturating_sub(1));
            }
        }
    }

    fn has(&self, name: Name) -> bool {
        self.counts.get(name.place()).is_some_and(|n| *n > 0)
    }

    fn count(&mut self, name: Name, change: impl Fn(u16) -> u16) {
        if let Some(n) = self.counts.get_mut(name.place()) {
            *n = change(*n);
        }
    }
}

/// Whether an element begins with a line end that is no text (HTML §13.1.2.5).
pub(super) fn is_by_name(name: &str) -> bool {
    matches!(name, "pre" | "listing" | "textarea" | "xmp" | "plaintext")
}

/// What an element says of line ends, if anything.
fn said(tag: &Tag<'_>, name: &str) -> Option<bool> {
    by_style(tag.raw).or_else(|| is_by_name(name).then_some(true))
}

fn by_style(raw: &str) -> Option<bool> {
    if !raw.as_bytes().windows(6).any(|w| w.eq_ignore_ascii_case(b"white-")) {
        return None;
    }
    let style = attribute(raw, "style")?.to_ascii_lowercase();
    style.rsplit(';').find_map(|declaration| {
        let (property, value) = declaration.split_once(':')?;
        let value = value.split(|c: char| c.is_whitespace() || c == '!').find(|v| !v.is_empty())?;
        match (property.trim(), value) {
            ("white-space", "pre" | "pre-wrap" | "pre-line" | "break-spaces") => Some(true),
            ("white-space", "normal" | "nowrap") => Some(false),
            ("white-space-collapse", "preserve" | "preserve-breaks" | "break-spaces") => Some(true),
            ("white-space-collapse", "collapse") => Some(false),
            _ => None,
        }
    })
}
