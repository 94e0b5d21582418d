//! Charsets, transfer encodings (RFC 2045) and encoded words (RFC 2047).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use encoding_rs::Encoding;

use super::random::Random;
use super::text::Script;

/// How a text part goes over the wire.
#[derive(Clone, Copy)]
pub(crate) struct Charset {
    pub(crate) name: &'static str,
    pub(crate) transfer: &'static str,
}

impl Charset {
    pub(crate) const ASCII: Self = Self { name: "us-ascii", transfer: "7bit" };
    pub(crate) const UTF_8: Self = Self { name: "utf-8", transfer: "quoted-printable" };
    pub(crate) const UTF_8_BASE64: Self = Self { name: "utf-8", transfer: "base64" };
    pub(crate) const UTF_8_RAW: Self = Self { name: "utf-8", transfer: "8bit" };
    /// What is still seen in old mailboxes, with what is written in it.
    pub(crate) const OLD: [(Self, Script); 11] = [
        (Self { name: "iso-8859-1", transfer: "quoted-printable" }, Script::LATIN),
        (Self { name: "windows-1252", transfer: "quoted-printable" }, Script::LATIN),
        (Self { name: "iso-8859-15", transfer: "8bit" }, Script::LATIN),
        (Self { name: "iso-8859-7", transfer: "quoted-printable" }, Script::GREEK),
        (Self { name: "koi8-r", transfer: "base64" }, Script::CYRILLIC),
        (Self { name: "windows-1251", transfer: "8bit" }, Script::CYRILLIC),
        (Self { name: "iso-2022-jp", transfer: "7bit" }, Script::JAPANESE),
        (Self { name: "shift_jis", transfer: "base64" }, Script::JAPANESE),
        (Self { name: "gb2312", transfer: "base64" }, Script::SIMPLIFIED),
        (Self { name: "big5", transfer: "base64" }, Script::TRADITIONAL),
        (Self { name: "euc-kr", transfer: "base64" }, Script::KOREAN),
    ];

    /// The text's bytes; `None` when the charset lacks a character of it.
    fn bytes(self, text: &str) -> Option<Vec<u8>> {
        if self.name == "us-ascii" {
            return text.is_ascii().then(|| text.as_bytes().to_vec());
        }
        let (bytes, _, lost) = Encoding::for_label(self.name.as_bytes())?.encode(text);
        (!lost).then(|| bytes.into_owned())
    }
}

/// A text part with its header. A text that the charset cannot say (a quote of another language) goes as UTF-8.
pub(crate) fn text_part(text: &str, subtype: &str, charset: Charset) -> Vec<u8> {
    let (charset, bytes) = match charset.bytes(text) {
        Some(bytes) => (charset, bytes),
        None => (Charset::UTF_8, text.as_bytes().to_vec()),
    };
    let Charset { name, transfer } = charset;
    let mut part = format!(
        "Content-Type: text/{subtype}; charset={name}\r\nContent-Transfer-Encoding: {transfer}\r\n\r\n"
    )
    .into_bytes();
    match transfer {
        "base64" => part.extend(base64_lines(&bytes)),
        "quoted-printable" => part.extend(quoted_printable(&bytes)),
        _ => part.extend(bytes),
    }
    part
}

/// Base64 in lines of 76.
pub(crate) fn base64_lines(bytes: &[u8]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(bytes.len() * 3 / 2);
    for line in bytes.chunks(57) {
        lines.extend(STANDARD.encode(line).into_bytes());
        lines.extend(b"\r\n");
    }
    lines
}

/// RFC 2045 §6.7; the line ends of `text` are CRLF and stay.
fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 8);
    for line in text.split_inclusive(|b| *b == b'\n') {
        let (line, end) = match line.strip_suffix(b"\r\n") {
            Some(line) => (line, b"\r\n".as_slice()),
            None => (line, b"".as_slice()),
        };
        let mut column = 0;
        for (index, byte) in line.iter().enumerate() {
            let space_at_end = *byte == b' ' && index + 1 == line.len();
            let plain = (b' '..=b'~').contains(byte) && *byte != b'=' && !space_at_end;
            let width = if plain { 1 } else { 3 };
            // One column stays free for the soft break's own sign.
            if column + width > 75 {
                out.extend(b"=\r\n");
                column = 0;
            }
            if plain {
                out.push(*byte);
            } else {
                out.extend(format!("={byte:02X}").into_bytes());
            }
            column += width;
        }
        out.extend(end);
    }
    out
}

/// A header's text: as it is when ASCII, else encoded words in the message's own charset where that has all letters.
pub(crate) fn header_text(text: &str, charset: Charset) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    let charset = if charset.bytes(text).is_some() { charset } else { Charset::UTF_8 };
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    while rest.peek().is_some() {
        // Twelve characters stay below RFC 2047's 75 columns in every charset, and each word is decodable alone.
        let word: String = rest.by_ref().take(12).collect();
        let bytes = charset.bytes(&word).unwrap_or_default();
        words.push(format!("=?{}?B?{}?=", charset.name, STANDARD.encode(bytes)));
    }
    words.join("\r\n ")
}

/// Random text without a meaning, from `count` bytes.
pub(crate) fn noise(random: &mut Random, count: usize) -> String {
    STANDARD.encode(random.bytes(count))
}

#[cfg(test)]
mod tests {
    use super::{Charset, header_text, quoted_printable};

    #[test]
    fn quoted_printable_escapes_what_it_must_and_folds() {
        assert_eq!(quoted_printable("größe = 1 \r\nx".as_bytes()), b"gr=C3=B6=C3=9Fe =3D 1=20\r\nx");
        let long = quoted_printable(&[b'a'; 200]);
        assert!(long.split(|b| *b == b'\n').all(|line| line.len() <= 77));
    }

    #[test]
    fn a_header_falls_back_to_utf_8_when_its_charset_lacks_a_letter() {
        assert_eq!(header_text("plain", Charset::UTF_8), "plain");
        assert!(header_text("会議", Charset::OLD[0].0).starts_with("=?utf-8?B?"));
        assert!(header_text("größe", Charset::OLD[0].0).starts_with("=?iso-8859-1?B?"));
    }
}
