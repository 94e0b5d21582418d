use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use proptest::prelude::*;

use super::super::{Decoder, Transfer, decode, decoded_len};
use super::is_text_after_all;

fn b64(text: &str) -> Vec<u8> {
    of(text.as_bytes())
}

fn of(encoded: &[u8]) -> Vec<u8> {
    let decoded = decode(encoded, Transfer::Base64).into_owned();
    assert_eq!(decoded_len(encoded, Transfer::Base64), decoded.len());
    decoded
}

/// In lines of so many characters, without padding.
fn bare(bytes: &[u8], width: usize) -> Vec<u8> {
    let whole = STANDARD_NO_PAD.encode(bytes).into_bytes();
    whole.chunks(width).collect::<Vec<_>>().join(b"\r\n".as_slice())
}

#[test]
fn broken_base64_gives_what_it_can() {
    assert_eq!(b64("aGVs\r\nbG8="), b"hello");
    assert_eq!(b64("aGVsbG8"), b"hello");
    let long = format!("YQ==\r\n{}\r\n", "YWFh".repeat(1250));
    assert_eq!(b64(&long).len(), 1 + 3750);
    assert_eq!(decoded_len(long.as_bytes(), Transfer::Base64), 1 + 3750);
    for size in [1, 7, 999, 1000, 1001, 1006, 4000] {
        let (mut decoder, mut out) = (Decoder::new(Transfer::Base64), Vec::new());
        long.as_bytes().chunks(size).for_each(|c| decoder.push(c, &mut |b| out.extend_from_slice(b)));
        decoder.finish(&mut |b| out.extend_from_slice(b));
        assert_eq!(out.len(), 1 + 3750, "{size}");
    }
    assert_eq!(b64(&format!("YQ==\r\n{}", "a word ".repeat(1000) + "!")).len(), 1);
    assert_eq!(b64("YQ==YQ=="), b"aa");
    assert_eq!(b64("aG!V?s bG8="), b"hello");
    assert_eq!(b64("="), b"");
}

#[test]
fn padding_ends_base64_and_a_footer_is_no_data() {
    for footer in [
        "-- list footer",
        "-- \r\nUnsubscribe here: http://x.example/\r\n",
        "list",
        "unsubscribe",
        "_______________________________________________\r\nsome mailing list\r\nsome@list.example\r\n",
    ] {
        assert_eq!(b64(&format!("aGVs\r\nbG8=\r\n{footer}")), b"hello", "{footer}");
        assert_eq!(b64(&format!("aGVs\r\nbG9v==\r\n\r\n{footer}")), b"helloo", "{footer}");
    }
    assert_eq!(b64("YQ==\r\nYg==\r\nYw==\r\n"), b"abc");
    let long = STANDARD.encode([b'x'; 57]);
    assert_eq!(b64(&format!("YQ==\r\n{long}\r\n{long}\r\nYg==")).len(), 116);
}

#[test]
fn text_that_is_labelled_base64_is_text() {
    for text in
        ["Hello, this is plain text.\r\nSecond line.", "Hi", "Dear Ann", "Grüße aus Köln", "short answer: no"]
    {
        assert!(is_text_after_all(text.as_bytes()), "{text}");
    }
    for coded in ["aGVs\r\nbG8=", "aGVsbG8", "SGFsbG8gV2VsdCwgZGFzIGlzdCBlaW4gVGV4dA==", "aGVs bG8=", ""] {
        assert!(!is_text_after_all(coded.as_bytes()), "{coded}");
    }
}

/// Footers as lists append them, in a charset of one byte a character too.
const FOOTERS: [&[u8]; 7] = [
    b"-- \r\nlist footer\r\n",
    b"_______________________________________________\r\nlist mailing list\r\nlist@x.example\r\n",
    b"Sent to the list. Unsubscribe: http://x.example/\r\n",
    b"Gr\xfc\xdfe der Liste\r\nabbestellen\r\n",
    b"\xcf\xee\xe4\xef\xe8\xf1\xea\xe0\r\n",
    b"this is the footer of the list\r\n",
    b"***\r\nlist\r\n",
];

#[test]
fn a_footer_behind_data_without_padding_is_no_data() {
    for length in 1..200usize {
        let text: Vec<u8> = (0..length).map(|n| b"Gr\xfc\xdfe aus K\xf6ln "[n % 15]).collect();
        for width in [60, 64, 72, 76, 1000] {
            let data = bare(&text, width);
            assert_eq!(of(&data), text);
            for footer in FOOTERS {
                for between in ["\r\n", "\r\n\r\n", "\n", " \r\n\r\n\r\n"] {
                    let raw = [&data, between.as_bytes(), footer].concat();
                    assert_eq!(of(&raw), text, "{}", String::from_utf8_lossy(&raw));
                    assert!(length < 6 || !is_text_after_all(&raw), "{}", String::from_utf8_lossy(&raw));
                }
            }
        }
    }
    assert_eq!(b64("R3L832Ug\r\nSw\r\n\r\nlist\r\n"), b"Gr\xfc\xdfe K");
}

#[test]
fn text_of_one_byte_a_character_is_not_taken_for_text_that_is_not_encoded() {
    for text in [
        b"Gr\xfc\xdfe aus K\xf6ln".as_slice(),
        b"\xf0\xd2\xc9\xd7\xc5\xd4 \xcd\xc9\xd2",
        b"\xcf\xf0\xe8\xe2\xe5\xf2",
        b"caf\xe9",
        b"\xe9",
    ] {
        let data = String::from_utf8(bare(text, 1000)).unwrap();
        let spaced = data.as_bytes().chunks(5).collect::<Vec<_>>().join(b" ".as_slice());
        let behind = format!("{data}\r\n--b\r\nContent-Type: text/plain\r\n\r\n{}", "x ".repeat(1000));
        for raw in [data.as_bytes(), format!(" {data} \r\n\r\n").as_bytes(), &spaced, behind.as_bytes()] {
            let shown = String::from_utf8_lossy(raw);
            assert!(!is_text_after_all(raw), "{shown}");
            assert_eq!(of(raw), text, "{shown}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_without_padding_comes_back(
        bytes in prop::collection::vec(any::<u8>(), 0..300), width in 1usize..100, footer in 0..FOOTERS.len(),
    ) {
        let data = bare(&bytes, width);
        prop_assert_eq!(of(&data), bytes.clone());
        if width > 3 && !bytes.is_empty() {
            prop_assert_eq!(of(&[&data, b"\r\n\r\n".as_slice(), FOOTERS[footer]].concat()), bytes);
        }
    }
}
