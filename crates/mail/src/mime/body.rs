//! What a reader sees of a message: the parts that are shown, each decoded, in the order of the layout.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashSet;
use std::panic::catch_unwind;

use super::attachment::{self, AttachmentMeta, Listed};
use super::header::RawHeader;
use super::html::{self, Html, Links, Piece, Policy, Sanitized};
use super::layout::{self, Layout, Shown};
use super::limits::LimitExceeded;
use super::parse::{first_block, line};
use super::structure::{self, Part, Tree};
use super::{charset, enriched, flowed, text, transfer, words};

/// What is looked at of an HTML part to find its charset (HTML §4.2.5.4 has 1,024 bytes).
const MAX_META_BYTES: usize = 4096;
/// A reader's text may be this long, and four times as long as the message.
const MIN_TEXT_BYTES: usize = 1024 * 1024;

/// What a reader sees of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// All that is shown, as text, in the order of the message; `None` where no part of it is plain text.
    pub text: Option<String>,
    /// All that is shown, as HTML as it came; `None` where no part of it is HTML.
    pub html: Option<Html>,
    /// All header fields in order, unfolded and decoded.
    pub headers: Vec<(String, String)>,
    /// The files, as [`super::parse()`] lists them.
    pub attachments: Vec<AttachmentMeta>,
    /// Content-Location of those that have one.
    pub(crate) locations: Vec<(String, usize)>,
    /// The limit beyond which nothing of the message was read.
    pub limited: Option<LimitExceeded>,
    /// The date has no zone, or one that nobody knows.
    pub date_zone_unknown: bool,
}

impl Body {
    /// The HTML made safe. `address` says where an attachment can be loaded from; its own pictures are found by Content-ID,
    /// by file name where nothing else fits (`cid:image001.png`), and by Content-Location (RFC 2557 §8.2).
    #[must_use]
    pub fn safe_html(
        &self,
        allow_remote: bool,
        address: &dyn Fn(&AttachmentMeta) -> Option<String>,
    ) -> Option<Sanitized> {
        let html = self.html.as_ref()?;
        let locations = self.locations.iter().filter_map(|(location, index)| {
            Some((location.clone(), address(self.attachments.get(*index)?)?))
        });
        let policy = Policy {
            allow_remote,
            cid_base: &|id| address(self.by_content_id(id)?),
            locations: locations.collect(),
        };
        Some(html.sanitize(&policy, &|index| address(self.attachments.get(index)?)))
    }

    /// The attachment that `cid:` means (RFC 2392).
    fn by_content_id(&self, id: &str) -> Option<&AttachmentMeta> {
        let find = |is: &dyn Fn(&&AttachmentMeta) -> bool| self.attachments.iter().find(|a| is(a));
        let same = |other: &Option<String>| other.as_deref().is_some_and(|o| o.eq_ignore_ascii_case(id));
        find(&|a| a.content_id.as_deref() == Some(id))
            .or_else(|| find(&|a| same(&a.content_id)))
            .or_else(|| find(&|a| same(&a.filename)))
    }
}

/// Reads a message for showing.
#[must_use]
pub fn body(raw: &[u8]) -> Body {
    catch_unwind(|| {
        let tree = structure::walk(raw);
        let reading = Reading::new(raw, &tree);
        let listed = attachment::list(raw, &tree, &reading.layout);
        let shown = reading.shown_pictures(&listed);
        let locations = listed.iter().filter_map(|l| Some((l.location.clone()?, l.meta.index))).collect();
        let mut attachments: Vec<AttachmentMeta> = listed.into_iter().map(|l| l.meta).collect();
        for meta in &mut attachments {
            meta.inline |= shown.contains(&meta.index);
        }
        let headers = tree.parts.first().map(|p| readable(&p.headers, &tree)).unwrap_or_default();
        let date = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("date"));
        Body {
            text: reading.text(),
            html: reading.html(&attachments),
            date_zone_unknown: date
                .and_then(|(_, value)| super::date::parse(value))
                .is_some_and(|w| !w.zone_known),
            headers,
            attachments,
            locations,
            limited: tree.limited,
        }
    })
    .unwrap_or_else(|_| {
        let fields = || {
            let tree = Tree { parts: Vec::new(), limited: None, fallback: charset::Fallback::default() };
            readable(&first_block(raw), &tree)
        };
        Body { headers: catch_unwind(fields).unwrap_or_default(), ..Body::default() }
    })
}

/// Every field decoded as unstructured text.
fn readable(headers: &[RawHeader<'_>], tree: &Tree<'_>) -> Vec<(String, String)> {
    let show = |h: &RawHeader<'_>| {
        let value = words::decode(h.value, tree.fallback);
        (String::from_utf8_lossy(h.name).into_owned(), line(&value, usize::MAX))
    };
    headers.iter().map(show).collect()
}

/// A message that is being read.
pub(super) struct Reading<'a> {
    raw: &'a [u8],
    tree: &'a Tree<'a>,
    pub layout: Layout,
    /// HTML of each part that was asked for: it is shown, searched for its pictures, and made text of.
    markup: Vec<OnceCell<String>>,
}

