use proptest::prelude::*;

use super::{Layout, Shown};
use crate::mime::structure::walk;

/// A multipart of parts, each with its header lines and its text.
pub(in crate::mime) fn multipart(kind: &str, parts: &[(&str, &str)]) -> String {
    let mut raw = format!("Content-Type: multipart/{kind}; boundary=b-{kind}\r\n\r\n");
    for (fields, text) in parts {
        let nested = fields.is_empty() && text.starts_with("Content-Type: multipart/");
        let gap = if nested { String::new() } else { format!("{fields}\r\n\r\n") };
        raw.push_str(&format!("--b-{kind}\r\n{gap}{text}\r\n"));
    }
    raw + &format!("--b-{kind}--\r\n")
}

const PLAIN: &str = "Content-Type: text/plain";
const HTML: &str = "Content-Type: text/html";
const PDF: &str =
    "Content-Type: application/pdf; name=menu.pdf\r\nContent-Disposition: inline; filename=menu.pdf";

/// What is shown, by the numbers of the parts, and the parts that are files; `!` before one that nobody counts.
fn layout(raw: &str) -> (String, String) {
    let tree = walk(raw.as_bytes());
    let layout = Layout::new(raw.as_bytes(), &tree.parts);
    fn show(list: &[Shown]) -> String {
        let one = |s: &Shown| match s {
            Shown::Plain(i) => format!("p{i}"),
            Shown::Html(i) => format!("h{i}"),
            Shown::File(i) => format!("f{i}"),
            Shown::Choice { text, html } => format!("({}|{})", show(text), show(html)),
        };
        list.iter().map(one).collect::<Vec<_>>().join(" ")
    }
    let file = |f: &super::File| format!("{}{}", if f.uncounted { "!" } else { "" }, f.part);
    let files = layout.files.iter().map(file).collect::<Vec<_>>().join(" ");
    (show(&layout.shown), files)
}

fn expect(raw: &str, shown: &str, files: &str) {
    assert_eq!(layout(raw), (shown.to_owned(), files.to_owned()), "{raw}");
}

#[test]
fn parts_of_a_mixed_multipart_are_shown_in_their_order() {
    expect(&multipart("mixed", &[(HTML, "a"), (PLAIN, "footer")]), "h1 p2", "");
    expect(&multipart("mixed", &[(PLAIN, "a"), (HTML, "footer")]), "p1 h2", "");
    expect(&multipart("mixed", &[(HTML, "a"), (PDF, "x"), (HTML, "b")]), "h1 f2 h3", "2");
    expect(&multipart("mixed", &[(PLAIN, "a"), (PDF, "x")]), "p1", "2");
    expect(&multipart("mixed", &[(PDF, "x"), (PLAIN, "a")]), "p2", "1");
    let inner = multipart("alternative", &[(PLAIN, "a"), (HTML, "b")]);
    expect(&multipart("mixed", &[("", &inner), (PLAIN, "footer")]), "(p2|h3) p4", "");
}

#[test]
fn of_alternatives_each_kind_is_shown_once() {
    expect(&multipart("alternative", &[(PLAIN, "a"), (HTML, "b")]), "(p1|h2)", "");
    expect(&multipart("alternative", &[(HTML, "b"), (PLAIN, "a")]), "(p2|h1)", "");
    expect(&multipart("alternative", &[(PLAIN, "a"), (PLAIN, "b"), (HTML, "c")]), "(p1|h3)", "!2");
    expect(&multipart("alternative", &[(HTML, "a"), (HTML, "b")]), "h2", "!1");
    expect(&multipart("alternative", &[(PLAIN, "a")]), "p1", "");
    let calendar = "Content-Type: text/calendar; method=REQUEST";
    expect(&multipart("alternative", &[(PLAIN, "a"), (HTML, "b"), (calendar, "c")]), "(p1|h2)", "3");
    expect(&multipart("alternative", &[(calendar, "c")]), "p1", "1");
    let amp = "Content-Type: text/x-amp-html";
    expect(&multipart("alternative", &[(PLAIN, "a"), (amp, "b"), (HTML, "c")]), "(p1|h3)", "!2");
    let apple = multipart("mixed", &[(HTML, "a"), (PDF, "x"), (HTML, "b")]);
    expect(&multipart("alternative", &[(PLAIN, "a"), ("", &apple)]), "(p1|h3 f4 h5)", "4");
}

#[test]
fn a_name_alone_makes_no_file_of_a_body() {
    let (plain, html) =
        ("Content-Type: text/plain; name=body.txt", "Content-Type: text/html; name=body.html");
    expect(&multipart("alternative", &[(plain, "a"), (html, "b")]), "(p1|h2)", "");
    expect(&format!("{plain}\r\n\r\na"), "p0", "");
    expect(&format!("{html}\r\n\r\na"), "h0", "");
    expect(&multipart("mixed", &[(plain, "a"), (PDF, "x")]), "p1", "2");
    expect(&multipart("mixed", &[(plain, "a"), (plain, "b")]), "p1", "2");
    let attached = "Content-Type: text/plain\r\nContent-Disposition: attachment";
    expect(&multipart("mixed", &[(attached, "a"), (PLAIN, "b")]), "p2", "1");
    expect(&format!("{attached}\r\n\r\na"), "", "0");
    expect("Content-Type: text/html\r\nContent-Disposition: weird\r\n\r\na", "", "0");
}

