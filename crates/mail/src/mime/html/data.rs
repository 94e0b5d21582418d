//! Pictures that stand in the HTML itself (`data:`, RFC 2397). They are most of its bytes and none of its structure, so they
//! are taken out before anything is counted or parsed, and put back into what was made safe.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

/// How the place of a picture that was taken out begins. A hash of the HTML follows, so that nobody can write such a place
/// himself, then the picture's number.
const PLACE: &str = "data:image/x-taken;base64,";
/// Between `data:` and its bytes stands at most this.
const MAX_HEAD_BYTES: usize = 64;
/// Shorter ones may stay.
const SMALL_BYTES: usize = 512;
/// A picture beyond this is dropped.
const MAX_PICTURE_BYTES: usize = 16 * 1024 * 1024;

/// What was taken out of one HTML.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    /// What their places begin with.
    place: String,
    /// Each with its `data:`, fit to stand between quotes; empty if it is none that may be shown.
    taken: Vec<String>,
}

impl Pictures {
    /// Whether `url` stands for a picture that may be shown.
    pub fn has(&self, url: &str) -> bool {
        !self.taken.is_empty()
            && url
                .strip_prefix(self.place.as_str())
                .and_then(|n| n.parse::<usize>().ok())
                .and_then(|n| self.taken.get(n))
                .is_some_and(|p| !p.is_empty())
    }

    /// Puts the pictures back, each once: an HTML parser writes some elements several times (`<font>` in each of many
    /// paragraphs), and the result must not be longer than what came in and was made of it.
    pub fn put_back(&self, safe: String) -> String {
        if self.taken.is_empty() {
            return safe;
        }
        let mut left: Vec<Option<&String>> = self.taken.iter().map(Some).collect();
        let mut out = String::with_capacity(safe.len());
        let mut rest = safe.as_str();
        while let Some((before, after)) = rest.split_once(self.place.as_str()) {
            out.push_str(before);
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = after.split_at_checked(digits).unwrap_or((after, ""));
            let picture = number.parse::<usize>().ok().and_then(|n| left.get_mut(n)).and_then(Option::take);
            out.push_str(picture.map_or("", String::as_str));
            rest = tail;
        }
        out.push_str(rest);
        out
    }
}

/// HTML without its pictures, and these. Linear.
pub(super) fn take_out(html: &str) -> (Cow<'_, str>, Pictures) {
    const MARK: &str = ";base64,";
    if !html.contains(MARK) {
        return (html.into(), Pictures::default());
    }
    let place = format!("{PLACE}{}-", hex::encode(Sha256::digest(html.as_bytes())));
    let (mut out, mut taken) = (String::new(), Vec::new());
    let mut from = 0;
    for (at, _) in html.match_indices(MARK) {
        if at < from {
            continue;
        }
        let before = html.get(from.max(html.ceil_char_boundary(at.saturating_sub(MAX_HEAD_BYTES)))..at);
        let Some(head) = before.and_then(head) else { continue };
        let start = at - head.len();
        let end = end_of(html, start, at + MARK.len());
        if end - start < SMALL_BYTES {
            continue;
        }
        out.push_str(html.get(from..start).unwrap_or_default());
        out.push_str(&place);
        out.push_str(&taken.len().to_string());
        taken.push(picture(html.get(start..end).unwrap_or_default()));
        from = end;
    }
    if taken.is_empty() {
        return (html.into(), Pictures::default());
    }
    out.push_str(html.get(from..).unwrap_or_default());
    (out.into(), Pictures { place, taken })
}

/// From `data:` on, if nothing but a type follows it.
fn head(before: &str) -> Option<&str> {
    let at = before.to_ascii_lowercase().rfind("data:")?;
    let head = before.get(at..)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b":/+.-;=".contains(&b);
    head.bytes().all(plain).then_some(head)
}

/// Where the bytes end. Within quotes they may be folded.
fn end_of(html: &str, start: usize, bytes: usize) -> usize {
    let quote = html.as_bytes().get(start.wrapping_sub(1)).filter(|q| matches!(q, b'"' | b'\''));
    let rest = html.get(bytes..).unwrap_or_default();
    let ends = |b: u8| {
        let coded = b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'%' | b'-' | b'_');
        !(coded || (quote.is_some() && b.is_ascii_whitespace()))
    };
    bytes + rest.bytes().position(ends).unwrap_or(rest.len())
}

/// Raster images only: SVG can hold scripts and references.
fn picture(url: &str) -> String {
    let head = url.get(..url.floor_char_boundary(MAX_HEAD_BYTES)).unwrap_or_default().to_ascii_lowercase();
    let raster = ["png", "gif", "jpeg", "jpg", "webp", "bmp", "x-ms-bmp", "avif"]
        .iter()
        .any(|t| head.starts_with(&format!("data:image/{t};")));
    if !raster || url.len() > MAX_PICTURE_BYTES {
        return String::new();
    }
    url.chars().filter(|c| !c.is_ascii_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::take_out;

    #[test]
    fn pictures_are_taken_out_and_put_back() {
        let data = "A".repeat(2000);
        for (before, after) in
            [("<img src=\"", "\">x"), ("<img src='", "'>x"), ("<img src=", " width=3>x"), ("url(", ")")]
        {
            let html = format!("<p>y</p>{before}data:image/png;base64,{data}{after}");
            let (rest, taken) = take_out(&html);
            assert!(rest.len() < 200 && rest.ends_with(after), "{rest}");
            assert_eq!(taken.put_back(rest.to_string()), html);
        }
        let folded = format!("<img src=\"data:image/PNG;base64,\r\n {data}\r\n {data}\">x");
        let (rest, taken) = take_out(&folded);
        assert!(
            rest.starts_with("<img src=\"data:image/x-taken;base64,") && rest.ends_with("-0\">x"),
            "{rest}"
        );
        assert!(taken.put_back(rest.to_string()).len() > 4000);
    }

    #[test]
    fn what_may_not_be_shown_does_not_come_back() {
        let html = format!("<img src=\"data:image/svg+xml;base64,{}\">", "A".repeat(2000));
        let (rest, taken) = take_out(&html);
        assert!(!taken.has(rest.split('"').nth(1).unwrap()));
        assert_eq!(taken.put_back(rest.to_string()), "<img src=\"\">");
        assert_eq!(take_out("a;base64,b data:image/png;base64,AA").0, "a;base64,b data:image/png;base64,AA");
    }

    #[test]
    fn a_place_that_a_sender_wrote_is_no_place_and_each_picture_comes_back_once() {
        let html = format!("<img src=\"data:image/png;base64,{}\">", "A".repeat(100_000));
        let place = take_out(&html).0.split('"').nth(1).unwrap().to_owned();
        for written in ["data:image/x-taken;base64,0", place.as_str()] {
            let hostile = format!("{html}{}", written.repeat(1000));
            let (rest, taken) = take_out(&hostile);
            assert!(!taken.has(written));
            assert_eq!(taken.put_back(rest.to_string()), hostile);
        }
        let (rest, taken) = take_out(&html);
        assert!(taken.put_back(rest.repeat(1000)).len() < 2 * html.len());
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart(pieces in prop::collection::vec(prop::sample::select(vec![
            "data:", "image/png", ";base64,", "AAAA", "\"", "'", " ", "ü", "<img src=", "data:image/x-taken;base64,0",
        ]), 0..30), n in 0usize..3) {
            let html = pieces.concat() + &"A".repeat(n * 600);
            let (rest, taken) = take_out(&html);
            prop_assert!(taken.put_back(rest.repeat(3)).len() <= 3 * html.len() + 300);
        }
    }
}
