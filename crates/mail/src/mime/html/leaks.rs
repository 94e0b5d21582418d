//! Every way known to us by which HTML makes a reader's program fetch something or act, against the sanitiser.
//!
//! The verdict does not depend on the attack: what comes out is read again by a reader of its own ([`tags`]), and every
//! element, attribute and value must be on a short list of harmless ones ([`judge`]). A new trick is one more line in
//! `leaks/attacks.rs`.

mod attacks;

use std::collections::HashMap;

use self::attacks::{CARRIERS, DISGUISES, FETCHES, PLACES, PROPERTIES, REACHING};
use super::{Policy, Sanitized, sanitize};

const LOCAL: &str = "/api/messages/1/attachments/0";

const ELEMENTS: &str = "\
    a abbr acronym address article aside b bdi bdo big blockquote br caption center cite code col colgroup \
    data dd del details dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hgroup hr i \
    img ins kbd li main mark nav ol p pre q rp rt rtc ruby s samp section small span strike strong sub \
    summary sup table tbody td tfoot th thead time tr tt u ul var wbr";

/// Attributes that no browser fetches, whatever their value.
const INERT: &str = "\
    align alt aria-hidden aria-label bgcolor border cellpadding cellspacing char charoff color colspan \
    datetime dir face headers height hreflang lang nowrap role rowspan scope size span start summary title \
    valign value width";

fn clean(html: &str, allow_remote: bool) -> Sanitized {
    let cid_base = |id: &str| (id == "logo@x").then(|| LOCAL.to_owned());
    sanitize(html, &Policy { allow_remote, cid_base: &cid_base, locations: HashMap::new() })
}

type Tag = (String, Vec<(String, String)>);

/// The tags of serialised HTML: a small reader that knows only what the serialiser writes, and fails at all else.
fn tags(html: &str) -> Vec<Tag> {
    let mut found = Vec::new();
    let mut rest = html;
    while let Some((_, after)) = rest.split_once('<') {
        let name_end = after.find([' ', '>']).expect("a tag ends");
        let (name, mut tail) = after.split_at(name_end);
        let mut attributes = Vec::new();
        while let Some(next) = tail.strip_prefix(' ') {
            let (key, value) = next.split_once("=\"").expect("values are quoted");
            let (value, behind) = value.split_once('"').expect("a quote is closed");
            attributes.push((key.to_owned(), unescape(value)));
            tail = behind;
        }
        rest = tail.strip_prefix('>').unwrap_or_else(|| panic!("a tag ends in > in {html}"));
        if !name.starts_with('/') {
            found.push((name.to_owned(), attributes));
        }
    }
    found
}

