//! Which messages belong together.
//!
//! A message names others by Message-ID; whatever is connected that way, through messages we have not seen too,
//! is one thread. The caller keeps for every id ever named the thread it belongs to: it looks up
//! [`thread_keys`], asks [`merge`] what to do, and writes all keys back with the answer. Then the grouping does
//! not depend on the order in which messages arrive. Subjects never join anything: "Hello" is not a thread.

use crate::mime::ParsedMessage;

/// Keys of one message at most: its own, the newest references, and what it answers.
const MAX_KEYS: usize = 120;

/// The ids by which a message is connected: its own, then References from the oldest, then In-Reply-To; each
/// once. Empty for a message without any (a thread of its own). Ids too short to be unique are left out,
/// because broken senders repeat them in everything they send.
#[must_use]
pub fn thread_keys(message: &ParsedMessage) -> Vec<String> {
    let skipped = message.references.len().saturating_sub(MAX_KEYS - 20);
    let references =
        message.references.iter().enumerate().filter(|(i, _)| *i == 0 || *i > skipped).map(|(_, id)| id);
    let all = message.message_id.iter().chain(references).chain(message.in_reply_to.iter().take(10));
    let mut keys: Vec<String> = Vec::new();
    for id in all.filter(|id| is_telling(id)) {
        if !keys.contains(id) {
            keys.push(id.clone());
        }
    }
    keys
}

fn is_telling(id: &str) -> bool {
    match id.split_once('@') {
        Some((left, right)) => !left.is_empty() && !right.is_empty(),
        None => id.len() >= 16,
    }
}

/// What becomes of a message, given the threads that its keys were found in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement<T> {
    /// None was known: it begins a thread.
    New,
    /// It belongs to this one.
    Join(T),
    /// It connects several: all of `absorbed` become part of `into`.
    Merge {
        /// The thread that stays: the smallest id, which with time-ordered ids is the oldest.
        into: T,
        /// The others, ascending.
        absorbed: Vec<T>,
    },
}

/// Decides from the threads found (in any order, repetitions allowed).
#[must_use]
pub fn merge<T: Ord + Clone>(found: &[T]) -> Placement<T> {
    let mut threads = found.to_vec();
    threads.sort();
    threads.dedup();
    let mut threads = threads.into_iter();
    match threads.next() {
        None => Placement::New,
        Some(into) => match threads.collect::<Vec<T>>() {
            absorbed if absorbed.is_empty() => Placement::Join(into),
            absorbed => Placement::Merge { into, absorbed },
        },
    }
}

/// Prefixes of answers and forwards, in the languages whose clients translate them; lower case.
/// `Ref:` is not among them: it heads the number of a file or an order.
const REPLY: [&str; 13] =
    ["re", "aw", "antw", "sv", "vs", "odp", "ynt", "r", "回复", "回覆", "答复", "返信", "res"];
const FORWARD: [&str; 13] =
    ["fwd", "fw", "wg", "tr", "rv", "vl", "vb", "i", "pd", "ilt", "转发", "轉寄", "doorst"];

/// The subject without answer and forward marks, list tags and double blanks (after RFC 5256 §2.1); the case
/// is kept, for it is shown as the title of a thread. A subject that is all marks stays as it is.
#[must_use]
pub fn base_subject(subject: &str) -> String {
    let collapsed = subject.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = collapsed.as_str();
    loop {
        let before = rest;
        rest = rest.trim();
        if let Some(head) = strip_suffix_ignoring_case(rest, "(fwd)") {
            rest = head;
        }
        rest = strip_mark(rest, &REPLY).or_else(|| strip_mark(rest, &FORWARD)).unwrap_or(rest);
        rest = strip_tag(rest).unwrap_or(rest);
        if rest == before {
            break;
        }
    }
    if rest.is_empty() { collapsed } else { rest.to_owned() }
}

/// `Re: ` before a subject, exactly once whatever stood there; before or behind a list's `[tag]`, which stays.
#[must_use]
pub fn reply_subject(subject: &str) -> String {
    format!("Re: {}", strip_all(subject, &REPLY)).trim_end().to_owned()
}

/// `Fwd: ` before a subject, likewise.
#[must_use]
pub fn forward_subject(subject: &str) -> String {
    format!("Fwd: {}", strip_all(subject, &FORWARD)).trim_end().to_owned()
}

/// The subject without these marks, those behind list tags included.
fn strip_all(subject: &str, marks: &[&str]) -> String {
    let mut rest = subject.trim();
    let mut tags = String::new();
    loop {
        if let Some(tail) = strip_mark(rest, marks) {
            rest = tail.trim();
        } else if let Some(tail) = strip_tag(rest) {
            // The tag counts only where a mark stands behind it; without one all of it is the subject.
            let tag = rest.get(..rest.len() - tail.len()).unwrap_or_default();
            let behind = tail.trim_start();
            let Some(inner) = strip_mark(behind, marks) else { break };
            tags.push_str(tag.trim());
            tags.push(' ');
            rest = inner.trim();
        } else {
            break;
        }
    }
    format!("{tags}{rest}")
}

/// Takes one `mark:`, `mark[2]:`, `mark :` (also with the wide colon) off the front.
fn strip_mark<'s>(subject: &'s str, marks: &[&str]) -> Option<&'s str> {
    let (head, tail) = subject.split_once([':', '：'])?;
    let head = head.trim_end();
    let word = match head.split_once(['[', '(']) {
        Some((word, count)) => {
            let count = count.strip_suffix([']', ')'])?;
            (!count.is_empty() && count.bytes().all(|b| b.is_ascii_digit())).then_some(word)?
        }
        None => head,
    };
    let word = word.trim().to_lowercase();
    marks.contains(&word.as_str()).then_some(tail)
}

