use proptest::prelude::*;

use super::parse;
use crate::mime::attachment::attachment;
use crate::mime::body;

fn sources(body: &crate::mime::Body) -> Option<&str> {
    body.html.as_ref()?.sources().next()
}

fn addresses(list: &[crate::address::Address]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn the_headers_of_an_ordinary_message_are_read() {
    let m = parse(
        b"From: =?utf-8?q?J=C3=BCrgen?= <j@a.example>\r\nTo: \"B, C\" <b@c.example>, team: d@e.example, f@g.example;\r\n\
          Cc: undisclosed-recipients:;\r\nReply-To: r@a.example\r\nSubject: =?iso-8859-1?Q?Gr=FC=DFe?=\r\n a\tb\r\n\
          Message-ID: <1@a.example>\r\nIn-Reply-To: Your message <0@a.example>\r\n\
          References: <x@a.example>\r\n <0@a.example> <0@a.example>\r\nDate: Mon, 1 Jan 2024 12:00:00 +1300\r\n\
          List-Id: The list <list.a.example>\r\n\r\nHello\r\nworld\r\n",
    );
    assert_eq!(addresses(&m.from), ["Jürgen <j@a.example>"]);
    assert_eq!(addresses(&m.to), ["B, C <b@c.example>", "d@e.example", "f@g.example"]);
    assert!(m.cc.is_empty());
    assert_eq!(addresses(&m.reply_to), ["r@a.example"]);
    assert_eq!(m.subject.as_deref(), Some("Grüße a b"));
    assert_eq!(m.message_id.as_deref(), Some("1@a.example"));
    assert_eq!(m.in_reply_to, ["0@a.example"]);
    assert_eq!(m.references, ["x@a.example", "0@a.example"]);
    assert_eq!(m.date.unwrap().to_rfc3339(), "2023-12-31T23:00:00+00:00");
    assert_eq!(m.list_id.as_deref(), Some("list.a.example"));
    assert_eq!((m.text.as_str(), m.snippet.as_str()), ("Hello\nworld\n", "Hello world"));
    assert!(!m.degraded && !m.has_attachments);
}

const RELATED: &[u8] = b"Subject: x\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n\
    Content-Type: multipart/related; boundary=r\r\n\r\n--r\r\nContent-Type: text/html; charset=utf-8\r\n\
    Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>Gr=C3=BC=C3=9Fe<img src=3D\"cid:logo@x\"></p>\r\n--r\r\n\
    Content-Type: image/png; name=logo.png\r\nContent-ID: <logo@x>\r\nContent-Transfer-Encoding: base64\r\n\r\n\
    iVBORw==\r\n--r--\r\n";

#[test]
fn images_that_the_text_shows_are_no_attachments() {
    let raw = [RELATED, b"--m--\r\n"].concat();
    let m = parse(&raw);
    assert!(!m.has_attachments);
    assert_eq!(m.attachments.len(), 1);
    let a = &m.attachments[0];
    assert_eq!((a.index, a.inline, a.size_bytes, a.content_id.as_deref()), (0, true, 4, Some("logo@x")));
    assert_eq!(m.snippet, "Grüße");
    let b = body(&raw);
    assert_eq!(b.text, None);
    assert_eq!(sources(&b), Some("<p>Grüße<img src=\"cid:logo@x\"></p>"));
    assert_eq!(b.headers[0], ("Subject".into(), "x".into()));
}

#[test]
fn an_attached_message_and_a_file_are_attachments_with_stable_numbers() {
    let rest = b"--m\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\ninner\r\n--m\r\n\
        Content-Type: text/plain; name=a.txt\r\nContent-Disposition: attachment; filename=\"../a.txt\"\r\n\r\nfile\r\n--m--\r\n";
    let raw = [RELATED, rest].concat();
    let m = parse(&raw);
    assert!(m.has_attachments);
    let seen: Vec<_> =
        m.attachments.iter().map(|a| (a.index, a.content_type.as_str(), a.filename.as_deref())).collect();
    assert_eq!(
        seen,
        [
            (0, "image/png", Some("logo.png")),
            (1, "message/rfc822", Some("in.eml")),
            (2, "text/plain", Some("a.txt"))
        ]
    );
    for a in &m.attachments {
        let data = attachment(&raw, a.index).unwrap();
        assert_eq!((data.bytes.len() as u64, &data.content_type), (a.size_bytes, &a.content_type));
    }
    assert_eq!(attachment(&raw, 1).unwrap().bytes, b"Subject: in\r\n\r\ninner");
    assert_eq!(m.text, "Grüße\n");
}

#[test]
fn of_alternatives_each_kind_is_taken_once() {
    let raw = b"Content-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\nContent-Type: text/plain\r\n\r\nplain\r\n\
        --a\r\nContent-Type: text/html\r\n\r\n<p>rich</p>\r\n--a--\r\n";
    let b = body(raw);
    assert_eq!((b.text.as_deref(), sources(&b)), (Some("plain"), Some("<p>rich</p>")));
    let m = parse(raw);
    assert_eq!((m.text.as_str(), m.attachments.len()), ("plain", 0));
}

#[test]
fn an_empty_text_beside_html_is_replaced_by_the_html() {
    let raw = b"Content-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\nContent-Type: text/plain\r\n\r\n \r\n\
        --a\r\nContent-Type: text/html\r\n\r\n<p>rich &amp; long</p>\r\n--a--\r\n";
    assert_eq!(parse(raw).snippet, "rich & long");
}

#[test]
fn beyond_a_limit_the_headers_remain() {
    let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(40_000);
    let raw = format!("Subject: bomb\r\nMessage-ID: <1@a>\r\n{nested}");
    let m = parse(raw.as_bytes());
    assert!(m.degraded);
    assert_eq!((m.subject.as_deref(), m.message_id.as_deref()), (Some("bomb"), Some("1@a")));
    assert_eq!(body(raw.as_bytes()).headers[0].1, "bomb");
    assert!(attachment(raw.as_bytes(), 0).is_some());
}

#[test]
fn nothing_holds_a_nul() {
    let m = parse(
        b"Subject: a\0b =?utf-8?b?AAA=?=\r\nFrom: \"x\0\" <a\0@b>\r\nMessage-ID: <a\0@b>\r\n\
          Content-Type: text/plain; charset=utf-16\r\n\r\n\0\0\0\0x\0",
    );
    assert!(!serde_json::to_string(&m).unwrap().contains("\\u0000"));
}

#[test]
fn odd_messages_still_say_something() {
    assert_eq!(parse(b"").text, "");
    assert_eq!(parse(b"just text, no headers\r\nsecond").message_id, None);
    assert_eq!(parse(b"   \r\nSubject: x\r\n\r\nb").subject.as_deref(), Some("x"));
    assert_eq!(addresses(&parse(b"From : a@b.example\r\n\r\n").from), ["a@b.example"]);
    assert_eq!(parse(b"Message-ID: no-brackets\r\n\r\n").message_id.as_deref(), Some("no-brackets"));
    assert_eq!(parse(b"Message-ID: <>\r\n\r\n").message_id, None);
    assert_eq!(parse(b"Subject: Gr\xfc\xdfe\r\n\r\n").subject.as_deref(), Some("Grüße"));
}

#[test]
fn a_chain_of_references_keeps_its_ends() {
    let refs: String = (0..1000).map(|i| format!(" <{i}@a>")).collect();
    let m = parse(format!("References:{refs}\r\n\r\n").as_bytes());
    assert_eq!((m.references.len(), m.references[0].as_str()), (200, "0@a"));
    assert_eq!(m.references.last().map(String::as_str), Some("999@a"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_read_without_a_panic(raw in prop::collection::vec(any::<u8>(), 0..600)) {
        let m = parse(&raw);
        prop_assert!(!m.text.contains('\0') && m.snippet.chars().count() <= 200);
        let _ = body(&raw);
    }

    #[test]
    fn any_pile_of_pieces_is_read_the_same_way_twice(pieces in prop::collection::vec(prop::sample::select(vec![
        "From: a <a@b>\r\n", "Subject: =?utf-8?b?w7w=?= =?x?y?z?=\r\n", "Content-Type: multipart/alternative; boundary=a\r\n",
        "Content-Type: text/html; charset=\"iso-2022-jp\"\r\n", "Content-Type: ;;;=\"\r\n", "--a\r\n", "--a--\r\n", "\r\n",
        "Content-Disposition: attachment; filename*0*=utf-8''%; filename*1=\r\n", "Content-ID: <\r\n", "<p>&amp;&#0;<!--",
        "Content-Transfer-Encoding: base64\r\n", "=C3=ZZ\r\n", "Content-Type: message/rfc822\r\n", "References: <<a>> b@c <\r\n",
        "Date: Mon, 99 Foo\r\n", "\u{1b}$B", "YQ==",
    ]), 0..40)) {
        let raw = pieces.concat();
        let m = parse(raw.as_bytes());
        prop_assert!(!m.degraded);
        for a in &m.attachments {
            prop_assert_eq!(attachment(raw.as_bytes(), a.index).unwrap().bytes.len() as u64, a.size_bytes);
        }
        prop_assert_eq!(m, parse(raw.as_bytes()));
    }
}

#[test]
fn addresses_are_counted_over_all_fields_of_a_name() {
    let to = format!("To: {}\r\n", "a@b ".repeat(24_000));
    let ids: String = (0..200).map(|n| format!(" <{n}@x>")).collect();
    let raw = format!("In-Reply-To:{ids} <A@B>\r\n{}\r\nhi", to.repeat(20));
    let m = parse(raw.as_bytes());
    assert_eq!(m.to.len(), crate::mime::limits::MAX_ADDRESSES);
    assert_eq!(m.in_reply_to.len(), 199, "the oldest but one falls out, and so does the address");
}
