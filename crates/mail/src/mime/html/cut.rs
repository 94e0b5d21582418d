//! Cutting HTML that is safe already without making it unsafe or broken.

/// Elements that have no content, hence no end tag (HTML §13.1.2).
const VOID: [&str; 14] = [
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track",
    "wbr",
];
/// Longest text between `&` and `;` that the serialiser writes.
const ENTITY_BYTES: usize = 10;

enum Piece<'a> {
    Text(&'a str),
    Start(&'a str, &'a str),
    End(&'a str),
}

/// At most `max_bytes` of what [`super::sanitize`] or [`super::from_text`] made: cut between elements, or between the
/// characters of a text, and every element that is open there is closed. Those end tags count too.
#[must_use]
pub fn truncate(html: &str, max_bytes: usize) -> String {
    if html.len() <= max_bytes {
        return html.to_owned();
    }
    let (mut cut, mut open, mut ends) = (String::new(), Vec::new(), 0);
    let mut rest = html;
    while let Some(piece) = next(rest) {
        let room = max_bytes.saturating_sub(cut.len() + ends);
        let kept = match piece {
            Piece::Text(text) if text.len() > room => {
                cut.push_str(text.get(..between_characters(text, room)).unwrap_or_default());
                break;
            }
            Piece::Text(text) => text,
            Piece::Start(tag, name) => {
                let end = if VOID.contains(&name) { 0 } else { name.len() + "</>".len() };
                if tag.len() + end > room {
                    // A picture that stands in the HTML is no reason to lose the text behind it.
                    if name == "img" && tag.contains("=\"data:") {
                        rest = rest.get(tag.len()..).unwrap_or_default();
                        continue;
                    }
                    break;
                }
                if end > 0 {
                    open.push(name);
                    ends += end;
                }
                tag
            }
            Piece::End(tag) => {
                // Its bytes were set aside when the element began.
                ends -= open.pop().map_or(0, |name: &str| name.len() + "</>".len());
                tag
            }
        };
        cut.push_str(kept);
        rest = rest.get(kept.len()..).unwrap_or_default();
    }
    for name in open.iter().rev() {
        cut.push_str("</");
        cut.push_str(name);
        cut.push('>');
    }
    cut
}

/// What `html` begins with. The serialiser writes `<` for the beginning of a tag only, and quotes every attribute.
fn next(html: &str) -> Option<Piece<'_>> {
    if html.is_empty() {
        return None;
    }
    if !html.starts_with('<') {
        return html.split('<').next().map(Piece::Text);
    }
    let mut quoted = false;
    let end = html.bytes().position(|b| {
        quoted ^= b == b'"';
        b == b'>' && !quoted
    })?;
    let tag = html.get(..=end)?;
    if tag.starts_with("</") {
        return Some(Piece::End(tag));
    }
    let name =
        tag.trim_start_matches('<').split(|c: char| c.is_whitespace() || c == '>' || c == '/').next()?;
    Some(Piece::Start(tag, name))
}

/// The largest place up to `max_bytes` that is inside no character, be it written as an entity or not.
fn between_characters(text: &str, max_bytes: usize) -> usize {
    let at = text.floor_char_boundary(max_bytes);
    let before = text.get(..at).unwrap_or_default();
    match before.rfind('&') {
        Some(start)
            if at - start <= ENTITY_BYTES && !before.get(start..).unwrap_or_default().contains(';') =>
        {
            start
        }
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Policy, from_text, sanitize};
    use super::*;

    /// Whether each tag is whole and each element closed in its order, as a reader without any forgiveness sees it.
    fn is_whole(html: &str) -> bool {
        let (mut open, mut rest) = (Vec::new(), html);
        while let Some(start) = rest.find('<') {
            let Some(piece) = next(rest.split_at(start).1) else { return false };
            let length = match piece {
                Piece::Text(_) => return false,
                Piece::Start(tag, name) => {
                    if !VOID.contains(&name) {
                        open.push(name.to_owned());
                    }
                    tag.len()
                }
                Piece::End(tag) => {
                    if open.pop().is_none_or(|name| format!("</{name}>") != tag) {
                        return false;
                    }
                    tag.len()
                }
            };
            rest = rest.split_at(start + length).1;
        }
        open.is_empty()
    }

    fn safe(html: &str) -> String {
        sanitize(html, &Policy { allow_remote: false, cid_base: &|_| None, locations: Default::default() })
            .html
    }

    #[test]
    fn no_cut_goes_through_a_tag_or_an_entity() {
        let html = safe(
            "<div><p>One &amp; <b>two &lt;three&gt;</b></p><a href=\"https://x.test/?a=1&amp;b=>2\" title='\"a>b\"'>link</a>\
             <br><img src=\"data:image/png;base64,AAAA\" alt=\"x > y\"><ul><li>ünï</li><li>\u{1f600}</li></ul>&nbsp;</div>",
        );
        assert!(is_whole(&html), "{html}");
        for max in 0..html.len() {
            let cut = truncate(&html, max);
            assert!(cut.len() <= max && is_whole(&cut), "{max}: {cut}");
            let words = cut.replace(['\u{a0}'], " ");
            assert!(
                !words.ends_with('&') && !words.contains("&am<") && !words.contains("&l<"),
                "{max}: {cut}"
            );
            assert_eq!(safe(&cut), cut, "a parser reads what was cut as it stands");
        }
        assert_eq!(truncate(&html, html.len()), html);
        assert_eq!(truncate("<p>abc</p>", 9), "<p>ab</p>");
        assert_eq!(truncate("<p>abc</p>", 6), "");
        assert_eq!(truncate("a&amp;b", 4), "a");
        let picture = format!("<p>a<img src=\"data:image/png;base64,{}\">b</p><p>c</p>", "A".repeat(1000));
        assert_eq!(truncate(&picture, 20), "<p>ab</p><p>c</p>");
        assert_eq!(truncate(&picture, 12), "<p>ab</p>");
    }

    proptest! {
        #[test]
        fn whatever_is_cut_is_whole_and_short(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "<b>", "</b>", "<p>", "</p>", "<table><tr><td>", "</td></tr></table>", "<a href=\"https://x.test/?a=1&b=2\">",
                    "</a>", "<br>", "<hr>", "<img alt='\"<'>", "x", "ü", "&amp;", "&lt;", "&", "<", ">", "\"", "\u{a0}", "<!-- c -->",
                ]),
                0..40,
            ),
            max in 0usize..200,
        ) {
            for html in [safe(&words.concat()), from_text(&words.concat())] {
                let cut = truncate(&html, max);
                prop_assert!(is_whole(&html), "{}", html);
                prop_assert!(cut.len() <= max, "{}", cut);
                prop_assert!(is_whole(&cut), "{} of {}", cut, html);
            }
        }
    }
}
