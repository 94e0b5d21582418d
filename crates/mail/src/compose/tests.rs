use bytes::Bytes;
use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::{
    ComposeError, Draft, DraftAttachment, Original, build, check_header, forward, reply, with_bcc, written_to,
};
use crate::address::Address;
use crate::mime::html::Html;
use crate::mime::{AttachmentMeta, Body};
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
        body: Body { text: Some("line\n> older\n".into()), ..Body::default() },
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
fn html_alone_gets_a_text_beside_it() {
    let d = Draft {
        text: None,
        html: Some("<p>Hi <a href='https://x.example/'>there</a></p><ul><li>a</ul>".into()),
        ..draft()
    };
    let raw = bytes(&d);
    let m = parse(&raw);
    assert_eq!(m.text, "Hi there <https://x.example/>\n\n- a\n");
    assert!(body(&raw).html.is_some() && String::from_utf8(raw).unwrap().contains("multipart/alternative"));
}

#[test]
fn a_domain_in_another_script_leaves_as_ascii() {
    let d = Draft { to: vec![address("ann@bücher.example")], ..draft() };
    let raw = bytes(&d);
    assert!(raw.is_ascii());
    assert_eq!(parse(&raw).to[0].address, "ann@xn--bcher-kva.example");
}

#[test]
fn the_copy_that_is_kept_names_the_blind_copies() {
    let d = Draft {
        to: vec![address("a@x.example"), address("d@bücher.example")],
        bcc: vec![address("b@x.example")],
        ..draft()
    };
    let raw = bytes(&d);
    assert!(parse(&raw).bcc.is_empty());
    let all = ["a@x.example", "d@bücher.example", "b@x.example", "c@x.example"].map(str::to_owned);
    let kept = with_bcc(&raw, &all);
    let bcc: Vec<_> = parse(&kept).bcc.into_iter().map(|a| a.address).collect();
    assert_eq!(bcc, ["b@x.example", "c@x.example"]);
    assert!(kept.ends_with(&raw));
    assert_eq!(with_bcc(&raw, &all[..2]), raw);
}

#[test]
fn a_long_list_of_recipients_holds_no_blind_copies() {
    let name = "a <name@x.example> with \\ and \" in it, ".repeat(5);
    let many = |what: &str, name: Option<&str>| -> Vec<Address> {
        let one = |n: usize| Address::new(name, &format!("{what}{n}@bücher.example")).unwrap();
        (0..3000).map(one).collect()
    };
    for name in [None, Some(name.as_str()), Some("Grüße <name@x.example>")] {
        let d = Draft { to: many("to", name), cc: many("cc", name), ..draft() };
        let raw = bytes(&d);
        let mut all: Vec<String> = d.to.iter().chain(&d.cc).map(|a| a.address.clone()).collect();
        assert!(with_bcc(&raw, &all) == raw, "{name:?}");
        // A name that looks like an address, and text of the body that looks like a field, name nobody.
        all.extend(["name@x.example".to_owned(), "x@x.example".to_owned()]);
        let kept = with_bcc(&raw, &all);
        assert!(kept.starts_with(b"Bcc: name@x.example,\r\n x@x.example\r\n"), "{name:?}");
        assert!(kept.ends_with(&raw));
    }
    let d = Draft { text: Some("To: <x@x.example>".into()), ..draft() };
    assert!(with_bcc(&bytes(&d), &["x@x.example".to_owned()]).starts_with(b"Bcc: x@x.example\r\n"));
}

#[test]
fn a_reply_knows_to_whom_of_us_it_was_written() {
    let own = ["me@a.example".to_owned(), "sales@a.example".to_owned()];
    let to =
        |list: &[&str]| Original { to: list.iter().map(|a| address(a)).collect(), cc: vec![], ..original() };
    let found = |list: &[&str]| written_to(&to(list), &own).map(|(a, n)| (a.address, n));
    assert_eq!(found(&["x@y.example", "Sales@A.example"]), Some(("Sales@A.example".into(), 1)));
    assert_eq!(found(&["me+shop@a.example"]), Some(("me+shop@a.example".into(), 0)));
    assert_eq!(found(&["x@y.example"]), None);
    assert_eq!(found(&["me+shop@b.example", "+me@a.example", "me+@a.example"]), None);
    let r = reply(&to(&["me+shop@a.example", "x@y.example"]), true, &own);
    assert_eq!(r.cc.iter().map(|a| a.address.as_str()).collect::<Vec<_>>(), ["x@y.example"]);
}

