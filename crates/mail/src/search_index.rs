//! Words of a message as the full-text index stores them.
//!
//! Here: how text is folded, where a word begins and ends, and the `tsvector` literal of a message. The
//! search syntax ([`crate::query`]) cuts its words with the same functions, so that what was indexed is what
//! is asked for. Not here: SQL, ranking, or the choice of which text of a message is indexed.
//!
//! To make another header searchable: a field in [`Document`], a [`Prefix`], a line in [`tsvector_text`] and a
//! `Field` in [`crate::query`]. Changing [`fold`] or the word boundaries makes rows indexed before unfindable,
//! so it needs a reindex of every message.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Longest word in bytes after folding; the rest of a longer run is ignored, in queries too.
/// PostgreSQL would take 2,046, but words of that length are base64 or tokens nobody types.
pub const TOKEN_MAX_BYTES: usize = 100;
/// Highest position a `tsvector` can hold; PostgreSQL would move later ones onto this one.
pub const POSITION_MAX: u16 = 16_383;
/// Positions the header fields may use together; what follows belongs to the body.
const HEADER_POSITION_MAX: u16 = 6_000;
/// PostgreSQL keeps no more positions of one lexeme than this and drops the others silently.
const POSITIONS_PER_LEXEME: usize = 255;
/// Distinct lexemes of one message.
pub const LEXEMES_MAX: usize = 60_000;
/// PostgreSQL refuses a `tsvector` of 1 MiB; the literal is always longer than what it becomes.
pub const TSVECTOR_MAX_BYTES: usize = 900_000;

/// What of a message is searched. Each entry of a list is kept apart from the next, so a phrase never spans
/// two of them: give a display name and its address as two entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document<'a> {
    /// Decoded `Subject`.
    pub subject: &'a str,
    /// Names and addresses of `From`.
    pub from: Vec<&'a str>,
    /// Names and addresses of `To`.
    pub to: Vec<&'a str>,
    /// Names and addresses of `Cc`.
    pub cc: Vec<&'a str>,
    /// Names and addresses of `Bcc`.
    pub bcc: Vec<&'a str>,
    /// `List-Id`, found by `list:` only.
    pub list_id: &'a str,
    /// Decoded file names of the attachments.
    pub filenames: Vec<&'a str>,
    /// The readable text: the text part, or that of the HTML.
    pub body: &'a str,
}

/// Marks a lexeme as standing in one field. `/` is no word character, so a prefixed lexeme never equals a
/// plain one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prefix {
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
    /// `list:`
    List,
    /// `filename:`
    Filename,
}

impl Prefix {
    /// The two characters in front of the lexeme.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::From => "f/",
            Self::To => "t/",
            Self::Cc => "c/",
            Self::Bcc => "b/",
            Self::Subject => "s/",
            Self::List => "l/",
            Self::Filename => "n/",
        }
    }
}

/// Folds text for comparison: compatibility decomposition, marks dropped, lower case, `ß` as `ss`, and the
/// letters with a stroke or a ligature that Unicode does not decompose (`ø`, `ł`, `æ` …) as their plain form.
#[must_use]
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        fold_char(c, &mut |f| folded.push(f));
    }
    folded
}

fn fold_char(c: char, out: &mut impl FnMut(char)) {
    if c.is_ascii() {
        return out(c.to_ascii_lowercase());
    }
    for decomposed in std::iter::once(c).nfkd() {
        for lower in decomposed.to_lowercase().nfkd() {
            if is_combining_mark(lower) || is_invisible(lower) {
                continue;
            }
            match plain_form(lower) {
                Some(plain) => plain.chars().for_each(&mut *out),
                None => out(lower),
            }
        }
    }
}

/// Characters that newsletters and editors put inside words and nobody sees.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200c}' | '\u{200d}' | '\u{2060}' | '\u{feff}')
}

const fn plain_form(c: char) -> Option<&'static str> {
    Some(match c {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'ø' => "o",
        'ł' => "l",
        'đ' | 'ð' => "d",
        'ħ' => "h",
        'ŧ' => "t",
        'þ' => "th",
        'ı' => "i",
        'ς' => "σ",
        _ => return None,
    })
}

