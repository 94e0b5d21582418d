//! Text from HTML: for the index, for previews, for readers without HTML. One pass, no tree, no recursion.

use mail_parser::decoders::html::add_html_token;

use super::budget::{Tag, Token, Tokens};

/// More HTML than this is not read by [`to_text_limited`].
const MAX_HTML_BYTES: usize = 1024 * 1024;

/// Elements that stand on lines of their own.
const BLOCKS: [&str; 37] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "caption",
    "center",
    "dd",
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
    "hr",
    "html",
    "li",
    "main",
    "nav",
    "ol",
    "p",
    "pre",
    "section",
    "table",
    "tbody",
    "tfoot",
    "tr",
    "ul",
];

/// Elements whose contents nobody reads.
const HIDDEN: [&str; 9] =
    ["head", "iframe", "math", "noembed", "object", "script", "style", "svg", "template"];

/// The text of HTML: entities decoded, blanks collapsed, blocks on lines of their own.
#[must_use]
pub fn to_text(html: &str) -> String {
    let mut out = Writer::default();
    let mut hidden: Option<(String, usize)> = None;
    for token in Tokens::new(html) {
        match token {
            Token::Text(text) if hidden.is_none() => out.text(text),
            Token::Text(_) | Token::Skipped => {}
            Token::Tag(tag) => {
                if let Some((name, depth)) = &mut hidden {
                    if tag.name.eq_ignore_ascii_case(name) {
                        *depth = if tag.closing { depth.saturating_sub(1) } else { *depth + 1 };
                    }
                    // A body ends a head that was never closed.
                    if *depth == 0 || (name == "head" && tag.name.eq_ignore_ascii_case("body")) {
                        hidden = None;
                    }
                } else {
                    hidden = out.tag(&tag);
                }
            }
        }
    }
    out.finish()
}

/// [`to_text`] of the first mebibyte.
#[must_use]
pub fn to_text_limited(html: &str) -> String {
    to_text(html.get(..html.floor_char_boundary(MAX_HTML_BYTES)).unwrap_or_default())
}

#[derive(Default)]
struct Writer {
    out: String,
    /// Line breaks owed before the next text, at most two.
    breaks: usize,
    space: bool,
}

impl Writer {
    fn tag(&mut self, tag: &Tag<'_>) -> Option<(String, usize)> {
        let name = tag.name.to_ascii_lowercase();
        if HIDDEN.contains(&name.as_str()) && !tag.closing {
            return (!tag.self_closing).then_some((name, 1));
        }
        match name.as_str() {
            "br" => self.br(),
            "td" | "th" | "option" => self.space = true,
            "p" | "blockquote" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "ul" | "ol" | "table" => {
                self.owe(2);
            }
            n if BLOCKS.contains(&n) => {
                self.owe(1);
                if n == "li" && !tag.closing {
                    self.word("-");
                    self.space = true;
                }
            }
            _ => {}
        }
        None
    }

    fn owe(&mut self, breaks: usize) {
        self.breaks = self.breaks.max(breaks);
    }

    fn br(&mut self) {
        if self.breaks == 0 {
            self.breaks = 1;
        } else if self.breaks < 2 {
            self.breaks += 1;
        }
    }

    fn text(&mut self, text: &str) {
        let decoded = decode_entities(text);
        for piece in decoded.split_inclusive(|c: char| c.is_whitespace() && c != '\u{a0}') {
            let word = piece.trim_end_matches(|c: char| c.is_whitespace() && c != '\u{a0}');
            if !word.is_empty() {
                self.word(word);
            }
            if word.len() != piece.len() {
                self.space = true;
            }
        }
    }

    fn word(&mut self, word: &str) {
        if !self.out.is_empty() {
            if self.breaks > 0 {
                self.out.extend(std::iter::repeat_n('\n', self.breaks));
            } else if self.space {
                self.out.push(' ');
            }
        }
        self.breaks = 0;
        self.space = false;
        self.out.extend(word.chars().map(|c| match c {
            '\u{a0}' => ' ',
            '\0' => '\u{fffd}',
            c => c,
        }));
    }

    fn finish(mut self) -> String {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.out
    }
}

fn decode_entities(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let name_len = after.bytes().take(32).take_while(|b| b.is_ascii_alphanumeric() || *b == b'#').count();
        let name = after.get(..name_len).unwrap_or_default();
        if name.is_empty() {
            out.push('&');
            rest = after;
            continue;
        }
        rest = after.get(name_len..).unwrap_or_default();
        if let Some(tail) = rest.strip_prefix(';') {
            rest = tail;
            add_html_token(&mut out, format!("&{name};").as_bytes(), false);
        } else {
            out.push('&');
            out.push_str(name);
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{decode_entities, to_text};

    #[test]
    fn blocks_and_blanks_become_lines() {
        assert_eq!(
            to_text(
                "<html><head><title>t</title><style>x{}</style></head><body><p>One  <b>bold</b>\n word</p>\
            <p>Two<br>three</p><ul><li>a<li>b</ul><table><tr><td>1</td><td>2</td></tr></table>"
            ),
            "One bold word\n\nTwo\nthree\n\n- a\n- b\n\n1 2\n"
        );
        assert_eq!(to_text("a<b>b</b>c"), "abc\n");
    }

    #[test]
    fn scripts_and_comments_are_no_text() {
        assert_eq!(
            to_text(
                "a<script>if (1<2) alert('</p>')</script><!-- <p>x --><b>b</b><svg><text>no</text></svg>"
            ),
            "ab\n"
        );
        assert_eq!(to_text("<head><title>x</title><body>y"), "y\n");
        assert_eq!(to_text("3 < 4 & 5 > 2"), "3 < 4 & 5 > 2\n");
        assert_eq!(to_text("<a title='>'>x</a>"), "x\n");
    }

    #[test]
    fn entities_are_decoded() {
        assert_eq!(decode_entities("&lt;&amp;&#252;&#xFC;&uuml;&nosuch;&&x &#0;"), "<&üüü&nosuch;&&x \0");
        assert_eq!(to_text("a&#0;b&nbsp;c"), "a\u{fffd}b c\n");
    }

    #[test]
    fn a_megabyte_of_opening_brackets_is_read_at_once() {
        for unit in ["<", "<a ", "<!--", "&", "<a b='", "</", "<style>", "<p>"] {
            let _ = to_text(&unit.repeat(1_000_000 / unit.len()));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(html in "[<>/a-c!&;#='\" \\-]{0,80}") {
            prop_assert!(!to_text(&html).contains('\0'));
        }
    }
}
