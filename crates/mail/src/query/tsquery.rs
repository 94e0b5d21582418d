//! The full-text conditions of a query, as literals to be cast with `::tsquery`.

use super::{Query, Term, Words};
use crate::search_index::{is_picture, quote_lexeme};

/// The exact condition of a term on the text index: adjacent words by `<->`, a prefix by `:*`. Empty for a
/// term that is not about text.
#[must_use]
pub fn to_tsquery_text(term: &Term) -> String {
    match term {
        Term::Text(words) => condition("", words),
        Term::Field(field, words) => condition(field.prefix().as_str(), words),
        _ => String::new(),
    }
}

fn condition(prefix: &str, words: &Words) -> String {
    let last = words.words.len().saturating_sub(1);
    let lexeme = |index: usize| {
        let star = if words.prefix && index == last { ":*" } else { "" };
        let ways: Vec<String> =
            words.ways(index).map(|way| quote_lexeme(&format!("{prefix}{way}")) + star).collect();
        if ways.len() > 1 { format!("({})", ways.join(" | ")) } else { ways.concat() }
    };
    let lexemes: Vec<String> = (0..words.words.len()).map(lexeme).collect();
    // Pictures are in the index without their places.
    let pictures = words.words.iter().all(|word| is_picture(word));
    lexemes.join(if pictures { " & " } else { " <-> " })
}

/// A condition that every match of `query` fulfils, though not only they: what the index can be asked for
/// before the whole query is checked on the rows found. `None` when any message might match by its text.
#[must_use]
pub fn necessary_tsquery(query: &Query) -> Option<String> {
    match query {
        Query::Term(term) => Some(to_tsquery_text(term)).filter(|text| !text.is_empty()),
        Query::Not(_) => None,
        Query::And(parts) => {
            let known: Vec<String> = parts.iter().filter_map(necessary_tsquery).collect();
            (!known.is_empty()).then(|| join(&known, " & "))
        }
        Query::Or(parts) => {
            let all: Option<Vec<String>> = parts.iter().map(necessary_tsquery).collect();
            all.map(|all| join(&all, " | "))
        }
    }
}

fn join(parts: &[String], operator: &str) -> String {
    match parts {
        [one] => one.clone(),
        _ => parts.iter().map(|part| format!("({part})")).collect::<Vec<_>>().join(operator),
    }
}
