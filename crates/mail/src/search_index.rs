//! Words of a message as the full-text index stores them.
//!
//! Here: how text is folded, where a word begins and ends, and the [`TsVector`] of a message. The
//! search syntax ([`crate::query`]) cuts its words with the same functions, so that what was indexed is what
//! is asked for. Not here: SQL, ranking, or the choice of which text of a message is indexed.
//!
//! To make another header searchable: a field in [`Document`], a [`Prefix`], a line in [`TsVector::of`] and a
//! `Field` in [`crate::query`]. Changing [`fold`] or the word boundaries makes rows indexed before unfindable,
//! so it needs a reindex of every message.

mod pictures;
mod tsvector;

use std::ops::{ControlFlow, Range};

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{compose, is_combining_mark};

pub use self::pictures::{is_picture, pictures};
pub use self::tsvector::{LEXEMES_MAX, POSITION_MAX, TSVECTOR_MAX_BYTES, TsVector};

/// Longest word in bytes after folding; the rest of a longer run is ignored, in queries too.
/// PostgreSQL would take 2,046, but words of that length are base64 or tokens nobody types.
pub const TOKEN_MAX_BYTES: usize = 100;
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
/// letters with a stroke or a ligature that Unicode does not decompose (`ø`, `ł`, `æ` …) as their plain form. Korean
/// syllables stay whole, and are put together where they come as single letters.
#[must_use]
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        fold_char(c, &mut |f| push_composed(&mut folded, f));
    }
    folded
}

/// The folded word with its umlauts spelled out, if `text`, which it came from, has any: `groesse` of `Größe`. Half of those
/// who write German cannot or do not type them.
#[must_use]
pub fn spelled_out(text: &str) -> Option<String> {
    const UMLAUTS: [(char, &str); 6] =
        [('ä', "ae"), ('ö', "oe"), ('ü', "ue"), ('Ä', "ae"), ('Ö', "oe"), ('Ü', "ue")];
    if text.is_ascii() {
        return None;
    }
    let composed: String = text.nfc().collect();
    let has = composed.contains(|c| UMLAUTS.iter().any(|(u, _)| *u == c));
    let spelled = |all: String, (umlaut, letters): (char, &str)| all.replace(umlaut, letters);
    let mut word = has.then(|| fold(&UMLAUTS.into_iter().fold(composed, spelled)))?;
    word.truncate(word.floor_char_boundary(TOKEN_MAX_BYTES));
    Some(word)
}

/// Adds a character; a letter of a Korean syllable joins the one before it (Unicode §3.12).
fn push_composed(out: &mut String, c: char) {
    if is_korean_letter(c)
        && let Some(whole) = out.chars().next_back().and_then(|last| compose(last, c))
    {
        out.pop();
        out.push(whole);
    } else {
        out.push(c);
    }
}

const fn is_korean_letter(c: char) -> bool {
    matches!(c as u32, 0x1100..=0x11ff)
}

const fn is_korean_syllable(c: char) -> bool {
    matches!(c as u32, 0xac00..=0xd7a3)
}

fn fold_char(c: char, out: &mut impl FnMut(char)) {
    if c.is_ascii() {
        return out(c.to_ascii_lowercase());
    }
    if is_korean_syllable(c) {
        return out(c);
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

/// Scripts written without spaces, and Korean, whose words carry their particles behind them: each character is a word, and a
/// query of several is a phrase. So `회의` finds `회의록을`.
const fn stands_alone(c: char) -> bool {
    matches!(c as u32,
        0xac00..=0xd7a3 |   // Korean syllables
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
    // A syllable that may still grow.
    let mut open: Option<(char, Range<usize>)> = None;
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        if c.is_ascii_alphanumeric() && open.is_none() {
            extend(&mut word, &mut span, c.to_ascii_lowercase(), at..end);
            continue;
        }
        folded.clear();
        fold_char(c, &mut |f| folded.push(f));
        for &f in &folded {
            if let Some((last, from)) = open.take() {
                match compose(last, f).filter(|_| is_korean_letter(f)) {
                    Some(whole) => {
                        open = Some((whole, from.start..end));
                        continue;
                    }
                    None if take(&mut word, &mut span, last, from, visit).is_break() => return,
                    None => {}
                }
            }
            if is_korean_letter(f) || is_korean_syllable(f) {
                open = Some((f, at..end));
            } else if take(&mut word, &mut span, f, at..end, visit).is_break() {
                return;
            }
        }
    }
    if let Some((last, from)) = open
        && take(&mut word, &mut span, last, from, visit).is_break()
    {
        return;
    }
    if !word.is_empty() {
        let _last = visit(&word, span);
    }
}

/// Takes one folded character: into the word that is open, as a word of its own, or as what parts words.
fn take(
    word: &mut String,
    span: &mut Range<usize>,
    f: char,
    at: Range<usize>,
    visit: &mut impl FnMut(&str, Range<usize>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let alone = stands_alone(f);
    if f.is_alphanumeric() && !alone {
        extend(word, span, f, at);
        return ControlFlow::Continue(());
    }
    if !word.is_empty() {
        visit(word, span.clone())?;
        word.clear();
    }
    if alone && f.is_alphanumeric() {
        visit(f.encode_utf8(&mut [0; 4]), at)
    } else {
        ControlFlow::Continue(())
    }
}

fn extend(word: &mut String, span: &mut Range<usize>, c: char, at: Range<usize>) {
    if word.is_empty() {
        span.start = at.start;
    }
    span.end = at.end;
    if word.len() + c.len_utf8() <= TOKEN_MAX_BYTES {
        word.push(c);
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
    fn korean_words_are_found_by_their_parts() {
        assert_eq!(tokens("회의록을 보냈"), ["회", "의", "록", "을", "보", "냈"]);
        let letters: String = "회의록".nfd().collect();
        assert_eq!(tokens(&letters), ["회", "의", "록"]);
        assert_eq!(fold(&letters), "회의록");
        assert_eq!(tokens("A팀 회의"), ["a", "팀", "회", "의"]);
    }

    #[test]
    fn umlauts_are_spelled_out_too() {
        for (text, word) in [("Größe", "groesse"), ("ÜBER", "ueber"), ("Mu\u{308}ller", "mueller")] {
            assert_eq!(spelled_out(text).as_deref(), Some(word));
        }
        assert_eq!((spelled_out("groesse"), spelled_out("crème"), spelled_out("Straße")), (None, None, None));
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
    fn a_lexeme_is_quoted() {
        assert_eq!(quote_lexeme(r"it's \o"), r"'it''s \\o'");
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
    }
}