fn unescape(value: &str) -> String {
    value
        .replace("&quot;", "\"")
        .replace("&nbsp;", "\u{a0}")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

fn is_word_of(list: &str, word: &str) -> bool {
    list.split(' ').any(|w| w == word)
}

/// Whether a browser that shows `html` loads nothing, except pictures of other servers where they are allowed.
fn judge(html: &str, allow_remote: bool) -> Result<(), String> {
    for (element, attributes) in tags(html) {
        if !is_word_of(ELEMENTS, &element) {
            return Err(format!("element {element}"));
        }
        for (name, value) in &attributes {
            let ok = match name.as_str() {
                "src" | "background" => is_picture(value, allow_remote),
                "href" => element == "a" && leaves_the_page(value),
                "rel" => element == "a" && value == "noopener noreferrer nofollow",
                "target" => element == "a" && value == "_blank",
                "id" => is_own_place(value),
                "name" => element == "a" && is_own_place(value),
                "style" => fetches_nothing(value, allow_remote),
                other => is_word_of(INERT, other),
            };
            if !ok || (name == "src" && element != "img") {
                return Err(format!("{element} {name}={value:?}"));
            }
        }
        let has = |wanted: &str| attributes.iter().filter(|(name, _)| name == wanted).count();
        let stays = attributes.iter().any(|(name, value)| name == "href" && value.starts_with('#'));
        if element == "a" && (has("rel"), has("target")) != (1, usize::from(!stays)) {
            return Err(format!("a link that keeps its opener: {attributes:?}"));
        }
    }
    Ok(())
}

fn is_picture(value: &str, allow_remote: bool) -> bool {
    let lower = value.to_ascii_lowercase();
    let inline = ["png", "gif", "jpeg", "jpg", "webp", "bmp"];
    value == LOCAL
        || inline.iter().any(|kind| lower.starts_with(&format!("data:image/{kind};base64,")))
        || (allow_remote && (lower.starts_with("https:") || lower.starts_with("http:")))
}

/// A name with the prefix that keeps it from meeting any other.
fn is_own_place(value: &str) -> bool {
    let prefix = value.strip_prefix('m').and_then(|v| v.split_at_checked(8));
    prefix.is_some_and(|(hex, rest)| hex.bytes().all(|b| b.is_ascii_hexdigit()) && rest.starts_with('-'))
}

fn leaves_the_page(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    if let Some(place) = value.strip_prefix('#') {
        return is_own_place(place);
    }
    ["http:", "https:", "mailto:", "tel:"].iter().any(|scheme| lower.starts_with(scheme))
}

fn fetches_nothing(style: &str, allow_remote: bool) -> bool {
    let lower = style.to_ascii_lowercase();
    let mut rest = lower.as_str();
    while let Some((before, after)) = rest.split_once('(') {
        let word = before.rsplit(|c: char| !c.is_alphanumeric() && c != '-').next().unwrap_or_default();
        let inside = after.split(')').next().unwrap_or_default().trim_matches(['"', '\'', ' ']);
        let remote = inside.starts_with("https://") || inside.starts_with("http://");
        let allowed = match word {
            "rgb" | "rgba" | "hsl" | "hsla" | "calc" => true,
            "url" => allow_remote && remote,
            _ => false,
        };
        if !allowed {
            return false;
        }
        rest = after;
    }
    !lower.contains(['\\', '@', '{', '}', '<']) && !lower.contains("/*") && !lower.contains("--")
}

/// Judges one input both ways, and what comes out as the input of a second time: a browser parses once more.
fn holds(html: &str) {
    for allow_remote in [false, true] {
        let first = clean(html, allow_remote);
        assert!(!first.text_only, "beyond the budget, so nothing was tried: {html:.100}");
        let second = clean(&first.html, allow_remote);
        for (time, cleaned) in [("first", &first), ("second", &second)] {
            if let Err(why) = judge(&cleaned.html, allow_remote) {
                panic!("{why}, the {time} time, remote={allow_remote}\nfrom {html}\ncame {}", cleaned.html);
            }
        }
    }
}

#[test]
fn no_attribute_of_any_element_reaches_outside() {
    let carriers: Vec<&str> = CARRIERS.split(' ').collect();
    let loading = ["src", "href", "style", "background", "data", "xlink:href"];
    for (n, place) in PLACES.iter().enumerate() {
        // Every attribute with the first places, those that load with all of them.
        let names: Vec<&str> = if n < 3 { REACHING.split(' ').collect() } else { loading.to_vec() };
        let attributes: String = names.iter().map(|name| format!(" {name}=\"{place}\"")).collect();
        let tag = |carrier: &&str| format!("<{carrier}{attributes}>x</{carrier}>");
        // Together for speed; alone below, because some elements swallow what follows.
        let around = [("", ""), ("<svg>", "</svg>"), ("<math><mtext>", "</mtext></math>")];
        let (before, after) = around[n % around.len()];
        for some in carriers.chunks(20) {
            holds(&some.iter().map(|c| format!("{before}{}{after}", tag(c))).collect::<String>());
        }
    }
    for carrier in carriers {
        for place in ["https://evil.example/a.png", "//evil.example/a.png", "javascript:x"] {
            let attributes: String =
                ["src", "href", "style", "data"].map(|name| format!(" {name}=\"{place}\"")).concat();
            for (before, after) in [("", ""), ("<svg>", "</svg>"), ("<math>", "</math>")] {
                holds(&format!("{before}<{carrier}{attributes}>x</{carrier}>{after}<img {attributes}>"));
            }
        }
    }
}

#[test]
fn no_disguise_lets_an_image_through() {
    for disguise in DISGUISES {
        for place in PLACES {
            holds(&disguise.replace('@', &format!("src=\"{place}\"")));
        }
        holds(&disguise.replace('@', "srcset=https://evil.example/a"));
        holds(&disguise.replace('@', "src=https://evil.example/a style=background:url(//evil.example)"));
    }
}

#[test]
fn no_style_fetches() {
    for property in PROPERTIES.split(' ') {
        for place in ["https://evil.example/a.png", "//evil.example/a", "\\\\evil.example\\a", "a.png", "x"] {
            let paragraph = |fetch: &&str| {
                let style = format!("{property}:{}", fetch.replace('@', place));
                format!("<p style=\"{}\">x</p>", style.replace('&', "&amp;").replace('"', "&quot;"))
            };
            holds(&FETCHES.iter().map(paragraph).collect::<String>());
        }
    }
}

#[test]
fn with_remote_pictures_only_those_of_the_web_come_back() {
    for place in PLACES {
        let cleaned = clean(&format!("<img src=\"{place}\"><table background=\"{place}\"><td>x"), true).html;
        for (element, attributes) in tags(&cleaned) {
            for (name, value) in attributes {
                let lower = value.to_ascii_lowercase();
                let web = lower.starts_with("https:") || lower.starts_with("http:");
                assert!(
                    !["src", "background"].contains(&name.as_str()) || web,
                    "{element} {name}={value} from {place}"
                );
            }
        }
    }
    let asked =
        clean("<img src=https://evil.example/a><p style='background:url(https://evil.example/b)'>x", true);
    assert_eq!(asked.html.matches("evil.example").count(), 2, "{}", asked.html);
    let unasked =
        clean("<img src=https://evil.example/a><p style='background:url(https://evil.example/b)'>x", false);
    assert!(!unasked.html.contains("evil.example") && unasked.remote_blocked, "{}", unasked.html);
}

#[test]
fn pixels_that_follow_a_reader_are_blocked_and_told() {
    for leak in [
        "<img src=https://evil.example/pixel.gif width=1 height=1>",
        "<img src=//evil.example/pixel.gif>",
        "<table background=http://evil.example/a>",
        "<table><td style='background-image:url(http://evil.example/a)'>x",
        "<table><td background=https://evil.example/a>x",
    ] {
        assert!(clean(leak, false).remote_blocked, "{leak}");
    }
    for harmless in ["<img src=cid:logo@x>", "<a href=https://x.example>x</a>", "<p style='color:red'>x"] {
        assert!(!clean(harmless, false).remote_blocked, "{harmless}");
    }
}

#[test]
fn every_link_is_cut_from_the_page_it_is_opened_by() {
    for link in [
        "<a href=https://x.example>x</a>",
        "<a href=https://x.example rel=opener target=_top>x</a>",
        "<a href=https://x.example rel='noopener' rel=x target=frame ping=//evil.example download>x</a>",
        "<A HREF='mailto:a@x.example?subject=y'>x</A>",
        "<a name=anchor>x</a>",
        "<map><area href=https://x.example target=_top></map>",
        "<svg><a xlink:href=https://x.example><text>x</text></a></svg>",
    ] {
        holds(link);
    }
    let kept = clean("<a href='https://x.example/?a=1&amp;b=2' rel=opener>x</a>", false).html;
    assert!(
        kept.contains("href=\"https://x.example/?a=1&amp;b=2\"") && judge(&kept, false).is_ok(),
        "{kept}"
    );
}

#[test]
fn the_judge_knows_a_leak_when_it_sees_one() {
    for leak in [
        "<img src=\"https://evil.example\">",
        "<img srcset=\"a\">",
        "<script>",
        "<p onclick=\"x\">",
        "<a href=\"javascript:x\" rel=\"noopener noreferrer nofollow\" target=\"_blank\">",
        "<a href=\"https://x\" target=\"_blank\">",
        "<p style=\"background:url(https://evil.example)\">",
        "<p style=\"width:expression(x)\">",
        "<p style=\"background:u\\72l\">",
        "<svg>",
        "<img src=\"data:image/svg+xml;base64,AA\">",
    ] {
        assert!(judge(leak, false).is_err(), "{leak}");
    }
    assert!(judge("<img src=\"https://x.example/a\">", true).is_ok());
}
