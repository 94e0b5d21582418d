use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::super::layout::tests::multipart;
use super::super::parse::parse;
use super::body;

const PLAIN: &str = "Content-Type: text/plain; charset=utf-8";
const HTML: &str = "Content-Type: text/html; charset=utf-8";

/// The HTML as a reader sees it, its pictures at the number of their attachment.
fn shown(raw: &str) -> String {
    body(raw.as_bytes())
        .safe_html(false, &|a| Some(format!("/{}", a.index)))
        .map(|s| s.html)
        .unwrap_or_default()
}

#[test]
fn all_that_is_shown_is_in_text_html_snippet_and_index() {
    let footer = multipart("mixed", &[(HTML, "<p>Hello <b>Ann</b></p>"), (PLAIN, "list footer")]);
    let b = body(footer.as_bytes());
    assert_eq!(b.text.as_deref(), Some("Hello Ann\n\nlist footer"));
    assert!(shown(&footer).contains("Hello <b>Ann</b>") && shown(&footer).contains("list footer"));
    let m = parse(footer.as_bytes());
    assert_eq!((m.snippet.as_str(), m.text.as_str()), ("Hello Ann list footer", "Hello Ann\n\nlist footer"));
    let signed = multipart("mixed", &[(PLAIN, "the news"), (HTML, "<p>bye</p>")]);
    assert_eq!(parse(signed.as_bytes()).text, "the news\nbye\n");
    assert_eq!(body(signed.as_bytes()).text.as_deref(), Some("the news\nbye\n"));
    let html = shown(&signed);
    assert!(html.find("the news").unwrap() < html.find("bye").unwrap(), "{html}");
    let inner = multipart("alternative", &[(PLAIN, "plain"), (HTML, "<p>rich</p>")]);
    let both = multipart("mixed", &[("", &inner), (PLAIN, "footer")]);
    assert_eq!(body(both.as_bytes()).text.as_deref(), Some("plain\nfooter"));
    assert!(
        shown(&both).contains("rich") && shown(&both).contains("footer") && !shown(&both).contains("plain")
    );
}

#[test]
fn base64_without_padding_is_read_to_its_end_in_every_charset() {
    for (charset, bytes, text) in [
        ("windows-1252", b"Gr\xfc\xdfe aus K\xf6ln, \x80 5".as_slice(), "Grüße aus Köln, € 5"),
        ("iso-8859-1", b"caf\xe9", "café"),
        ("koi8-r", b"\xf0\xd2\xc9\xd7\xc5\xd4", "Привет"),
        ("windows-1251", b"\xcf\xf0\xe8\xe2\xe5\xf2 \xec\xe8\xf0", "Привет мир"),
        ("shift_jis", b"\x83e\x83X\x83g\x82\xc5\x82\xb7", "テストです"),
    ] {
        let coded = STANDARD_NO_PAD.encode(bytes);
        for footer in ["", "\r\n\r\n", "\r\n-- \r\nlist footer\r\n", "\r\n\r\nof the list\r\n"] {
            let field =
                format!("Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: base64");
            let alone = format!("{field}\r\n\r\n{coded}{footer}");
            let among = multipart("mixed", &[(&field, &format!("{coded}{footer}")), (PLAIN, "end")]);
            assert_eq!(body(alone.as_bytes()).text.as_deref(), Some(text), "{alone}");
            assert_eq!(body(among.as_bytes()).text, Some(format!("{text}\nend")), "{among}");
        }
    }
}

