//! What `<body>` says of the look of all that is in it. A fragment has no body, so an element around it says it instead.

use super::plain::{attribute, decode_entities};
use super::{budget, css, escape};

/// The element around a fragment.
#[derive(Debug, Default)]
pub(super) struct Wrapper {
    style: String,
    direction: String,
    /// Something remote was left out that `allow_remote` would have shown.
    pub remote_dropped: bool,
}

impl Wrapper {
    /// Puts it around, if it says anything.
    pub fn around(&self, html: String) -> String {
        if self.style.is_empty() && self.direction.is_empty() {
            return html;
        }
        let mut attributes = String::new();
        for (name, value) in [("dir", &self.direction), ("style", &self.style)] {
            if !value.is_empty() {
                attributes.push_str(&format!(" {name}=\"{}\"", escape(value)));
            }
        }
        format!("<div{attributes}>{html}</div>")
    }
}

/// What the first body element says.
pub(super) fn of(html: &str, allow_remote: bool) -> Wrapper {
    let mut tokens = budget::Tokens::new(html);
    let body = tokens.find_map(|t| match t {
        budget::Token::Tag(tag) if !tag.closing && tag.name.eq_ignore_ascii_case("body") => Some(tag),
        _ => None,
    });
    let Some(body) = body else { return Wrapper::default() };
    let value = |name: &str| attribute(body.raw, name).map(|v| decode_entities(v, true)).unwrap_or_default();
    let mut style = String::new();
    for (property, name) in [("background-color", "bgcolor"), ("color", "text")] {
        let color = value(name);
        let color = color.trim();
        if !color.is_empty() && color.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'#') {
            let bare = color.len() == 6 && color.bytes().all(|b| b.is_ascii_hexdigit());
            style.push_str(&format!("{property}:{}{color};", if bare { "#" } else { "" }));
        }
    }
    let background = value("background");
    if !background.trim().is_empty() {
        style.push_str(&format!("background-image:url({});", background.trim()));
    }
    style.push_str(&value("style"));
    let filtered = css::filter(&style, allow_remote);
    let direction = value("dir").trim().to_ascii_lowercase();
    let direction =
        if matches!(direction.as_str(), "rtl" | "ltr" | "auto") { direction } else { String::new() };
    Wrapper { style: filtered.css, direction, remote_dropped: filtered.remote_dropped }
}
