//! The search syntax: from the text of a `query` parameter to a tree, and from the tree to what the database
//! and the reader of the answer need.
//!
//! Here: the tree ([`Query`], [`Term`]), its parser, its printed and JSON form, the full-text conditions and
//! the marked snippet. Not here: SQL, the resolving of mailbox names, accounts and threads to ids, and the
//! exclusion of Trash and Junk (the caller does it unless [`Query::mentions_in`]).
//!
//! # Grammar
//!
//! ```text
//! and    = or { or }                       words side by side must all match
//! or     = unary { "OR" unary }            binds tighter than side by side: a b OR c = a (b OR c)
//! unary  = [ "-" ] primary
//! primary= "(" and ")"  |  "{" or { or } "}"  |  operator ":" value  |  text
//! value  = "(" … ")"  |  "{" … "}"  |  '"' … '"'  |  word      in a group every word is a value
//! text   = '"' … '"'  |  word  |  word "*"
//! ```
//!
//! A word that holds punctuation (`bob@example.com`) is the phrase of its parts. A bare word without any letter
//! or digit (`&`) is ignored as long as something else is left. An unknown operator (`10:30`, `https://…`) is
//! text. An instant is kept in whole seconds.
//!
//! To add an operator: a variant of [`Term`] (or of [`Field`]), a line in `value.rs`, in [`Query::to_value`] and
//! in `Display`; the compiler names the other places.

use std::fmt::{self, Display};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::mailbox::Role;
use crate::search_index::Prefix;

mod highlight;
mod parse;
#[cfg(test)]
mod tests;
mod tsquery;
mod value;
mod zone;

pub use highlight::highlight;
pub use tsquery::{necessary_tsquery, to_tsquery_text};
pub use zone::Zone;

/// Longest query in characters.
pub const QUERY_MAX_CHARS: usize = 2_000;
/// Most terms of one query.
pub const TERMS_MAX: usize = 200;
/// Deepest nesting of groups; bounds the recursion of the parser and of everything that walks the tree.
pub const DEPTH_MAX: usize = 50;

/// Why a query was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (column {column})")]
pub struct QueryError {
    /// Where, in characters, counted from 1.
    pub column: usize,
    /// A sentence for the person who typed it.
    pub message: String,
}

/// A parsed query. `And` and `Or` have at least two parts and none of their own kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// All of them match.
    And(Vec<Query>),
    /// At least one of them matches.
    Or(Vec<Query>),
    /// It does not match.
    Not(Box<Query>),
    /// A single condition.
    Term(Term),
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// In subject, names and addresses, body or file names.
    Text(Words),
    /// In one field.
    Field(Field, Words),
    /// In a mailbox. Trash and Junk are searched only when a query has such a term.
    In(Place),
    /// By flags.
    Is(Status),
    /// Has an attachment that is not merely shown inside the HTML.
    HasAttachment,
    /// `received_at` is this instant or later.
    After(DateTime<Utc>),
    /// `received_at` is earlier than this instant.
    Before(DateTime<Utc>),
    /// More bytes than this.
    Larger(i64),
    /// Fewer bytes than this.
    Smaller(i64),
    /// The `Message-ID` header, without angle brackets.
    MessageId(String),
    /// A thread's id: 36 characters, hyphenated, lower case.
    Thread(String),
    /// An account's id or address, as typed.
    Account(String),
}

/// One or more folded words. Several stand next to each other in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// Never empty; cut by [`crate::search_index::tokens`].
    pub words: Vec<String>,
    /// The last word is the beginning of a word.
    pub prefix: bool,
    /// The same words with their umlauts spelled out (`groesse` for `grosse` of `Größe`); empty where there are none.
    pub spelled: Vec<String>,
}

impl Words {
    /// The ways in which the word at `index` may be written.
    pub(crate) fn ways(&self, index: usize) -> impl Iterator<Item = &str> {
        let (word, other) = (self.words.get(index), self.spelled.get(index));
        word.into_iter().chain(other.filter(|o| Some(*o) != word)).map(String::as_str)
    }
}

/// A field that is searched on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `from:`
    From,
    /// `to:`
    To,
    /// `cc:`
    Cc,
    /// `bcc:`
    Bcc,
    /// `subject:`
    Subject,
    /// `list:`, the `List-Id`
    List,
    /// `filename:`
    Filename,
}