#[test]
fn a_named_text_that_is_inline_is_shown_and_is_a_file() {
    let log = "Content-Type: text/plain; name=log.txt\r\nContent-Disposition: inline; filename=log.txt";
    expect(&multipart("mixed", &[(PLAIN, "a"), (log, "b")]), "p1 p2", "2");
    expect(&multipart("mixed", &[(HTML, "a"), (log, "b")]), "h1 p2", "2");
}

#[test]
fn other_kinds_of_text_are_shown_where_they_are_the_body() {
    expect("Content-Type: text/calendar\r\n\r\na", "p0", "0");
    for kind in [
        "text/markdown",
        "text/enriched",
        "text",
        "text/plain charset=x",
        "html",
        "text/x-what",
        "",
        "plain/text",
        "plain",
        "TEXT/",
    ] {
        expect(&format!("Content-Type: {kind}\r\n\r\na"), "p0", "");
    }
    expect("Content-Type: text/csv; name=a.csv\r\n\r\na", "p0", "0");
    expect("Content-Type: text/rtf\r\n\r\na", "", "0");
    let csv = "Content-Type: text/csv";
    expect(&multipart("mixed", &[(PLAIN, "a"), (csv, "b")]), "p1", "2");
}

#[test]
fn of_related_parts_the_root_is_shown() {
    let image = "Content-Type: image/png\r\nContent-ID: <i@x>";
    expect(&multipart("related", &[(HTML, "a"), (image, "x")]), "h1", "2");
    expect(&multipart("related", &[(image, "x"), (HTML, "a")]), "h2", "1");
    let root = "Content-Type: text/html\r\nContent-ID: <root@x>";
    let raw = multipart("related", &[("Content-Type: text/html\r\nContent-ID: <o@x>", "o"), (root, "a")]);
    let raw = raw.replacen("related;", "related; start=\"<root@x>\";", 1);
    expect(&raw, "h2", "1");
    let inner = multipart("alternative", &[(PLAIN, "a"), (HTML, "b")]);
    expect(&multipart("related", &[("", &inner), (image, "x")]), "(p2|h3)", "4");
    expect(&multipart("related", &[(HTML, "a"), (image, "x"), (PLAIN, "footer")]), "h1 p3", "2");
}

#[test]
fn signatures_and_reports_are_no_attachments() {
    let signature = "Content-Type: application/pkcs7-signature; name=smime.p7s";
    expect(&multipart("signed", &[(PLAIN, "a"), (signature, "x")]), "p1", "!2");
    expect(
        &multipart("signed", &[(PLAIN, "a"), ("Content-Type: application/pgp-signature", "x")]),
        "p1",
        "!2",
    );
    let status = "Content-Type: message/delivery-status";
    let message = "Content-Type: message/rfc822";
    expect(
        &multipart("report", &[(PLAIN, "a"), (status, "x"), (message, "Subject: y\r\n\r\nz")]),
        "p1",
        "!2 3",
    );
}

#[test]
fn uuencoded_files_within_a_text_are_files() {
    let raw = "Subject: x\n\nhello\n\nbegin 644 cat.txt\n#0V%T\n`\nend\nbye\n";
    expect(raw, "p0", "0");
    let text = super::without_files(raw.split_once("\n\n").unwrap().1.as_bytes());
    assert_eq!(String::from_utf8(text).unwrap(), "hello\n\nbye\n");
    for sentence in ["begin 644 times\nand again\n", "begin 644 x\n", "begin now\n#0V%T\nend\n"] {
        expect(&format!("Subject: x\n\n{sentence}"), "p0", "");
    }
}

proptest! {
    #[test]
    fn every_leaf_has_its_place(pieces in prop::collection::vec(prop::sample::select(vec![
        "--a\r\n", "--a--\r\n", "--b\n", "--b--", "\r\n", "\n", "x\r\n", "Content-Type: message/rfc822\r\n", "Content-Type: text/html\n",
        "Content-Type: multipart/mixed; boundary=a\r\n", "Content-Type: multipart/alternative; boundary=\"b\"\n",
        "Content-Type: multipart/related; boundary=\"b\"; start=x\n", "Content-Disposition: attachment\n", "Content-ID: <x>\n",
        "Content-Type: image/png; name=x\n", "Content-Disposition: inline; filename=x\n", "Content-Type: text/calendar\n",
        "begin 644 x\n#0V%T\n`\nend\n",
    ]), 0..60)) {
        let raw = pieces.concat();
        let tree = walk(raw.as_bytes());
        let layout = Layout::new(raw.as_bytes(), &tree.parts);
        fn parts(list: &[Shown], out: &mut Vec<usize>) {
            for s in list {
                match s {
                    Shown::Plain(i) | Shown::Html(i) | Shown::File(i) => out.push(*i),
                    Shown::Choice { text, html } => { parts(text, out); parts(html, out) }
                }
            }
        }
        let mut placed = Vec::new();
        parts(&layout.shown, &mut placed);
        placed.extend(layout.files.iter().map(|f| f.part));
        for (i, part) in tree.parts.iter().enumerate().filter(|(_, p)| !p.container && !p.nested) {
            prop_assert!(placed.contains(&i), "part {} of {:?}: {}/{}", i, raw, part.info.kind, part.info.subtype);
        }
        let mut files: Vec<_> = layout.files.iter().filter(|f| f.within.is_none()).map(|f| f.part).collect();
        files.dedup();
        prop_assert_eq!(files.len(), layout.files.iter().filter(|f| f.within.is_none()).count());
    }
}
