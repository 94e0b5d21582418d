//! Undoing base64, quoted-printable (RFC 2045 §6) and uuencode, leniently: what cannot be decoded is skipped or kept as
//! it is, nothing is refused. The size of an attachment and its bytes come from the same walk, so they agree.

mod base64;
pub(super) mod uu;

use std::borrow::Cow;

use self::base64::Base64;
pub(super) use self::base64::{is_text_after_all, word as base64_word};
use self::uu::Uu;
use super::part::Transfer;
use super::words;

/// A line ends here even without a line end: RFC 2045 has 76 characters, and a decoder that is fed piece by piece keeps a line
/// until it ends.
const LONGEST_LINE: usize = 64 << 10;

/// The contents of a part.
pub(super) fn decode(encoded: &[u8], transfer: Transfer) -> Cow<'_, [u8]> {
    if transfer == Transfer::Identity {
        return Cow::Borrowed(encoded);
    }
    let mut out = Vec::with_capacity(encoded.len() / 4 * 3);
    decode_whole(encoded, transfer, |bytes| out.extend_from_slice(bytes));
    Cow::Owned(out)
}

/// How many bytes [`decode`] returns, without holding them.
pub(super) fn decoded_len(encoded: &[u8], transfer: Transfer) -> usize {
    if transfer == Transfer::Base64
        && let Some(length) = base64::length(encoded)
    {
        return length;
    }
    let mut total = 0;
    decode_whole(encoded, transfer, |bytes| total += bytes.len());
    total
}

fn decode_whole(encoded: &[u8], transfer: Transfer, mut sink: impl FnMut(&[u8])) {
    let mut decoder = Decoder::new(transfer);
    decoder.push(encoded, &mut sink);
    decoder.finish(&mut sink);
}

/// Decodes a part that comes in pieces; wherever it is cut, the same bytes come out.
#[derive(Debug)]
pub(super) enum Decoder {
    Identity,
    Base64(Base64),
    Uu(Uu),
    QuotedPrintable { line: Vec<u8> },
}

impl Decoder {
    pub fn new(transfer: Transfer) -> Self {
        match transfer {
            Transfer::Identity => Self::Identity,
            Transfer::Base64 => Self::Base64(Base64::default()),
            Transfer::Uuencode => Self::Uu(Uu::default()),
            Transfer::QuotedPrintable => Self::QuotedPrintable { line: Vec::new() },
        }
    }

    /// The next piece.
    pub fn push(&mut self, piece: &[u8], sink: &mut impl FnMut(&[u8])) {
        match self {
            Self::Identity => sink(piece),
            Self::Base64(base64) => base64.push(piece, sink),
            Self::Uu(uu) => uu.push(piece, sink),
            Self::QuotedPrintable { line } => by_line(line, piece, |line| quoted_printable(line, sink)),
        }
    }

    /// What is left when there are no more pieces.
    pub fn finish(self, sink: &mut impl FnMut(&[u8])) {
        match self {
            Self::Identity => {}
            Self::Base64(base64) => base64.finish(sink),
            Self::Uu(uu) => uu.finish(sink),
            Self::QuotedPrintable { line } => quoted_printable(&line, sink),
        }
    }
}

/// Hands each line on, its end with it; what has no end yet waits in `kept`. A line that is too long comes in pieces, cut at
/// the same places however the text was cut.
fn by_line(kept: &mut Vec<u8>, piece: &[u8], mut each: impl FnMut(&[u8])) {
    let mut rest = piece;
    while !rest.is_empty() {
        let room = LONGEST_LINE - kept.len();
        let end = rest.iter().take(room).position(|&b| b == b'\n').map(|at| at + 1);
        let (now, later) = rest.split_at(end.unwrap_or(room).min(rest.len()));
        rest = later;
        let whole = end.is_some() || kept.len() + now.len() == LONGEST_LINE;
        match (whole, kept.is_empty()) {
            (true, true) => each(now),
            (true, false) => {
                kept.extend_from_slice(now);
                each(kept);
                kept.clear();
            }
            (false, _) => kept.extend_from_slice(now),
        }
    }
}

