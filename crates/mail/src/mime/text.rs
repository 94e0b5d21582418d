//! Bytes to text: charsets as they are labelled and as they are, line ends, previews.

use std::borrow::Cow;

use super::charset::{self, Fallback};
use crate::address::is_invisible;

/// Characters of a preview.
const SNIPPET_CHARS: usize = 200;

/// Text of a part: decoded by its label, LF line ends, no NUL. A label that is missing, unknown, only claims ASCII or is wrong
/// for sure is settled by looking.
#[must_use]
pub fn decode(bytes: &[u8], charset: Option<&str>) -> String {
    clean(charset::decode(bytes, charset, Fallback::default()))
}

/// LF for CRLF and CR, U+FFFD for NUL (storage refuses NUL), no byte order mark.
fn clean(text: String) -> String {
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    };
    let text = if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text };
    let Some(first) = text.find('\r') else { return text };
    let mut out = String::with_capacity(text.len());
    let (before, mut rest) = text.split_at_checked(first).unwrap_or((&text, ""));
    out.push_str(before);
    while let Some(after) = rest.strip_prefix('\r') {
        out.push('\n');
        let after = after.strip_prefix('\n').unwrap_or(after);
        let end = after.find('\r').unwrap_or(after.len());
        let (line, tail) = after.split_at_checked(end).unwrap_or((after, ""));
        out.push_str(line);
        rest = tail;
    }
    out
}

/// CRLF for every kind of line end.
#[must_use]
pub fn to_crlf(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 32);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' => {
                chars.next_if_eq(&'\n');
                out.push_str("\r\n");
            }
            '\n' => out.push_str("\r\n"),
            c => out.push(c),
        }
    }
    out
}

/// At most `max_bytes` of a text, cut between characters.
#[must_use]
pub fn truncate(mut text: String, max_bytes: usize) -> String {
    if text.len() > max_bytes {
        text.truncate(text.floor_char_boundary(max_bytes));
    }
    text
}

/// The first 200 characters as one line: blanks collapsed, invisible padding and quoted lines left out (but if
/// all is quoted, the quote is shown).
#[must_use]
pub fn snippet(text: &str) -> String {
    let own = collapse(text.lines().filter(|l| !l.trim_start().starts_with('>')));
    if own.is_empty() { collapse(text.lines()) } else { own }
}

fn collapse<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut out = String::new();
    let mut count = 0;
    for word in lines.flat_map(str::split_whitespace) {
        let word: Cow<'_, str> = if word.chars().any(is_padding) {
            word.chars().filter(|c| !is_padding(*c)).collect::<String>().into()
        } else {
            word.into()
        };
        if word.is_empty() {
            continue;
        }
        if count > 0 {
            out.push(' ');
            count += 1;
        }
        for c in word.chars() {
            if count >= SNIPPET_CHARS {
                return out.trim_end().to_owned();
            }
            out.push(c);
            count += 1;
        }
    }
    out
}

/// What newsletters stuff into their previews.
fn is_padding(c: char) -> bool {
    is_invisible(c)
        || matches!(c, '\u{34f}' | '\u{ad}' | '\u{200c}' | '\u{200d}' | '\u{2007}' | '\u{fffc}' | '\u{fffd}')
}

#[cfg(test)]
mod tests {
    use super::{decode, snippet, to_crlf};

    #[test]
    fn labels_are_believed_where_they_help() {
        assert_eq!(decode(b"Gr\xfc\xdfe \x80", Some("ISO-8859-1")), "Grüße €");
        assert_eq!(decode("Grüße".as_bytes(), None), "Grüße");
        assert_eq!(decode(b"Gr\xfc\xdfe", Some("us-ascii")), "Grüße");
        assert_eq!(decode(b"\xcf\xf0\xe8\xe2\xe5\xf2", Some("windows-1251")), "Привет");
        assert_eq!(decode(b"\x1b$B%F%9%H\x1b(B", Some("iso-2022-jp")), "テスト");
        assert_eq!(decode(b"\xb2\xe2\xca\xd4", Some("gb2312")), "测试");
        assert_eq!(decode(b"Hi +AGE-", Some("utf-7")), "Hi a");
        assert_eq!(decode(b"x", Some("no-such-charset")), "x");
    }

    #[test]
    fn text_can_always_be_stored() {
        assert_eq!(decode(b"a\0b\r\nc\rd", None), "a\u{fffd}b\nc\nd");
        assert_eq!(decode("\u{feff}x".as_bytes(), Some("utf-8")), "x");
    }

    #[test]
    fn line_ends_become_crlf() {
        assert_eq!(to_crlf("a\nb\rc\r\nd\n\n"), "a\r\nb\r\nc\r\nd\r\n\r\n");
    }

    #[test]
    fn a_snippet_is_one_short_line() {
        assert_eq!(snippet("Hi,\n\n> old\n  new \u{200c}\u{34f} text\n"), "Hi, new text");
        assert_eq!(snippet("> all\n> old"), "> all > old");
        assert_eq!(snippet(&"ü".repeat(500)).chars().count(), 200);
        assert_eq!(snippet(&"ab ".repeat(500)).chars().count(), 199 + 1);
    }
}
