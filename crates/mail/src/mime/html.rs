//! HTML of strangers, made safe to show, and text from it (and back).
//!
//! Three walls: a budget that keeps the cost of parsing bounded, an allow list of elements and attributes, and
//! one filter through which every remaining attribute value goes. Nothing is loaded from anywhere unless the
//! reader asked for it; images of the message itself go through the caller's routes.

mod anchors;
mod budget;
mod css;
mod cut;
mod data;
mod pieces;
mod plain;
mod wrapper;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use self::budget::within_budget;
pub use self::cut::truncate;
pub use self::pieces::Html;
pub(super) use self::pieces::Piece;
pub(super) use self::plain::{Links, text_of};
pub use self::plain::{to_text, to_text_limited};

/// Raised when the rules below change, so that a cached result can be told apart.
pub const POLICY_VERSION: u32 = 2;

/// Different `cid:` images of one message that are resolved.
const MAX_CIDS: usize = 500;
/// Longest Content-ID that is looked for (RFC 5322 line limit).
const MAX_CID_BYTES: usize = 998;
/// Addresses of pictures that are compared with those of attachments, and the longest of them as written.
const MAX_ADDRESSES: usize = 10_000;
const MAX_ADDRESS_BYTES: usize = 4096;
/// A `data:` image beyond this is dropped.
const MAX_DATA_URL_BYTES: usize = 512 * 1024;

/// What the reader allows, and where the message's own images are.
pub struct Policy<'a> {
    /// Load pictures from other servers. They tell the sender who reads when and where.
    pub allow_remote: bool,
    /// The address for a Content-ID (without brackets); `None` drops the image.
    pub cid_base: &'a dyn Fn(&str) -> Option<String>,
    /// Addresses for pictures that the HTML names by their Content-Location (RFC 2557).
    pub locations: HashMap<String, String>,
}

/// Safe HTML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sanitized {
    /// A fragment, to be shown in a document of its own.
    pub html: String,
    /// Something remote was left out that `allow_remote` would have shown.
    pub remote_blocked: bool,
    /// The HTML was beyond the budget; `html` holds its text only.
    pub text_only: bool,
    /// That text was too long too, and `html` holds its beginning.
    pub cut: bool,
}

/// Makes one HTML part safe. Costs at most some tenths of a second whatever is put in; run it off the threads
/// that serve requests all the same.
#[must_use]
pub fn sanitize(html: &str, policy: &Policy<'_>) -> Sanitized {
    let (html, pictures) = data::take_out(html);
    let html = html.as_ref();
    if !within_budget(html) {
        return text_only(html);
    }
    let cids: HashMap<String, String> = find_cids(html)
        .into_iter()
        .filter_map(|id| {
            let url = (policy.cid_base)(&id)?;
            Some((id, url))
        })
        .collect();
    let (blocked, pictures) = (Arc::new(AtomicBool::new(false)), Arc::new(pictures));
    let filter = Filter {
        allow_remote: policy.allow_remote,
        cids,
        locations: policy.locations.clone(),
        pictures: Arc::clone(&pictures),
        prefix: anchors::prefix(html),
        blocked: Arc::clone(&blocked),
    };
    let wrapper = wrapper::of(html, policy.allow_remote);
    let cleaned = std::panic::catch_unwind(|| builder(filter).clean(html).to_string());
    match cleaned {
        Ok(html) => Sanitized {
            html: pictures.put_back(wrapper.around(anchors::stay_on_the_page(html))),
            remote_blocked: blocked.load(Ordering::Relaxed) || wrapper.remote_dropped,
            ..Sanitized::default()
        },
        Err(_) => text_only(html),
    }
}

/// HTML without the pictures that stand in it: for those who read its text.
pub(super) fn without_data(html: &str) -> Cow<'_, str> {
    data::take_out(html).0
}

fn text_only(html: &str) -> Sanitized {
    let cut = html.len() > plain::MAX_HTML_BYTES;
    Sanitized { html: from_text(&to_text_limited(html)), text_only: true, cut, ..Sanitized::default() }
}

fn builder(filter: Filter) -> ammonia::Builder<'static> {
    let mut b = ammonia::Builder::default();
    b.add_tags(["font", "big", "tfoot", "address", "main", "section"])
        .add_clean_content_tags([
            "title", "svg", "math", "template", "xml", "noembed", "noscript", "noframes", "iframe", "object",
            "applet", "audio", "video", "canvas", "textarea", "select",
        ])
        .rm_tags(["map", "area"])
        .rm_tag_attributes("blockquote", ["cite"])
        .rm_tag_attributes("q", ["cite"])
        .rm_tag_attributes("ins", ["cite"])
        .rm_tag_attributes("del", ["cite"])
        .add_generic_attributes([
            "style",
            "dir",
            "align",
            "valign",
            "bgcolor",
            "width",
            "height",
            "color",
            "face",
            "size",
            "border",
            "cellpadding",
            "cellspacing",
            "role",
            "aria-label",
            "aria-hidden",
            "background",
            "nowrap",
            "id",
        ])
        .add_tag_attributes("a", ["name"])
        .url_schemes(HashSet::from(["http", "https", "mailto", "tel", "cid", "data"]))
        .url_relative(ammonia::UrlRelative::PassThrough)
        .link_rel(Some("noopener noreferrer nofollow"))
        .set_tag_attribute_value("a", "target", "_blank")
        .attribute_filter(move |element, attribute, value| filter.apply(element, attribute, value));
    b
}

