//! Lists of addresses in received fields (RFC 5322 §3.4, the obsolete forms of §4.4, and what people's programs write).
//!
//! The list is cut into tokens on bytes, then into entries; names are decoded last, so a comma in an encoded word ends
//! nothing. Tolerated, because it is met: a comma that was forgotten, blanks around `@` and dots, angle brackets twice, a
//! quote that nothing ends, an entry that is one encoded word as a whole, a sender without any address.

mod tokens;

use self::tokens::{Token, Tokens};
use super::charset::Fallback;
use super::limits::MAX_ADDRESSES;
use super::words;
use crate::address::Address;

/// The addresses of a field in their order; members of groups stand among the others. An entry without an address (`root`,
/// a name alone) has its name and an empty address.
pub(super) fn read(field: &[u8], fallback: Fallback) -> Vec<Address> {
    read_nested(field, fallback, true)
}

fn read_nested(field: &[u8], fallback: Fallback, outer: bool) -> Vec<Address> {
    let mut list = List { fallback, outer, done: Vec::new(), held: None };
    let mut entry = Entry::default();
    for token in Tokens::new(field) {
        if list.done.len() >= MAX_ADDRESSES {
            return list.done;
        }
        entry = list.take(entry, token);
    }
    list.end(entry, false);
    list.release();
    list.done
}

/// One entry while it is read.
#[derive(Default)]
struct Entry<'a> {
    items: Vec<Item<'a>>,
    /// The last comment, and how many items stood before it.
    comment: Option<(&'a [u8], usize)>,
    angle: Option<&'a [u8]>,
    gap: bool,
    quoted: bool,
    /// No comma stood before it.
    unseparated: bool,
}

struct Item<'a> {
    kind: Kind<'a>,
    gap: bool,
}