/// Scripts written without spaces: each character is a word, and a query of several is a phrase.
const fn stands_alone(c: char) -> bool {
    matches!(c as u32,
        0x0e00..=0x0eff     // Thai, Lao
        | 0x1000..=0x109f   // Myanmar
        | 0x1780..=0x17ff   // Khmer
        | 0x3005..=0x3007 | 0x3041..=0x30ff | 0x31f0..=0x31ff
        | 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x323af)
}

/// Calls `visit` with every word of `text`, folded and cut, and the bytes of `text` it came from, until it
/// breaks.
pub fn for_each_token(text: &str, visit: &mut impl FnMut(&str, Range<usize>) -> ControlFlow<()>) {
    let mut word = String::new();
    let mut span = 0..0;
    let mut folded: Vec<char> = Vec::with_capacity(4);
    for (at, c) in text.char_indices() {
        folded.clear();
        fold_char(c, &mut |f| folded.push(f));
        let end = at + c.len_utf8();
        for &f in &folded {
            let alone = stands_alone(f);
            if f.is_alphanumeric() && !alone {
                if word.is_empty() {
                    span.start = at;
                }
                span.end = end;
                if word.len() + f.len_utf8() <= TOKEN_MAX_BYTES {
                    word.push(f);
                }
                continue;
            }
            if !word.is_empty() {
                if visit(&word, span.clone()).is_break() {
                    return;
                }
                word.clear();
            }
            if alone && f.is_alphanumeric() && visit(f.encode_utf8(&mut [0; 4]), at..end).is_break() {
                return;
            }
        }
    }
    if !word.is_empty() {
        let _last = visit(&word, span);
    }
}

/// The words of `text`, in order.
#[must_use]
pub fn tokens(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for_each_token(text, &mut |word, _| {
        all.push(word.to_owned());
        ControlFlow::Continue(())
    });
    all
}

/// A lexeme as it is written inside a `tsvector` or `tsquery` literal.
#[must_use]
pub fn quote_lexeme(lexeme: &str) -> String {
    let mut quoted = String::with_capacity(lexeme.len() + 2);
    push_quoted(&mut quoted, lexeme);
    quoted
}

