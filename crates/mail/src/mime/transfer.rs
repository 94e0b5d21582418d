//! Undoing base64 and quoted-printable (RFC 2045 §6), leniently: what cannot be decoded is skipped or kept as
//! it is, nothing is refused. The size of an attachment and its bytes come from the same walk, so they agree.

use std::borrow::Cow;

use super::structure::Transfer;

/// A line of quoted-printable ends here even without a line end: RFC 2045 §6.7 has 76 characters, and a decoder that is fed
/// piece by piece keeps a line until it ends.
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
    Base64 { group: u32, filled: u8 },
    QuotedPrintable { line: Vec<u8> },
}

impl Decoder {
    pub fn new(transfer: Transfer) -> Self {
        match transfer {
            Transfer::Identity => Self::Identity,
            Transfer::Base64 => Self::Base64 { group: 0, filled: 0 },
            Transfer::QuotedPrintable => Self::QuotedPrintable { line: Vec::new() },
        }
    }

    /// The next piece.
    pub fn push(&mut self, piece: &[u8], sink: &mut impl FnMut(&[u8])) {
        match self {
            Self::Identity => sink(piece),
            Self::Base64 { group, filled } => base64(piece, group, filled, sink),
            Self::QuotedPrintable { line } => {
                let mut rest = piece;
                while !rest.is_empty() {
                    let room = LONGEST_LINE - line.len();
                    let end = rest.iter().take(room).position(|&b| b == b'\n').map(|at| at + 1);
                    let (now, later) = rest.split_at(end.unwrap_or(room).min(rest.len()));
                    rest = later;
                    let whole = end.is_some() || line.len() + now.len() == LONGEST_LINE;
                    match (whole, line.is_empty()) {
                        (true, true) => quoted_printable(now, sink),
                        (true, false) => {
                            line.extend_from_slice(now);
                            quoted_printable(line, sink);
                            line.clear();
                        }
                        (false, _) => line.extend_from_slice(now),
                    }
                }
            }
        }
    }

    /// What is left when there are no more pieces.
    pub fn finish(self, sink: &mut impl FnMut(&[u8])) {
        match self {
            Self::Identity => {}
            Self::Base64 { group, filled } => flush(group, filled, sink),
            Self::QuotedPrintable { line } => quoted_printable(&line, sink),
        }
    }
}

#[expect(clippy::indexing_slicing, reason = "a byte as index into 256 entries, at compile time")]
const fn sextets() -> [u8; 256] {
    let mut table = [255u8; 256];
    let mut i: u8 = 0;
    while i < 64 {
        let c = match i {
            0..=25 => b'A' + i,
            26..=51 => b'a' + (i - 26),
            52..=61 => b'0' + (i - 52),
            62 => b'+',
            _ => b'/',
        };
        table[c as usize] = i;
        i += 1;
    }
    table
}

static SEXTETS: [u8; 256] = sextets();

fn sextet(b: u8) -> u8 {
    SEXTETS.get(usize::from(b)).copied().unwrap_or(255)
}

/// Everything outside the alphabet is skipped; padding ends a group, so pieces encoded one by one still come
/// out right.
fn base64(encoded: &[u8], group: &mut u32, filled: &mut u8, sink: &mut impl FnMut(&[u8])) {
    for &b in encoded {
        let value = sextet(b);
        if value < 64 {
            *group = *group << 6 | u32::from(value);
            *filled += 1;
            if *filled == 4 {
                let [_, a, b, c] = group.to_be_bytes();
                sink(&[a, b, c]);
                (*group, *filled) = (0, 0);
            }
        } else if b == b'=' {
            flush(*group, *filled, sink);
            (*group, *filled) = (0, 0);
        }
    }
}

fn flush(group: u32, filled: u8, sink: &mut impl FnMut(&[u8])) {
    match filled {
        2 => sink(&[(group >> 4).to_be_bytes()[3]]),
        3 => {
            let [_, _, a, b] = (group >> 2).to_be_bytes();
            sink(&[a, b]);
        }
        _ => {}
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
        match (coded.get(1).and_then(hex), coded.get(2).and_then(hex)) {
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

fn hex(b: &u8) -> Option<u8> {
    char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok())
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
    fn broken_base64_gives_what_it_can() {
        assert_eq!(b64("aGVs\r\nbG8="), b"hello");
        assert_eq!(b64("aGVsbG8"), b"hello");
        assert_eq!(b64("YQ==YQ=="), b"aa");
        assert_eq!(b64("aG!V?s bG8=\r\n-- list footer"), [b"hello".as_slice(), &b64("listfooter")].concat());
        assert_eq!(b64("="), b"");
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
            raw in prop::collection::vec(prop::sample::select(b"aQ=3D \t\r\n\xff".to_vec()), 0..200), at in 0usize..200, then in 0usize..200,
        ) {
            let cuts = [at.min(raw.len()), (at + then).min(raw.len())];
            for t in [Transfer::Identity, Transfer::Base64, Transfer::QuotedPrintable] {
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
            for t in [Transfer::Identity, Transfer::Base64, Transfer::QuotedPrintable] {
                prop_assert_eq!(decode(&raw, t).len(), decoded_len(&raw, t));
            }
        }
    }
}