impl Field {
    /// The operator.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::From => "from",
            Self::To => "to",
            Self::Cc => "cc",
            Self::Bcc => "bcc",
            Self::Subject => "subject",
            Self::List => "list",
            Self::Filename => "filename",
        }
    }

    /// How the index marks the words of this field.
    #[must_use]
    pub const fn prefix(self) -> Prefix {
        match self {
            Self::From => Prefix::From,
            Self::To => Prefix::To,
            Self::Cc => Prefix::Cc,
            Self::Bcc => Prefix::Bcc,
            Self::Subject => Prefix::Subject,
            Self::List => Prefix::List,
            Self::Filename => Prefix::Filename,
        }
    }
}

/// Where `in:` looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Everywhere, Trash and Junk too.
    Anywhere,
    /// The mailbox with this role; one that merely has the word as its name should match too.
    Role(Role),
    /// A mailbox by its name, path or id, as typed.
    Mailbox(String),
}

/// What `is:` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Without `\Seen` everywhere.
    Unread,
    /// With `\Seen`.
    Read,
    /// With `\Flagged`.
    Starred,
    /// With `\Answered`.
    Answered,
    /// With `\Draft`.
    Draft,
}

impl Status {
    /// The word clients type.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unread => "unread",
            Self::Read => "read",
            Self::Starred => "starred",
            Self::Answered => "answered",
            Self::Draft => "draft",
        }
    }
}

impl Query {
    /// Parses `text`. `now` is what `older_than:` and `newer_than:` count from, `tz` decides where a day of
    /// `after:` and `before:` begins.
    ///
    /// # Errors
    /// The first thing that is not the search syntax, with its column; also text over [`QUERY_MAX_CHARS`], over
    /// [`TERMS_MAX`] or deeper than [`DEPTH_MAX`].
    pub fn parse(text: &str, now: DateTime<Utc>, tz: impl Into<Zone>) -> Result<Self, QueryError> {
        parse::parse(text, now, tz.into())
    }

    /// Whether an `in:` stands anywhere in the query. Without one the caller leaves Trash and Junk out.
    #[must_use]
    pub fn mentions_in(&self) -> bool {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().any(Self::mentions_in),
            Self::Not(part) => part.mentions_in(),
            Self::Term(term) => matches!(term, Term::In(_)),
        }
    }

    /// The `parsed_query` of the answer. Every node is an object with a `type`:
    ///
    /// - `and`, `or`: `terms` (list of nodes); `not`: `term` (a node)
    /// - `text`, `from`, `to`, `cc`, `bcc`, `subject`, `list`, `filename`: `words` (folded, adjacent), `prefix`
    /// - `in`: one of `role`, `mailbox`, `anywhere: true`; `is`, `has`: `value`
    /// - `after` (inclusive), `before` (exclusive): `at`; `larger`, `smaller`: `bytes`
    /// - `rfc822msgid`, `thread`, `account`: `value`
    #[must_use]
    pub fn to_value(&self) -> Value {
        let list = |parts: &[Self]| parts.iter().map(Self::to_value).collect::<Vec<_>>();
        match self {
            Self::And(parts) => json!({ "type": "and", "terms": list(parts) }),
            Self::Or(parts) => json!({ "type": "or", "terms": list(parts) }),
            Self::Not(part) => json!({ "type": "not", "term": part.to_value() }),
            Self::Term(term) => term.to_value(),
        }
    }
}

impl Term {
    fn to_value(&self) -> Value {
        let words = |kind: &str, w: &Words| json!({ "type": kind, "words": w.words, "prefix": w.prefix });
        let value = |kind: &str, v: &str| json!({ "type": kind, "value": v });
        let instant = |kind: &str, at: &DateTime<Utc>| json!({ "type": kind, "at": at.to_rfc3339_opts(SecondsFormat::Secs, true) });
        match self {
            Self::Text(w) => words("text", w),
            Self::Field(field, w) => words(field.as_str(), w),
            Self::In(Place::Anywhere) => json!({ "type": "in", "anywhere": true }),
            Self::In(Place::Role(role)) => json!({ "type": "in", "role": role.as_str() }),
            Self::In(Place::Mailbox(name)) => json!({ "type": "in", "mailbox": name }),
            Self::Is(status) => value("is", status.as_str()),
            Self::HasAttachment => value("has", "attachment"),
            Self::After(at) => instant("after", at),
            Self::Before(at) => instant("before", at),
            Self::Larger(bytes) => json!({ "type": "larger", "bytes": bytes }),
            Self::Smaller(bytes) => json!({ "type": "smaller", "bytes": bytes }),
            Self::MessageId(id) => value("rfc822msgid", id),
            Self::Thread(id) => value("thread", id),
            Self::Account(account) => value("account", account),
        }
    }
}

