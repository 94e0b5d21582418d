//! The snippet of a hit, with the words that were looked for marked.

use std::collections::HashMap;

use mail::query::{Query, Term, highlight};

use super::Page;
use crate::platform::id::MessageId;

/// Characters of a snippet.
const SNIPPET_CHARS: usize = 200;

/// Whether the query looks for words in the text at all; without any, the stored snippet says as much.
#[must_use]
pub fn is_worth_reading(query: &Query) -> bool {
    match query {
        Query::And(parts) | Query::Or(parts) => parts.iter().any(is_worth_reading),
        Query::Term(term) => matches!(term, Term::Text(_)),
        Query::Not(_) => false,
    }
}

/// Snippets of a page, as escaped HTML with `<mark>`. Parses mail: not for an async thread, see [`of_page`].
fn all(
    messages: &[(MessageId, String)],
    mut sources: HashMap<MessageId, Vec<u8>>,
    query: &Query,
) -> Vec<String> {
    let one = |(id, stored): &(MessageId, String)| {
        // What is searched: the text, and that of attached messages.
        let searched = |raw: Vec<u8>| {
            let message = mail::mime::parse(&raw);
            format!("{}\n{}", message.text, message.attached_text)
        };
        let text = sources.remove(id).map(searched).filter(|text| !text.trim().is_empty());
        highlight(text.as_deref().unwrap_or(stored), query, SNIPPET_CHARS)
    };
    messages.iter().map(one).collect()
}

/// Snippets of the page's messages, in their order. Call it when no transaction is open.
pub async fn of_page(page: &mut Page, query: &Query) -> Vec<String> {
    let messages: Vec<(MessageId, String)> =
        page.messages.iter().map(|m| (m.id, m.snippet.clone())).collect();
    let sources: HashMap<MessageId, Vec<u8>> = std::mem::take(&mut page.sources).into_iter().collect();
    let asked = query.clone();
    let stored = messages.clone();
    let marked = tokio::task::spawn_blocking(move || all(&messages, sources, &asked)).await;
    // A defect in the parser must not cost the answer: the stored text is marked instead.
    marked.unwrap_or_else(|_| stored.iter().map(|(_, text)| highlight(text, query, SNIPPET_CHARS)).collect())
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, FixedOffset};

    use super::*;

    #[test]
    fn the_text_is_marked_and_the_stored_snippet_stands_in_for_it() {
        let query = Query::parse("invoice", DateTime::UNIX_EPOCH, FixedOffset::east_opt(0).unwrap()).unwrap();
        let (a, b) = (MessageId::new(), MessageId::new());
        let raw = b"Subject: x\r\n\r\nThe Invoice <attached>\r\n".to_vec();
        let messages = [(a, "old".to_owned()), (b, "an invoice & more".to_owned())];
        let marked = all(&messages, HashMap::from([(a, raw)]), &query);
        assert_eq!(
            marked,
            ["The <mark>Invoice</mark> &lt;attached&gt;", "an <mark>invoice</mark> &amp; more"]
        );
        assert!(is_worth_reading(&query));
    }
}
