//! What HTML may cost before the real parser sees it.
//!
//! The parser's work grows with the square of the depth, and open formatting elements are copied into every
//! block that follows. So depth and copies are counted here, on a rough model of the HTML tree rules which
//! counts too much rather than too little. Where the model is not exact (foreign content and the like) the
//! number of tags alone is bounded.

/// Bytes of one HTML part.
const MAX_BYTES: usize = 1024 * 1024;
/// Elements inside each other.
const MAX_DEPTH: usize = 500;
/// Attributes of one tag.
const MAX_ATTRIBUTES: usize = 500;
/// Character references.
const MAX_ENTITIES: usize = 20_000;
/// Tags in a part with elements whose rules the model does not know. At this depth the parser needs 0.2 s.
const MAX_TAGS_UNKNOWN: usize = 5000;
/// Tags times the depth each stands at: the parser looks up the open elements at every tag. Long newsletters
/// come to three million.
const MAX_WORK: usize = 10_000_000;
/// Copies of open formatting elements that the parser would make.
const MAX_COPIES: usize = 200_000;

pub(super) const VOID: [&str; 16] = [
    "area", "base", "basefont", "bgsound", "br", "col", "embed", "hr", "img", "input", "keygen", "link",
    "meta", "param", "source", "wbr",
];
pub(super) const FORMATTING: [&str; 14] =
    ["a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"];
/// Elements that a closing tag outside cannot reach into, and other ones with rules of their own.
const UNKNOWN: [&str; 15] = [
    "applet",
    "button",
    "frameset",
    "marquee",
    "math",
    "noscript",
    "object",
    "option",
    "plaintext",
    "ruby",
    "select",
    "svg",
    "template",
    "optgroup",
    "image",
];
pub(super) const TABLE: [&str; 9] =
    ["caption", "colgroup", "table", "tbody", "td", "tfoot", "th", "thead", "tr"];
pub(super) const INLINE_HOLDERS: [&str; 5] = ["span", "div", "p", "address", "font"];
pub(super) const CLOSES_P: [&str; 36] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "center",
    "dd",
    "details",
    "dialog",
    "dir",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hgroup",
    "hr",
    "li",
    "main",
    "menu",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "summary",
    "ul",
];
/// Contents of these are not markup.
const RAW: [&str; 8] = ["iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp"];

/// Whether the HTML may be given to the parser. Linear, with a bounded factor for the depth.
#[must_use]
pub fn within_budget(html: &str) -> bool {
    if html.len() > MAX_BYTES || html.bytes().filter(|&b| b == b'&').count() > MAX_ENTITIES {
        return false;
    }
    if has_unknown(html) && tags_in(html) > MAX_TAGS_UNKNOWN {
        return false;
    }
    let mut tree = Tree::default();
    Tokens::new(html).all(|token| match token {
        Token::Tag(tag) => tree.tag(&tag),
        Token::Text(_) | Token::Skipped => true,
    })
}

/// Looked for in the bytes, not in the tokens: what the tokens skip may be markup in foreign content.
fn has_unknown(html: &str) -> bool {
    let lower = html.to_ascii_lowercase();
    lower.split('<').skip(1).any(|piece| UNKNOWN.iter().any(|name| piece.starts_with(name)))
}

fn tags_in(html: &str) -> usize {
    html.split('<').skip(1).filter(|piece| piece.starts_with(|c: char| c.is_ascii_alphabetic())).count()
}

#[derive(Default)]
struct Tree {
    open: Vec<String>,
    formatting: usize,
    work: usize,
    copies: usize,
}

impl Tree {
    /// Follows one tag; `false` once the budget is spent.
    fn tag(&mut self, tag: &Tag<'_>) -> bool {
        let name = tag.name.to_ascii_lowercase();
        let name = name.as_str();
        if !FORMATTING.contains(&name) && !VOID.contains(&name) {
            self.copies += self.formatting;
        }
        if tag.closing {
            self.close(name);
        } else if !VOID.contains(&name) {
            self.open(name);
        }
        self.work += self.open.len();
        tag.attributes <= MAX_ATTRIBUTES
            && self.work <= MAX_WORK
            && self.open.len() <= MAX_DEPTH
            && self.copies <= MAX_COPIES
    }

