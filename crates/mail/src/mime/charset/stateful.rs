//! Encodings whose bytes mean something else after an escape, which the web gave up and mail did not.

use encoding_rs::{Encoding, GBK};

/// ISO-2022-KR (RFC 1557) and the part of ISO-2022-CN (RFC 1922) that is written: the escape names the set once, SO and SI
/// change to it and back, each line begins in ASCII. `set` is the same set with its eighth bit on.
pub(super) fn iso_2022(bytes: &[u8], set: &'static Encoding) -> String {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut shifted = false;
    let mut rest = bytes;
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        match b {
            0x1b => rest = after_escape(tail),
            0x0e => shifted = true,
            0x0f => shifted = false,
            b'\n' => {
                shifted = false;
                plain.push(b);
            }
            0x21..=0x7e if shifted => plain.push(b | 0x80),
            _ => plain.push(b),
        }
    }
    set.decode_without_bom_handling(&plain).0.into_owned()
}

/// ESC, intermediate bytes, one final byte (ECMA-35 §13.2).
fn after_escape(tail: &[u8]) -> &[u8] {
    let between = tail.iter().take_while(|b| (0x20..0x30).contains(*b)).count();
    tail.get(between + 1..).unwrap_or_default()
}

/// HZ (RFC 1843): `~{` and `~}` around pairs of GB 2312, `~~` a tilde, `~` before a line end nothing.
pub(super) fn hz(bytes: &[u8]) -> String {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut shifted = false;
    let mut rest = bytes;
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        match (b, tail.first()) {
            (b'~', Some(b'{')) => shifted = true,
            (b'~', Some(b'}')) => shifted = false,
            (b'~', Some(b'~')) if !shifted => plain.push(b'~'),
            (b'~', Some(b'\n')) if !shifted => {}
            (b'\n', _) => {
                shifted = false;
                plain.push(b);
                continue;
            }
            (0x21..=0x7e, Some(0x21..=0x7e)) if shifted => {
                plain.extend([b | 0x80, tail.first().copied().unwrap_or_default() | 0x80]);
            }
            _ => {
                plain.push(b);
                continue;
            }
        }
        rest = tail.get(1..).unwrap_or_default();
    }
    GBK.decode_without_bom_handling(&plain).0.into_owned()
}

/// UTF-32 in whichever order gives characters.
pub(super) fn utf32(bytes: &[u8]) -> String {
    let read = |order: fn([u8; 4]) -> u32| -> String {
        let (chunks, _) = bytes.as_chunks::<4>();
        chunks.iter().map(|c| char::from_u32(order(*c)).unwrap_or('\u{fffd}')).collect()
    };
    let big = read(u32::from_be_bytes);
    if big.contains('\u{fffd}') { read(u32::from_le_bytes) } else { big }
}
