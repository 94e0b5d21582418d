use proptest::prelude::*;

use super::{Links, attribute, text_of, to_text, to_text_limited};

#[test]
fn blocks_and_blanks_become_lines() {
    assert_eq!(
        to_text(
            "<html><head><title>t</title><style>x{}</style></head><body><p>One  <b>bold</b>\n word</p>\
        <p>Two<br>three</p><ul><li>a<li>b</ul><table><tr><td>1</td><td>2</td></tr></table>"
        ),
        "One bold word\n\nTwo\nthree\n\n- a\n- b\n\n1 2\n"
    );
    assert_eq!(to_text("a<b>b</b>c"), "abc\n");
}

#[test]
fn scripts_and_comments_are_no_text() {
    assert_eq!(
        to_text("a<script>if (1<2) alert('</p>')</script><!-- <p>x --><b>b</b><svg><text>no</text></svg>"),
        "ab\n"
    );
    assert_eq!(to_text("<head><title>x</title><body>y"), "y\n");
    assert_eq!(to_text("3 < 4 & 5 > 2"), "3 < 4 & 5 > 2\n");
    assert_eq!(to_text("<a title='>'>x</a>"), "x\n");
}

#[test]
fn entities_are_decoded_with_and_without_semicolon() {
    assert_eq!(to_text("a&#0;b&nbsp;c"), "a\u{fffd}b c\n");
    assert_eq!(to_text("a&nbsp b&nbspc &copy 2026 &amp&lt;x&gt &uumlber"), "a  b c © 2026 &<x> über\n");
    assert_eq!(to_text("&notit; &nosuch; AT&T R&D &#8364 &#x20ac;&#128;"), "¬it; &nosuch; AT&T R&D € €€\n");
}

#[test]
fn a_link_tells_where_it_leads() {
    for (html, text) in [
        ("<a href='https://x.example/a?b=1&amp;c=2'>here</a>.", "here <https://x.example/a?b=1&c=2>.\n"),
        ("<p>See <a href=https://x.example/>x.example</a> now</p>", "See x.example now\n"),
        ("<a href='mailto:a@x.example'>a@x.example</a>", "a@x.example\n"),
        ("<a href='mailto:a@x.example'>Ann</a>", "Ann <mailto:a@x.example>\n"),
        ("<a href='#part2'>down</a> <a name=x>y</a>", "down y\n"),
        ("<a href='https://x.example/'><img src=a></a>z", "<https://x.example/> z\n"),
        (
            "a<a href='https://x.example/'><img src=a alt=' The\nshop &amp; more '></a>",
            "a The shop & more <https://x.example/>\n",
        ),
        ("<a href='https://x.example/'><span><img alt=''> </span></a>z", "<https://x.example/> z\n"),
        ("<a href='https://x.example/'><img alt=logo> Shop</a>", "Shop <https://x.example/>\n"),
        (
            "<td><a href='https://x.example/'><img alt=one></a><td><a href='https://y.example/'><img></a>",
            "one <https://x.example/> <https://y.example/>\n",
        ),
        ("<p>a<p><a href='https://x.example/'><img alt=one></a><p>b", "a\n\none <https://x.example/>\n\nb\n"),
        ("<a href='https://x.example/'></a>z", "z\n"),
        ("<a href='javascript:x'><img alt=one></a>z", "z\n"),
        ("<a href='javascript:x'>j</a>", "j\n"),
        ("<a href='https://x.example/'>open", "open <https://x.example/>\n"),
        (
            "<a href='https://a.example/'>a<a href='https://b.example/'>b</a>",
            "a <https://a.example/>b <https://b.example/>\n",
        ),
    ] {
        assert_eq!(to_text_limited(html), text, "{html}");
    }
    assert_eq!(to_text("<a href='https://x.example/'>here</a>"), "here\n");
}

