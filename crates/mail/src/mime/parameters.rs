//! Structured fields with parameters: Content-Type, Content-Disposition, Content-Transfer-Encoding (RFC 2045 §5.1, §6.1,
//! RFC 2183), with the extensions of RFC 2231: values in pieces, with a charset, both.
//!
//! Pieces are joined as bytes, then decoded; where a parameter comes plain and extended, the extended one is better
//! (RFC 6266 §4.3). What people's programs write instead is read too: encoded words in quotes, blanks around the equals
//! sign, names with blanks and without quotes, a quote that nothing ends.

use super::charset::{self, Fallback};
use super::limits::MAX_PARAMETERS;
use super::words;

/// A field taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// What stands before the first semicolon, in lower case, comments and quotes dropped; may be empty.
    pub value: String,
    /// Each parameter once, names in lower case, in the order of the field.
    pub parameters: Vec<(String, String)>,
    /// There were more than anybody reads.
    pub limited: bool,
}

impl Fields {
    /// A parameter by its name in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// A parameter as it came.
struct Raw {
    name: String,
    /// `*0`, `*1` …
    piece: Option<u32>,
    /// `*` at its end: percent-encoded, the first piece with charset and language.
    extended: bool,
    value: Vec<u8>,
}

/// Reads a field. Never fails: what cannot be a parameter is left out.
pub(super) fn read(field: &[u8], fallback: Fallback) -> Fields {
    let mut scanner = Scanner { rest: field };
    let mut fields = Fields::default();
    let mut raws = Vec::new();
    let first = scanner.piece();
    let (value, inner) = split_value(first);
    fields.value = value;
    raws.extend(inner.and_then(parameter));
    while !scanner.rest.is_empty() {
        if raws.len() >= MAX_PARAMETERS {
            fields.limited = true;
            break;
        }
        raws.extend(parameter(scanner.piece()));
    }
    fields.parameters = joined(raws, fallback);
    fields
}

struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    /// Up to the next semicolon outside quotes. A quote that nothing ends reaches to the end of the field.
    fn piece(&mut self) -> &'a [u8] {
        let (mut quoted, mut escaped) = (false, false);
        let mut before = b'=';
        let end = self.rest.iter().position(|&b| {
            let was = std::mem::take(&mut escaped);
            match b {
                b'\\' if quoted && !was => escaped = true,
                // Within a word a quote is a letter: `5" x 7".jpg`.
                b'"' if !was && (quoted || before == b'=') => quoted = !quoted,
                b';' if !quoted => return true,
                _ => {}
            }
            if !b.is_ascii_whitespace() {
                before = b;
            }
            false
        });
        let (piece, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest.get(1..).unwrap_or_default();
        piece
    }
}

/// The value itself and, where a semicolon was forgotten or there is no value at all, a parameter in its place.
fn split_value(piece: &[u8]) -> (String, Option<&[u8]>) {
    let plain = without_comments(piece);
    let text = String::from_utf8_lossy(&plain).trim().trim_matches('"').trim().to_ascii_lowercase();
    let Some(equals) = piece.iter().position(|b| *b == b'=') else {
        return (text.split_ascii_whitespace().collect::<Vec<_>>().join(" "), None);
    };
    let name = piece.get(..equals).unwrap_or_default().trim_ascii();
    let start = name.iter().rposition(|b| b.is_ascii_whitespace() || *b == b',').map_or(0, |at| at + 1);
    let value = without_comments(name.get(..start).unwrap_or_default());
    let value = String::from_utf8_lossy(&value).trim().trim_matches(['"', ',']).to_ascii_lowercase();
    let offset = piece.len() - piece.trim_ascii_start().len();
    (value, piece.get(offset + start..))
}

/// RFC 2045 §5.1: comments may stand anywhere between tokens.
fn without_comments(piece: &[u8]) -> Vec<u8> {
    let mut depth = 0usize;
    let mut out = Vec::with_capacity(piece.len());
    for &b in piece {
        match b {
            b'(' => depth += 1,
            b')' if depth > 0 => depth -= 1,
            b if depth == 0 => out.push(b),
            _ => {}
        }
    }
    out
}