struct Filter {
    allow_remote: bool,
    cids: HashMap<String, String>,
    locations: HashMap<String, String>,
    pictures: Arc<data::Pictures>,
    /// Of this HTML's ids, so that they meet only each other.
    prefix: String,
    blocked: Arc<AtomicBool>,
}

impl Filter {
    /// What becomes of an attribute on the allow list. Every one that a browser would fetch ends in
    /// [`Filter::image`]; the rest cannot load anything.
    fn apply<'v>(&self, element: &str, attribute: &str, value: &'v str) -> Option<Cow<'v, str>> {
        match attribute {
            "src" | "background" => self.image(value).map(Cow::Owned),
            "href" if element == "a" => link(value, &self.prefix).map(Cow::Owned),
            "href" => None,
            "id" | "name" => anchors::id(value, &self.prefix).map(Cow::Owned),
            "style" => {
                let style = css::filter(value, self.allow_remote);
                if style.remote_dropped {
                    self.blocked.store(true, Ordering::Relaxed);
                }
                (!style.css.is_empty()).then_some(Cow::Owned(style.css))
            }
            _ => Some(Cow::Borrowed(value)),
        }
    }

    fn image(&self, value: &str) -> Option<String> {
        let url = as_browsers_read(value);
        if let Some(own) = self.locations.get(&url) {
            return Some(own.clone());
        }
        let lower = url.to_ascii_lowercase();
        if lower.starts_with("cid:") {
            return self.cids.get(&percent_decode(url.get(4..)?)).cloned();
        }
        if lower.starts_with("data:") {
            return (self.pictures.has(&url) || data_image(&url)).then_some(url);
        }
        if lower.starts_with("http:")
            || lower.starts_with("https:")
            || url.starts_with("//")
            || url.starts_with("\\\\")
        {
            // `http:/x` and `https:x` are read as addresses of the page's own server.
            let whole = lower.starts_with("http://") || lower.starts_with("https://");
            if !self.allow_remote || !whole {
                self.blocked.fetch_or(!self.allow_remote || url.starts_with("//"), Ordering::Relaxed);
                return None;
            }
            return Some(url);
        }
        None
    }
}

/// Browsers drop tabs and line breaks inside an address and controls around it; so must whoever judges it.
fn as_browsers_read(value: &str) -> String {
    let kept: String = value.chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
    kept.trim_matches(|c: char| c <= ' ').to_owned()
}

/// Links to a known kind of place, or to a place in the same HTML; other relative ones lead nowhere in a mail.
fn link(value: &str, prefix: &str) -> Option<String> {
    let url = as_browsers_read(value);
    if let Some(place) = url.strip_prefix('#') {
        return anchors::id(&percent_decode(place), prefix).map(|id| format!("#{id}"));
    }
    if url.get(..4).is_some_and(|w| w.eq_ignore_ascii_case("www.")) && !url.contains(char::is_whitespace) {
        return Some(format!("http://{url}"));
    }
    let (scheme, _) = url.split_once(':')?;
    ["http", "https", "mailto", "tel"].iter().any(|s| scheme.eq_ignore_ascii_case(s)).then_some(url)
}

/// Raster images only: SVG can hold scripts and references.
fn data_image(url: &str) -> bool {
    let head: String = url.chars().take(40).collect::<String>().to_ascii_lowercase();
    let raster = ["png", "gif", "jpeg", "jpg", "webp", "bmp"]
        .iter()
        .any(|t| head.starts_with(&format!("data:image/{t};base64,")));
    raster && url.len() <= MAX_DATA_URL_BYTES
}

/// Content-IDs that the text of the HTML mentions, decoded.
pub(super) fn find_cids(html: &str) -> HashSet<String> {
    let mut found = HashSet::new();
    let lower = html.to_ascii_lowercase();
    for (at, _) in lower.match_indices("cid:").take(10_000) {
        // No further than an id may reach: what comes behind may be megabytes, for each of them again.
        let reach = html.floor_char_boundary(at + 4 + MAX_CID_BYTES + 1);
        let rest = html.get(at + 4..reach).unwrap_or_default();
        let end = rest.find(|c: char| c.is_whitespace() || "\"'>)<".contains(c)).unwrap_or(rest.len());
        let id = rest.get(..end).unwrap_or_default();
        if !id.is_empty() && id.len() <= MAX_CID_BYTES && found.len() < MAX_CIDS {
            found.insert(percent_decode(&id.replace("&amp;", "&")));
        }
    }
    found
}

/// Addresses of pictures in the attributes of the HTML, as [`sanitize`] compares them with those of the message's own.
pub(super) fn picture_addresses(html: &str) -> HashSet<String> {
    let mut found = HashSet::new();
    for token in budget::Tokens::new(html) {
        let budget::Token::Tag(tag) = token else { continue };
        for value in ["src", "background"].iter().filter_map(|name| plain::attribute(tag.raw, name)) {
            if found.len() >= MAX_ADDRESSES {
                return found;
            }
            if value.len() <= MAX_ADDRESS_BYTES {
                found.insert(as_browsers_read(&plain::decode_entities(value, true)));
            }
        }
    }
    found
}

fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Plain text as HTML: escaped, line breaks kept.
#[must_use]
pub fn from_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8 + 64);
    out.push_str("<div style=\"white-space:pre-wrap\">");
    out.push_str(&escape(text));
    out.push_str("</div>");
    out
}

/// Text escaped for use between tags and in quoted attributes.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod leaks;
#[cfg(test)]
mod tests;
