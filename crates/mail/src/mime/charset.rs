//! Bytes to characters: one table of labels and one guess, for bodies, header fields and parameters alike.
//!
//! A label is believed where it can be true. What is labelled wrongly for sure (text that is valid UTF-8 under a label of
//! one byte per character, escapes of ISO 2022 under one that has none) and what has no usable label is settled by
//! looking: valid UTF-8 first, escapes, then a detector. To add a label of the web's table under another name, write it
//! into [`alias`]; a page of one byte per character goes into `charset/pages.rs`.

mod pages;
mod stateful;

use chardetng::EncodingDetector;
use encoding_rs::{BIG5, EUC_JP, EUC_KR, GB18030, GBK, ISO_2022_JP, ISO_8859_2, SHIFT_JIS};
use encoding_rs::{
    Encoding, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_874, WINDOWS_1252, X_USER_DEFINED,
};

/// What the detector looks at: from the first byte that is not ASCII on.
const SAMPLE_BYTES: usize = 16 * 1024;

/// How a text without a usable label is read where it is not UTF-8.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fallback(Option<&'static Encoding>);

impl Fallback {
    /// From a label that stands elsewhere in the message; one of UTF-8 or ASCII tells nothing.
    pub fn labelled(label: &str) -> Self {
        Self(match lookup(label) {
            Some(Charset::Web(e)) if e != UTF_8 && e != WINDOWS_1252 => Some(e),
            _ => None,
        })
    }

    /// By the detector, from all that the message holds without a label.
    pub fn detected<'a>(samples: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut detector = EncodingDetector::new();
        for sample in samples {
            feed(&mut detector, sample);
            detector.feed(b"\n", false);
        }
        detector.feed(b"", true);
        Self(Some(detector.guess(None, false)))
    }

    /// Whether it tells anything.
    pub fn is_some(self) -> bool {
        self.0.is_some()
    }

    /// How single foreign bytes within UTF-8 are read: chosen once for a text, for they may be millions.
    fn of_letters(self, bytes: &[u8]) -> &'static Encoding {
        let known = self.0.unwrap_or_else(|| {
            let foreign = bytes.utf8_chunks().map(|c| c.invalid()).filter(|i| !i.is_empty());
            // A byte alone, as it stands between letters of ASCII or of UTF-8.
            let sample: Vec<u8> =
                foreign.take(SAMPLE_BYTES / 2).flat_map(|i| i.iter().copied().chain([b' '])).collect();
            detect(&sample)
        });
        if known.is_single_byte() { known } else { WINDOWS_1252 }
    }

    fn decode(self, bytes: &[u8]) -> String {
        match self.0 {
            Some(e) => match e.decode_without_bom_handling(bytes) {
                (text, false) => text.into_owned(),
                (_, true) => detect(bytes).decode_without_bom_handling(bytes).0.into_owned(),
            },
            None => detect(bytes).decode_without_bom_handling(bytes).0.into_owned(),
        }
    }
}

