use bytes::Bytes;
use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::{ComposeError, Draft, DraftAttachment, Original, build, check_header, forward, reply};
use crate::address::Address;
use crate::mime::{attachment, body, limits, parse};

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap()
}

fn draft() -> Draft {
    Draft {
        from: address("Jürgen <j@a.example>"),
        to: vec![address("\"B, C\" <b@c.example>")],
        bcc: vec![address("secret@hidden.example")],
        subject: "Grüße — тест".into(),
        text: Some("Hallo\nWelt ☺\r\n.\nFrom x\n".into()),
        ..Draft::default()
    }
}

fn bytes(draft: &Draft) -> Vec<u8> {
    build(draft, "1@a.example", at(), b"seed").unwrap()
}

fn has_only_crlf(raw: &[u8]) -> bool {
    raw.iter().enumerate().all(|(i, b)| match b {
        b'\n' => i > 0 && raw[i - 1] == b'\r',
        b'\r' => raw.get(i + 1) == Some(&b'\n'),
        0 => false,
        _ => true,
    })
}

#[test]
fn a_text_comes_back_as_it_was_written() {
    let raw = bytes(&draft());
    assert!(has_only_crlf(&raw));
    let m = parse(&raw);
    assert_eq!(m.subject.as_deref(), Some("Grüße — тест"));
    assert_eq!((m.from, m.to), (draft().from.into_iter_once(), draft().to));
    assert_eq!(m.date, Some(at()));
    assert_eq!(m.message_id.as_deref(), Some("1@a.example"));
    assert_eq!(body(&raw).text.as_deref(), Some("Hallo\nWelt ☺\n.\nFrom x\n"));
}

trait Once {
    fn into_iter_once(self) -> Vec<Address>;
}

impl Once for Address {
    fn into_iter_once(self) -> Vec<Address> {
        vec![self]
    }
}

#[test]
fn equal_drafts_give_equal_bytes_and_bcc_is_in_none() {
    let d = Draft { html: Some("<p>x</p>".into()), attachments: vec![file("a.bin", b"x")], ..draft() };
    assert_eq!(bytes(&d), bytes(&d));
    assert_ne!(bytes(&d), build(&d, "1@a.example", at(), b"other").unwrap());
    let text = String::from_utf8(bytes(&d)).unwrap();
    assert!(!text.contains("hidden.example") && !text.to_lowercase().contains("bcc"));
}

fn file(name: &str, contents: &[u8]) -> DraftAttachment {
    DraftAttachment {
        filename: Some(name.into()),
        bytes: Bytes::copy_from_slice(contents),
        ..DraftAttachment::default()
    }
}

#[test]
fn all_kinds_of_parts_stand_where_they_belong() {
    let d = Draft {
        html: Some("<p>Hi <img src=\"cid:logo@x\"></p>".into()),
        attachments: vec![
            DraftAttachment {
                content_type: Some("image/png".into()),
                inline: true,
                content_id: Some("logo@x".into()),
                ..file("logo.png", b"\x89PNG\n\r\n")
            },
            file("Rechnung ä.pdf", b"%PDF\n\0"),
            file("notes.txt", b"one\ntwo\r\nthree"),
            DraftAttachment {
                content_type: Some("message/rfc822".into()),
                ..file("m.eml", b"Subject: in\n\nbody")
            },
        ],
        ..draft()
    };
    let raw = bytes(&d);
    assert!(has_only_crlf(&raw));
    let text = String::from_utf8_lossy(&raw).into_owned();
    let order: Vec<_> = [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
        "application/pdf",
    ]
    .iter()
    .map(|k| text.find(&format!("Content-Type: {k}")).unwrap())
    .collect();
    assert!(order.is_sorted(), "{text}");
    let m = parse(&raw);
    let names: Vec<_> =
        m.attachments.iter().map(|a| (a.filename.as_deref(), a.content_type.as_str(), a.inline)).collect();
    assert_eq!(
        names,
        [
            (Some("logo.png"), "image/png", true),
            (Some("Rechnung ä.pdf"), "application/pdf", false),
            (Some("notes.txt"), "text/plain", false),
            (Some("m.eml"), "message/rfc822", false),
        ]
    );
    for (i, a) in d.attachments.iter().take(3).enumerate() {
        assert_eq!(attachment(&raw, i).unwrap().bytes, a.bytes);
    }
    assert_eq!(attachment(&raw, 3).unwrap().bytes, b"Subject: in\r\n\r\nbody");
    assert!(m.has_attachments && limits::check(&raw).is_ok());
}