#[test]
fn lines_are_kept_where_they_count() {
    for (html, text) in [
        ("<pre>\none\n  two\n\nthree</pre>after", "one\n  two\n\nthree\n\nafter\n"),
        ("<p>x</p><pre>a\r\nb\r\n</pre><p>y", "x\n\na\nb\n\ny\n"),
        ("<div style=\"white-space: pre-wrap\">one\ntwo</div><div>x\ny</div>", "one\ntwo\nx y\n"),
        ("<span style='color:red;WHITE-SPACE:PRE-LINE'>one\ntwo</span> x\ny", "one\ntwo x y\n"),
        ("<pre>a <b>b</b>\n<i>c</i></pre>", "a b\nc\n"),
        ("a<br>b<br><br>c", "a\nb\n\nc\n"),
        ("<div style='white-space: pre-wrap'>a\nb<div>c</div>d\ne</div>f\ng", "a\nb\nc\nd\ne\nf g\n"),
        (
            "<div style='white-space:pre-wrap'><div><div>x</div></div>d\ne<br></div><p>f\ng",
            "x\nd\ne\n\nf g\n",
        ),
        ("<span style='white-space:pre'>a\n<span>b</span>\nc</span> d\ne", "a\nb\nc d e\n"),
        ("<p style='white-space:pre'>a\nb<p>c\nd", "a\nb\n\nc d\n"),
        ("<table><tr><td style='white-space:pre'>a\nb<div>c</table>d\ne", "a\nb\nc\n\nd e\n"),
        ("<div style='white-space:pre'>a\n</span></td>b\nc</div>", "a\nb\nc\n"),
        ("<pre>a\nb<div style='white-space: normal !important'>c\nd</div>e\nf</pre>", "a\nb\nc d\ne\nf\n"),
        ("<div style='white-space:pre-wrap; white-space:normal'>a\nb</div>", "a b\n"),
        ("<b style='white-space:pre'>a\nb</b>\nc\nd", "a\nb c d\n"),
    ] {
        assert_eq!(to_text(html), text, "{html}");
    }
}

#[test]
fn lists_and_tables_keep_their_shape() {
    for (html, text) in [
        ("<ol><li>a<li>b</ol>", "1. a\n2. b\n"),
        ("<ol start=3><li>a</li><li>b<ul><li>c</ul></ol>", "3. a\n4. b\n  - c\n"),
        ("<table><tr><th>A<th>B<tr><td>1<td>2</table>", "A B\n1 2\n"),
        ("<dl><dt>t<dd>d</dl>", "t\nd\n"),
    ] {
        assert_eq!(to_text(html), text, "{html}");
    }
}

#[test]
fn a_head_that_nothing_closes_hides_nothing() {
    for (html, text) in [
        ("<html><head><title>t</title><p>one</p>two", "one\n\ntwo\n"),
        ("<head><meta charset=utf-8>text", "text\n"),
        ("<head><title>t</title><body>one", "one\n"),
        ("<head><style>x{}</style></head>one", "one\n"),
        ("<head><title>t</title>\n<div>one", "one\n"),
    ] {
        assert_eq!(to_text(html), text, "{html}");
    }
}

#[test]
fn attributes_are_found() {
    for raw in [
        " a=b href=x ",
        "href=\"x\"",
        " HREF = 'x'",
        "/href=x/",
        "a href=x",
        "=a href=x",
        "a='href=y' href=x",
    ] {
        assert_eq!(attribute(raw, "href").map(|v| v.trim_end_matches('/')), Some("x"), "{raw}");
    }
    assert_eq!(attribute("a=1 b", "href"), None);
}

#[test]
fn a_megabyte_of_opening_brackets_is_read_at_once() {
    for unit in [
        "<",
        "<a ",
        "<!--",
        "&",
        "<a b='",
        "</",
        "<style>",
        "<p>",
        "<pre>",
        "<ol>",
        "<li>",
        "<a href=http:x>",
        "<div style='white-space:pre'>",
        "<div></span>",
        "<table></div><div>",
        "<a href=http:x><img alt=y>",
        "&nbsp",
        "<head>",
    ] {
        let _ = to_text(&unit.repeat(1_000_000 / unit.len()));
    }
}

#[test]
fn lists_in_lists_write_no_more_blanks_than_a_few() {
    let html = "<ul>".repeat(50) + &"<li>".repeat(100_000);
    assert!(to_text(&html).len() < 2_500_000, "{}", to_text(&html).len());
    for links in [Links::Bare, Links::Told] {
        assert!(text_of(&html, links, 1000).len() < 1100);
        assert_eq!(text_of("<p>a<p>b", links, 1000), "a\n\nb\n");
    }
}

proptest! {
    #[test]
    fn any_text_is_read(html in "[<>/a-c!&;#='\" \\-]{0,80}") {
        prop_assert!(!to_text(&html).contains('\0'));
    }
}
