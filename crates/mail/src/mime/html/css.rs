//! Style attributes: an allow list of properties whose values cannot fetch, run or cover anything.

/// Looks only. Left out on purpose: `position` and `z-index` (covering other content), `content`, `cursor`,
/// `filter`, `behavior` (fetching), custom properties.
const PROPERTIES: [&str; 63] = [
    "background",
    "background-color",
    "background-image",
    "background-position",
    "background-repeat",
    "background-size",
    "border",
    "border-bottom",
    "border-bottom-color",
    "border-bottom-style",
    "border-bottom-width",
    "border-collapse",
    "border-color",
    "border-left",
    "border-left-color",
    "border-left-style",
    "border-left-width",
    "border-radius",
    "border-right",
    "border-right-color",
    "border-right-style",
    "border-right-width",
    "border-spacing",
    "border-style",
    "border-top",
    "border-top-color",
    "border-top-style",
    "border-top-width",
    "border-width",
    "box-sizing",
    "clear",
    "color",
    "direction",
    "display",
    "float",
    "font",
    "font-family",
    "font-size",
    "font-style",
    "font-variant",
    "font-weight",
    "height",
    "letter-spacing",
    "line-height",
    "list-style-type",
    "max-height",
    "max-width",
    "min-height",
    "min-width",
    "opacity",
    "overflow-wrap",
    "table-layout",
    "text-align",
    "text-decoration",
    "text-indent",
    "text-transform",
    "unicode-bidi",
    "vertical-align",
    "visibility",
    "white-space",
    "width",
    "word-break",
    "word-wrap",
];

/// Functions that compute and never fetch.
const FUNCTIONS: [&str; 14] = [
    "calc",
    "conic-gradient",
    "hsl",
    "hsla",
    "linear-gradient",
    "max",
    "min",
    "radial-gradient",
    "repeating-conic-gradient",
    "repeating-linear-gradient",
    "repeating-radial-gradient",
    "rgb",
    "rgba",
    "clamp",
];

/// Properties of several values, of which one that fetches is left out and the others stay: a colour without its picture.
const COMPOSITE: [&str; 4] = ["background", "background-image", "border", "background-color"];

/// Functions inside each other.
const MAX_DEPTH: usize = 8;

/// Declarations of one attribute; beyond it the rest is dropped.
const MAX_DECLARATIONS: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Style {
    pub css: String,
    pub remote_dropped: bool,
}

/// Keeps the harmless declarations. Each piece has to be complete in itself (quotes and brackets in pairs) or it goes.
pub(super) fn filter(value: &str, allow_remote: bool) -> Style {
    let mut style = Style::default();
    // A style may be folded; a line end within it is a blank, but one in a string would end that.
    let value = value.replace(['\n', '\r'], " ");
    for piece in declarations(&value).take(MAX_DECLARATIONS) {
        let Some((name, value)) = piece.split_once(':') else { continue };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        let known = PROPERTIES.binary_search(&name.as_str()).is_ok() || is_box(&name);
        let remote = || value.to_ascii_lowercase().contains("http") || value.contains("//");
        if !known || value.is_empty() || !is_plain(value) {
            style.remote_dropped |= mentions_address(value) && remote();
            continue;
        }
        let Some(kept) = without_fetching(value, allow_remote, 0) else { continue };
        let dropped = kept.len() < value.len();
        style.remote_dropped |= dropped && mentions_address(value) && remote();
        let kept = if dropped { without_empty_layers(&kept) } else { kept };
        let kept = kept.trim();
        if kept.is_empty() || (dropped && !COMPOSITE.contains(&name.as_str())) {
            continue;
        }
        if !style.css.is_empty() {
            style.css.push(';');
        }
        style.css.push_str(&name);
        style.css.push(':');
        style.css.push_str(kept);
    }
    style
}

/// Layers are parted by commas outside brackets; an empty one makes the whole declaration invalid.
fn without_empty_layers(value: &str) -> String {
    let (mut layers, mut depth) = (vec![String::new()], 0usize);
    for c in value.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                layers.push(String::new());
                continue;
            }
            _ => {}
        }
        layers.last_mut().unwrap_or(&mut String::new()).push(c);
    }
    let kept: Vec<&str> = layers.iter().map(|l| l.trim()).filter(|l| !l.is_empty()).collect();
    kept.join(", ")
}

/// Cut at semicolons outside quotes and brackets.
fn declarations(value: &str) -> impl Iterator<Item = &str> {
    let mut rest = value;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (mut quote, mut depth) = (None, 0usize);
        let end = rest.bytes().position(|b| {
            match (b, quote) {
                (b, Some(q)) if b == q => quote = None,
                (b'"' | b'\'', None) => quote = Some(b),
                (b'(', None) => depth += 1,
                (b')', None) => depth = depth.saturating_sub(1),
                (b';', None) if depth == 0 => return true,
                _ => {}
            }
            false
        });
        let (piece, tail) = rest.split_at(end.unwrap_or(rest.len()));
        rest = tail.strip_prefix(';').unwrap_or(tail);
        Some(piece)
    })
}

fn is_box(name: &str) -> bool {
    ["margin", "padding"].iter().any(|b| {
        name.strip_prefix(b).is_some_and(|side| matches!(side, "" | "-top" | "-right" | "-bottom" | "-left"))
    })
}

fn mentions_address(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    lower.contains("url") || lower.contains("image") || lower.contains("src(")
}

fn is_plain(value: &str) -> bool {
    // Backslashes spell keywords in disguise, comments and at-signs cut or extend a declaration.
    let plain = !value.contains(['\\', '@', '{', '}', '<', '>', '\0', '\n', '\r']) && !value.contains("/*");
    let paired = ['"', '\''].into_iter().all(|q| value.matches(q).count().is_multiple_of(2));
    plain && paired
}