#[test]
fn a_follow_up_and_a_blind_copy_are_answered_by_the_address_that_they_belong_to() {
    let own = ["me", "sales", "shop"].map(|n| format!("{n}@a.example"));
    let found = |from: &str, to: &str, fields: &str| {
        let raw = format!("{fields}From: {from}\r\nTo: {to}\r\nSubject: x\r\n\r\nx\r\n");
        let o = Original::new(&parse(raw.as_bytes()), body(raw.as_bytes()));
        written_to(&o, &own).map(|(a, n)| (a.address, n))
    };
    let sales = Some(("sales@a.example".to_owned(), 1));
    assert_eq!(found("Sales <sales@a.example>", "ann@x.example", ""), sales);
    assert_eq!(found("sales@a.example", "me@a.example", ""), sales);
    assert_eq!(found("ann@x.example", "sales@a.example", "Delivered-To: me@a.example\r\n"), sales);
    for fields in [
        "Delivered-To: sales@a.example",
        "X-Original-To: <sales@a.example>",
        "Envelope-to: x@y.example, sales@a.example",
        "delivered-to: me@a.example\r\nX-Original-To: sales@a.example",
        "Delivered-To: me@a.example\r\nReceived: from x\r\nDelivered-To: sales@a.example",
        "Delivered-To: mailing list l@x.example\r\nDelivered-To: sales@a.example",
    ] {
        assert_eq!(found("ann@x.example", "l@x.example", &format!("{fields}\r\n")), sales, "{fields}");
    }
    let tagged = found("ann@x.example", "l@x.example", "Delivered-To: shop+1@a.example\r\n");
    assert_eq!(tagged, Some(("shop+1@a.example".to_owned(), 2)));
    assert_eq!(found("ann@x.example", "l@x.example", "Delivered-To: bob@a.example\r\n"), None);
}

#[test]
fn oneself_is_known_in_every_spelling_of_ones_domain() {
    let (letters, ascii) = ("me@bücher.example", "me@xn--bcher-kva.example");
    for (own, there) in [(letters, ascii), (ascii, letters), (letters, letters)] {
        let own = ["first@a.example".to_owned(), own.to_owned()];
        let tagged = there.replace('@', "+shop@");
        let to = |list: &[&str]| list.iter().map(|a| address(a)).collect::<Vec<_>>();
        let o = Original {
            to: to(&[there, "bob@bücher.example"]),
            cc: to(&[&tagged, "Bob@xn--bcher-kva.example"]),
            ..original()
        };
        let r = reply(&o, true, &own);
        assert_eq!(r.cc, to(&["bob@bücher.example"]), "{there}");
        assert_eq!(written_to(&o, &own).map(|(_, n)| n), Some(1), "{there}");
        let o = Original { to: to(&[&tagged]), cc: vec![], ..original() };
        assert_eq!(written_to(&o, &own).map(|(a, n)| (a.address, n)), Some((tagged, 1)));
        let sent = Original { from: to(&[there]), to: to(&["bob@x.example"]), cc: vec![], ..original() };
        assert_eq!(reply(&sent, false, &own).to, to(&["bob@x.example"]), "{there}");
    }
}

#[test]
fn a_quote_of_html_keeps_links_and_lines_and_a_forward_its_looks() {
    let html = "<head><style>p{color:red} .x{color:blue}</style></head><p class=x style='color:green'>See <a href=https://x.example/a>this</a></p><pre>one\ntwo</pre><img src=https://x.example/p.png>";
    let o = Original { body: Body { html: Some(Html::from_source(html)), ..Body::default() }, ..original() };
    let r = reply(&o, false, &[]);
    assert!(r.text.contains("> See this <https://x.example/a>\n> \n> one\n> two\n"), "{}", r.text);
    assert!(!r.html.unwrap().contains("p.png"));
    let f = forward(&o).html.unwrap();
    assert!(f.contains("style=\"color:green\"") && f.contains("src=\"https://x.example/p.png\""), "{f}");
    assert!(!f.contains("<style") && !f.contains("p{"), "a sheet would reach the user's own text: {f}");
}

#[test]
fn quoted_html_is_safe() {
    let o = Original {
        body: Body {
            html: Some(Html::from_source(
                "<p onclick=x>Hi<script>alert(1)</script><img src=https://evil.example/a><img src=cid:a@b></p>",
            )),
            attachments: vec![AttachmentMeta {
                index: 0,
                filename: None,
                content_type: "image/png".into(),
                size_bytes: 1,
                inline: true,
                content_id: Some("a@b".into()),
                method: None,
            }],
            ..Body::default()
        },
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
