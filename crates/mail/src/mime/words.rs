//! Text of header fields: unfolding (RFC 5322 §2.2.3), encoded words (RFC 2047), raw bytes beyond ASCII.
//!
//! Encoded words that stand side by side in one charset are joined as bytes before they are decoded: a character may be
//! split over two of them, whatever §5 says. Raw bytes are read by [`charset::guess`].

use std::borrow::Cow;

use super::charset::{self, Fallback};

/// Longest name of a charset within an encoded word.
const MAX_CHARSET_BYTES: usize = 64;

/// Bytes of an encoded word (RFC 2047 §2), undone but for their charset.
#[derive(Debug)]
pub(super) struct EncodedWord<'a> {
    pub charset: &'a [u8],
    pub bytes: Vec<u8>,
    /// What of the field it took.
    pub length: usize,
}

/// The text of a field or of a part of one: one line, encoded words decoded, tabs as blanks.
pub(super) fn decode(value: &[u8], fallback: Fallback) -> String {
    let mut joiner = Joiner { out: String::with_capacity(value.len()), pending: None, fallback };
    let mut rest = value;
    let mut search = true;
    while let Some(at) = if search { find(rest, b"=?") } else { None } {
        let (before, word) = rest.split_at(at);
        match encoded_word(word) {
            Word::Whole(found) => {
                joiner.between(before);
                joiner.word(&found);
                rest = word.get(found.length..).unwrap_or_default();
            }
            Word::No => {
                let (literal, tail) = rest.split_at(at + 2);
                joiner.literal(literal);
                rest = tail;
            }
            Word::Unended => search = false,
        }
    }
    joiner.literal(rest);
    joiner.out
}

/// Text without encoded words: unfolded, raw bytes read by the guess.
pub(super) fn unfold(value: &[u8], fallback: Fallback) -> String {
    let mut out = String::with_capacity(value.len());
    push_unfolded(&mut out, value, fallback);
    out
}

fn push_unfolded(out: &mut String, value: &[u8], fallback: Fallback) {
    if value.iter().all(|b| matches!(b, 0x20..=0x7e)) {
        out.push_str(std::str::from_utf8(value).unwrap_or_default());
        return;
    }
    let unfolded: Cow<'_, [u8]> = if value.iter().any(|b| matches!(b, b'\r' | b'\n')) {
        value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect::<Vec<u8>>().into()
    } else {
        value.into()
    };
    let text = charset::guess(&unfolded, fallback);
    out.extend(text.chars().map(|c| if c == '\t' { ' ' } else { c }).filter(|c| !c.is_control()));
}

struct Joiner<'v> {
    out: String,
    /// Charset and bytes of encoded words that may go on.
    pending: Option<(&'v [u8], Vec<u8>)>,
    fallback: Fallback,
}

impl<'v> Joiner<'v> {
    /// What stands before an encoded word: blanks and folds between two of them are no text (RFC 2047 §6.2).
    fn between(&mut self, before: &[u8]) {
        if self.pending.is_none() || !before.iter().all(u8::is_ascii_whitespace) {
            self.literal(before);
        }
    }

    fn literal(&mut self, literal: &[u8]) {
        self.flush();
        push_unfolded(&mut self.out, literal, self.fallback);
    }

    fn word(&mut self, word: &EncodedWord<'v>) {
        match &mut self.pending {
            Some((charset, bytes)) if charset.eq_ignore_ascii_case(word.charset) => {
                bytes.extend_from_slice(&word.bytes);
            }
            _ => {
                self.flush();
                self.pending = Some((word.charset, word.bytes.clone()));
            }
        }
    }

    fn flush(&mut self) {
        let Some((charset, bytes)) = self.pending.take() else { return };
        let label = String::from_utf8_lossy(charset);
        let text = charset::decode(&bytes, Some(&label), self.fallback);
        let spaced = text.chars().map(|c| if matches!(c, '\t' | '\r' | '\n') { ' ' } else { c });
        self.out.extend(spaced.filter(|c| !c.is_control()));
    }
}

/// What of `text` the encoded word takes that it begins with; `None` if it begins with none.
pub(super) fn encoded_word_length(text: &[u8]) -> Option<usize> {
    match encoded_word(text) {
        Word::Whole(word) => Some(word.length),
        Word::No | Word::Unended => None,
    }
}