fn parameter(piece: &[u8]) -> Option<Raw> {
    let equals = piece.iter().position(|b| *b == b'=')?;
    let (name, value) = piece.split_at(equals);
    let name = without_comments(name);
    let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
    let name: String = name.chars().filter(|c| !c.is_whitespace()).collect();
    let (name, extended) = match name.strip_suffix('*') {
        Some(name) => (name, true),
        None => (name.as_str(), false),
    };
    let (name, piece) = match name.split_once('*') {
        Some((name, number)) => (name, Some(number.parse::<u32>().ok()?)),
        None => (name, None),
    };
    if name.is_empty() {
        return None;
    }
    let keeps_brackets = matches!(name, "name" | "filename");
    let value = unquoted(value.get(1..).unwrap_or_default(), keeps_brackets);
    Some(Raw { name: name.to_owned(), piece, extended, value })
}

/// The value without its quotes, folds and, but for file names, comments.
fn unquoted(value: &[u8], keeps_brackets: bool) -> Vec<u8> {
    let value = value.trim_ascii();
    let Some(inner) = value.strip_prefix(b"\"") else {
        let plain = if keeps_brackets { value.to_vec() } else { without_comments(value) };
        return plain.trim_ascii().iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        match (b, tail.first()) {
            (b'"', _) => break,
            (b'\r' | b'\n', _) => {}
            (b'\t', _) => out.push(b' '),
            // Only what needs it is escaped: `C:\temp\x.pdf` is a path of Windows.
            (b'\\', Some(next @ (b'"' | b'\\'))) => {
                out.push(*next);
                rest = tail.get(1..).unwrap_or_default();
            }
            _ => out.push(b),
        }
    }
    out
}

/// Each name once, its pieces put together; of the ways in which it came the best.
fn joined(raws: Vec<Raw>, fallback: Fallback) -> Vec<(String, String)> {
    let mut names: Vec<String> = Vec::new();
    for raw in &raws {
        if !names.contains(&raw.name) {
            names.push(raw.name.clone());
        }
    }
    let value = |name: &String| {
        let of = || raws.iter().filter(|r| r.name == *name);
        let whole = of().find(|r| r.piece.is_none() && r.extended).map(|r| extended(&r.value, fallback));
        whole
            .filter(|v| !v.is_empty())
            .or_else(|| in_pieces(of().filter(|r| r.piece.is_some()).collect(), fallback))
            .or_else(|| of().find(|r| r.piece.is_none() && !r.extended).map(|r| plain(&r.value, fallback)))
    };
    names.iter().filter_map(|name| Some((name.clone(), value(name)?))).collect()
}

fn plain(value: &[u8], fallback: Fallback) -> String {
    words::decode(value, fallback)
}

/// RFC 2231 §4: `charset'language'percent-encoded`. Without the two quotes all of it is the text.
fn extended(value: &[u8], fallback: Fallback) -> String {
    let (label, text) = split_label(value);
    labelled(&percent_decoded(text), label, fallback)
}

fn labelled(bytes: &[u8], label: Option<&[u8]>, fallback: Fallback) -> String {
    let label = label.filter(|l| !l.is_empty()).map(String::from_utf8_lossy);
    let text = charset::decode(bytes, label.as_deref(), fallback);
    text.chars()
        .map(|c| if matches!(c, '\t' | '\r' | '\n') { ' ' } else { c })
        .filter(|c| !c.is_control())
        .collect()
}

fn split_label(value: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let mut parts = value.splitn(3, |b| *b == b'\'');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(label), Some(_), Some(text)) => (Some(label), text),
        _ => (None, value),
    }
}