/// One line. A soft line break goes, `=XX` becomes a byte, blanks at the line's end are transport noise and go; an `=` that
/// is neither stays.
fn quoted_printable(line: &[u8], sink: &mut impl FnMut(&[u8])) {
    let (text, end) = split_line_end(line);
    let mut rest = text.trim_ascii_end();
    let soft = rest.last() == Some(&b'=');
    if soft {
        rest = rest.get(..rest.len() - 1).unwrap_or_default();
    }
    while let Some(at) = rest.iter().position(|&b| b == b'=') {
        let (plain, coded) = rest.split_at(at);
        sink(plain);
        match (coded.get(1).and_then(words::hex), coded.get(2).and_then(words::hex)) {
            (Some(high), Some(low)) => {
                sink(&[high << 4 | low]);
                rest = coded.get(3..).unwrap_or_default();
            }
            _ => {
                sink(b"=");
                rest = coded.get(1..).unwrap_or_default();
            }
        }
    }
    sink(rest);
    if !soft {
        sink(end);
    }
}

fn split_line_end(line: &[u8]) -> (&[u8], &[u8]) {
    let text = super::header::trim_line_end(line);
    line.split_at(text.len())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::{Decoder, Transfer, decode, decoded_len};

    fn b64(text: &str) -> Vec<u8> {
        decode(text.as_bytes(), Transfer::Base64).into_owned()
    }

    fn qp(text: &str) -> String {
        String::from_utf8(decode(text.as_bytes(), Transfer::QuotedPrintable).into_owned()).unwrap()
    }

    #[test]
    fn uuencoded_files_are_decoded() {
        let uu = |text: &str| decode(text.as_bytes(), Transfer::Uuencode).into_owned();
        assert_eq!(uu("begin 644 a.txt\r\n#0V%T\r\n`\r\nend\r\n"), b"Cat");
        assert_eq!(uu("begin 644 a b.txt\n%:&5L;&\\\n`\nend\nmore"), b"hello");
        assert_eq!(uu("intro\n\nbegin 644 a\n#0V%T\n \nend\n"), b"Cat");
        assert_eq!(uu("#0V%T\n"), b"");
    }

    #[test]
    fn quoted_printable_is_forgiving() {
        assert_eq!(qp("Gr=C3=BC=c3=9fe=\r\n!  \r\nx=3D=ZZ=4"), "Grüße!\r\nx==ZZ=4");
        assert_eq!(qp("a=   \nb"), "ab");
        assert_eq!(qp("="), "");
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = base64::engine::general_purpose::STANDARD.encode(&bytes);
            prop_assert_eq!(b64(&text), bytes);
        }

        #[test]
        fn wherever_it_is_cut_the_same_bytes_come_out(
            raw in prop::collection::vec(prop::sample::select(b"aQ=3D \t\r\n\n\xffbegin 6".to_vec()), 0..200), at in 0usize..200, then in 0usize..200,
        ) {
            let cuts = [at.min(raw.len()), (at + then).min(raw.len())];
            for t in [Transfer::Identity, Transfer::Base64, Transfer::QuotedPrintable, Transfer::Uuencode] {
                let (mut decoder, mut out) = (Decoder::new(t), Vec::new());
                let mut sink = |bytes: &[u8]| out.extend_from_slice(bytes);
                for piece in [&raw[..cuts[0]], &raw[cuts[0]..cuts[1]], &raw[cuts[1]..]] {
                    decoder.push(piece, &mut sink);
                }
                decoder.finish(&mut sink);
                prop_assert_eq!(out, decode(&raw, t).into_owned());
            }
        }

        #[test]
        fn the_length_is_that_of_the_bytes(raw in prop::collection::vec(any::<u8>(), 0..200)) {
            for t in [Transfer::Identity, Transfer::Base64, Transfer::QuotedPrintable, Transfer::Uuencode] {
                prop_assert_eq!(decode(&raw, t).len(), decoded_len(&raw, t));
            }
        }
    }
}
