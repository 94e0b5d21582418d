//! Every reader on random input: none panics, and none takes long. A moment each in `make test`; `make test-readers` lets each
//! have a minute (`READER_SECONDS`).
//!
//! Half of the input is any bytes, half is made of what the reader's grammar knows, in any order: random bytes alone seldom get
//! past the first character of a grammar. A new reader gets a test below.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::charset::Fallback;
use super::html::{self, Html, Links, Policy};
use super::part::Transfer;
use super::{charset, date, enriched, flowed, ids, mailboxes, parameters, structure, transfer, words};

/// Longest time for one input of a few thousand bytes, debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Inputs between two looks at the clock.
const CASES: u32 = 64;

#[expect(clippy::disallowed_methods, reason = "how long a test runs is no setting")]
fn seconds() -> u64 {
    std::env::var("READER_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(0)
}

/// Reads random input for as long as is asked for.
fn hold(name: &str, pieces: &[&'static [u8]], read: impl Fn(&[u8])) {
    let end = Instant::now() + Duration::from_secs(seconds());
    let anything = prop::collection::vec(any::<u8>(), 0..400);
    let piece = prop_oneof![
        8 => prop::sample::select(pieces.to_vec()).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..4),
        1 => (prop::sample::select(pieces.to_vec()), 1usize..200).prop_map(|(p, n)| p.repeat(n)),
    ];
    let known = prop::collection::vec(piece, 0..60).prop_map(|all| all.concat());
    let input = prop_oneof![anything, known];
    let config =
        Config { cases: CASES, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let mut inputs = 0u64;
    loop {
        // A runner that has run is done.
        let result = TestRunner::new(config.clone()).run(&input, |raw| {
            let started = Instant::now();
            read(&raw);
            prop_assert!(started.elapsed() < PATIENCE, "{} bytes took {:?}", raw.len(), started.elapsed());
            Ok(())
        });
        result.unwrap_or_else(|fault| panic!("{name}: {fault}"));
        inputs += u64::from(CASES);
        if Instant::now() >= end {
            break;
        }
    }
    println!("{name}: {inputs} inputs");
}

const WORDS: [&[u8]; 16] = [
    b"=?utf-8?Q?",
    b"=?utf-8?B?",
    b"=?iso-2022-jp?B?",
    b"=?x-unknown*de?q?",
    b"?=",
    b"=C3",
    b"=BC",
    b"w7w",
    b"\r\n ",
    b" ",
    b"_",
    b"=",
    b"?",
    b"\xc3\xbc",
    b"\xfc",
    b"\x1b$B",
];
const ADDRESSES: [&[u8]; 20] = [
    b"a@b.example",
    b"<",
    b">",
    b",",
    b";",
    b":",
    b"\"",
    b"\\",
    b"(",
    b")",
    b" ",
    b"\r\n\t",
    b"@",
    b".",
    b"Ann",
    b"=?utf-8?Q?a=2C?=",
    b"undisclosed-recipients:;",
    b"\xfc",
    b"[1.2.3.4]",
    b"@a,@b:c@d",
];
const FIELDS: [&[u8]; 20] = [
    b"text/plain",
    b"; ",
    b"name=",
    b"filename*0*=",
    b"filename*1=",
    b"filename*=utf-8''",
    b"\"",
    b"\\",
    b"%C3",
    b"%",
    b"*",
    b"=",
    b"charset=",
    b"(",
    b")",
    b"\r\n ",
    b"=?utf-8?Q?a?=",
    b"boundary=b",
    b"\xfc",
    b"iso-2022-jp'de'",
];
const DATES: [&[u8]; 20] = [
    b"Mon, ",
    b"2 ",
    b"Nov ",
    b"2026 ",
    b"10:00:00 ",
    b"+0100",
    b"GMT",
    b"EST5EDT",
    b"(",
    b")",
    b"99",
    b"-",
    b"T",
    b"Z",
    b",",
    b" ",
    b"24:00:00",
    b"UTC+01:00",
    b"\xc3\xbc",
    b"99999999999999999999",
];
const IDS: [&[u8]; 10] =
    [b"<", b">", b"a@b", b" ", b"\"", b"Message from Bob <b@x>", b"\r\n ", b"(", b"@", b"\xc3\xbc"];
const TEXT: [&[u8]; 18] = [
    b"word",
    b" ",
    b"  ",
    b"\n",
    b"\r\n",
    b"\r",
    b">",
    b"> ",
    b">>",
    b"-- \n",
    b"<bold>",
    b"</bold>",
    b"<<",
    b"<param>",
    b"<nofill>",
    b"\0",
    b"\xc3\xbc",
    b"<nl>",
];
const ESCAPES: [&[u8]; 16] = [
    b"\x1b$B",
    b"\x1b(B",
    b"\x1b$)C",
    b"\x1b$)A",
    b"\x0e",
    b"\x0f",
    b"~{",
    b"~}",
    b"+AGE-",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xc3\xbc",
    b"\xfc",
    b"\x83e",
    b"abc",
    b"\0",
];
const CODED: [&[u8]; 18] = [
    b"YWFh",
    b"YQ==",
    b"YQ",
    b"=",
    b"==",
    b"\r\n",
    b"\n",
    b" ",
    b"-- \r\nlist footer",
    b"=C3=BC",
    b"=\r\n",
    b"=ZZ",
    b"begin 644 a\n",
    b"#0V%T\n",
    b"end\n",
    b"`\n",
    b"\xfc",
    b"list",
];
const MARKUP: [&[u8]; 40] = [
    b"<p>",
    b"</p>",
    b"<div style='white-space:pre'>",
    b"<div>",
    b"</div>",
    b"<table><tr><td>",
    b"</td></tr></table>",
    b"<a href='https://x.test/'>",
    b"<a href=\"#x\" id=x>",
    b"</a>",
    b"<img src=cid:a alt=x>",
    b"<img src=http:/x>",
    b"<script>",
    b"</script>",
    b"<style>",
    b"</style>",
    b"<svg><style><!--",
    b"-->",
    b"<!--",
    b"<![CDATA[",
    b"]]>",
    b"<head>",
    b"<title>",
    b"&nbsp",
    b"&amp;",
    b"&#x",
    b"&#0;",
    b"<",
    b">",
    b"'",
    b"\"",
    b"=",
    b"/",
    b"<pre>\n",
    b"<ol start=9><li>",
    b"<font face=",
    b"<body bgcolor=#fff style='background:url(x) #123'>",
    b"data:image/png;base64,AAAA",
    b"\0",
    b"\xc3\xbc",
];
const MESSAGES: [&[u8]; 32] = [
    b"From: a <a@b>\r\n",
    b"Subject: =?utf-8?b?w7w=?=\r\n",
    b"Content-Type: multipart/mixed; boundary=a\r\n",
    b"Content-Type: multipart/alternative; boundary=b\r\n",
    b"Content-Type: multipart/related; boundary=a; start=x\r\n",
    b"Content-Type: multipart/digest; boundary=b\r\n",
    b"Content-Type: text/html; charset=iso-2022-jp\r\n",
    b"Content-Type: text/plain; format=flowed; delsp=yes\r\n",
    b"Content-Type: text/calendar; method=REQUEST\r\n",
    b"Content-Type: message/rfc822\r\n",
    b"Content-Type: image/png; name=a.png\r\n",
    b"Content-ID: <a>\r\n",
    b"Content-Location: a.png\r\n",
    b"Content-Disposition: attachment; filename*0*=utf-8''%; filename*1=\r\n",
    b"Content-Disposition: inline\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"Content-Transfer-Encoding: uuencode\r\n",
    b"--a\r\n",
    b"--b\r\n",
    b"--a--\r\n",
    b"--b--\r\n",
    b"\r\n",
    b"\n",
    b"begin 644 a\n#0V%T\n`\nend\n",
    b"<p>&amp;<img src=cid:a>",
    b"=C3=BC=\r\n",
    b"YWFh",
    b" folded\r\n",
    b"To: a@b, c\r\n",
    b"Date: Mon, 99 Foo\r\n",
    b"\x1b$B",
];

#[test]
fn words_hold() {
    hold("words", &WORDS, |raw| {
        let text = words::decode(raw, Fallback::default());
        assert!(!text.contains(['\r', '\n']));
        let _ = words::unfold(raw, Fallback::labelled("koi8-r"));
    });
}

#[test]
fn mailboxes_hold() {
    hold("mailboxes", &ADDRESSES, |raw| {
        for address in mailboxes::read(raw, Fallback::default()) {
            assert!(!address.address.contains(['\r', '\n', '\0']), "{address:?}");
        }
    });
}

#[test]
fn parameters_hold() {
    hold("parameters", &FIELDS, |raw| {
        let fields = parameters::read(raw, Fallback::default());
        for name in ["name", "filename", "charset", "boundary"] {
            let _ = fields.get(name);
        }
    });
}

#[test]
fn dates_hold() {
    hold("date", &DATES, |raw| {
        let _ = date::parse(&String::from_utf8_lossy(raw));
    });
}

#[test]
fn ids_hold() {
    hold("ids", &IDS, |raw| {
        let text = String::from_utf8_lossy(raw);
        for id in [ids::list(&text, true), ids::list(&text, false), ids::answered(&text)].concat() {
            assert!(!id.is_empty() && !id.contains(['\r', '\n', '\0']), "{id:?}");
        }
    });
}

#[test]
fn charsets_hold() {
    let labels = [
        None,
        Some("utf-8"),
        Some("windows-1252"),
        Some("iso-2022-jp"),
        Some("iso-2022-kr"),
        Some("iso-2022-cn"),
        Some("hz-gb-2312"),
        Some("utf-7"),
        Some("utf-16"),
        Some("utf-32"),
        Some("cp850"),
        Some("gb2312"),
        Some("no such charset"),
    ];
    hold("charset", &ESCAPES, |raw| {
        for label in labels {
            let _ = charset::decode(raw, label, Fallback::default());
        }
        let _ = charset::decode(b"x", Some(&String::from_utf8_lossy(raw)), Fallback::detected([raw]));
    });
}

#[test]
fn transfers_hold() {
    hold("transfer", &CODED, |raw| {
        for encoding in [Transfer::Identity, Transfer::Base64, Transfer::QuotedPrintable, Transfer::Uuencode]
        {
            let whole = transfer::decode(raw, encoding);
            assert_eq!(whole.len(), transfer::decoded_len(raw, encoding), "{encoding:?}");
            let (mut decoder, mut out) = (transfer::Decoder::new(encoding), Vec::new());
            raw.chunks(7).for_each(|piece| decoder.push(piece, &mut |bytes| out.extend_from_slice(bytes)));
            decoder.finish(&mut |bytes| out.extend_from_slice(bytes));
            assert_eq!(out, *whole, "{encoding:?}");
        }
        let _ = transfer::is_text_after_all(raw);
    });
}

#[test]
fn texts_hold() {
    hold("text", &TEXT, |raw| {
        let text = super::text::decode(raw, None);
        assert!(!text.contains(['\r', '\0']));
        let _ = (flowed::unflow(&text, false), flowed::unflow(&text, true), enriched::to_text(&text));
        assert!(super::text::snippet(&text).chars().count() <= 200);
    });
}

#[test]
fn html_holds() {
    hold("html", &MARKUP, |raw| {
        let html = String::from_utf8_lossy(raw);
        for links in [Links::Bare, Links::Told] {
            assert!(!html::text_of(&html, links, usize::MAX).contains('\0'));
        }
        let policy = Policy {
            allow_remote: false,
            cid_base: &|_| Some("/1".to_owned()),
            locations: Default::default(),
        };
        let safe = Html::from_source(&html).sanitize(&policy, &|_| None).html;
        for harm in ["<script", "<style", "javascript:", "http:/x"] {
            assert!(!safe.contains(harm), "{safe}");
        }
        for max in [0, 10, safe.len() / 2] {
            assert!(html::truncate(&safe, max).len() <= max);
        }
    });
}

#[test]
fn messages_hold() {
    hold("message", &MESSAGES, |raw| {
        let tree = structure::walk(raw);
        assert!(tree.parts.iter().all(|p| p.body.start <= p.body.end && p.body.end <= raw.len()));
        let (message, body) = (super::parse(raw), super::body(raw));
        assert_eq!(message.attachments, body.attachments);
        for file in &message.attachments {
            let data = super::attachment(raw, file.index).expect("what is listed is there");
            assert_eq!(data.bytes.len() as u64, file.size_bytes);
        }
        let _ = body.safe_html(true, &|meta| Some(format!("/{}", meta.index)));
    });
}