/// The query in the syntax it was parsed from; parsing it again gives the same tree.
impl Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |f: &mut fmt::Formatter<'_>, parts: &[Self]| {
            parts.iter().enumerate().try_for_each(|(index, part)| {
                f.write_str(if index == 0 { "" } else { " " })?;
                match part {
                    Self::And(_) => write!(f, "({part})"),
                    _ => part.fmt(f),
                }
            })
        };
        match self {
            Self::And(parts) => join(f, parts),
            Self::Or(parts) => {
                f.write_str("{")?;
                join(f, parts)?;
                f.write_str("}")
            }
            Self::Not(part) => match &**part {
                Self::And(_) => write!(f, "-({part})"),
                _ => write!(f, "-{part}"),
            },
            Self::Term(term) => term.fmt(f),
        }
    }
}

impl Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(words) => words.fmt(f),
            Self::Field(field, words) => write!(f, "{}:{words}", field.as_str()),
            Self::In(Place::Anywhere) => f.write_str("in:anywhere"),
            Self::In(Place::Role(role)) => write!(f, "in:{}", role.as_str()),
            Self::In(Place::Mailbox(name)) => write!(f, "in:\"{name}\""),
            Self::Is(status) => write!(f, "is:{}", status.as_str()),
            Self::HasAttachment => f.write_str("has:attachment"),
            // Four digits would be a year.
            Self::After(at) => write!(f, "after:{:05}", at.timestamp()),
            Self::Before(at) => write!(f, "before:{:05}", at.timestamp()),
            Self::Larger(bytes) => write!(f, "larger:{bytes}"),
            Self::Smaller(bytes) => write!(f, "smaller:{bytes}"),
            Self::MessageId(id) => write!(f, "rfc822msgid:\"{id}\""),
            Self::Thread(id) => write!(f, "thread:{id}"),
            Self::Account(account) => write!(f, "account:\"{account}\""),
        }
    }
}

impl Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with_umlauts = |(n, word): (usize, &String)| match self.spelled.get(n) {
            Some(spelled) => umlauts(word, spelled).unwrap_or_else(|| word.clone()),
            None => word.clone(),
        };
        let words: Vec<String> = self.words.iter().enumerate().map(with_umlauts).collect();
        if self.prefix {
            // A quoted star would be punctuation; a joined word is the same phrase.
            write!(f, "{}*", words.join("."))
        } else {
            write!(f, "\"{}\"", words.join(" "))
        }
    }
}

/// A word with umlauts that is folded to `word` and spelled out as `spelled`: `größe` of `grosse` and `groesse`, but for the ß. What
/// is printed is read again, by whoever carries out a bulk action.
fn umlauts(word: &str, spelled: &str) -> Option<String> {
    let (word, spelled): (Vec<char>, Vec<char>) = (word.chars().collect(), spelled.chars().collect());
    let more = spelled.len().checked_sub(word.len())?;
    // Whether the rest after `at` letters, of which `extra` were umlauts, comes out even.
    let mut even = vec![vec![false; more + 2]; word.len() + 1];
    let letter =
        |at: usize, extra: usize| word.get(at).filter(|c| spelled.get(at + extra) == Some(c)).copied();
    let umlaut = |at: usize, extra: usize| {
        letter(at, extra).filter(|_| spelled.get(at + extra + 1) == Some(&'e')).and_then(|c| match c {
            'a' => Some('ä'),
            'o' => Some('ö'),
            'u' => Some('ü'),
            _ => None,
        })
    };
    for at in (0..=word.len()).rev() {
        for extra in (0..=more).rev() {
            let done = at == word.len() && extra == more;
            let plain = letter(at, extra).is_some()
                && even.get(at + 1).is_some_and(|row| row.get(extra) == Some(&true));
            let other = umlaut(at, extra).is_some()
                && even.get(at + 1).is_some_and(|row| row.get(extra + 1) == Some(&true));
            if let Some(cell) = even.get_mut(at).and_then(|row| row.get_mut(extra)) {
                *cell = done || plain || other;
            }
        }
    }
    let fits = |at: usize, extra: usize| even.get(at).is_some_and(|row| row.get(extra) == Some(&true));
    if !fits(0, 0) {
        return None;
    }
    let (mut text, mut extra) = (String::new(), 0);
    for at in 0..word.len() {
        match umlaut(at, extra).filter(|_| fits(at + 1, extra + 1)) {
            Some(c) => {
                text.push(c);
                extra += 1;
            }
            None => text.push(letter(at, extra)?),
        }
    }
    Some(text)
}