/// What a label stands for.
#[derive(Clone, Copy, Debug)]
enum Charset {
    Web(&'static Encoding),
    /// The upper half of a page whose lower half is ASCII.
    Page(&'static str),
    Utf7,
    Utf16,
    Utf32,
    Iso2022Kr,
    Iso2022Cn,
    Hz,
    /// It claims ASCII, or says that nobody knows.
    Unknown,
}

/// Text by its label. Never fails: a label without a decoder counts as none.
pub(super) fn decode(bytes: &[u8], label: Option<&str>, fallback: Fallback) -> String {
    match label.and_then(lookup).unwrap_or(Charset::Unknown) {
        Charset::Unknown => guess(bytes, fallback),
        Charset::Web(e) if e == UTF_8 => utf8(bytes, fallback),
        Charset::Web(e) => by_encoding(bytes, e),
        Charset::Page(upper) => by_page(bytes, upper),
        Charset::Utf7 => match mail_parser::decoders::charsets::map::charset_decoder(b"utf-7") {
            Some(decoder) if bytes.is_ascii() => decoder(bytes),
            _ => guess(bytes, fallback),
        },
        Charset::Utf16 => utf16(bytes),
        Charset::Utf32 => stateful::utf32(bytes),
        Charset::Iso2022Kr => stateful::iso_2022(bytes, EUC_KR),
        Charset::Iso2022Cn => stateful::iso_2022(bytes, GBK),
        Charset::Hz => stateful::hz(bytes),
    }
}

/// Whether a label says nothing: it claims ASCII, or nobody knows it.
pub(super) fn is_unknown(label: &str) -> bool {
    matches!(lookup(label), None | Some(Charset::Unknown))
}

/// Text without a label: as UTF-8 where it is valid, else by its escapes, else by `fallback` or the detector. A field in
/// UTF-8 with some foreign bytes keeps what is valid.
pub(super) fn guess(bytes: &[u8], fallback: Fallback) -> String {
    if let Some(e) = by_mark(bytes) {
        return e.decode(bytes).0.into_owned();
    }
    if let Some(text) = escaped(bytes) {
        return text;
    }
    utf8(bytes, fallback)
}

/// UTF-8, valid or nearly so. Where more is broken than whole it was never UTF-8.
fn utf8(bytes: &[u8], fallback: Fallback) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return match escaped(bytes) {
            Some(text) => text,
            None => text.to_owned(),
        };
    }
    let (mut whole, mut broken) = (0usize, 0usize);
    for chunk in bytes.utf8_chunks() {
        whole += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        broken += usize::from(!chunk.invalid().is_empty());
    }
    if broken > whole {
        return fallback.decode(bytes);
    }
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    let mut letters = None;
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        let length = chunk.valid().len() + chunk.invalid().len();
        rest = rest.get(length..).unwrap_or_default();
        match chunk.invalid() {
            [] => {}
            [0xa0..=0xff] if !rest.is_empty() => {
                let e: &Encoding = letters.get_or_insert_with(|| fallback.of_letters(bytes));
                out.push_str(&e.decode_without_bom_handling(chunk.invalid()).0);
            }
            [0x80..=0x9f] if !rest.is_empty() => {
                out.push_str(&WINDOWS_1252.decode_without_bom_handling(chunk.invalid()).0);
            }
            _ => out.push('\u{fffd}'),
        }
    }
    out
}

fn by_encoding(bytes: &[u8], e: &'static Encoding) -> String {
    let simple = e.is_single_byte();
    // Under a label of one byte a character, bytes that happen to be UTF-8 throughout are UTF-8.
    if simple && !bytes.is_ascii() && is_utf8_for_sure(bytes, e) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    if simple && let Some(text) = escaped(bytes) {
        return text;
    }
    if e == ISO_2022_JP {
        return iso_2022_jp(bytes);
    }
    let utf8 = std::str::from_utf8(bytes).ok().filter(|t| !t.is_ascii());
    // Characters of three bytes fit into no encoding of two bytes a character by chance, at least not twice.
    if let Some(text) = utf8.filter(|t| t.chars().filter(|c| c.len_utf8() > 2).take(2).count() == 2) {
        return text.to_owned();
    }
    let (text, _, broken) = e.decode(bytes);
    if !broken {
        return text.into_owned();
    }
    if let Some(text) = utf8 {
        return text.to_owned();
    }
    // GB2312 is what people call all of its successors.
    if e == GBK {
        return GB18030.decode(bytes).0.into_owned();
    }
    text.into_owned()
}

/// Whether it is UTF-8 though a label says otherwise: for the Latin labels one character will do, because nobody writes `Ã¼`;
/// other alphabets have words that look like it, so there it takes some.
fn is_utf8_for_sure(bytes: &[u8], e: &'static Encoding) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let needed =
        if e == WINDOWS_1252 || e == ISO_8859_2 || e.name().starts_with("ISO-8859-1") { 1 } else { 3 };
    text.chars().filter(|c| !c.is_ascii()).take(needed).count() >= needed
}

