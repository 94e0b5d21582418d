//! The `tsvector` of a message: its words, where they stand and how much they weigh.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;

use super::{Document, Prefix, for_each_token, pictures, spelled_out};

/// Highest position a `tsvector` can hold; PostgreSQL would move later ones onto this one.
pub const POSITION_MAX: u16 = 16_383;
/// Positions the header fields may use together; what follows belongs to the body.
const HEADER_POSITION_MAX: u16 = 6_000;
/// PostgreSQL keeps no more positions of one lexeme than this; in the binary form it refuses more.
const POSITIONS_PER_LEXEME: usize = 255;
/// Distinct lexemes of one message.
pub const LEXEMES_MAX: usize = 60_000;
/// PostgreSQL refuses lexemes and positions of more than 1 MiB.
pub const TSVECTOR_MAX_BYTES: usize = 900_000;
/// What a lexeme costs beside its own bytes: alignment, and the number of its positions.
const LEXEME_COST: usize = 3;

/// How much a word counts: the two highest bits of a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    D = 0,
    C = 1,
    B = 2,
    A = 3,
}

/// A `tsvector` as `tsvectorrecv` of PostgreSQL reads it: the number of lexemes, then each with a NUL behind it, the number
/// of its positions and those; all numbers big-endian. Its text form has to be parsed, which took PostgreSQL 15 longer
/// than writing the rows.
///
/// Lexemes come in the order PostgreSQL keeps them in (of their bytes), which spares it the sorting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsVector(Vec<u8>);

impl TsVector {
    /// No words.
    #[must_use]
    pub fn empty() -> Self {
        Self(vec![0; 4])
    }

    /// The words of a message.
    ///
    /// Subject has weight A, names and addresses B, file names C, the body D; field searches find the same words
    /// again under their [`Prefix`]. Lexemes and positions take at most `max_bytes` (and [`TSVECTOR_MAX_BYTES`]) in
    /// PostgreSQL, and there are at most [`LEXEMES_MAX`]; fields come before the body, so what is cut is the end of a very
    /// long body. Words behind the last position are stored without one: a single word finds them, a phrase does not.
    #[must_use]
    pub fn of(document: &Document<'_>, max_bytes: usize) -> Self {
        let mut index = Lexemes::new(max_bytes.min(TSVECTOR_MAX_BYTES));
        let people = [
            (&document.from, Prefix::From),
            (&document.to, Prefix::To),
            (&document.cc, Prefix::Cc),
            (&document.bcc, Prefix::Bcc),
        ];
        index.add(document.subject, &Field { prefix: Some(Prefix::Subject), plain: true, weight: Weight::A });
        for (entries, prefix) in people {
            for entry in entries {
                index.add(entry, &Field { prefix: Some(prefix), plain: true, weight: Weight::B });
            }
        }
        index.add(document.list_id, &Field { prefix: Some(Prefix::List), plain: false, weight: Weight::B });
        for name in &document.filenames {
            index.add(name, &Field { prefix: Some(Prefix::Filename), plain: true, weight: Weight::C });
        }
        index.add(document.body, &Field { prefix: None, plain: true, weight: Weight::D });
        index.encode()
    }

    /// The value as PostgreSQL receives it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn lexemes(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = u16>)> {
        let mut rest = self.0.get(4..).unwrap_or_default();
        std::iter::from_fn(move || {
            let end = rest.iter().position(|b| *b == 0)?;
            let (lexeme, after) = (rest.get(..end)?, rest.get(end + 1..)?);
            let (count, after) = after.split_first_chunk::<2>()?;
            let (positions, after) = after.split_at_checked(2 * usize::from(u16::from_be_bytes(*count)))?;
            rest = after;
            let positions =
                positions.chunks_exact(2).filter_map(|p| Some(u16::from_be_bytes(p.try_into().ok()?)));
            Some((std::str::from_utf8(lexeme).ok()?, positions))
        })
    }
}