/// Takes a list's `[tag]` off the front if something is left.
fn strip_tag(subject: &str) -> Option<&str> {
    let (tag, rest) = subject.strip_prefix('[')?.split_once(']')?;
    (!tag.contains('[') && !rest.trim().is_empty()).then_some(rest)
}

fn strip_suffix_ignoring_case<'s>(text: &'s str, suffix: &str) -> Option<&'s str> {
    let at = text.len().checked_sub(suffix.len())?;
    let (head, tail) = text.split_at_checked(at)?;
    (tail.eq_ignore_ascii_case(suffix) && !head.trim().is_empty()).then_some(head)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::{Placement, base_subject, forward_subject, merge, reply_subject, thread_keys};
    use crate::mime::ParsedMessage;

    #[test]
    fn marks_and_tags_go() {
        for (subject, base) in [
            ("Re: Fwd: [list] Re[2]: AW: Hello   World (fwd)", "Hello World"),
            ("RE : x", "x"),
            ("回复：你好", "你好"),
            ("Re:", "Re:"),
            ("Ref: 4711", "Ref: 4711"),
            ("[only]", "[only]"),
            ("Regarding: x", "Regarding: x"),
            ("", ""),
        ] {
            assert_eq!(base_subject(subject), base, "{subject}");
        }
    }

    #[test]
    fn a_mark_is_set_once() {
        assert_eq!(reply_subject("RE: Aw: re: Hi"), "Re: Hi");
        assert_eq!(reply_subject("Fwd: Hi"), "Re: Fwd: Hi");
        assert_eq!(reply_subject(""), "Re:");
        assert_eq!(reply_subject("Ref: 4711"), "Re: Ref: 4711");
        assert_eq!(reply_subject("Re: Ref: 4711"), "Re: Ref: 4711");
        assert_eq!(reply_subject("[list] Re: x"), "Re: [list] x");
        assert_eq!(reply_subject("Re: [list] Re: x"), "Re: [list] x");
        assert_eq!(reply_subject("Re: [list] x"), "Re: [list] x");
        assert_eq!(reply_subject("[list] x"), "Re: [list] x");
        assert_eq!(forward_subject("[list] Fwd: x"), "Fwd: [list] x");
        assert_eq!(forward_subject("FW: Fwd: Hi"), "Fwd: Hi");
        assert_eq!(forward_subject("Re: Hi"), "Fwd: Re: Hi");
    }

    #[test]
    fn the_oldest_thread_stays() {
        assert_eq!(merge::<u32>(&[]), Placement::New);
        assert_eq!(merge(&[3, 3]), Placement::Join(3));
        assert_eq!(merge(&[7, 3, 5, 3]), Placement::Merge { into: 3, absorbed: vec![5, 7] });
    }

    #[test]
    fn keys_begin_with_the_own_id_and_skip_what_tells_nothing() {
        let m = ParsedMessage {
            message_id: Some("own@a".into()),
            references: vec!["r1@a".into(), "own@a".into(), "@".into(), "x".into()],
            in_reply_to: vec!["r1@a".into(), "r2@a".into()],
            ..ParsedMessage::default()
        };
        assert_eq!(thread_keys(&m), ["own@a", "r1@a", "r2@a"]);
        let many = ParsedMessage { references: (0..5000).map(|i| format!("{i}@a")).collect(), ..m };
        assert!(thread_keys(&many).len() <= 120);
    }

    /// What a caller does with the answers.
    fn group(messages: &[(usize, Vec<String>)]) -> BTreeSet<BTreeSet<usize>> {
        let mut thread_of_key: BTreeMap<String, usize> = BTreeMap::new();
        let mut thread_of_message: BTreeMap<usize, usize> = BTreeMap::new();
        for (next, (id, keys)) in messages.iter().enumerate() {
            let found: Vec<usize> = keys.iter().filter_map(|k| thread_of_key.get(k).copied()).collect();
            let thread = match merge(&found) {
                Placement::New => next,
                Placement::Join(t) => t,
                Placement::Merge { into, absorbed } => {
                    for t in thread_of_key.values_mut().chain(thread_of_message.values_mut()) {
                        if absorbed.contains(t) {
                            *t = into;
                        }
                    }
                    into
                }
            };
            thread_of_message.insert(*id, thread);
            thread_of_key.extend(keys.iter().map(|k| (k.clone(), thread)));
        }
        let mut groups: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (message, thread) in thread_of_message {
            groups.entry(thread).or_default().insert(message);
        }
        groups.into_values().collect()
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(
            links in prop::collection::vec(prop::collection::vec(0usize..12, 0..4), 1..12),
            order in Just(()).prop_perturb(|(), mut rng| (0..12).map(|_| rng.random::<u64>()).collect::<Vec<_>>()),
        ) {
            let messages: Vec<(usize, Vec<String>)> = links.iter().enumerate().map(|(i, refs)| {
                let parsed = ParsedMessage {
                    message_id: Some(format!("{i}@a")),
                    references: refs.iter().map(|r| format!("{r}@a")).collect(),
                    ..ParsedMessage::default()
                };
                (i, thread_keys(&parsed))
            }).collect();
            let mut shuffled = messages.clone();
            shuffled.sort_by_key(|(i, _)| order[*i % order.len()]);
            prop_assert_eq!(group(&messages), group(&shuffled));
        }
    }
}