fn by_page(bytes: &[u8], upper: &str) -> String {
    let table: Vec<char> = upper.chars().collect();
    let letter = |b: &u8| match b.checked_sub(0x80) {
        None => char::from(*b),
        Some(at) => table.get(usize::from(at)).copied().unwrap_or('\u{fffd}'),
    };
    if !bytes.is_ascii()
        && std::str::from_utf8(bytes).is_ok_and(|t| t.chars().filter(|c| !c.is_ascii()).count() > 2)
    {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    bytes.iter().map(letter).collect()
}

/// With a mark as it says; without one RFC 2781 §4.3 has big endian, but the zeros of Latin text know better.
fn utf16(bytes: &[u8]) -> String {
    if let Some(e) = by_mark(bytes) {
        return e.decode(bytes).0.into_owned();
    }
    let zeros = |odd: usize| bytes.iter().skip(odd).step_by(2).filter(|b| **b == 0).count();
    let e = if zeros(1) > zeros(0) { UTF_16LE } else { UTF_16BE };
    e.decode_without_bom_handling(bytes).0.into_owned()
}

fn by_mark(bytes: &[u8]) -> Option<&'static Encoding> {
    Encoding::for_bom(bytes).map(|(e, _)| e)
}

/// Text with the escapes of ISO 2022, which stand in no other text.
fn escaped(bytes: &[u8]) -> Option<String> {
    if !bytes.contains(&0x1b) || !bytes.is_ascii() {
        return None;
    }
    let has = |mark: &[u8]| bytes.windows(mark.len()).any(|w| w == mark);
    if has(b"\x1b$)C") {
        return Some(stateful::iso_2022(bytes, EUC_KR));
    }
    if has(b"\x1b$)A") {
        return Some(stateful::iso_2022(bytes, GBK));
    }
    let japanese = [b"\x1b$B".as_slice(), b"\x1b$@", b"\x1b(J", b"\x1b(I", b"\x1b$(D"].into_iter().any(has);
    japanese.then(|| iso_2022_jp(bytes))
}

/// An escape with nothing behind it but another one, as where encoded words were joined, is an error to the web.
fn iso_2022_jp(bytes: &[u8]) -> String {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        if *first == 0x1b && matches!(rest.get(3), None | Some(0x1b)) && rest.len() >= 3 {
            rest = rest.get(3..).unwrap_or_default();
            continue;
        }
        kept.push(*first);
        rest = tail;
    }
    ISO_2022_JP.decode_without_bom_handling(&kept).0.into_owned()
}

fn detect(bytes: &[u8]) -> &'static Encoding {
    let mut detector = EncodingDetector::new();
    feed(&mut detector, bytes);
    detector.feed(b"", true);
    detector.guess(None, false)
}

fn feed(detector: &mut EncodingDetector, bytes: &[u8]) {
    let first = bytes.iter().position(|b| !b.is_ascii()).unwrap_or(bytes.len());
    // Some ASCII before it tells a letter within a word from one that begins it.
    let sample = bytes.get(first.saturating_sub(16)..).unwrap_or_default();
    detector.feed(sample.get(..SAMPLE_BYTES).unwrap_or(sample), false);
}

/// The charset of a label, as the web, mail programs and people write it.
fn lookup(label: &str) -> Option<Charset> {
    let label = label.trim().trim_matches(['"', '\'']).to_ascii_lowercase();
    let squeezed: String = label.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    if let Some(known) = special(&squeezed) {
        return Some(known);
    }
    let web = |label: &str| {
        Encoding::for_label(label.as_bytes())
            .filter(|e| *e != REPLACEMENT && *e != X_USER_DEFINED)
            .map(Charset::Web)
    };
    let bare = squeezed.strip_prefix('x').unwrap_or(&squeezed);
    web(&label)
        .or_else(|| alias(&squeezed).or_else(|| alias(bare)).map(Charset::Web))
        .or_else(|| numbered(bare).as_deref().and_then(web))
        .or_else(|| pages::upper_half(&squeezed).map(Charset::Page))
}

fn special(squeezed: &str) -> Option<Charset> {
    Some(match squeezed {
        "" | "usascii" | "ascii" | "ansix341968" | "ansix341986" | "iso646us" | "us" | "7bit" | "8bit"
        | "unknown8bit" | "xunknown" | "unknown" | "default" | "none" | "xuserdefined" | "binary"
        | "ansi" => Charset::Unknown,
        "utf7" | "unicode11utf7" | "unicode20utf7" | "csunicode11utf7" | "csutf7" => Charset::Utf7,
        "utf16" | "csutf16" | "ucs2" | "iso10646ucs2" | "unicode" | "csunicode" => Charset::Utf16,
        "utf16be" => Charset::Web(UTF_16BE),
        "utf32" | "utf32le" | "utf32be" | "ucs4" | "iso10646ucs4" | "csucs4" => Charset::Utf32,
        "iso2022kr" | "csiso2022kr" => Charset::Iso2022Kr,
        "iso2022cn" | "csiso2022cn" | "iso2022cnext" => Charset::Iso2022Cn,
        "hz" | "hzgb2312" | "cshzgb2312" | "hzgb" => Charset::Hz,
        _ => return None,
    })
}