#[test]
fn a_picture_or_a_file_stands_between_the_halves() {
    let pdf = "Content-Type: application/pdf\r\nContent-Disposition: inline; filename=menu.pdf";
    let image = "Content-Type: image/png\r\nContent-Disposition: inline; filename=cat.png";
    let raw = multipart(
        "mixed",
        &[(HTML, "<p>one</p>"), (pdf, "x"), (HTML, "<p>two</p>"), (image, "y"), (HTML, "<p>three")],
    );
    let html = shown(&raw);
    let at = |what: &str| html.find(what).unwrap_or_else(|| panic!("{what} in {html}"));
    assert!(
        at("one") < at("[menu.pdf]")
            && at("[menu.pdf]") < at("two")
            && at("two") < at("src=\"/1\"")
            && at("src=\"/1\"") < at("three")
    );
    let m = parse(raw.as_bytes());
    assert_eq!(m.text, "one\n\n[menu.pdf]\n\ntwo\n\nthree\n");
    assert_eq!(m.attachments.len(), 2);
    assert!(m.has_attachments, "the menu");
    let only = multipart("mixed", &[(HTML, "<p>one</p>"), (image, "y"), (HTML, "<p>three")]);
    assert!(!parse(only.as_bytes()).has_attachments, "a picture that is shown");
}

#[test]
fn an_empty_text_beside_html_hides_nothing_even_with_a_footer() {
    let inner = multipart("alternative", &[(PLAIN, " \u{a0}\r\n"), (HTML, "<p>rich</p>")]);
    let raw = multipart("mixed", &[("", &inner), (PLAIN, "footer")]);
    assert_eq!(parse(raw.as_bytes()).text, "rich\n\nfooter");
    assert_eq!(body(raw.as_bytes()).text.as_deref(), Some("rich\n\nfooter"));
}

#[test]
fn pictures_are_found_as_mail_programs_find_them() {
    for (src, fields) in [
        ("cid:logo@x", "Content-ID: <logo@x>"),
        ("cid:LOGO@x", "Content-ID: <logo@x>"),
        ("cid:logo%40x", "Content-ID: logo@x"),
        ("cid:image001.png", "Content-Disposition: inline; filename=image001.png"),
        (
            "cid:image001.png",
            "Content-ID: <other@x>\r\nContent-Disposition: inline; filename=\"image001.png\"",
        ),
        ("http://x.example/logo.png", "Content-Location: http://x.example/logo.png"),
        ("image001.png", "Content-Location: image001.png"),
    ] {
        let image = format!("Content-Type: image/png\r\n{fields}");
        let raw = multipart("related", &[(HTML, &format!("<p>x<img src=\"{src}\"></p>")), (&image, "PNG")]);
        assert!(shown(&raw).contains("src=\"/0\""), "{src} {fields}: {}", shown(&raw));
        assert!(!parse(raw.as_bytes()).has_attachments, "{src} {fields}");
        assert!(parse(raw.as_bytes()).attachments[0].inline, "{src} {fields}");
    }
    let unseen =
        multipart("related", &[(HTML, "<p>x"), ("Content-Type: image/png\r\nContent-ID: <logo@x>", "PNG")]);
    assert!(parse(unseen.as_bytes()).has_attachments);
}

#[test]
fn files_without_a_name_get_one_that_tells() {
    let calendar = "Content-Type: text/calendar; charset=\"utf-8\"; method=REQUEST";
    let message = "Content-Type: message/rfc822";
    let coded = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64";
    let raw = multipart(
        "mixed",
        &[
            (PLAIN, "see"),
            (calendar, "BEGIN:VCALENDAR"),
            (message, "Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe:_a/b?=\r\n\r\ninner words"),
            (message, "From: a@b\r\n\r\ninner"),
            (coded, "U3ViamVjdDogQ29kZWQNCg0KaGk="),
        ],
    );
    let m = parse(raw.as_bytes());
    let seen: Vec<_> =
        m.attachments.iter().map(|a| (a.filename.as_deref().unwrap(), a.content_type.as_str())).collect();
    assert_eq!(
        seen,
        [
            ("invite.ics", "text/calendar; charset=utf-8; method=REQUEST"),
            ("b.eml", "message/rfc822"),
            ("message.eml", "message/rfc822"),
            ("Coded.eml", "message/rfc822"),
        ]
    );
    assert_eq!(m.attachments[0].method.as_deref(), Some("REQUEST"));
    assert!(m.attached_text.contains("inner words") && !m.snippet.contains("inner"));
}