#[test]
fn what_would_break_out_of_a_header_is_refused() {
    let mut d = draft();
    d.to[0].name = Some("x\r\nBcc: y@z".into());
    assert!(matches!(
        d.check(),
        Err(ComposeError::InvalidAddress { field: "to", index: 0, unsafe_text: true })
    ));
    let d = Draft { subject: "a\nb".into(), ..draft() };
    assert_eq!(d.check(), Err(ComposeError::InvalidHeader { name: "subject".into() }));
    let d = Draft { attachments: vec![file("a\r\nb", b"")], ..draft() };
    assert!(d.check().is_err());
    let d = Draft {
        attachments: vec![DraftAttachment { content_id: Some("a>b".into()), ..file("a", b"") }],
        ..draft()
    };
    assert!(d.check().is_err());
    assert!(build(&draft(), "a b", at(), b"").is_err());
    let d = Draft { bcc: vec![Address { name: None, address: "a@b\r\nX: y".into() }], ..draft() };
    assert!(d.check().is_err());
}

#[test]
fn only_listed_headers_may_be_set() {
    for (name, value) in
        [("X-Mine", "ü"), ("importance", "high"), ("List-Unsubscribe", "<https://a.example/u>")]
    {
        assert_eq!(check_header(name, value), Ok(()), "{name}");
    }
    for name in ["From", "Bcc", "Content-Type", "DKIM-Signature", "Received", "Sender", "X"] {
        assert_eq!(check_header(name, "x"), Err(ComposeError::HeaderNotAllowed { name: name.into() }));
    }
    for (name, value) in [
        ("X-", "x"),
        ("X-A:", "x"),
        ("X-A\r\nB", "x"),
        ("", "x"),
        ("X-A", "a\r\nb"),
        ("X-A", " "),
        ("Priority", "ü"),
    ] {
        assert!(check_header(name, value).is_err(), "{name:?}");
    }
    assert!(check_header("X-A", &"x".repeat(994)).is_err());
    let d = Draft {
        headers: vec![("X-Mine".into(), "grün".into()), ("Priority".into(), "urgent".into())],
        ..draft()
    };
    let headers = body(&bytes(&d)).headers;
    assert!(
        headers.contains(&("X-Mine".into(), "grün".into()))
            && headers.contains(&("Priority".into(), "urgent".into()))
    );
}

#[test]
fn a_message_to_nobody_visible_names_nobody() {
    let d = Draft { to: vec![], ..draft() };
    assert!(String::from_utf8(bytes(&d)).unwrap().contains("To: undisclosed-recipients:;\r\n"));
}

fn original() -> Original {
    Original {
        message_id: Some("2@x".into()),
        in_reply_to: vec!["1@x".into()],
        subject: "RE: Plan".into(),
        from: vec![address("Ann <ann@x.example>")],
        to: vec![address("me@a.example"), address("bob@x.example")],
        cc: vec![address("cat@x.example"), address("BOB@x.example"), address("Me@A.example")],
        date: Some(at()),
        text: Some("line\n> older\n".into()),
        ..Original::default()
    }
}

#[test]
fn a_reply_goes_to_the_author_and_a_reply_to_all_leaves_oneself_out() {
    let own = ["me@a.example".to_owned()];
    let r = reply(&original(), false, &own);
    assert_eq!((r.to.len(), r.cc.len()), (1, 0));
    assert_eq!(r.subject, "Re: Plan");
    assert_eq!(
        (r.in_reply_to, r.references),
        (vec!["2@x".to_owned()], vec!["1@x".to_owned(), "2@x".to_owned()])
    );
    assert!(
        r.text
            .ends_with("On Tue, 14 Nov 2023 at 22:13 UTC, Ann <ann@x.example> wrote:\n\n> line\n>> older\n"),
        "{}",
        r.text
    );
    let r = reply(&original(), true, &own);
    assert_eq!(
        r.cc.iter().map(|a| a.address.as_str()).collect::<Vec<_>>(),
        ["bob@x.example", "cat@x.example"]
    );
    let r = reply(&Original { reply_to: vec![address("list@x.example")], ..original() }, false, &own);
    assert_eq!(r.to[0].address, "list@x.example");
    let r = reply(&Original { from: vec![address("me@a.example")], ..original() }, false, &own);
    assert_eq!(r.to[0].address, "bob@x.example");
}