/// Names that the web's table has not, squeezed to letters and digits.
fn alias(squeezed: &str) -> Option<&'static Encoding> {
    Some(match squeezed {
        "utf8" | "utf8mb4" | "csutf8" | "unicode11utf8" | "unicode20utf8" => UTF_8,
        "cp932" | "ms932" | "ibm932" | "932" | "sjis" | "shiftjis" | "mskanji" | "windows31j"
        | "windows932" | "cswindows31j" | "csshiftjis" | "cp943" => SHIFT_JIS,
        "cp51932" | "eucjpms" | "eucjpwin" | "ujis" | "eucjp" | "euc" => EUC_JP,
        "iso2022jp" | "iso2022jp1" | "iso2022jp2" | "iso2022jp3" | "iso2022jp2004" | "iso2022jpms"
        | "cp50220" | "cp50221" | "cp50222" | "jis" | "csiso2022jp" | "csiso2022jp2" => ISO_2022_JP,
        "cp949" | "uhc" | "ms949" | "ibm949" | "949" | "windows949" | "euckr" | "ksc56011987" | "ksc5601"
        | "ksx1001" | "cp51949" => EUC_KR,
        "cp950" | "ms950" | "950" | "windows950" | "big5" | "big5hkscs" | "cp951" | "big5eten" | "cnbig5"
        | "big5tw" => BIG5,
        "euccn" | "gb2312" | "gb2312801980" | "cp936" | "ms936" | "936" | "windows936" | "gbk" | "cngb"
        | "gb" | "gb231280" => GBK,
        "gb18030" | "cp54936" | "windows54936" | "gb180302000" | "gb180302005" => GB18030,
        "cp874" | "ms874" | "874" | "ibm874" | "windows874" | "tis620" | "tis6200" | "tis6202533"
        | "iso885911" | "thai" => WINDOWS_874,
        "latin" | "iso8859" | "iso88591" | "ansi1252" | "western" | "cp819" | "ibm819" => WINDOWS_1252,
        _ => return None,
    })
}

/// `latin2`, `iso88592`, `iso8859215`, `win1251`, `cp1251`, `1251` and their like as the web's table has them.
fn numbered(squeezed: &str) -> Option<String> {
    let after = |prefixes: &[&str]| {
        let rest = prefixes.iter().find_map(|p| squeezed.strip_prefix(p))?;
        (!rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit())).then(|| rest.to_owned())
    };
    if let Some(page) =
        after(&["windows", "win", "cswindows", "microsoftcp", "cp", "ms", "ansi", "ibm", "codepage", ""])
        && page.len() == 4
        && page.starts_with("125")
    {
        return Some(format!("windows-{page}"));
    }
    if let Some(part) = after(&["isoiec8859", "iso8859", "csiso8859", "iso", "8859"]) {
        return Some(format!("iso-8859-{}", part.strip_prefix("8859").unwrap_or(&part)));
    }
    if let Some(n) = after(&["isolatin", "latin"]) {
        return Some(if n == "7" { "iso-8859-13".to_owned() } else { format!("l{n}") });
    }
    match squeezed {
        "koi8" | "koi" | "koi8r" | "koi8ru" | "cskoi8r" => Some("koi8-r".to_owned()),
        "koi8u" => Some("koi8-u".to_owned()),
        "cp866" | "866" | "ibm866" | "csibm866" => Some("ibm866".to_owned()),
        "mac" | "macroman" | "macintosh" => Some("macintosh".to_owned()),
        "maccyrillic" | "macukrainian" => Some("x-mac-cyrillic".to_owned()),
        "iso88598i" | "logical" => Some("iso-8859-8-i".to_owned()),
        "iso88596e" | "iso88596i" => Some("iso-8859-6".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