enum Kind<'a> {
    Text(&'a [u8]),
    /// The contents of a quoted string, still escaped.
    Quoted(&'a [u8]),
    At,
}

struct List {
    fallback: Fallback,
    /// Not within an entry that is decoded a second time.
    outer: bool,
    done: Vec<Address>,
    /// A name without an address: of `Smith, Bob <b@x>` the first half, if nobody put it in quotes.
    held: Option<String>,
}

impl List {
    fn take<'a>(&mut self, mut entry: Entry<'a>, token: Token<'a>) -> Entry<'a> {
        let begins = matches!(token, Token::Text(_) | Token::Quoted(_) | Token::At | Token::Angle(_));
        if begins && entry.angle.is_some() {
            self.end(entry, false);
            entry = Entry { unseparated: true, ..Entry::default() };
        }
        match token {
            Token::Gap => entry.gap = true,
            Token::Comment(text) => entry.comment = Some((text, entry.items.len())),
            Token::Text(text) => entry.push(Kind::Text(text)),
            Token::Quoted(text) => {
                entry.quoted = true;
                entry.push(Kind::Quoted(text));
            }
            Token::At => entry.push(Kind::At),
            Token::Angle(inner) => entry.angle = Some(inner),
            Token::Group => {
                self.release();
                return Entry::default();
            }
            Token::Comma => {
                self.end(entry, true);
                return Entry::default();
            }
            Token::GroupEnd => {
                self.end(entry, false);
                self.release();
                return Entry::default();
            }
        }
        entry
    }

    /// Takes an entry into the list.
    fn end(&mut self, entry: Entry<'_>, comma: bool) {
        let found = match entry.angle {
            Some(inner) => entry.with_angle(inner, self.fallback),
            None => entry.bare(self.fallback),
        };
        let without = found.iter().all(|(_, address)| address.is_empty());
        if without && self.outer {
            let again = entry.decoded_again(&found, self.fallback);
            if !again.is_empty() {
                self.release();
                self.done.extend(again);
                return;
            }
        }
        // One entry without commas may hold any number.
        let room = MAX_ADDRESSES.saturating_sub(self.done.len());
        for (name, address) in found.into_iter().take(room) {
            if address.is_empty() {
                self.nameless(name, &entry, comma);
                continue;
            }
            let name = match (self.held.take(), name) {
                (Some(first), Some(rest)) if entry.angle.is_some() => Some(format!("{first}, {rest}")),
                (held, name) => {
                    self.held = held;
                    self.release();
                    name
                }
            };
            self.done.extend(Address::received(name.as_deref(), &address));
        }
    }

    /// An entry that is a name only. After an address without a comma it is noise.
    fn nameless(&mut self, name: Option<String>, entry: &Entry<'_>, comma: bool) {
        let Some(name) = name.filter(|_| !entry.unseparated) else { return };
        self.release();
        let family_name = name.chars().next().is_some_and(|c| c.is_uppercase() || !c.is_ascii());
        if comma && family_name && !entry.quoted && entry.angle.is_none() {
            self.held = Some(name);
        } else {
            self.done.extend(Address::received(Some(&name), ""));
        }
    }

    fn release(&mut self) {
        if let Some(name) = self.held.take() {
            self.done.extend(Address::received(Some(&name), ""));
        }
    }
}

impl<'a> Entry<'a> {
    fn push(&mut self, kind: Kind<'a>) {
        let gap = std::mem::take(&mut self.gap);
        self.items.push(Item { kind, gap });
    }

    /// `name <address>`; without `@` what stands in the brackets is no address.
    fn with_angle(&self, inner: &[u8], fallback: Fallback) -> Vec<(Option<String>, String)> {
        let name = phrase(&self.items, fallback).or_else(|| self.comment_text(fallback));
        let (before, inner) = match inner.iter().rposition(|b| *b == b'<') {
            Some(at) => inner.split_at(at + 1),
            None => (b"".as_slice(), inner),
        };
        let text = addr_spec(inner, fallback);
        let name = name.or_else(|| {
            let inside = words::decode(before, fallback).replace('<', " ");
            Some(inside.trim().to_owned()).filter(|n| !n.is_empty())
        });
        if text.contains('@') {
            return vec![(name, text)];
        }
        vec![(name.or(Some(text).filter(|t| !t.is_empty())), String::new())]
    }

    /// Addresses without brackets: what stands around each `@`. What is left over is a name.
    fn bare(&self, fallback: Fallback) -> Vec<(Option<String>, String)> {
        let mut found = Vec::new();
        let mut from = 0;
        let mut at = 0;
        while let Some(sign) =
            self.items.iter().skip(at).position(|i| matches!(i.kind, Kind::At)).map(|n| n + at)
        {
            at = sign + 1;
            let first = self.reaches_back(sign, from);
            let last = self.reaches_on(sign);
            if first == sign || last == sign {
                continue;
            }
            let mut raw = Vec::new();
            for item in self.items.get(first..=last).unwrap_or_default() {
                item.push_address(&mut raw);
            }
            let name = phrase(self.items.get(from..first).unwrap_or_default(), fallback);
            found.push((name, addr_spec(&raw, fallback)));
            (from, at) = (last + 1, last + 1);
        }
        let rest = phrase(self.items.get(from..).unwrap_or_default(), fallback);
        match found.last_mut() {
            Some((name, _)) if name.is_none() => *name = rest.or_else(|| self.comment_text(fallback)),
            Some(_) => {}
            None => found.push((rest.or_else(|| self.comment_text(fallback)), String::new())),
        }
        found
    }

    /// The first item of the local part that ends before `sign`.
    fn reaches_back(&self, sign: usize, from: usize) -> usize {
        let mut first = sign;
        while first > from {
            let Some(item) = self.items.get(first - 1).filter(|i| !matches!(i.kind, Kind::At)) else { break };
            let joined = first == sign
                || self
                    .items
                    .get(first)
                    .is_some_and(|next| !next.gap || next.starts_with_dot() || item.ends_with_dot());
            if !joined {
                break;
            }
            first -= 1;
        }
        first
    }

    /// The last item of the domain that begins after `sign`.
    fn reaches_on(&self, sign: usize) -> usize {
        let mut last = sign;
        while let Some(next) = self.items.get(last + 1).filter(|i| matches!(i.kind, Kind::Text(_))) {
            let before = self.items.get(last);
            let joined = last == sign
                || !next.gap
                || next.starts_with_dot()
                || before.is_some_and(Item::ends_with_dot);
            if !joined {
                break;
            }
            last += 1;
        }
        last
    }

    /// The name after the address in brackets of its own, as in `a@x (Ann)`; not a remark within the address.
    fn comment_text(&self, fallback: Fallback) -> Option<String> {
        let (text, at) = self.comment?;
        let beside = at == 0 || at == self.items.len();
        let text = words::decode(&unescaped(text), fallback);
        Some(text.trim().to_owned()).filter(|t| beside && !t.is_empty())
    }

    /// The whole entry within quotes or one encoded word, or the address where its name should be.
    fn decoded_again(&self, found: &[(Option<String>, String)], fallback: Fallback) -> Vec<Address> {
        let candidates = found.iter().filter_map(|(name, _)| name.clone()).chain(self.comment_text(fallback));
        for text in candidates.filter(|t| t.contains('@')) {
            let text = text.replace('"', " ");
            let again = read_nested(text.as_bytes(), fallback, false);
            if again.iter().any(|a| a.has_address()) {
                return again.into_iter().filter(Address::has_address).collect();
            }
        }
        Vec::new()
    }
}

impl Item<'_> {
    fn starts_with_dot(&self) -> bool {
        matches!(self.kind, Kind::Text(t) if t.starts_with(b"."))
    }

    fn ends_with_dot(&self) -> bool {
        matches!(self.kind, Kind::Text(t) if t.ends_with(b"."))
    }

    fn push_address(&self, out: &mut Vec<u8>) {
        match self.kind {
            Kind::Text(text) => out.extend_from_slice(text),
            Kind::At => out.push(b'@'),
            Kind::Quoted(text) => {
                out.push(b'"');
                out.extend_from_slice(text);
                out.push(b'"');
            }
        }
    }
}