enum Word<'a> {
    Whole(EncodedWord<'a>),
    /// It only begins like one.
    No,
    /// Nothing ends it, nor any that comes later.
    Unended,
}

fn encoded_word(text: &[u8]) -> Word<'_> {
    let Some(rest) = text.strip_prefix(b"=?") else { return Word::No };
    let named = rest.iter().take(MAX_CHARSET_BYTES).position(|b| *b == b'?' || b.is_ascii_whitespace());
    let Some(end) = named.filter(|end| *end > 0) else { return Word::No };
    let (charset, tail) = rest.split_at(end);
    let (quoted, payload) = match tail {
        [b'?', b'q' | b'Q', b'?', payload @ ..] => (true, payload),
        [b'?', b'b' | b'B', b'?', payload @ ..] => (false, payload),
        _ => return Word::No,
    };
    let Some(length) = payload_length(payload, quoted) else { return Word::Unended };
    let encoded = payload.get(..length).unwrap_or_default();
    let bytes = if quoted { q_encoding(encoded) } else { b_encoding(encoded) };
    // RFC 2231 §5: a language may follow the charset.
    let charset = charset.split(|b| *b == b'*').next().unwrap_or_default();
    Word::Whole(EncodedWord { charset, bytes, length: text.len() - payload.len() + length + 2 })
}

/// Up to `?=`. In the Q encoding a question mark may stand before an encoded character: `?=3D` ends nothing unless it
/// is all there is.
fn payload_length(payload: &[u8], quoted: bool) -> Option<usize> {
    let first = find(payload, b"?=")?;
    let mut at = first;
    let hex = |at: usize| payload.get(at + 2..at + 4).is_some_and(|p| p.iter().all(u8::is_ascii_hexdigit));
    // A handful: more than one such question mark in a word of 75 characters is rare, and each look costs.
    for _ in 0..8 {
        if !quoted || !hex(at) {
            return Some(at);
        }
        let from = at + 2;
        let next = payload.get(from..).unwrap_or_default();
        let end = next.iter().take(200).position(u8::is_ascii_whitespace).unwrap_or(next.len().min(200));
        match next.get(..end).and_then(|line| find(line, b"?=")) {
            Some(found) => at = from + found,
            None => return Some(first),
        }
    }
    Some(at)
}

/// RFC 2047 §4.2. What breaks the rules (blanks, raw bytes, a lone `=`) stands for itself; folds within are dropped.
fn q_encoding(encoded: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        match b {
            b'_' => out.push(b' '),
            b'\r' | b'\n' => {}
            b'=' => match (tail.first().and_then(hex), tail.get(1).and_then(hex)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = tail.get(2..).unwrap_or_default();
                }
                _ => out.push(b),
            },
            b => out.push(b),
        }
    }
    out
}

fn b_encoding(encoded: &[u8]) -> Vec<u8> {
    if encoded.iter().any(|b| !b.is_ascii()) {
        // Raw text under the label of base64.
        return encoded.to_vec();
    }
    super::transfer::base64_word(encoded)
}

