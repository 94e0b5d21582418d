//! The snippet of a hit: the stretch of text where most of the query's words stand, as HTML with `<mark>`.

use std::ops::{ControlFlow, Range};

use super::{Query, Term, Words};
use crate::search_index::{for_each_token, is_picture, spelled_out};

/// Words of the text that are looked at; a hit behind them is still a hit, its snippet is the beginning.
const WORDS_SCANNED: usize = 20_000;
/// Terms that are marked.
const TERMS_MARKED: usize = 32;
/// Matches among which the best window is chosen.
const MATCHES_WEIGHED: usize = 500;

/// At most `max_chars` characters of `text` (ellipses not counted) around the best match of the words that
/// `query` looks for in the text, as escaped HTML in which exactly the matching words are in `<mark>`. White
/// space is collapsed, control and direction characters are left out. Without a match, the beginning.
#[must_use]
pub fn highlight(text: &str, query: &Query, max_chars: usize) -> String {
    let mut wanted = Vec::new();
    collect(query, &mut wanted);
    wanted.truncate(TERMS_MARKED);
    let matches = matches(text, &wanted);
    let window = best_window(text, &matches, max_chars);
    render(text, &window, &matches)
}

/// A word of the text in both of its spellings.
struct Token {
    word: String,
    spelled: Option<String>,
    span: Range<usize>,
}

/// A run of words that one term matched, in bytes of the text.
struct Match {
    span: Range<usize>,
    term: usize,
}

fn collect<'q>(query: &'q Query, wanted: &mut Vec<&'q Words>) {
    match query {
        Query::And(parts) | Query::Or(parts) => parts.iter().for_each(|part| collect(part, wanted)),
        Query::Term(Term::Text(words)) => wanted.push(words),
        Query::Not(_) | Query::Term(_) => {}
    }
}