#[test]
fn html_says_its_charset_itself_where_the_message_does_not() {
    for head in [
        "<meta charset=koi8-r>",
        "<META HTTP-EQUIV='Content-Type' CONTENT='text/html; charset=koi8-r'>",
        "<meta content=\"text/html;charset = &quot;\"><meta charset = \"koi8-r\">",
    ] {
        for fields in [
            "Content-Type: text/html",
            "Content-Type: text/html; charset=us-ascii",
            "Content-Type: text/html; charset=x-what",
        ] {
            let raw =
                [format!("{fields}\r\n\r\n{head}<p>").as_bytes(), b"\xf0\xd2\xc9\xd7\xc5\xd4</p>"].concat();
            assert_eq!(parse(&raw).text, "Привет\n", "{head} {fields}");
        }
    }
}

#[test]
fn raw_fields_are_in_the_charset_of_the_body() {
    let word = encoding_rs::WINDOWS_1251.encode("Счёт").0.into_owned();
    let text = encoding_rs::WINDOWS_1251
        .encode("Добрый день, отправляю вам договор и счёт за прошлый месяц")
        .0
        .into_owned();
    for fields in ["Content-Type: text/plain; charset=windows-1251", "Content-Type: text/plain", "X-A: b"] {
        let raw = [
            b"Subject: ".as_slice(),
            &word,
            b"\r\nFrom: ",
            &word,
            b" <a@x.example>\r\n",
            fields.as_bytes(),
            b"\r\n\r\n",
            &text,
        ]
        .concat();
        let m = parse(&raw);
        assert_eq!(m.subject.as_deref(), Some("Счёт"), "{fields}");
        assert_eq!(m.from[0].name.as_deref(), Some("Счёт"), "{fields}");
        assert!(m.text.starts_with("Добрый"), "{fields}");
    }
}

#[test]
fn flowed_and_enriched_text_is_read_as_such() {
    let flowed = "Content-Type: text/plain; format=flowed; delsp=yes\r\n\r\nhttp://x.example/ \r\npath\r\n";
    assert_eq!(parse(flowed.as_bytes()).text, "http://x.example/path\n");
    let enriched = "Content-Type: text/enriched\r\n\r\n<bold>Now</bold> is\r\nthe time\r\n";
    assert_eq!(parse(enriched.as_bytes()).snippet, "Now is the time");
}

#[test]
fn uuencoded_files_come_out_of_the_text() {
    let raw = b"Subject: x\n\nhello\nbegin 644 cat.txt\n#0V%T\n`\nend\nbye\n";
    let m = parse(raw);
    assert_eq!(m.text, "hello\nbye\n");
    assert_eq!((m.attachments[0].filename.as_deref(), m.attachments[0].size_bytes), (Some("cat.txt"), 3));
    assert_eq!(crate::mime::attachment(raw, 0).unwrap().bytes, b"Cat");
}

#[test]
fn pictures_within_the_html_cost_no_text() {
    let raw = format!(
        "Content-Type: text/html\r\n\r\n<p>before</p><img src=\"data:image/png;base64,{}\"><p>behind</p>",
        "A".repeat(3_000_000)
    );
    let m = parse(raw.as_bytes());
    assert_eq!(m.text, "before\n\nbehind\n");
    let b = body(raw.as_bytes()).safe_html(false, &|_| None).unwrap();
    assert!(!b.text_only && b.html.contains("behind") && b.html.contains("src=\"data:image/png;base64,AAAA"));
}

