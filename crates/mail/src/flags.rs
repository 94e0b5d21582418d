//! System flags and keywords of a placement (RFC 9051 §2.3.2).
//!
//! [`Flags`] is the bit set we store (the bit values are part of the database schema: never renumber);
//! [`Keywords`] the sorted list of everything else. `\Recent` belongs to a session, not to a message, and is
//! dropped, as are unknown backslash flags, which a client may not set anyway.

use serde::{Deserialize, Serialize};

/// Longest keyword taken from a server. Dovecot cuts at 50; nobody needs more than this.
const MAX_KEYWORD_BYTES: usize = 255;
/// More keywords than this on one message are dropped: no client shows them and rows must stay small.
const MAX_KEYWORDS: usize = 200;

/// The five lasting system flags as bits of an `i16`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Flags(i16);

const NAMES: [(Flags, &str); 5] = [
    (Flags::SEEN, "\\Seen"),
    (Flags::ANSWERED, "\\Answered"),
    (Flags::FLAGGED, "\\Flagged"),
    (Flags::DELETED, "\\Deleted"),
    (Flags::DRAFT, "\\Draft"),
];

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// `\Seen`: has been read.
    pub const SEEN: Self = Self(1);
    /// `\Answered`: has been replied to.
    pub const ANSWERED: Self = Self(2);
    /// `\Flagged`: starred.
    pub const FLAGGED: Self = Self(4);
    /// `\Deleted`: goes at the next expunge.
    pub const DELETED: Self = Self(8);
    /// `\Draft`: not finished.
    pub const DRAFT: Self = Self(16);
    /// All five.
    pub const ALL: Self = Self(31);

    /// From the stored number; bits that mean nothing are dropped.
    #[must_use]
    pub const fn from_bits(bits: i16) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// The number to store.
    #[must_use]
    pub const fn bits(self) -> i16 {
        self.0
    }

    /// One flag by its name (`\Seen`, in any case); `None` for keywords, `\Recent` and unknown ones.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)).map(|(f, _)| *f)
    }

    /// The names of the flags that are set, in a fixed order.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        NAMES.iter().filter(|(f, _)| self.contains(*f)).map(|(_, n)| *n).collect()
    }

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether none is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Flags of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Flags of both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Flags of this one without those of `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

/// Sorts what a server listed into system flags and keywords.
pub fn parse_flag_list<'a>(names: impl IntoIterator<Item = &'a str>) -> (Flags, Keywords) {
    let (mut flags, mut keywords) = (Flags::NONE, Vec::new());
    for name in names {
        if let Some(flag) = Flags::from_name(name) {
            flags = flags | flag;
        } else if !name.starts_with('\\') {
            keywords.push(name);
        }
    }
    (flags, Keywords::from_wire(keywords))
}

/// Whether a client may set this keyword: an IMAP atom (RFC 9051 `flag-keyword`) of at most 255 bytes.
#[must_use]
pub fn is_valid_keyword(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_KEYWORD_BYTES
        && name.bytes().all(|b| b.is_ascii_graphic() && !b"(){%*\"\\]".contains(&b))
}

/// The name is not an IMAP atom, or the message has too many keywords already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a keyword this server could store")]
pub struct InvalidKeyword;

/// Keywords of a message: sorted without regard to case, each once, spelt as first seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct Keywords(Vec<String>);

impl Keywords {
    /// No keyword.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// What a server sent: 8-bit names exist and are kept; empty, over-long and control-bearing ones are
    /// dropped, and so is everything after the first 200.
    pub fn from_wire<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        let mut out = Self::new();
        for name in names {
            let name = name.as_ref();
            let usable = !name.is_empty()
                && name.len() <= MAX_KEYWORD_BYTES
                && !name.chars().any(|c| c.is_control() || c == ' ' || c == '(' || c == ')');
            if usable {
                out.put(name);
            }
        }
        out
    }

    fn put(&mut self, name: &str) -> bool {
        match self.find(name) {
            Err(at) if self.0.len() < MAX_KEYWORDS => {
                self.0.insert(at, name.to_owned());
                true
            }
            _ => false,
        }
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        let key = name.to_lowercase();
        self.0.binary_search_by(|k| k.to_lowercase().as_str().cmp(key.as_str()))
    }

    /// Adds a keyword a user asked for; says whether it was new.
    ///
    /// # Errors
    /// [`InvalidKeyword`] when it is not an atom or the message is full.
    pub fn insert(&mut self, name: &str) -> Result<bool, InvalidKeyword> {
        if !is_valid_keyword(name) {
            return Err(InvalidKeyword);
        }
        if self.contains(name) {
            return Ok(false);
        }
        if self.put(name) { Ok(true) } else { Err(InvalidKeyword) }
    }

    /// Takes a keyword away, in any case; says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.find(name).map(|at| self.0.remove(at)).is_ok()
    }

    /// Whether it is set, in any case.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// Keywords, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The list, sorted.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Number of keywords.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keywords of either; spelling of this one where both have it.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        for name in other.iter() {
            out.put(name);
        }
        out
    }

    /// Keywords of this one that `other` has not.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(self.0.iter().filter(|k| !other.contains(k)).cloned().collect())
    }

    /// Equal up to case: what a server that folds spelling would call unchanged.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|k| other.contains(k))
    }
}

impl From<Vec<String>> for Keywords {
    fn from(names: Vec<String>) -> Self {
        Self::from_wire(names)
    }
}

impl From<Keywords> for Vec<String> {
    fn from(keywords: Keywords) -> Self {
        keywords.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Flags, InvalidKeyword, Keywords, is_valid_keyword, parse_flag_list};

    #[test]
    fn flags_keep_their_stored_bits() {
        assert_eq!((Flags::SEEN | Flags::DRAFT).bits(), 17);
        assert_eq!(Flags::from_bits(-1), Flags::ALL);
        assert_eq!(Flags::from_bits(5).names(), ["\\Seen", "\\Flagged"]);
    }

    #[test]
    fn a_server_list_is_sorted_into_flags_and_keywords() {
        let (flags, keywords) =
            parse_flag_list(["\\SEEN", "$Forwarded", "\\Recent", "\\X", "work", "Work", "a b"]);
        assert_eq!(flags, Flags::SEEN);
        assert_eq!(keywords.as_slice(), ["$Forwarded", "work"]);
    }

    #[test]
    fn keywords_ignore_case_and_keep_the_first_spelling() {
        let mut k = Keywords::new();
        assert_eq!(k.insert("Work"), Ok(true));
        assert_eq!(k.insert("work"), Ok(false));
        assert_eq!(k.as_slice(), ["Work"]);
        assert!(k.same(&Keywords::from_wire(["WORK"])));
        assert!(k.remove("wORK"));
        assert!(k.is_empty());
    }

    #[test]
    fn what_is_not_an_atom_cannot_be_set() {
        for bad in ["", "a b", "a(b", "\\Seen", "a\r\nb", "ä", "a]", "a*", &"x".repeat(256)] {
            assert!(!is_valid_keyword(bad), "{bad:?}");
            assert_eq!(Keywords::new().insert(bad), Err(InvalidKeyword));
        }
        assert!(is_valid_keyword("$MDNSent"));
    }

    #[test]
    fn a_flood_of_keywords_is_cut() {
        assert_eq!(Keywords::from_wire((0..10_000).map(|i| format!("k{i}"))).len(), 200);
    }
}
