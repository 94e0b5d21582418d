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
const FUNCTIONS: [&str; 5] = ["rgb", "rgba", "hsl", "hsla", "calc"];

/// Declarations of one attribute; beyond it the rest is dropped.
const MAX_DECLARATIONS: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Style {
    pub css: String,
    pub remote_dropped: bool,
}

/// Keeps the harmless declarations. Splitting at every semicolon is cruder than CSS, so each piece has to be
/// complete in itself (quotes and brackets in pairs) or it goes.
pub(super) fn filter(value: &str, allow_remote: bool) -> Style {
    let mut style = Style::default();
    for piece in value.split(';').take(MAX_DECLARATIONS) {
        let Some((name, value)) = piece.split_once(':') else { continue };
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        let known = PROPERTIES.binary_search(&name.as_str()).is_ok() || is_box(&name);
        if mentions_address(value) && !(allow_remote && known) {
            style.remote_dropped |= value.to_ascii_lowercase().contains("http") || value.contains("//");
            continue;
        }
        if known && !value.is_empty() && value_is_safe(value, allow_remote) {
            if !style.css.is_empty() {
                style.css.push(';');
            }
            style.css.push_str(&name);
            style.css.push(':');
            style.css.push_str(value);
        }
    }
    style
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

fn value_is_safe(value: &str, allow_remote: bool) -> bool {
    // Backslashes spell keywords in disguise, comments and at-signs cut or extend a declaration.
    let plain = !value.contains(['\\', '@', '{', '}', '<', '>', '\0', '\n', '\r']) && !value.contains("/*");
    let paired = ['"', '\''].into_iter().all(|q| value.matches(q).count().is_multiple_of(2));
    plain && paired && functions_are_safe(value, allow_remote)
}

fn functions_are_safe(value: &str, allow_remote: bool) -> bool {
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('(') {
        let start = before.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '-').map_or(0, |i| i + 1);
        // The character found may be longer than one byte: then it is no separator and the name is unknown.
        let name = before.get(start..).unwrap_or("?").to_ascii_lowercase();
        let Some((inside, tail)) = after.split_once(')') else { return false };
        let ok = if name == "url" {
            allow_remote && is_remote_image(inside)
        } else {
            FUNCTIONS.contains(&name.as_str())
        };
        if !ok || inside.contains('(') {
            return false;
        }
        rest = tail;
    }
    !rest.contains(')')
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
    fn a_reader_may_allow_remote_pictures() {
        assert_eq!(
            filter("background: url(\"https://x/a.png\") red", true).css,
            "background:url(\"https://x/a.png\") red"
        );
        assert_eq!(filter("background: url(javascript:x)", true).css, "");
        assert_eq!(filter("cursor: url(https://x/)", true).css, "");
    }
}
