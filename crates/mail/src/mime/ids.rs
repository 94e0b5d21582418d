//! Message identifiers in Message-ID, In-Reply-To and References (RFC 5322 §3.6.4, obsolete forms of §4.5.4).

/// Longest id kept (RFC 5322 line limit).
const MAX_ID_BYTES: usize = 998;
/// Ids kept of a field: the first, which names the thread, and the newest.
const MAX_IDS: usize = 200;

/// The ids of a field: what stands in angle brackets; without any, words with an `@`, or (for a Message-ID, `bare`) the
/// whole value.
pub(super) fn list(value: &str, bare: bool) -> Vec<String> {
    let mut found: Vec<String> = bracketed(value).filter_map(|(_, id)| id_text(id)).collect();
    if found.is_empty() {
        let words = value.split(|c: char| c.is_whitespace() || c == ',').filter(|w| w.contains('@'));
        found = words.filter_map(|w| id_text(w.trim_matches(['<', '>', '"', ';']))).collect();
    }
    if found.is_empty() && bare {
        found.extend(id_text(value.trim().trim_matches(['<', '>'])));
    }
    unique(found)
}

/// The ids of an In-Reply-To. Before RFC 2822 it was a sentence, as `Message from Bob <bob@x.example> of Monday <1@x.example>`,
/// and an address in it is no id: it would join all that ever was written to Bob.
pub(super) fn answered(value: &str) -> Vec<String> {
    let any = bracketed(value).next().is_some();
    if any {
        let is_id = |before: &&str| !names_a_person(before);
        return unique(
            bracketed(value).filter(|(before, _)| is_id(before)).filter_map(|(_, id)| id_text(id)).collect(),
        );
    }
    // Without brackets only a value that is nothing but ids: in a sentence a word with an `@` is an address.
    let plain = value.split([' ', ',', '\t']).filter(|w| !w.is_empty()).all(|w| w.contains('@'));
    if plain { list(value, false) } else { Vec::new() }
}

/// Whether the words before an angle bracket say that a person is in it.
fn names_a_person(before: &str) -> bool {
    let word = |w: &str| {
        matches!(w.trim_matches(['"', ':', ',']).to_lowercase().as_str(), "from" | "by" | "von" | "de")
    };
    let mut words = before.split_whitespace().rev();
    words.by_ref().take(8).any(word)
}

/// What stands in angle brackets, each with the text between it and the one before.
fn bracketed(value: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = value;
    std::iter::from_fn(move || {
        let (before, after) = rest.split_once('<')?;
        let (id, tail) = after.split_once('>')?;
        rest = tail;
        Some((before, id.rsplit_once('<').map_or(id, |(_, i)| i)))
    })
}

fn unique(found: Vec<String>) -> Vec<String> {
    let mut unique: Vec<String> = Vec::with_capacity(found.len().min(MAX_IDS));
    let skipped = found.len().saturating_sub(MAX_IDS);
    for (i, id) in found.into_iter().enumerate() {
        if (i == 0 || i > skipped) && !unique.contains(&id) {
            unique.push(id);
        }
    }
    unique
}

fn id_text(id: &str) -> Option<String> {
    let id: String = id.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    (!id.is_empty() && id.len() <= MAX_ID_BYTES).then_some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{answered, list};

    #[test]
    fn ids_stand_in_brackets_or_alone() {
        assert_eq!(list("<a@x> <b@x>,<a@x>", false), ["a@x", "b@x"]);
        assert_eq!(list("a@x b@x", false), ["a@x", "b@x"]);
        assert_eq!(list("no-brackets", true), ["no-brackets"]);
        assert!(list("<>", true).is_empty());
    }

    #[test]
    fn an_address_in_a_sentence_is_no_id() {
        for (value, ids) in [
            ("<1@a.example>", vec!["1@a.example"]),
            ("Your message <0@a.example>", vec!["0@a.example"]),
            ("Message from Bob <bob@x.example>", vec![]),
            (
                "Message from Bob Smith <bob@x.example> of \"Mon, 2 Nov 2026\" <1@x.example>",
                vec!["1@x.example"],
            ),
            ("message by bob <bob@x.example>", vec![]),
            ("Message from bob@x.example of Monday", vec![]),
            ("Your message of Mon, 2 Nov 2026 10:00:00 +0100. <1@x.example>", vec!["1@x.example"]),
            ("1@x.example", vec!["1@x.example"]),
        ] {
            assert_eq!(answered(value), ids, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(value in "[<>@a-c ,\"]{0,80}") {
            prop_assert!(list(&value, true).iter().chain(&answered(&value)).all(|id| !id.is_empty()));
        }
    }
}