#[test]
fn quoted_html_is_safe() {
    let o = Original {
        html: Some(
            "<p onclick=x>Hi<script>alert(1)</script><img src=https://evil.example/a><img src=cid:a@b></p>"
                .into(),
        ),
        from: vec![Address { name: Some("<script>".into()), address: "a@b.example".into() }],
        ..original()
    };
    let r = reply(&o, false, &[]).html.unwrap();
    assert!(
        r.contains("<p>Hi")
            && !r.contains("<script")
            && !r.contains("evil.example")
            && !r.contains("onclick"),
        "{r}"
    );
    let f = forward(&o);
    assert!(f.html.unwrap().contains("src=\"cid:a@b\""));
    assert_eq!(f.subject, "Fwd: RE: Plan");
    assert!(f.text.contains("From: <script> <a@b.example>\nDate: Tue, 14 Nov 2023 at 22:13 UTC\nSubject: RE: Plan\nTo: me@a.example, bob@x.example\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_passes_the_check_is_one_clean_message(
        subject in "\\PC{0,120}", text in "(\\PC|[\r\n\0.]){0,200}", name in "\\PC{0,40}", html in prop::option::of("\\PC{0,60}"),
        file_name in "\\PC{0,300}", contents in prop::collection::vec(any::<u8>(), 0..300), kind in "[a-z/;=\" ]{0,20}",
    ) {
        let d = Draft {
            from: Address { name: Some(name), address: "a@b.example".into() },
            subject: subject.clone(), text: Some(text.clone()), html,
            attachments: vec![DraftAttachment { content_type: Some(kind), ..file(&file_name, &contents) }],
            ..draft()
        };
        prop_assume!(d.check().is_ok());
        let raw = bytes(&d);
        prop_assert!(has_only_crlf(&raw));
        prop_assert!(raw.split(|b| *b == b'\n').all(|l| l.len() <= 999));
        let m = parse(&raw);
        prop_assert!(!m.degraded);
        prop_assert_eq!(m.from.len(), 1);
        prop_assert_eq!(m.attachments.len(), 1);
        prop_assert_eq!(attachment(&raw, 0).unwrap().bytes, contents);
        prop_assert!(body(&raw).headers.iter().filter(|(n, _)| n == "Subject").count() == 1);
    }
}

#[test]
fn a_header_folds_where_it_can_and_is_refused_where_a_word_is_longer_than_a_line() {
    let longest = |name: &str| "w".repeat(998 - name.len() - 2);
    let words = "word ".repeat(1600);
    let blanks = format!("a{}b", " ".repeat(997));
    for (name, value) in [
        ("X-A", longest("X-A")),
        ("X-A", format!("short {}", "w".repeat(997))),
        ("X-A", format!("a\t{} {}", "w".repeat(997), "v".repeat(997))),
        ("X-A", words.trim().to_owned()),
        ("X-A", "ü".repeat(4000)),
        ("X-A", format!("ü{}", "w".repeat(3000))),
        ("X-A", blanks),
        (
            "List-Unsubscribe",
            format!("<https://x.test/{}>, <mailto:{}@x.test>", "w".repeat(900), "v".repeat(900)),
        ),
    ] {
        let bytes = bytes(&Draft { headers: vec![(name.to_owned(), value.clone())], ..draft() });
        let longest = bytes.split(|b| *b == b'\n').map(|line| line.trim_ascii_end().len()).max().unwrap();
        assert!(longest <= 998, "{name}: {longest}");
        let read = mail_parser::MessageParser::new().parse(&bytes).unwrap();
        let got = read.header(name).and_then(|h| h.as_text()).map(str::to_owned);
        // Of a field that it does not know the reader leaves encoded words as they are.
        if let Some(got) = got.filter(|_| value.is_ascii()) {
            let squeezed = |t: &str| t.split_whitespace().collect::<String>();
            assert_eq!(squeezed(&got), squeezed(&value), "{name}");
        }
    }
    for (name, value) in [
        ("X-A", format!("{}w", longest("X-A"))),
        ("X-A", format!("short {}", "w".repeat(998))),
        ("X-A", format!("a{}b", " ".repeat(998))),
        ("List-Unsubscribe", format!("<https://x.test/{}>", "w".repeat(1000))),
    ] {
        let refused = check_header(name, &value).unwrap_err();
        assert_eq!(refused, ComposeError::InvalidHeader { name: name.to_owned() });
    }
}