pub(super) fn hex(b: &u8) -> Option<u8> {
    char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

/// Where `needle` of two bytes begins.
pub(super) fn find(haystack: &[u8], needle: &[u8; 2]) -> Option<usize> {
    haystack.array_windows::<2>().position(|w| w == needle)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Fallback, decode};

    fn text(value: &str) -> String {
        decode(value.as_bytes(), Fallback::default())
    }

    #[test]
    fn encoded_words_are_text() {
        for (value, wanted) in [
            ("=?utf-8?Q?Gr=C3=BC=C3=9Fe?= an alle", "Grüße an alle"),
            ("=?iso-8859-1?q?Gr=FC=DFe?=", "Grüße"),
            ("=?utf-8?B?R3LDvMOfZQ==?=", "Grüße"),
            ("=?utf-8*de?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
            ("=?UTF-8?Q?a?=\r\n\t=?UTF-8?Q?b?= c", "ab c"),
            ("a =?utf-8?q?b?= c", "a b c"),
            ("=?utf-8?q?a_b?= =?utf-8?q?_c?=", "a b c"),
            ("plain\r\n\ttext", "plain text"),
            ("(=?utf-8?q?a?=)", "(a)"),
            ("x=?utf-8?q?a?=y", "xay"),
        ] {
            assert_eq!(text(value), wanted, "{value}");
        }
    }

    #[test]
    fn a_character_may_be_split_over_words() {
        assert_eq!(text("=?utf-8?Q?Gr=C3?= =?utf-8?Q?=BC=C3=9Fe?="), "Grüße");
        assert_eq!(text("=?utf-8?B?R3LD?=\r\n =?UTF-8?B?vMOfZQ==?="), "Grüße");
        assert_eq!(text("=?utf-8?B?R3LD?= =?utf-8?Q?=BC=C3=9Fe?="), "Grüße");
        assert_eq!(text("=?gb2312?B?suI=?=  =?gb2312?B?ytQ=?="), "测试");
        assert_eq!(text("=?shift_jis?B?g2WD?=\r\n =?shift_jis?B?WINn?="), "テスト");
        assert_eq!(text("=?iso-2022-jp?B?GyRCJUYbKEI=?= =?iso-2022-jp?B?GyRCJTklSBsoQg==?="), "テスト");
    }

    #[test]
    fn any_number_of_folds_between_words_is_nothing() {
        assert_eq!(text("=?utf-8?Q?a?=\r\n \r\n\t =?utf-8?Q?b?="), "ab");
        assert_eq!(text("=?utf-8?Q?a?= \r\n =?iso-8859-1?Q?b?="), "ab");
    }

    #[test]
    fn what_breaks_the_rules_is_read_all_the_same() {
        for (value, wanted) in [
            ("=?utf-8?B?R3LDvMOfZQ?=", "Grüße"),
            ("=?utf-8?B?R3LD vMOf\r\n ZQ?=", "Grüße"),
            ("=?utf-8?Q?Gr=C3=BC=C3=9Fe an alle?=", "Grüße an alle"),
            ("=?utf-8?Q?was??=", "was?"),
            ("=?utf-8?Q?so?=3D?=", "so?="),
            ("=?utf-8?Q?50=?= x", "50= x"),
            ("=?iso-8859-1?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
            ("=?us-ascii?Q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
            ("=?x-unknown?Q?a=FCb?=", "aüb"),
            ("=?cp1251?B?z/Do4uXy?=", "Привет"),
            ("=?utf-8?Q??=", ""),
        ] {
            assert_eq!(text(value), wanted, "{value}");
        }
        assert_eq!(text("=?utf-8?Q?Grüße?="), "Grüße");
        assert_eq!(decode(b"=?iso-8859-1?Q?Gr\xfc\xdfe?=", Fallback::default()), "Grüße");
        assert_eq!(text("=?utf-8?B?Grüße?="), "Grüße");
    }

    #[test]
    fn what_is_no_encoded_word_stays() {
        for value in ["=?", "a =? b", "=?utf-8?X?a?=", "=?utf-8?Q?never ends", "=?utf-8 x?Q?a?=", "1 =?= 2"] {
            assert_eq!(text(value), value);
        }
    }

    #[test]
    fn raw_bytes_are_guessed_and_one_foreign_byte_is_alone() {
        assert_eq!(decode(b"Gr\xfc\xdfe", Fallback::default()), "Grüße");
        assert_eq!(decode(b"Gr\xc3\xbc\xc3\x9fe \xe4x", Fallback::default()), "Grüße äx");
    }

    #[test]
    fn a_crowd_of_beginnings_is_linear() {
        for unit in ["=?utf-8?q?", "=?utf-8?q?a?=3D", "=?a?b?", "=?=?", "=?utf-8?q?a?= "] {
            let _ = text(&unit.repeat(2_000_000 / unit.len()));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_one_line(value in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!decode(&value, Fallback::default()).contains(['\r', '\n']));
        }

        #[test]
        fn any_pile_of_pieces_is_one_line(pieces in prop::collection::vec(prop::sample::select(vec![
            "=?utf-8?Q?", "=?utf-8?B?", "=?iso-2022-jp?B?", "?=", "=C3", "=BC", "w7w", "\r\n ", " ", "_", "=", "?", "ü", "=3D",
        ]), 0..40)) {
            prop_assert!(!text(&pieces.concat()).contains(['\r', '\n']));
        }

        #[test]
        fn text_without_marks_is_itself(value in "[ -~]{0,60}") {
            prop_assume!(!value.contains("=?"));
            prop_assert_eq!(text(&value), value);
        }
    }
}