fn push_quoted(out: &mut String, lexeme: &str) {
    out.push('\'');
    for c in lexeme.chars() {
        if matches!(c, '\'' | '\\') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
}

/// The literal of the `tsvector` of a message, to be cast with `::tsvector`.
///
/// Subject has weight A, names and addresses B, file names C, the body D; field searches find the same words
/// again under their [`Prefix`]. At most `max_bytes` (and [`TSVECTOR_MAX_BYTES`]) long and [`LEXEMES_MAX`]
/// lexemes; fields come before the body, so what is cut is the end of a very long body. Words behind the last
/// position are stored without one: a single word finds them, a phrase does not.
#[must_use]
pub fn tsvector_text(document: &Document<'_>, max_bytes: usize) -> String {
    let mut index = Lexemes::new(max_bytes.min(TSVECTOR_MAX_BYTES));
    let people = [
        (&document.from, Prefix::From),
        (&document.to, Prefix::To),
        (&document.cc, Prefix::Cc),
        (&document.bcc, Prefix::Bcc),
    ];
    index.add(document.subject, &Field { prefix: Some(Prefix::Subject), plain: true, weight: Some('A') });
    for (entries, prefix) in people {
        for entry in entries {
            index.add(entry, &Field { prefix: Some(prefix), plain: true, weight: Some('B') });
        }
    }
    index.add(document.list_id, &Field { prefix: Some(Prefix::List), plain: false, weight: Some('B') });
    for name in &document.filenames {
        index.add(name, &Field { prefix: Some(Prefix::Filename), plain: true, weight: Some('C') });
    }
    index.add(document.body, &Field { prefix: None, plain: true, weight: None });
    index.into_literal()
}

struct Field {
    prefix: Option<Prefix>,
    plain: bool,
    /// `None` is D, which PostgreSQL writes without a letter.
    weight: Option<char>,
}

impl Field {
    const fn last_position(&self) -> u16 {
        if self.prefix.is_some() { HEADER_POSITION_MAX } else { POSITION_MAX }
    }
}

/// Lexemes in the order of their first occurrence, with their positions already written out.
struct Lexemes {
    known: HashMap<String, usize>,
    entries: Vec<(String, String, usize)>,
    position: u16,
    bytes: usize,
    max_bytes: usize,
}

impl Lexemes {
    fn new(max_bytes: usize) -> Self {
        Self { known: HashMap::new(), entries: Vec::new(), position: 0, bytes: 0, max_bytes }
    }

    fn add(&mut self, text: &str, field: &Field) {
        // One position stays empty between two entries: a phrase cannot cross it.
        self.position = self.position.saturating_add(1);
        let mut prefixed = String::new();
        for_each_token(text, &mut |word, _| {
            self.position = self.position.saturating_add(1);
            let position = (self.position <= field.last_position()).then_some((self.position, field.weight));
            if position.is_none() {
                self.position = field.last_position();
            }
            let mut room = true;
            if field.plain {
                room &= self.put(word, position);
            }
            if let Some(prefix) = field.prefix {
                prefixed.clear();
                prefixed.push_str(prefix.as_str());
                prefixed.push_str(word);
                room &= self.put(&prefixed, position);
            }
            if room { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    }

    /// `false` when the literal is full; a word that is known already may still be refused its position.
    fn put(&mut self, lexeme: &str, position: Option<(u16, Option<char>)>) -> bool {
        let index = match self.known.get(lexeme) {
            Some(index) => *index,
            None => {
                let cost = lexeme.len() + 3;
                if self.entries.len() >= LEXEMES_MAX || self.bytes + cost > self.max_bytes {
                    return false;
                }
                self.bytes += cost;
                self.known.insert(lexeme.to_owned(), self.entries.len());
                self.entries.push((lexeme.to_owned(), String::new(), 0));
                self.entries.len() - 1
            }
        };
        let (Some((position, weight)), Some((_, written, count))) = (position, self.entries.get_mut(index))
        else {
            return true;
        };
        if *count >= POSITIONS_PER_LEXEME {
            return true;
        }
        let mut text = position.to_string();
        text.extend(weight);
        if self.bytes + text.len() + 1 > self.max_bytes {
            return false;
        }
        self.bytes += text.len() + 1;
        *count += 1;
        written.push(if *count == 1 { ':' } else { ',' });
        written.push_str(&text);
        true
    }

    fn into_literal(self) -> String {
        let mut literal = String::with_capacity(self.bytes);
        for (lexeme, positions, _) in &self.entries {
            if !literal.is_empty() {
                literal.push(' ');
            }
            push_quoted(&mut literal, lexeme);
            literal.push_str(positions);
        }
        literal
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn case_accents_and_compatibility_forms_are_folded_away() {
        for (text, folded) in [
            ("Crème BRÛLÉE", "creme brulee"),
            ("Straße", "strasse"),
            ("STRAẞE", "strasse"),
            ("Ångström", "angstrom"),
            ("İstanbul", "istanbul"),
            ("ﬁne ＡＢＣ", "fine abc"),
            ("Łódź Øre", "lodz ore"),
            ("ΣΊΣΥΦΟΣ σίσυφος", "σισυφοσ σισυφοσ"),
            ("co\u{ad}operate", "cooperate"),
        ] {
            assert_eq!(fold(text), folded, "{text}");
        }
    }

    #[test]
    fn words_are_runs_of_letters_and_digits() {
        assert_eq!(
            tokens("Bob's e-mail: bob@mail.example.com, 42€"),
            ["bob", "s", "e", "mail", "bob", "mail", "example", "com", "42"]
        );
        assert!(tokens(" … — ’ 👍").is_empty());
    }

    #[test]
    fn scripts_without_spaces_give_one_word_per_character() {
        assert_eq!(tokens("東京tower です"), ["東", "京", "tower", "て", "す"]);
    }

    #[test]
    fn a_long_run_is_cut_on_a_character_boundary() {
        let all = tokens(&"жé".repeat(200));
        assert_eq!(all.len(), 1);
        assert!(all[0].len() <= TOKEN_MAX_BYTES && all[0].len() > TOKEN_MAX_BYTES - 4);
    }

    #[test]
    fn spans_point_into_the_original_text() {
        let text = "«Ça» va";
        let mut seen = Vec::new();
        for_each_token(text, &mut |word, span| {
            seen.push((word.to_owned(), text.get(span).unwrap_or_default().to_owned()));
            ControlFlow::Continue(())
        });
        assert_eq!(seen, [("ca".to_owned(), "Ça".to_owned()), ("va".to_owned(), "va".to_owned())]);
    }

    #[test]
    fn fields_have_weights_prefixes_and_a_gap() {
        let document = Document {
            subject: "Hello",
            from: vec!["Bob", "bob@x.org"],
            filenames: vec!["a.pdf"],
            body: "hello there",
            ..Document::default()
        };
        assert_eq!(
            tsvector_text(&document, TSVECTOR_MAX_BYTES),
            "'hello':2A,14 's/hello':2A 'bob':4B,6B 'f/bob':4B,6B 'x':7B 'f/x':7B 'org':8B 'f/org':8B \
             'a':11C 'n/a':11C 'pdf':12C 'n/pdf':12C 'there':15"
        );
    }

    #[test]
    fn a_list_id_is_found_by_its_field_only() {
        let literal = tsvector_text(&Document { list_id: "users", ..Document::default() }, 1000);
        assert!(literal.contains("'l/users'") && !literal.contains("'users'"), "{literal}");
    }

    #[test]
    fn a_lexeme_is_quoted() {
        assert_eq!(quote_lexeme(r"it's \o"), r"'it''s \\o'");
    }

    #[test]
    fn words_beyond_the_last_position_are_kept_without_one() {
        let body: String = (0..20_000).map(|n| format!("w{n} ")).collect();
        let literal = tsvector_text(&Document { body: &body, ..Document::default() }, TSVECTOR_MAX_BYTES);
        assert!(literal.contains("'w19999' ") || literal.ends_with("'w19999'"));
        assert!(!literal.contains(":16384"));
        assert!(literal.contains(":16383"));
    }

    #[test]
    fn a_message_to_thousands_still_has_its_body_in_phrases() {
        let names: Vec<String> = (0..9_000).map(|n| format!("user{n}")).collect();
        let to = names.iter().map(String::as_str).collect();
        let literal = tsvector_text(&Document { to, body: "last words", ..Document::default() }, 900_000);
        assert!(literal.contains("'last':60") && literal.contains("'words':60"), "{literal}");
        assert!(literal.contains("'t/user8999' "));
    }

    #[test]
    fn size_and_number_of_lexemes_are_bounded() {
        let body: String = (0..300_000).map(|n| format!("{n:x} ")).collect();
        let document = Document { body: &body, ..Document::default() };
        let literal = tsvector_text(&document, usize::MAX);
        assert!(literal.len() <= TSVECTOR_MAX_BYTES);
        assert!(literal.split(' ').count() <= LEXEMES_MAX);
        assert!(tsvector_text(&document, 5_000).len() <= 5_000);
        let same = "word ".repeat(20_000);
        let literal = tsvector_text(&Document { body: &same, ..Document::default() }, 900_000);
        assert_eq!(literal.matches(',').count() + 1, POSITIONS_PER_LEXEME);
    }

    #[test]
    fn folding_is_stable_for_every_character() {
        for c in (char::MIN..=char::MAX).filter(|c| c.is_alphanumeric()) {
            let once = fold(c.encode_utf8(&mut [0; 4]));
            assert_eq!(fold(&once), once, "U+{:04X}", c as u32);
        }
    }

    proptest! {
        #[test]
        fn folding_twice_changes_nothing(text in any::<String>()) {
            let once = fold(&text);
            prop_assert_eq!(fold(&once), once);
        }

        #[test]
        fn words_of_folded_text_are_the_words_of_the_text(text in any::<String>()) {
            prop_assert_eq!(tokens(&fold(&text)), tokens(&text));
        }

        #[test]
        fn any_text_gives_a_bounded_literal(subject in any::<String>(), body in any::<String>(), max in 0usize..300) {
            let document = Document { subject: &subject, body: &body, ..Document::default() };
            prop_assert!(tsvector_text(&document, max).len() <= max);
        }
    }
}