#[test]
fn a_limit_shows_all_that_came_before_it() {
    let mut deep = multipart("mixed", &[(PLAIN, "before")]).replace("--b-mixed--\r\n", "--b-mixed\r\n");
    for i in 0..150 {
        deep.push_str(&format!("Content-Type: multipart/mixed; boundary=c{i}\r\n\r\n--c{i}\r\n"));
    }
    let long = format!("Content-Type: multipart/mixed; boundary={}\r\n\r\nx", "c".repeat(3000));
    let boundary = multipart("mixed", &[(PLAIN, "before")])
        .replace("--b-mixed--\r\n", &format!("--b-mixed\r\n{long}\r\n--b-mixed--\r\n"));
    let many = multipart("mixed", &[(PLAIN, "before")])
        .replace("--b-mixed--", &"--b-mixed\r\n\r\n\r\n".repeat(10_001));
    for raw in [deep, boundary, many] {
        let m = parse(raw.as_bytes());
        assert!(m.degraded && m.text.starts_with("before"), "{:?}", m.text.get(..50));
        assert!(body(raw.as_bytes()).limited.is_some());
    }
    let to = format!(
        "From: a@b\r\nTo: {}\r\nSubject: hi\r\nDate: Mon, 2 Nov 2026 10:00:00 +0100\r\n\r\nhello",
        "\"Some Body\" <somebody@long.example>,\r\n ".repeat(3000)
    );
    let m = parse(to.as_bytes());
    assert_eq!((m.subject.as_deref(), m.text.as_str(), m.date.is_some()), (Some("hi"), "hello", true));
}

#[test]
fn a_reader_gets_the_addresses_of_links_beside_plain_text_too() {
    let link = "<p>See <a href=\"https://x.example/a\">this</a></p>";
    let footer = multipart("mixed", &[(HTML, link), (PLAIN, "list footer")]);
    let blank = multipart("alternative", &[(PLAIN, " \r\n"), (HTML, link)]);
    for raw in [footer, blank] {
        let text = body(raw.as_bytes()).text.unwrap();
        assert!(text.starts_with("See this <https://x.example/a>"), "{text}");
        assert!(!parse(raw.as_bytes()).text.contains("https"), "the index has none");
    }
}

#[test]
fn a_picture_is_shown_only_where_an_attribute_has_its_whole_address() {
    for (html, location, shown) in [
        ("<p>a b c</p>", "a", false),
        ("<p>x.png <img src=\"y/x.png\"></p>", "x.png", false),
        ("<p><img src=\"x.png\"></p>", "x.png", true),
        ("<p><img src='http://x.example/?a&amp;b'></p>", "http://x.example/?a&b", true),
        ("<table background=x.png><tr><td>x</table>", "x.png", true),
    ] {
        let image = format!("Content-Type: image/png\r\nContent-Location: {location}");
        let raw = multipart("related", &[(HTML, html), (&image, "PNG")]);
        assert_eq!(!parse(raw.as_bytes()).has_attachments, shown, "{html} {location}");
        assert_eq!(self::shown(&raw).contains("\"/0\""), shown, "{html} {location}");
    }
}

#[test]
fn many_pictures_and_much_html_are_linear() {
    let images: Vec<String> =
        (0..3000).map(|n| format!("Content-Type: image/png\r\nContent-Location: zz{n}")).collect();
    let html = "<p>".to_owned() + &"cid:".repeat(10_000) + &"a".repeat(10_000_000);
    let mut parts = vec![(HTML, html.as_str())];
    parts.extend(images.iter().map(|fields| (fields.as_str(), "x")));
    assert!(parse(multipart("related", &parts).as_bytes()).has_attachments);
}

#[test]
fn the_body_may_stand_behind_a_file() {
    let pdf = "Content-Type: application/pdf\r\nContent-Disposition: attachment; filename=menu.pdf";
    for (fields, count) in
        [("Content-Type: text/plain; name=body.txt", 1), ("Content-Type: text/markdown", 1)]
    {
        let m = parse(multipart("mixed", &[(pdf, "x"), (fields, "the words")]).as_bytes());
        assert_eq!((m.text.as_str(), m.attachments.len()), ("the words", count), "{fields}");
    }
}

#[test]
fn pictures_before_and_behind_the_text_are_shown() {
    let image = "Content-Type: image/jpeg\r\nContent-Disposition: inline; filename=cat.jpg";
    for parts in [[(HTML, "<p>x</p>"), (image, "y")], [(image, "y"), (HTML, "<p>x</p>")]] {
        let raw = multipart("mixed", &parts);
        assert!(shown(&raw).contains("src=\"/0\""), "{}", shown(&raw));
        assert!(!parse(raw.as_bytes()).has_attachments);
    }
}