impl<'a> Reading<'a> {
    pub fn new(raw: &'a [u8], tree: &'a Tree<'a>) -> Self {
        let markup = tree.parts.iter().map(|_| OnceCell::new()).collect();
        Self { raw, tree, layout: Layout::new(raw, &tree.parts), markup }
    }

    /// All that is shown as text, for a reader.
    fn text(&self) -> Option<String> {
        let shown = &self.layout.shown;
        // A message without any body has an empty text part in the tree, but no text to speak of.
        let empty = |s: &Shown| matches!(s, Shown::Plain(i) if self.tree.parts.get(*i).is_none_or(|p| p.body.is_empty()));
        if !layout::has_plain(shown) || (self.tree.parts.len() > 1 && shown.iter().all(empty)) {
            return None;
        }
        // A character of one byte may become one of three.
        let enough = self.raw.len().saturating_mul(4).max(MIN_TEXT_BYTES);
        Some(self.joined(shown, enough, Links::Told))
    }

    /// All that is shown as text, for the index.
    pub fn index_text(&self, max_bytes: usize) -> String {
        self.joined(&self.layout.shown, max_bytes, Links::Bare)
    }

    fn joined(&self, shown: &[Shown], max_bytes: usize, links: Links) -> String {
        let mut out = String::new();
        for item in shown {
            let room = max_bytes.saturating_sub(out.len());
            if room == 0 {
                break;
            }
            let next = match item {
                Shown::Plain(i) => self.plain(*i, room),
                Shown::Html(i) => {
                    self.markup(*i).map(|markup| html::text_of(&html::without_data(markup), links, room))
                }
                Shown::File(i) => self.name_of(*i).map(|name| format!("[{name}]\n")),
                Shown::Choice { text, html } => {
                    let plain = self.joined(text, room, links);
                    // Some programs send an empty text beside the HTML.
                    let blank = plain.chars().all(|c| c.is_whitespace() || c == '\u{a0}');
                    Some(if blank { self.joined(html, room, links) } else { plain })
                }
            };
            let Some(next) = next else { continue };
            if out.is_empty() {
                out = next;
            } else if !next.is_empty() {
                out.push('\n');
                out.push_str(&next);
            }
        }
        text::truncate(out, max_bytes)
    }

    /// All that is shown as HTML.
    fn html(&self, attachments: &[AttachmentMeta]) -> Option<Html> {
        if !layout::has_html(&self.layout.shown) {
            return None;
        }
        let mut pieces = Vec::new();
        self.pieces(&self.layout.shown, attachments, &mut pieces);
        Some(Html::new(pieces))
    }

    fn pieces(&self, shown: &[Shown], attachments: &[AttachmentMeta], pieces: &mut Vec<Piece>) {
        for item in shown {
            match item {
                Shown::Html(i) => pieces.extend(self.markup(*i).map(|markup| Piece::Html(markup.to_owned()))),
                Shown::Plain(i) => pieces.extend(self.plain(*i, usize::MAX).map(Piece::Text)),
                Shown::Choice { html, .. } => self.pieces(html, attachments, pieces),
                Shown::File(i) => {
                    let index = self.layout.files.iter().position(|f| f.part == *i && f.within.is_none());
                    let Some(meta) = index.and_then(|n| attachments.get(n)) else { continue };
                    let name = meta.filename.clone().unwrap_or_default();
                    let picture = meta.content_type.starts_with("image/");
                    pieces.push(if picture {
                        Piece::Picture { index: meta.index, name }
                    } else {
                        Piece::File { name }
                    });
                }
            }
        }
    }

    /// Pictures that the HTML shows: those that it names, and those that stand among its parts.
    pub fn shown_pictures(&self, listed: &[Listed]) -> HashSet<usize> {
        let may = |l: &&Listed| l.meta.content_type.starts_with("image/");
        if !layout::has_html(&self.layout.shown) || !listed.iter().any(|l| may(&l)) {
            return HashSet::new();
        }
        let named = listed
            .iter()
            .filter(may)
            .any(|l| l.meta.content_id.is_some() || l.location.is_some() || l.meta.filename.is_some());
        let mut markup = String::new();
        if named {
            self.all_markup(&self.layout.shown, &mut markup);
        }
        let mentioned = html::find_cids(&markup);
        let named = html::picture_addresses(&markup);
        let folded: HashSet<String> = mentioned.iter().map(|id| id.to_ascii_lowercase()).collect();
        let among = |l: &Listed| {
            let part = self.layout.files.get(l.meta.index).map(|f| f.part);
            l.said_inline && self.layout.shown.iter().any(|s| Some(s) == part.map(Shown::File).as_ref())
        };
        let is_shown = |l: &&Listed| {
            let by = |name: &Option<String>| {
                name.as_ref().is_some_and(|n| folded.contains(&n.to_ascii_lowercase()))
            };
            by(&l.meta.content_id)
                || by(&l.meta.filename)
                || l.location.as_ref().is_some_and(|location| named.contains(location))
                || among(l)
        };
        listed.iter().filter(may).filter(is_shown).map(|l| l.meta.index).collect()
    }