    fn open(&mut self, name: &str) {
        if CLOSES_P.contains(&name) {
            self.pop_to("p", |n| TABLE.contains(&n));
        }
        match name {
            "li" => self.pop_to("li", |n| !transparent(n)),
            "dt" | "dd" => {
                self.pop_to("dt", |n| !transparent(n));
                self.pop_to("dd", |n| !transparent(n));
            }
            "td" | "th" => {
                self.pop_to("td", |n| n == "table");
                self.pop_to("th", |n| n == "table");
            }
            "tr" => self.pop_to("tr", |n| n == "table"),
            "a" => self.close("a"),
            _ => {}
        }
        if FORMATTING.contains(&name) {
            self.formatting += 1;
        }
        self.open.push(name.to_owned());
    }

    fn close(&mut self, name: &str) {
        if FORMATTING.contains(&name) {
            // Only the element itself goes: blocks opened within it stay open.
            if let Some(at) = self.open.iter().rposition(|n| n == name) {
                self.open.remove(at);
                self.formatting = self.formatting.saturating_sub(1);
            }
        } else if TABLE.contains(&name) {
            self.pop_to(name, |n| n == "table" && name != "table");
        } else {
            self.pop_to(name, |n| TABLE.contains(&n));
        }
    }

    /// Pops up to and with the nearest `name`, unless something that stops the search is nearer. Formatting
    /// elements among the popped stay counted: the parser opens them again.
    fn pop_to(&mut self, name: &str, stops: impl Fn(&str) -> bool) {
        for at in (0..self.open.len()).rev() {
            let Some(n) = self.open.get(at) else { return };
            if n == name {
                let popped = self.open.split_off(at);
                self.open.extend(popped.into_iter().filter(|n| FORMATTING.contains(&n.as_str())));
                return;
            }
            if stops(n) {
                return;
            }
        }
    }
}

fn transparent(name: &str) -> bool {
    FORMATTING.contains(&name) || INLINE_HOLDERS.contains(&name)
}

/// A piece of HTML.
pub(super) enum Token<'a> {
    /// Between tags; entities still encoded.
    Text(&'a str),
    Tag(Tag<'a>),
    /// Comments, declarations, contents of raw elements.
    Skipped,
}

/// A tag; attributes only counted, but kept as they stand.
pub(super) struct Tag<'a> {
    pub name: &'a str,
    /// All attributes.
    pub raw: &'a str,
    pub closing: bool,
    pub self_closing: bool,
    pub attributes: usize,
}

/// Splits HTML into pieces by the tokenizer's rules (WHATWG 13.2.5, without error reports).
pub(super) struct Tokens<'a> {
    rest: &'a str,
    /// Name of the raw element whose contents come next.
    raw: Option<&'a str>,
}

impl<'a> Tokens<'a> {
    pub fn new(html: &'a str) -> Self {
        Self { rest: html, raw: None }
    }