/// RFC 2231 §3, §4.1: in order of their numbers, up to the first that is missing. The charset of the first holds for all.
fn in_pieces(mut pieces: Vec<&Raw>, fallback: Fallback) -> Option<String> {
    pieces.sort_by_key(|r| r.piece);
    pieces.dedup_by_key(|r| r.piece);
    let first = pieces.first()?.piece?;
    let mut bytes = Vec::new();
    let mut label = None;
    let mut any_extended = false;
    for (at, raw) in (first..).zip(&pieces) {
        if raw.piece != Some(at) {
            break;
        }
        let mut value = raw.value.as_slice();
        if raw.extended && at == first {
            (label, value) = split_label(value);
        }
        if raw.extended {
            any_extended = true;
            bytes.extend(percent_decoded(value));
        } else {
            bytes.extend_from_slice(value);
        }
    }
    Some(if any_extended { labelled(&bytes, label, fallback) } else { plain(&bytes, fallback) })
}

fn percent_decoded(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        match (b, tail.first().and_then(words::hex), tail.get(1).and_then(words::hex)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => out.push(b),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Fallback, Fields, read};

    fn fields(field: &str) -> Fields {
        read(field.as_bytes(), Fallback::default())
    }

    fn name(field: &str) -> Option<String> {
        fields(&format!("attachment; {field}")).get("filename").map(str::to_owned)
    }

    #[test]
    fn fields_are_unfolded_before_they_are_read() {
        for field in [
            "application/pdf;\r\n name=\r\n\t\"Offer for the kitchen.pdf\"",
            "application/pdf;\r\n\tname\r\n =\r\n \"Offer for\r\n the kitchen.pdf\"",
            "application/pdf; name = \"Offer for the kitchen.pdf\"",
            "application/pdf;name=Offer for the kitchen.pdf",
            "application/pdf; name=\"Offer for the kitchen.pdf",
        ] {
            let read = fields(field);
            assert_eq!(
                (read.value.as_str(), read.get("name")),
                ("application/pdf", Some("Offer for the kitchen.pdf")),
                "{field}"
            );
        }
        assert_eq!(fields("multipart/mixed; boundary=\r\n\t\"b 1\"").get("boundary"), Some("b 1"));
        assert_eq!(fields("text/plain; charset=\r\n utf-8").get("charset"), Some("utf-8"));
    }

    #[test]
    fn the_value_is_found_whatever_stands_around_it() {
        for (field, value, charset) in [
            ("text/plain; charset=us-ascii (Plain text)", "text/plain", Some("us-ascii")),
            ("(a) text/plain (b) ; charset=\"us-ascii\"", "text/plain", Some("us-ascii")),
            ("text/plain charset=x", "text/plain", Some("x")),
            ("text/plain, charset=x", "text/plain", Some("x")),
            ("TEXT", "text", None),
            ("\"base64\"", "base64", None),
            ("base64 (comment)", "base64", None),
            ("Quoted-Printable;", "quoted-printable", None),
            ("", "", None),
            (";charset=x", "", Some("x")),
            ("charset=x", "", Some("x")),
        ] {
            let read = fields(field);
            assert_eq!((read.value.as_str(), read.get("charset")), (value, charset), "{field}");
        }
    }

    #[test]
    fn a_disposition_without_a_type_still_names_its_file() {
        assert_eq!(fields("filename=\"x.pdf\"").get("filename"), Some("x.pdf"));
        assert_eq!(fields("; filename=x.pdf").get("filename"), Some("x.pdf"));
        assert_eq!(fields("  filename*=utf-8''x%20y.pdf").get("filename"), Some("x y.pdf"));
    }

    #[test]
    fn pieces_are_joined_before_they_are_decoded() {
        for field in [
            "filename*0*=utf-8''Angebot%20f%C3; filename*1*=%BCr%20K%C3%BCche.pdf",
            "filename*1*=%BCr%20K%C3%BCche.pdf; filename*0*=UTF-8'de'Angebot%20f%C3",
            "filename*0*=utf-8''Angebot%20f%C3%BCr; filename*1=\" K\"; filename*2*=%C3%BCche.pdf",
            "filename*0=\"=?utf-8?Q?Angebot_f=C3=BCr_K?= =?ut\"; filename*1=\"f-8?Q?=C3=BCche.pdf?=\"",
            "filename*0=\"=?utf-8?Q?Angebot_f=C3?=\"; filename*1=\" =?utf-8?Q?=BCr_K=C3=BCche.pdf?=\"",
            "filename=\"=?utf-8?Q?Angebot_f=C3=BCr?=\r\n =?utf-8?Q?_K=C3=BCche.pdf?=\"",
            "filename==?utf-8?Q?Angebot_f=C3=BCr_K=C3=BCche.pdf?=",
            "filename*=\"utf-8''Angebot%20f%C3%BCr%20K%C3%BCche.pdf\"",
            "filename*=iso-8859-1''Angebot%20f%FCr%20K%FCche.pdf",
            "filename*=Angebot%20f%C3%BCr%20K%C3%BCche.pdf",
            "filename*=''Angebot%20f%C3%BCr%20K%C3%BCche.pdf",
            "filename*0*=iso-8859-1''Angebot%20f%FCr; filename*1*=%20K%FCche.pdf",
            "filename=\"Angebot für Küche.pdf\"",
        ] {
            assert_eq!(name(field).as_deref(), Some("Angebot für Küche.pdf"), "{field}");
        }
        assert_eq!(name("filename*0=a; filename*1=b; filename*3=d").as_deref(), Some("ab"));
        assert_eq!(
            name("filename*0*=shift_jis''%83e%83; filename*1*=X%83g.txt").as_deref(),
            Some("テスト.txt")
        );
    }

    #[test]
    fn the_extended_form_wins_in_either_order() {
        assert_eq!(
            name("filename=\"Kuche.pdf\"; filename*=utf-8''K%C3%BCche.pdf").as_deref(),
            Some("Küche.pdf")
        );
        assert_eq!(
            name("filename*=utf-8''K%C3%BCche.pdf; filename=\"Kuche.pdf\"").as_deref(),
            Some("Küche.pdf")
        );
        assert_eq!(
            name("filename=\"Kuche.pdf\"; filename*0*=utf-8''K%C3; filename*1*=%BCche.pdf").as_deref(),
            Some("Küche.pdf")
        );
        assert_eq!(name("filename*=; filename=x.pdf").as_deref(), Some("x.pdf"));
        assert_eq!(name("filename=a.pdf; filename=b.pdf").as_deref(), Some("a.pdf"));
    }

    #[test]
    fn quotes_hold_what_they_hold() {
        assert_eq!(name("filename=\"a;b=c.txt\"; x=y").as_deref(), Some("a;b=c.txt"));
        assert_eq!(name(r#"filename="say \"hi\".txt""#).as_deref(), Some(r#"say "hi".txt"#));
        assert_eq!(name(r#"filename="C:\temp\x.pdf""#).as_deref(), Some(r"C:\temp\x.pdf"));
        assert_eq!(name("filename=report (1).pdf").as_deref(), Some("report (1).pdf"));
        assert_eq!(name("filename=\"\"").as_deref(), Some(""));
    }

    #[test]
    fn a_crowd_of_parameters_is_cut() {
        let read = fields(&format!("text/plain{}", "; a*0=b".repeat(10_000)));
        assert!(read.limited && read.value == "text/plain");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(field in prop::collection::vec(any::<u8>(), 0..200)) {
            let read = read(&field, Fallback::default());
            prop_assert!(read.parameters.iter().all(|(_, v)| !v.contains(['\r', '\n', '\0'])));
        }

        #[test]
        fn any_pile_of_pieces_is_read(pieces in prop::collection::vec(prop::sample::select(vec![
            "text/plain", ";", "=", "\"", "filename", "*", "0", "1", "'", "utf-8''", "%C3", "%BC", "\r\n ", "\\", "(", ")", "=?utf-8?Q?a?=",
        ]), 0..40)) {
            let read = fields(&pieces.concat());
            prop_assert!(read.parameters.iter().all(|(_, v)| !v.contains(['\r', '\n'])));
        }
    }
}