    fn all_markup(&self, shown: &[Shown], out: &mut String) {
        for item in shown {
            match item {
                Shown::Html(i) => {
                    if let Some(markup) = self.markup(*i) {
                        out.push_str(&html::without_data(markup));
                    }
                }
                Shown::Choice { html, .. } => self.all_markup(html, out),
                Shown::Plain(_) | Shown::File(_) => {}
            }
        }
    }

    /// Text of messages inside this one, for the index.
    pub fn attached_text(&self, max_bytes: usize) -> String {
        let mut out = String::new();
        let parts = &self.tree.parts;
        let plain: HashSet<Option<usize>> =
            parts.iter().filter(|p| p.nested && p.info.is("text", "plain")).map(|p| p.parent).collect();
        let is_text = |p: &&Part<'_>| p.nested && !p.container && !p.info.attached && p.info.kind == "text";
        for part in parts.iter().filter(is_text) {
            let room = max_bytes.saturating_sub(out.len());
            if room == 0 {
                break;
            }
            if part.info.subtype == "html" && plain.contains(&part.parent) {
                continue;
            }
            let next = self.shown_text(part, room);
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&next);
        }
        text::truncate(out, max_bytes)
    }

    fn shown_text(&self, part: &Part<'_>, max_bytes: usize) -> String {
        if part.info.subtype == "html" {
            html::text_of(&html::without_data(&self.markup_of(part)), Links::Bare, max_bytes)
        } else {
            self.plain_of(part, max_bytes)
        }
    }

    fn name_of(&self, part: usize) -> Option<String> {
        let info = &self.tree.parts.get(part)?.info;
        // A picture shows itself.
        let name = info.filename.as_deref().filter(|_| info.kind != "image")?;
        Some(attachment::safe_filename(name)).filter(|n| !n.is_empty())
    }

    fn plain(&self, part: usize, max_bytes: usize) -> Option<String> {
        Some(self.plain_of(self.tree.parts.get(part)?, max_bytes))
    }

    /// The text of a part without markup; of more than `max_bytes` only the beginning is decoded.
    fn plain_of(&self, part: &Part<'_>, max_bytes: usize) -> String {
        let encoded = self.raw.get(part.body.clone()).unwrap_or_default();
        let has_files = self
            .layout
            .files
            .iter()
            .any(|f| f.within.as_ref().is_some_and(|(range, _)| part.body.contains(&range.start)));
        let encoded: Cow<'_, [u8]> =
            if has_files { layout::without_files(encoded).into() } else { encoded.into() };
        // Encoded text is at most three times as long, so this much is enough to fill the limit.
        let enough = encoded.get(..max_bytes.saturating_mul(3)).unwrap_or(&encoded);
        let bytes = transfer::decode(enough, part.info.transfer);
        let text = text::decode(&bytes, part.info.charset.as_deref());
        let text = match (part.info.subtype.as_str(), part.info.flowed) {
            ("plain", Some(del_sp)) => flowed::unflow(&text, del_sp),
            ("enriched" | "richtext", _) => enriched::to_text(&text),
            _ => text,
        };
        text::truncate(text, max_bytes)
    }

    /// The HTML of a part as it came.
    fn markup(&self, part: usize) -> Option<&str> {
        let html = self.tree.parts.get(part)?;
        Some(self.markup.get(part)?.get_or_init(|| self.markup_of(html)))
    }

    fn markup_of(&self, part: &Part<'_>) -> String {
        let encoded = self.raw.get(part.body.clone()).unwrap_or_default();
        let bytes = transfer::decode(encoded, part.info.transfer);
        let said = part.info.charset.as_deref().filter(|c| !charset::is_unknown(c));
        let own = if said.is_none() { declared_within(&bytes) } else { None };
        text::decode(&bytes, said.or(own.as_deref()))
    }
}

/// The charset that HTML declares itself, where the message declares none (HTML §13.2.3.2).
fn declared_within(bytes: &[u8]) -> Option<String> {
    let head = bytes.get(..MAX_META_BYTES).unwrap_or(bytes).to_ascii_lowercase();
    let head = String::from_utf8_lossy(&head);
    head.split("<meta").skip(1).find_map(|tag| {
        let tag = tag.split('>').next()?;
        let value = tag.split_once("charset")?.1.trim_start().strip_prefix('=')?;
        let value = value.trim_start().trim_start_matches(['"', '\'']);
        let end = value.find(|c: char| c.is_whitespace() || "\"';/>".contains(c)).unwrap_or(value.len());
        // What could be read as ASCII is in no encoding of two bytes a character, whatever it says.
        value.get(..end).filter(|v| !v.is_empty() && !v.starts_with("utf-16")).map(str::to_owned)
    })
}

#[cfg(test)]
mod tests;
