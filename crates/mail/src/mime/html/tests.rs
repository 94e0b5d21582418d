use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Policy, Sanitized, from_text, sanitize};

fn clean(html: &str, allow_remote: bool) -> Sanitized {
    let cid_base = |id: &str| (id == "logo@x").then(|| "/api/messages/1/attachments/0".to_owned());
    sanitize(html, &Policy { allow_remote, cid_base: &cid_base, locations: HashMap::new() })
}

#[test]
fn nothing_remote_is_loaded_unless_allowed() {
    for leak in [
        "<img src=https://evil.example/a.png>",
        "<img src='//evil.example/a.png'>",
        "<img src='\\\\evil.example\\a.png'>",
        "<img src='ht\ntp://evil.example/a'>",
        "<img src=' https:evil.example/a'>",
        "<img srcset='https://evil.example/a 1x'>",
        "<img lowsrc=https://evil.example/a dynsrc=https://evil.example/b longdesc=https://evil.example/c>",
        "<table background=https://evil.example/a><tr><td background='//evil.example/b'>x",
        "<body background=https://evil.example/a>x",
        "<p style='background:url(https://evil.example/a)'>x",
        "<p style='background:\\75rl(https://evil.example/a)'>x",
        "<p style='list-style-image:url(//evil.example/a)'>x",
        "<p style=\"content:url('https://evil.example')\">x",
        "<style>@import 'https://evil.example/a'; body{background:url(https://evil.example)}</style>",
        "<link rel=stylesheet href=https://evil.example/a>",
        "<link rel=dns-prefetch href=//evil.example>",
        "<base href=https://evil.example/><img src=a>",
        "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
        "<iframe src=https://evil.example srcdoc='<img src=https://evil.example>'></iframe>",
        "<object data=https://evil.example><embed src=https://evil.example></object>",
        "<video poster=https://evil.example src=https://evil.example/v></video><audio src=https://evil.example></audio>",
        "<picture><source srcset=https://evil.example/a><img alt=x></picture>",
        "<input type=image src=https://evil.example/a><button formaction=https://evil.example>x</button>",
        "<form action=https://evil.example><input></form>",
        "<svg><image href=https://evil.example/a /><use xlink:href=https://evil.example#x /></svg>",
        "<math><mtext><img src=https://evil.example/a></mtext></math>",
        "<a ping=https://evil.example>x</a>",
        "<img src=data:image/svg+xml;base64,aHR0cHM6Ly9ldmlsLmV4YW1wbGU=>",
        "<blockquote cite=https://evil.example>x</blockquote>",
        "<html manifest=https://evil.example>",
        "<area href=https://evil.example/ ping=https://evil.example/>",
        "<img src='cid:unknown'><img src='a.png'><img src='/api/auth/logout'>",
        "<noscript><img src=https://evil.example></noscript>",
        "<!--[if mso]><img src=https://evil.example><![endif]-->",
        "<template><img src=https://evil.example></template>",
    ] {
        let html = clean(leak, false).html;
        assert!(!html.contains("evil.example") && !html.contains("src="), "{leak} gave {html}");
    }
}

#[test]
fn scripts_never_pass() {
    for attack in [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<a href='javascript:alert(1)'>x</a>",
        "<a href=' java\tscript:alert(1)'>x</a>",
        "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
        "<svg onload=alert(1)>",
        "<math><mi//xlink:href=\"data:x,<script>alert(1)</script>\">",
        "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
        "<svg></p><style><a id=\"</style><img src=1 onerror=alert(1)>\">",
        "<p style='width:expression(alert(1))'>x",
    ] {
        for remote in [false, true] {
            let html = clean(attack, remote).html;
            let lower = html.to_lowercase();
            assert!(!lower.contains("<script") && !lower.contains("javascript:"), "{attack} gave {html}");
            assert!(!lower.contains("<img") || !lower.contains("onerror=alert"), "{attack} gave {html}");
            assert!(!lower.contains("data:text") && !lower.contains("expression"), "{attack} gave {html}");
        }
    }
}

#[test]
fn a_readable_mail_stays_readable() {
    let s = clean(
        "<html><head><title>T</title></head><body><table width=600 bgcolor=#fff><tr><td style='color:red;position:fixed'>\
         <font face=Arial>Hi</font> <a href='https://a.example/?a=1&amp;b=2'>link</a> <img src='cid:logo@x' width=3>\
         <img src=CID:logo%40x></td></tr></table></body></html>",
        false,
    );
    assert!(!s.remote_blocked && !s.text_only);
    assert!(s.html.contains("style=\"color:red\""), "{}", s.html);
    assert!(s.html.contains("rel=\"noopener noreferrer nofollow\"") && s.html.contains("target=\"_blank\""));
    assert!(s.html.contains("href=\"https://a.example/?a=1&amp;b=2\""));
    assert_eq!(s.html.matches("src=\"/api/messages/1/attachments/0\"").count(), 2);
    assert!(!s.html.contains('T') || !s.html.contains("<title"), "{}", s.html);
}

#[test]
fn remote_pictures_come_when_asked_for() {
    let html = "<img src=https://a.example/x.png><td background=https://a.example/b.png><p style='background:url(https://a.example/c.png)'>x";
    let s = clean(html, false);
    assert!(s.remote_blocked && !s.html.contains("a.example"));
    let s = clean(html, true);
    assert!(!s.remote_blocked);
    assert!(s.html.contains("src=\"https://a.example/x.png\"") && s.html.contains("c.png"), "{}", s.html);
}

#[test]
fn beyond_the_budget_there_is_text() {
    let start = Instant::now();
    let s = clean(&format!("{}deep <b>text</b> & more", "<div>".repeat(40_000)), true);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(s.text_only);
    assert_eq!(s.html, "<div style=\"white-space:pre-wrap\">deep text &amp; more\n</div>");
}

#[test]
fn text_as_html_is_inert() {
    assert_eq!(
        from_text("<b>&\"'\n\0"),
        "<div style=\"white-space:pre-wrap\">&lt;b&gt;&amp;&quot;&#39;\n\u{fffd}</div>"
    );
}

#[test]
fn a_picture_in_the_html_comes_once_whatever_is_written_around_it() {
    let picture = format!("data:image/png;base64,{}", "A".repeat(500_000));
    for (before, after) in [
        (format!("<img src=\"{picture}\">"), "data:image/x-taken;base64,0".repeat(20_000)),
        (format!("<img src=\"{picture}\">"), "<img src=\"data:image/x-taken;base64,0\">".repeat(10_000)),
        (format!("<p><font face=\"{picture}\">a"), "<p>b".repeat(5_000)),
        (format!("<p><font face='{picture}'>a"), "<p>b".repeat(5_000)),
    ] {
        let html = before + &after;
        let safe = clean(&html, false).html;
        assert!(safe.len() < 3 * html.len(), "{} of {}", safe.len(), html.len());
    }
    let twice = clean(&format!("<img src=\"{picture}\"><img src=\"{picture}\">"), false).html;
    assert_eq!(twice.matches(&picture).count(), 2);
}