/// As PostgreSQL writes it, for reading: `'hello':2A,14 's/hello':2A`.
impl fmt::Display for TsVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (lexeme, positions)) in self.lexemes().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { " " }, super::quote_lexeme(lexeme))?;
            for (n, position) in positions.enumerate() {
                let weight = ["", "C", "B", "A"].get(usize::from(position >> 14)).unwrap_or(&"");
                write!(f, "{}{}{weight}", if n == 0 { ':' } else { ',' }, position & POSITION_MAX)?;
            }
        }
        Ok(())
    }
}

struct Field {
    prefix: Option<Prefix>,
    plain: bool,
    weight: Weight,
}

impl Field {
    const fn last_position(&self) -> u16 {
        if self.prefix.is_some() { HEADER_POSITION_MAX } else { POSITION_MAX }
    }
}

struct Lexemes {
    /// With their positions, which rise, and the weights in them.
    known: HashMap<Box<str>, Vec<u16>>,
    position: u16,
    bytes: usize,
    max_bytes: usize,
}

impl Lexemes {
    fn new(max_bytes: usize) -> Self {
        Self { known: HashMap::new(), position: 0, bytes: 0, max_bytes }
    }

    fn add(&mut self, text: &str, field: &Field) {
        // One position stays empty between two entries: a phrase cannot cross it.
        self.position = self.position.saturating_add(1);
        let mut prefixed = String::new();
        for_each_token(text, &mut |word, span| {
            self.position = self.position.saturating_add(1);
            let position = (self.position <= field.last_position())
                .then_some(self.position | (field.weight as u16) << 14);
            if position.is_none() {
                self.position = field.last_position();
            }
            let mut room = true;
            // The other spelling stands in the same place: a phrase may have either.
            let other = text.get(span).and_then(spelled_out);
            for word in std::iter::once(word).chain(other.as_deref()) {
                if field.plain {
                    room &= self.put(word, position);
                }
                if let Some(prefix) = field.prefix {
                    prefixed.clear();
                    prefixed.push_str(prefix.as_str());
                    prefixed.push_str(word);
                    room &= self.put(&prefixed, position);
                }
            }
            if room { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        self.add_pictures(text, field);
    }

    /// Without places, so that words left and right of one stay side by side.
    fn add_pictures(&mut self, text: &str, field: &Field) {
        for picture in pictures(text) {
            let prefixed = field.prefix.map(|prefix| format!("{}{picture}", prefix.as_str()));
            let plain = field.plain.then_some(picture);
            if !plain.into_iter().chain(prefixed).all(|word| self.put(&word, None)) {
                return;
            }
        }
    }

    /// `false` when there is no more room; a word that is known already may still be refused its position.
    fn put(&mut self, lexeme: &str, position: Option<u16>) -> bool {
        let room = self.max_bytes.saturating_sub(self.bytes);
        let cost = 2 * usize::from(position.is_some());
        if let Some(positions) = self.known.get_mut(lexeme) {
            let Some(position) = position.filter(|_| positions.len() < POSITIONS_PER_LEXEME) else {
                return true;
            };
            if cost > room {
                return false;
            }
            self.bytes += cost;
            positions.push(position);
            return true;
        }
        let cost = cost + lexeme.len() + LEXEME_COST;
        if self.known.len() >= LEXEMES_MAX || cost > room {
            return false;
        }
        self.bytes += cost;
        self.known.insert(lexeme.into(), position.into_iter().collect());
        true
    }

    fn encode(self) -> TsVector {
        let mut sorted: Vec<(Box<str>, Vec<u16>)> = self.known.into_iter().collect();
        sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut bytes = Vec::with_capacity(4 + self.bytes);
        bytes.extend(u32::try_from(sorted.len()).unwrap_or(u32::MAX).to_be_bytes());
        for (lexeme, positions) in &sorted {
            bytes.extend(lexeme.as_bytes());
            bytes.push(0);
            bytes.extend(u16::try_from(positions.len()).unwrap_or(u16::MAX).to_be_bytes());
            bytes.extend(positions.iter().flat_map(|p| p.to_be_bytes()));
        }
        TsVector(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(document: &Document<'_>, max_bytes: usize) -> String {
        TsVector::of(document, max_bytes).to_string()
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
            text(&document, TSVECTOR_MAX_BYTES),
            "'a':11C 'bob':4B,6B 'f/bob':4B,6B 'f/org':8B 'f/x':7B 'hello':2A,14 'n/a':11C 'n/pdf':12C 'org':8B \
             'pdf':12C 's/hello':2A 'there':15 'x':7B"
        );
    }

    #[test]
    fn the_binary_form_is_that_of_postgresql() {
        let document = Document { subject: "Hi", body: "hi", ..Document::default() };
        // SELECT tsvectorsend('hi:2A,5 s/hi:2A'::tsvector), PostgreSQL 15.
        assert_eq!(
            TsVector::of(&document, 100).as_bytes(),
            b"\0\0\0\x02hi\0\0\x02\xc0\x02\0\x05s/hi\0\0\x01\xc0\x02"
        );
        assert_eq!(TsVector::empty(), TsVector::of(&Document::default(), 100));
    }

    #[test]
    fn a_list_id_is_found_by_its_field_only() {
        let words = text(&Document { list_id: "users", ..Document::default() }, 1000);
        assert!(words.contains("'l/users'") && !words.contains("'users'"), "{words}");
    }

    #[test]
    fn words_beyond_the_last_position_are_kept_without_one() {
        let body: String = (0..20_000).map(|n| format!("w{n} ")).collect();
        let words = text(&Document { body: &body, ..Document::default() }, TSVECTOR_MAX_BYTES);
        assert!(words.contains("'w19999' ") || words.ends_with("'w19999'"));
        assert!(!words.contains(":16384"));
        assert!(words.contains(":16383"));
    }

    #[test]
    fn a_message_to_thousands_still_has_its_body_in_phrases() {
        let names: Vec<String> = (0..9_000).map(|n| format!("user{n}")).collect();
        let to = names.iter().map(String::as_str).collect();
        let words = text(&Document { to, body: "last words", ..Document::default() }, 900_000);
        assert!(words.contains("'last':60") && words.contains("'words':60"), "{words}");
        assert!(words.contains("'t/user8999' "));
    }

    #[test]
    fn size_and_number_of_lexemes_are_bounded() {
        let body: String = (0..300_000).map(|n| format!("{n:x} ")).collect();
        let document = Document { body: &body, ..Document::default() };
        let words = TsVector::of(&document, usize::MAX);
        assert!(words.as_bytes().len() <= TSVECTOR_MAX_BYTES);
        assert_eq!(words.lexemes().count(), LEXEMES_MAX);
        assert!((4_900..=5_004).contains(&TsVector::of(&document, 5_000).as_bytes().len()));
        let same = "word ".repeat(20_000);
        let words = TsVector::of(&Document { body: &same, ..Document::default() }, 900_000);
        assert_eq!(
            words.lexemes().map(|(_, positions)| positions.count()).sum::<usize>(),
            POSITIONS_PER_LEXEME
        );
    }

    proptest! {
        #[test]
        fn any_text_gives_sorted_lexemes_with_rising_positions(
            subject in any::<String>(), body in any::<String>(), max in 0usize..300,
        ) {
            let document = Document { subject: &subject, body: &body, ..Document::default() };
            let words = TsVector::of(&document, max);
            prop_assert!(words.as_bytes().len() <= max + 4);
            let lexemes: Vec<&str> = words.lexemes().map(|(lexeme, _)| lexeme).collect();
            prop_assert!(lexemes.is_sorted_by(|a, b| a < b) && !lexemes.contains(&""));
            for (_, positions) in words.lexemes() {
                let positions: Vec<u16> = positions.map(|p| p & POSITION_MAX).collect();
                prop_assert!(positions.is_sorted_by(|a, b| a < b));
            }
        }
    }
}
