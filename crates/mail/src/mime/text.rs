//! Bytes to text: charsets as they are labelled and as they are, line ends, previews.

use std::borrow::Cow;

use encoding_rs::{Encoding, REPLACEMENT, UTF_8, WINDOWS_1252, X_USER_DEFINED};

use crate::address::is_invisible;

/// Characters of a preview.
const SNIPPET_CHARS: usize = 200;

/// Text of a part: decoded by its label, LF line ends, no NUL. A label that is missing, unknown or only claims
/// ASCII is settled by looking: valid UTF-8, else windows-1252.
#[must_use]
pub fn decode(bytes: &[u8], charset: Option<&str>) -> String {
    let label = charset.map(|c| c.trim().to_ascii_lowercase()).unwrap_or_default();
    let text = match label.as_str() {
        "utf-8" | "utf8" => String::from_utf8_lossy(bytes).into_owned(),
        "" | "us-ascii" | "ascii" | "ansi_x3.4-1968" | "unknown-8bit" | "x-unknown" | "default" => {
            guess(bytes)
        }
        label => by_label(bytes, label),
    };
    clean(text)
}

fn guess(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => from_windows_1252(bytes),
    }
}

fn by_label(bytes: &[u8], label: &str) -> String {
    match Encoding::for_label(label.as_bytes()) {
        Some(e) if e == UTF_8 => String::from_utf8_lossy(bytes).into_owned(),
        // The web refuses these two on purpose; mail really is written in what hides behind the first.
        Some(e) if e != REPLACEMENT && e != X_USER_DEFINED => e.decode(bytes).0.into_owned(),
        _ => match mail_parser::decoders::charsets::map::charset_decoder(label.as_bytes()) {
            Some(decoder) => decoder(bytes),
            None => guess(bytes),
        },
    }
}

/// The last resort that accepts every byte.
#[must_use]
pub fn from_windows_1252(bytes: &[u8]) -> String {
    WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned()
}

/// LF for CRLF and CR, U+FFFD for NUL (storage refuses NUL), no byte order mark.
fn clean(text: String) -> String {
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    };
    if !text.contains(['\r', '\0']) {
        return text;
    }
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\0', "\u{fffd}")
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