fn matches(text: &str, wanted: &[&Words]) -> Vec<Match> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut tokens: Vec<Token> = Vec::new();
    for_each_token(text, &mut |word, span| {
        let spelled = text.get(span.clone()).and_then(spelled_out);
        tokens.push(Token { word: word.to_owned(), spelled, span });
        if tokens.len() < WORDS_SCANNED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let mut found = Vec::new();
    for start in 0..tokens.len() {
        let rest = tokens.get(start..).unwrap_or_default();
        for (term, words) in wanted.iter().enumerate() {
            if let Some(end) = matches_at(rest, words)
                && let Some(first) = rest.first()
            {
                found.push(Match { span: first.span.start..end, term });
            }
        }
        if found.len() >= MATCHES_WEIGHED {
            break;
        }
    }
    mark_pictures(text, wanted, &mut found);
    found
}

/// Pictures are no words of the text: they are looked for as they are.
fn mark_pictures(text: &str, wanted: &[&Words], found: &mut Vec<Match>) {
    let before = found.len();
    for (term, words) in wanted.iter().enumerate() {
        for picture in words.words.iter().filter(|word| is_picture(word)) {
            let places = text.match_indices(picture.as_str()).take(MATCHES_WEIGHED);
            found.extend(places.map(|(at, _)| Match { span: at..at + picture.len(), term }));
        }
    }
    if found.len() > before {
        found.sort_by_key(|m| (m.span.start, m.term));
    }
}

/// The end of the match that begins with the first of `tokens`.
fn matches_at(tokens: &[Token], words: &Words) -> Option<usize> {
    let run = tokens.get(..words.words.len())?;
    let last = words.words.len() - 1;
    let same = run.iter().enumerate().all(|(index, token)| {
        let fits = |way: &str, word: &str| {
            if words.prefix && index == last { word.starts_with(way) } else { word == way }
        };
        words
            .ways(index)
            .any(|way| fits(way, &token.word) || token.spelled.as_ref().is_some_and(|s| fits(way, s)))
    });
    if same { run.last().map(|token| token.span.end) } else { None }
}

/// The bytes to show: begins a little before the match from which a window holds most different terms, then
/// most matches, the earliest of equals.
fn best_window(text: &str, matches: &[Match], max_chars: usize) -> Range<usize> {
    let mut best: Option<(u32, usize, usize)> = None;
    for (index, anchor) in matches.iter().enumerate() {
        // Bytes instead of characters: only the choice depends on it, not the length shown.
        let reach = anchor.span.start.saturating_add(max_chars.saturating_mul(3) / 4);
        let inside = matches.get(index..).unwrap_or_default().iter().take_while(|m| m.span.end <= reach);
        let (terms, count) =
            inside.fold((0_u64, 0), |(terms, count), m| (terms | 1 << (m.term % 64), count + 1));
        let terms = terms.count_ones();
        if best.is_none_or(|(most, of, _)| (terms, count) > (most, of)) {
            best = Some((terms, count, anchor.span.start));
        }
    }
    let anchor = best.map_or(0, |(_, _, start)| start);
    let before = text.get(..anchor).unwrap_or_default();
    let start = match before.char_indices().rev().take(max_chars / 4).last() {
        None | Some((0, _)) => 0,
        // Not in the middle of a word: go on to the next white space before the match.
        Some((at, _)) => {
            let lead = before.get(at..).unwrap_or_default();
            lead.find(char::is_whitespace).map_or(anchor, |space| at + space)
        }
    };
    let shown = text.get(start..).unwrap_or_default();
    let end = visible_end(shown, max_chars).map_or(text.len(), |length| start + length);
    start..end
}

/// Where `max_chars` characters of what is shown end; `None` when all of it fits.
fn visible_end(text: &str, max_chars: usize) -> Option<usize> {
    let mut shown = 0;
    let mut space = true;
    let mut word_end = None;
    for (at, c) in text.char_indices() {
        let is_space = c.is_whitespace();
        if is_hidden(c) || (is_space && space) {
            continue;
        }
        if is_space {
            word_end = Some(at);
        }
        if shown == max_chars {
            // Rather a word less than half a word, unless that costs a third of the snippet.
            return Some(word_end.filter(|end| *end * 3 > at * 2).unwrap_or(at));
        }
        space = is_space;
        shown += 1;
    }
    None
}

fn is_hidden(c: char) -> bool {
    (c.is_control() && !c.is_whitespace())
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{ad}' | '\u{34f}')
}

fn render(text: &str, window: &Range<usize>, matches: &[Match]) -> String {
    let mut html = String::with_capacity(window.len() + 64);
    if window.start > 0 {
        html.push('…');
    }
    let mut marks = merged(matches, window).into_iter().peekable();
    let mut space = true;
    for (at, c) in text.get(window.clone()).unwrap_or_default().char_indices() {
        let at = at + window.start;
        if marks.peek().is_some_and(|mark| mark.start == at) {
            html.push_str("<mark>");
        }
        let is_space = c.is_whitespace();
        if is_space && !space {
            html.push(' ');
        } else if !is_space && !is_hidden(c) {
            push_escaped(&mut html, c);
        }
        space = if is_hidden(c) { space } else { is_space };
        if marks.next_if(|mark| mark.end == at + c.len_utf8()).is_some() {
            html.push_str("</mark>");
        }
    }
    let kept = html.trim_end().len();
    html.truncate(kept);
    if window.end < text.len() && !text.get(window.end..).unwrap_or_default().trim().is_empty() {
        html.push('…');
    }
    html
}

/// The marks inside the window, in order and without overlap.
fn merged(matches: &[Match], window: &Range<usize>) -> Vec<Range<usize>> {
    let mut marks: Vec<Range<usize>> = Vec::new();
    for m in matches {
        if m.span.start < window.start || m.span.end > window.end {
            continue;
        }
        match marks.last_mut() {
            Some(last) if m.span.start < last.end => last.end = last.end.max(m.span.end),
            _ => marks.push(m.span.clone()),
        }
    }
    marks
}

fn push_escaped(html: &mut String, c: char) {
    match c {
        '&' => html.push_str("&amp;"),
        '<' => html.push_str("&lt;"),
        '>' => html.push_str("&gt;"),
        '"' => html.push_str("&quot;"),
        '\'' => html.push_str("&#39;"),
        other => html.push(other),
    }
}
