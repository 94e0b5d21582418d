use proptest::prelude::*;

use super::{Fallback, decode, guess};

fn read(bytes: &[u8], label: &str) -> String {
    decode(bytes, Some(label), Fallback::default())
}

#[test]
fn every_label_that_people_write_has_its_decoder() {
    for (label, bytes, text) in [
        ("cp932", b"\x83e\x83X\x83g".as_slice(), "テスト"),
        ("MS932", b"\x83e\x83X\x83g", "テスト"),
        ("cp949", b"\xc8\xb8\xc0\xc7", "회의"),
        ("uhc", b"\xc8\xb8\xc0\xc7", "회의"),
        ("ks_c_5601-1987", b"\xc8\xb8\xc0\xc7", "회의"),
        ("cp950", b"\xb7|\xc4\xb3", "會議"),
        ("euc-cn", b"\xbb\xe1\xd2\xe9", "会议"),
        ("EUC_CN", b"\xbb\xe1\xd2\xe9", "会议"),
        ("cp936", b"\xbb\xe1\xd2\xe9", "会议"),
        ("iso2022jp", b"\x1b$B%F%9%H\x1b(B", "テスト"),
        ("iso-2022-jp-ms", b"\x1b$B%F%9%H\x1b(B", "テスト"),
        ("iso-2022-kr", b"\x1b$)C\x0eH8@G\x0f ok", "회의 ok"),
        ("hz-gb-2312", b"ok ~{;aRi~} ~~", "ok 会议 ~"),
        ("cp437", b"Gr\x81\xe1e", "Grüße"),
        ("IBM850", b"Gr\x81\xe1e", "Grüße"),
        ("cp852", b"\xa9\xa2", "ęó"),
        ("cp855", b"\xa0", "а"),
        ("cp862", b"\x80", "א"),
        ("cp874", b"\xa1\xd2", "กา"),
        ("tis620", b"\xa1\xd2", "กา"),
        ("win1251", b"\xcf\xf0\xe8\xe2\xe5\xf2", "Привет"),
        ("cp1251", b"\xcf\xf0\xe8\xe2\xe5\xf2", "Привет"),
        ("windows1251", b"\xcf\xf0\xe8\xe2\xe5\xf2", "Привет"),
        ("koi8r", b"\xf0\xd2\xc9\xd7\xc5\xd4", "Привет"),
        ("unicode-1-1-utf-7", b"Gr+APwA3w-e", "Grüße"),
        ("utf7", b"Gr+APwA3w-e", "Grüße"),
        ("latin-1", b"Gr\xfc\xdfe", "Grüße"),
        ("latin1", b"Gr\xfc\xdfe", "Grüße"),
        ("iso_8859_15", b"\xa4", "€"),
        ("ISO8859-2", b"\xb1", "ą"),
        ("latin2", b"\xb1", "ą"),
        ("us-ascii", b"Gr\xfc\xdfe", "Grüße"),
        ("utf-16", b"\xff\xfea\0b\0", "ab"),
        ("utf-16", b"\0a\0b", "ab"),
        ("utf-16", b"a\0b\0", "ab"),
        ("utf-32", b"\0\0\0a\0\0\0b", "ab"),
        ("utf8", "Grüße".as_bytes(), "Grüße"),
        ("\"utf-8\"", "Grüße".as_bytes(), "Grüße"),
        ("x-sjis", b"\x83e\x83X\x83g", "テスト"),
        ("macroman", b"Gr\x9f\xa7e", "Grüße"),
        ("x-mac-ce", b"\x88", "ą"),
    ] {
        assert_eq!(read(bytes, label), text, "{label}");
    }
}

#[test]
fn no_label_makes_a_text_vanish() {
    for label in
        ["no-such", "replacement", "iso-2022-cn-ext", "csiso2022kr", "hz", "x-user-defined", "", "=", "utf-8"]
    {
        let text = read(b"all of these words are to be seen", label);
        assert!(text.contains("words are"), "{label}: {text}");
    }
    for label in ["x-what", "unknown-8bit", "x-unknown"] {
        assert_eq!(read(b"Gr\xfc\xdfe aus M\xfcnchen", label), "Grüße aus München", "{label}");
    }
}

#[test]
fn what_is_labelled_wrongly_for_sure_is_read_right() {
    assert_eq!(read("Grüße".as_bytes(), "iso-8859-1"), "Grüße");
    assert_eq!(read("Привет, мир".as_bytes(), "windows-1251"), "Привет, мир");
    assert_eq!(read("会议记录".as_bytes(), "gb2312"), "会议记录");
    assert_eq!(read(b"\x1b$B%F%9%H\x1b(B", "iso-8859-1"), "テスト");
    assert_eq!(read(b"\x1b$B%F%9%H\x1b(B", "utf-8"), "テスト");
    assert_eq!(read(b"\x1b$B%F%9%H\x1b(B", "us-ascii"), "テスト");
    assert_eq!(read(b"Gr\xfc\xdfe aus K\xf6ln", "utf-8"), "Grüße aus Köln");
    let russian = "Добрый день, отправляю вам договор и счёт за прошлый месяц";
    let bytes = encoding_rs::WINDOWS_1251.encode(russian).0.into_owned();
    assert_eq!(read(&bytes, "us-ascii"), russian);
    assert_eq!(read(&bytes, "utf-8"), russian);
}

#[test]
fn one_foreign_byte_spoils_only_itself() {
    let bytes = [b"Gr\xc3\xbc\xc3\x9fe \xe4 K\xc3\xb6ln".as_slice()].concat();
    assert_eq!(guess(&bytes, Fallback::default()), "Grüße ä Köln");
    // Where a text was cut, half a character is left.
    assert_eq!(guess(b"Gr\xc3\xbc\xc3\x9fe \xc3", Fallback::default()), "Grüße \u{fffd}");
}

#[test]
fn a_short_word_is_read_by_what_stands_beside_it() {
    let word = encoding_rs::KOI8_R.encode("Счёт").0.into_owned();
    assert_eq!(guess(&word, Fallback::labelled("koi8-r")), "Счёт");
    let letter =
        encoding_rs::KOI8_R.encode("Добрый день, отправляю вам договор и счёт за месяц").0.into_owned();
    assert_eq!(guess(&word, Fallback::detected([letter.as_slice()])), "Счёт");
}

proptest! {
    #[test]
    fn any_bytes_under_any_label_are_text(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        label in prop::sample::select(vec!["", "utf-8", "utf-7", "utf-16", "utf-32", "hz", "iso-2022-kr", "iso-2022-jp", "cp437",
            "gb2312", "big5", "cp1251", "x", "iso-8859-1", "unicode-1-1-utf-7", "iso-2022-cn"]),
    ) {
        let text = read(&bytes, label);
        prop_assert!(text.len() <= bytes.len() * 4 + 16);
    }

    #[test]
    fn valid_utf8_is_itself(text in "[^\u{1b}\u{feff}]{0,60}") {
        prop_assume!(!text.starts_with('\u{feff}'));
        prop_assert_eq!(guess(text.as_bytes(), Fallback::default()), text);
    }
}

#[test]
fn foreign_bytes_within_utf8_are_read_by_one_choice() {
    let text = super::guess(&b"\xc3\xbc\xe4".repeat(1_000_000), super::Fallback::default());
    assert_eq!(text.chars().count(), 2_000_000);
    assert!(text.starts_with("\u{fc}\u{e4}\u{fc}\u{e4}"), "{:?}", text.get(..8));
}