/// The words of a name, quotes off, each gap a blank.
fn phrase(items: &[Item<'_>], fallback: Fallback) -> Option<String> {
    let mut raw = Vec::new();
    for (n, item) in items.iter().enumerate() {
        if item.gap && n > 0 {
            raw.push(b' ');
        }
        match item.kind {
            Kind::Text(text) => raw.extend_from_slice(text),
            Kind::Quoted(text) => raw.extend(unescaped(text)),
            Kind::At => raw.push(b'@'),
        }
    }
    let text = words::decode(&raw, fallback);
    let text = text.trim();
    // Quotes within an encoded word are the quotes around the name.
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).filter(|t| !t.contains('"'));
    Some(inner.unwrap_or(text).trim().to_owned()).filter(|t| !t.is_empty())
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut escaped = false;
    let keep = |b: &u8| {
        escaped = *b == b'\\' && !escaped;
        !escaped
    };
    text.iter().copied().filter(keep).collect()
}

/// An address without blanks, comments, route (RFC 5322 §4.4) and needless quotes.
fn addr_spec(raw: &[u8], fallback: Fallback) -> String {
    let decoded = words::decode(raw, fallback);
    let text = decoded.trim().trim_matches(['<', '>']).trim();
    let text = match text.strip_prefix('@').and_then(|route| route.split_once(':')) {
        Some((_, address)) => address.trim(),
        None => text,
    };
    let text = match text.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("mailto:") => rest,
        _ => text,
    };
    let mut out = String::with_capacity(text.len());
    let (mut quoted, mut escaped, mut depth) = (false, false, 0usize);
    for c in text.chars() {
        let was = std::mem::take(&mut escaped);
        match c {
            '"' if !was && depth == 0 => {
                quoted = !quoted;
                out.push(c);
            }
            '\\' if quoted && !was => {
                escaped = true;
                out.push(c);
            }
            c if quoted => out.push(c),
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            c if depth > 0 || c.is_whitespace() => {}
            c => out.push(c),
        }
    }
    let out = out.trim_end_matches('.');
    without_quotes(out).unwrap_or_else(|| out.to_owned())
}

/// `"john"@x` is `john@x`; quotes that hold a blank or the like stay (RFC 5322 §3.4.1).
fn without_quotes(address: &str) -> Option<String> {
    let (local, domain) = address.rsplit_once('@')?;
    let inner = local.strip_prefix('"')?.strip_suffix('"')?;
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"()<>[]:;@\\,\"".contains(c);
    let dots = inner.starts_with('.') || inner.ends_with('.') || inner.contains("..");
    (!inner.is_empty() && !dots && inner.chars().all(plain)).then(|| format!("{inner}@{domain}"))
}

#[cfg(test)]
mod tests;