    fn skip(&mut self, bytes: usize) -> &'a str {
        let (head, tail) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = tail;
        head
    }

    fn skip_raw(&mut self, name: &str) -> Token<'a> {
        let rest = self.rest.as_bytes();
        let mut at = 0;
        let end = loop {
            let Some(next) = rest.get(at..).and_then(|r| r.iter().position(|&b| b == b'<')) else {
                break rest.len();
            };
            at += next;
            let after = rest.get(at + 1..).unwrap_or_default();
            let named = after.strip_prefix(b"/").and_then(|a| a.get(..name.len()));
            if named.is_some_and(|n| n.eq_ignore_ascii_case(name.as_bytes())) {
                break at;
            }
            at += 1;
        };
        self.skip(end);
        Token::Skipped
    }

    /// `rest` begins with `<!` or `<?` or `</` without a name.
    fn skip_comment(&mut self) -> Token<'a> {
        let end = match self.rest.strip_prefix("<!--") {
            Some(body) if body.starts_with('>') || body.starts_with("->") => {
                self.rest.find('>').map(|i| i + 1)
            }
            Some(body) => {
                let plain = body.find("-->").map(|i| i + 7);
                // The other end of a comment, looked for only before the plain one: linear in total.
                let head = body.get(..plain.map_or(body.len(), |p| p - 7)).unwrap_or_default();
                head.find("--!>").map(|i| i + 8).or(plain)
            }
            None => self.rest.find('>').map(|i| i + 1),
        };
        self.skip(end.unwrap_or(self.rest.len()));
        Token::Skipped
    }

    /// `rest` begins with `<` or `</` and a letter.
    fn tag(&mut self) -> Token<'a> {
        let closing = self.rest.starts_with("</");
        self.skip(if closing { 2 } else { 1 });
        let name = self.skip_while(|b| !b.is_ascii_whitespace() && b != b'/' && b != b'>');
        let mut tag = Tag { name, raw: self.rest, closing, self_closing: false, attributes: 0 };
        loop {
            let gap = self.skip_while(|b| b.is_ascii_whitespace() || b == b'/');
            if self.rest.is_empty() {
                // A tag that never ends is dropped.
                return Token::Skipped;
            }
            if self.rest.starts_with('>') {
                tag.raw = tag.raw.get(..tag.raw.len() - self.rest.len()).unwrap_or_default();
                self.skip(1);
                tag.self_closing = gap.ends_with('/');
                break;
            }
            self.attribute();
            tag.attributes += 1;
        }
        if !closing && RAW.iter().any(|r| r.eq_ignore_ascii_case(name)) {
            self.raw = Some(name);
        }
        Token::Tag(tag)
    }

    fn attribute(&mut self) {
        if self.rest.starts_with('=') {
            self.skip(1);
        }
        self.skip_while(|b| !b.is_ascii_whitespace() && !b"/>=".contains(&b));
        let before = self.rest;
        self.skip_while(|b| b.is_ascii_whitespace());
        if !self.rest.starts_with('=') {
            self.rest = before;
            return;
        }
        self.skip(1);
        self.skip_while(|b| b.is_ascii_whitespace());
        match self.rest.as_bytes().first().copied() {
            Some(quote @ (b'"' | b'\'')) => {
                self.skip(1);
                self.skip_while(|b| b != quote);
                self.skip(1);
            }
            _ => {
                self.skip_while(|b| !b.is_ascii_whitespace() && b != b'>');
            }
        }
    }

    /// Skips bytes while the test holds; the tests only tell ASCII apart, so the cut is between characters.
    fn skip_while(&mut self, test: impl Fn(u8) -> bool) -> &'a str {
        let len = self.rest.bytes().position(|b| !test(b)).unwrap_or(self.rest.len());
        self.skip(len)
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        if let Some(name) = self.raw.take() {
            return Some(self.skip_raw(name));
        }
        let bytes = self.rest.as_bytes();
        let (first, second, third) = (bytes.first()?, bytes.get(1), bytes.get(2));
        if *first == b'<' {
            match (second, third) {
                (Some(b), _) if b.is_ascii_alphabetic() => return Some(self.tag()),
                (Some(b'/'), Some(b)) if b.is_ascii_alphabetic() => return Some(self.tag()),
                (Some(b'!' | b'?'), _) => return Some(self.skip_comment()),
                (Some(b'/'), Some(_)) => return Some(self.skip_comment()),
                _ => {}
            }
        }
        let end = bytes.iter().skip(1).position(|&b| b == b'<').map_or(bytes.len(), |i| i + 1);
        Some(Token::Text(self.skip(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::within_budget;

    #[test]
    fn ordinary_html_is_within() {
        let rows = "<tr><td align=left>x<td>y".repeat(3000);
        assert!(within_budget(&format!("<table>{rows}</table>")));
        assert!(within_budget(&"<p>unclosed <b>bold</b><br>".repeat(5000)));
        assert!(within_budget(&"<ul><li>one<li>two</ul>".repeat(2000)));
        assert!(within_budget(&"<a name=x>".repeat(2000)));
    }

    #[test]
    fn depth_is_bounded_in_every_disguise() {
        for unit in [
            "<div>",
            "<div></foo>",
            "<div><table><td></div>",
            "<b><div></b>",
            "<div><style></div></style>",
            "<x-y>",
            "<svg><style><div>",
            "<div><!--x></div>-->",
            "<div title='</div>'>",
            "<table><td>",
            "<i><p>",
            "<DIV\n>",
            "<blockquote><li>",
            "<svg><g>",
            "<select><option>",
        ] {
            assert!(!within_budget(&unit.repeat(100_000 / unit.len())), "{unit}");
        }
    }

    #[test]
    fn copies_of_formatting_are_bounded() {
        let fonts: String = (0..400).map(|i| format!("<font size={i}>")).collect();
        assert!(!within_budget(&format!("{fonts}{}", "<p>x</p>".repeat(10_000))));
    }

    #[test]
    fn counts_are_bounded() {
        assert!(!within_budget(&"x".repeat(1024 * 1024 + 1)));
        assert!(!within_budget(&"&amp;".repeat(20_001)));
        assert!(!within_budget(&format!("<p{}>", " a=b".repeat(501))));
        assert!(!within_budget(&format!("{}{}", "<div>".repeat(499), "</span>".repeat(100_000))));
    }
}
