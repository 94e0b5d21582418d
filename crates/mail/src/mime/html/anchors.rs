//! Places within one HTML part, and links to them. Their names get a prefix of the part's own, so that two messages on one
//! page do not meet, nor a message and the page.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// Longest name of a place.
const MAX_NAME_BYTES: usize = 200;

/// The prefix of a part's names: the same for the same HTML.
pub(super) fn prefix(html: &str) -> String {
    let digest = Sha256::digest(html.as_bytes());
    let mut prefix = String::from("m");
    for byte in digest.iter().take(4) {
        let _ = write!(prefix, "{byte:02x}");
    }
    prefix.push('-');
    prefix
}

/// A name with its prefix; `None` for one that no link can reach.
pub(super) fn id(name: &str, prefix: &str) -> Option<String> {
    let name = name.trim();
    let fits = !name.is_empty() && name.len() <= MAX_NAME_BYTES;
    let plain = !name.contains(|c: char| c.is_whitespace() || c.is_control() || "<>\"'`&".contains(c));
    (fits && plain).then(|| format!("{prefix}{name}"))
}

/// Links within the part open no window: what the sanitiser set for all links is taken from these.
pub(super) fn stay_on_the_page(html: String) -> String {
    if !html.contains("href=\"#") {
        return html;
    }
    let mut out = String::with_capacity(html.len());
    let mut rest = html.as_str();
    while let Some(at) = rest.find("<a ") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        // The serialiser quotes every value and writes `>` in none of them unescaped but for text in quotes.
        let mut quoted = false;
        let end = tag.bytes().position(|b| {
            quoted ^= b == b'"';
            b == b'>' && !quoted
        });
        let (tag, tail) = tag.split_at(end.unwrap_or(tag.len()));
        if tag.contains(" href=\"#") {
            out.push_str(&tag.replace(" target=\"_blank\"", ""));
        } else {
            out.push_str(tag);
        }
        rest = tail;
    }
    out.push_str(rest);
    out
}