/// The value without the functions that fetch, or that nobody knows. `None` if its brackets do not pair.
fn without_fetching(value: &str, allow_remote: bool, depth: usize) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('(') {
        if depth >= MAX_DEPTH || before.contains(')') {
            return None;
        }
        let (inside, tail) = closed(after)?;
        // The character found may be longer than one byte: then it is no separator and the name is unknown.
        let start = before
            .rfind(|c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && c != '-')
            .map_or(0, |i| i + 1);
        let (ahead, name) = before.split_at_checked(start)?;
        let lower = name.to_ascii_lowercase();
        out.push_str(ahead);
        if lower == "url" {
            if allow_remote && is_remote_image(inside) {
                out.push_str(&format!("{name}({inside})"));
            }
        } else if FUNCTIONS.contains(&lower.as_str()) {
            let kept = without_fetching(inside, false, depth + 1)?;
            // A gradient without one of its colours is another one.
            if kept.len() == inside.len() {
                out.push_str(&format!("{name}({inside})"));
            }
        }
        rest = tail;
    }
    if rest.contains(')') {
        return None;
    }
    out.push_str(rest);
    Some(out)
}

/// What stands before the bracket that closes, and what behind it.
fn closed(after: &str) -> Option<(&str, &str)> {
    let (mut quote, mut depth) = (None, 1usize);
    let end = after.bytes().position(|b| {
        match (b, quote) {
            (b, Some(q)) if b == q => quote = None,
            (b'"' | b'\'', None) => quote = Some(b),
            (b'(', None) => depth += 1,
            (b')', None) => depth -= 1,
            _ => {}
        }
        depth == 0
    })?;
    Some((after.get(..end)?, after.get(end + 1..)?))
}

fn is_remote_image(inside: &str) -> bool {
    let url = inside.trim().trim_matches(['"', '\'']);
    let lower = url.to_ascii_lowercase();
    (lower.starts_with("https://") || lower.starts_with("http://"))
        && url.chars().all(|c| c.is_ascii_graphic() && !"\"'()\\<>".contains(c))
}

#[cfg(test)]
mod tests {
    use super::{PROPERTIES, filter};

    #[test]
    fn a_colour_stays_where_its_pictures_go() {
        for (style, kept) in [
            ("background:#123\r\n url(x);color:white", "background:#123;color:white"),
            ("background:url(a),url(b),#123", "background:#123"),
            (
                "background:url(a),\n linear-gradient(red,blue), url(b)",
                "background:linear-gradient(red,blue)",
            ),
        ] {
            let squeezed = filter(style, false).css.replace("#123  ", "#123");
            assert_eq!(squeezed, kept, "{style}");
        }
    }

    #[test]
    fn the_list_is_sorted_for_the_search() {
        assert!(PROPERTIES.is_sorted());
    }

    #[test]
    fn looks_are_kept() {
        let s =
            filter("Color: RED; margin-left:3px;font-family: 'A B', serif; background: rgb(1,2,3)", false);
        assert_eq!(s.css, "color:RED;margin-left:3px;font-family:'A B', serif;background:rgb(1,2,3)");
        assert!(!s.remote_dropped);
    }

    #[test]
    fn nothing_that_fetches_or_covers_is_kept() {
        for css in [
            "background:url(https://x/)",
            "background:u\\72l(//x)",
            "background:url/**/(x)",
            "list-style:url(x)",
            "background-image:image-set('https://x' 1x)",
            "position:fixed",
            "z-index:9",
            "content:'x'",
            "--a:1",
            "width:expression(alert(1))",
            "behavior:x",
            "color:red}body{color:x",
            "font-family:'a",
            "@import 'x'",
            "background:src('//x')",
            "width:calc(url(x))",
            "color:var(--x)",
            "width:attr(x)",
            "color:ü(x)",
        ] {
            assert_eq!(filter(css, false).css, "", "{css}");
        }
        assert!(filter("background:url('https://x/a.png')", false).remote_dropped);
    }

    #[test]
    fn a_colour_stays_where_its_picture_goes() {
        for (css, kept) in [
            ("background:url(x) #123;color:white", "background:#123;color:white"),
            (
                "background:#123 url('https://x/a.png') no-repeat;color:#fff",
                "background:#123  no-repeat;color:#fff",
            ),
            ("background:#123 url(data:image/png;base64,AAAA);color:#fff", "background:#123;color:#fff"),
            ("background:url(\"a;b(c\") red", "background:red"),
            (
                "background:linear-gradient(90deg, rgb(1,2,3) 10%, red);color:#fff",
                "background:linear-gradient(90deg, rgb(1,2,3) 10%, red);color:#fff",
            ),
            (
                "background-image:linear-gradient(red,blue),url(x)",
                "background-image:linear-gradient(red,blue)",
            ),
            ("background:image-set('x' 1x) red", "background:red"),
            ("width:calc(100% - min(10px, 2em))", "width:calc(100% - min(10px, 2em))"),
        ] {
            assert_eq!(filter(css, false).css, kept, "{css}");
        }
        assert!(filter("background:#123 url(https://x/a.png)", false).remote_dropped);
        assert_eq!(filter("background:url(x;color:red", false).css, "");
        assert_eq!(filter("background:linear-gradient(red,url(x)) blue", false).css, "background:blue");
    }

    #[test]
    fn a_reader_may_allow_remote_pictures() {
        assert_eq!(
            filter("background: url(\"https://x/a.png\") red", true).css,
            "background:url(\"https://x/a.png\") red"
        );
        assert_eq!(filter("background: url(javascript:x)", true).css, "");
        assert_eq!(filter("cursor: url(https://x/)", true).css, "");
    }
}
