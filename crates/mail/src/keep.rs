//! How much of an account is kept here: since when, which mailboxes, up to which size. Pure; who asks and what follows is the
//! driver's and the store's.
//!
//! What is not kept is *outside*: it stays on the server, is not shown, and its going outside is no deletion.

use std::fmt;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use serde::{Deserialize, Serialize};

use crate::mailbox::{Role, is_inbox};
use crate::sync::Facts;
use crate::uid::UidSet;

/// Days that `since` may reach back as a number.
pub const MOST_DAYS: u32 = 36_500;

/// Since when mail is kept, by the date of its arrival (INTERNALDATE).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Since {
    /// The beginning of this day, UTC.
    Date(NaiveDate),
    /// The beginning of the day, UTC, so many days before the present one: it moves on.
    Days(u32),
}

/// Why a text is no [`Since`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SinceError {
    /// It has another form.
    #[error("a date as 2026-09-01 or a number of days as 90d is expected")]
    Form,
    /// Nothing, or more than anybody's mail.
    #[error("1d to 36500d are expected")]
    Days,
}

impl Since {
    /// Reads `2026-09-01` or `90d`.
    ///
    /// # Errors
    /// [`SinceError`].
    pub fn parse(text: &str) -> Result<Self, SinceError> {
        if let Some(days) = text.strip_suffix('d') {
            if days.is_empty() || !days.bytes().all(|b| b.is_ascii_digit()) {
                return Err(SinceError::Form);
            }
            let days: u32 = days.parse().map_err(|_| SinceError::Days)?;
            return if (1..=MOST_DAYS).contains(&days) {
                Ok(Self::Days(days))
            } else {
                Err(SinceError::Days)
            };
        }
        // chrono takes "2026-9-1" and blanks, too.
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| SinceError::Form)?;
        if date.format("%Y-%m-%d").to_string() == text { Ok(Self::Date(date)) } else { Err(SinceError::Form) }
    }

    /// What is older than this moment is outside.
    #[must_use]
    pub fn cutoff(self, now: DateTime<Utc>) -> DateTime<Utc> {
        let day = match self {
            Self::Date(date) => date,
            Self::Days(days) => {
                now.date_naive().checked_sub_days(Days::new(days.into())).unwrap_or(NaiveDate::MIN)
            }
        };
        day.and_time(NaiveTime::MIN).and_utc()
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Date(date) => write!(f, "{}", date.format("%Y-%m-%d")),
            Self::Days(days) => write!(f, "{days}d"),
        }
    }
}

/// Which mailboxes are kept. An entry is a role's word (`junk`), or a path as people read it, with `*` for anything and `%` for
/// anything but the delimiter (RFC 9051 §6.3.9). INBOX is one mailbox in any case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Only these; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<Vec<String>>,
    /// Of those, not these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

impl Choice {
    /// Whether all mailboxes are kept.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty()
    }

    /// Whether a mailbox is kept.
    #[must_use]
    pub fn keeps(&self, path: &str, delimiter: Option<char>, role: Option<Role>) -> bool {
        let named = |entries: &[String]| entries.iter().any(|entry| names(entry, path, delimiter, role));
        self.include.as_deref().is_none_or(named) && !named(&self.exclude)
    }
}

/// Whether an entry of a [`Choice`] means this mailbox.
fn names(entry: &str, path: &str, delimiter: Option<char>, role: Option<Role>) -> bool {
    role.is_some_and(|role| role.as_str() == entry) || matches(entry, path, delimiter)
}

/// Whether a pattern fits a path. All places where it may stand are followed at once, so its cost is the product of both
/// lengths at most, whatever it looks like.
fn matches(pattern: &str, path: &str, delimiter: Option<char>) -> bool {
    let (pattern, path) = (folded(pattern, delimiter), folded(path, delimiter));
    let text: Vec<char> = path.chars().collect();
    let mut at: Vec<bool> = std::iter::once(true).chain(text.iter().map(|_| false)).collect();
    for wanted in pattern.chars() {
        let mut next = vec![false; at.len()];
        let mut carried = false;
        for (n, reached) in at.iter().enumerate() {
            let before = n.checked_sub(1).and_then(|n| text.get(n).copied());
            carried = match wanted {
                '*' => carried || *reached,
                '%' => *reached || (carried && before != delimiter),
                _ => {
                    before == Some(wanted)
                        && n.checked_sub(1).and_then(|n| at.get(n).copied()).unwrap_or_default()
                }
            };
            if let Some(slot) = next.get_mut(n) {
                *slot = carried;
            }
        }
        if !next.contains(&true) {
            return false;
        }
        at = next;
    }
    at.last().copied().unwrap_or_default()
}

/// INBOX, alone or above others, in one spelling.
fn folded(name: &str, delimiter: Option<char>) -> String {
    let (first, rest) = delimiter.and_then(|d| name.find(d)).map_or((name, ""), |at| name.split_at(at));
    if is_inbox(first.as_bytes()) { format!("INBOX{rest}") } else { name.to_owned() }
}

/// How much of an account is kept. Default: all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// Mail that arrived since; `None`: all.
    pub since: Option<Since>,
    /// Which mailboxes.
    pub mailboxes: Choice,
    /// Larger messages are outside.
    pub max_message_bytes: Option<u64>,
}

impl Keep {
    /// What applies to messages of a mailbox that is kept, at this moment. `None`: all of them are kept.
    #[must_use]
    pub fn window(&self, now: DateTime<Utc>) -> Option<Window> {
        let since = self.since.map(|since| since.cutoff(now).timestamp());
        (since.is_some() || self.max_message_bytes.is_some())
            .then_some(Window { since, max_bytes: self.max_message_bytes })
    }
}

/// Which messages of a mailbox are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// In unix seconds.
    pub since: Option<i64>,
    /// See [`Keep::max_message_bytes`].
    pub max_bytes: Option<u64>,
}

impl Window {
    /// Those messages that are outside, by what the server tells of them. What it does not tell is no reason to leave one out.
    #[must_use]
    pub fn outside(&self, facts: &[Facts]) -> UidSet {
        let old = |fact: &Facts| self.since.zip(fact.date).is_some_and(|(since, date)| date < since);
        let large = |fact: &Facts| self.max_bytes.zip(fact.size).is_some_and(|(most, size)| size > most);
        facts.iter().filter(|fact| old(fact) || large(fact)).map(|fact| fact.uid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uid::Uid;

    fn choice(include: Option<&[&str]>, exclude: &[&str]) -> Choice {
        let owned = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect();
        Choice { include: include.map(owned), exclude: owned(exclude) }
    }

    #[test]
    fn dates_and_numbers_of_days_are_read_and_nothing_else() {
        let date = |text: &str| Since::Date(text.parse().unwrap());
        for (text, since) in [
            ("2026-09-01", Ok(date("2026-09-01"))),
            ("90d", Ok(Since::Days(90))),
            ("1d", Ok(Since::Days(1))),
            ("36500d", Ok(Since::Days(36_500))),
            ("0d", Err(SinceError::Days)),
            ("36501d", Err(SinceError::Days)),
            ("99999999999d", Err(SinceError::Days)),
            ("d", Err(SinceError::Form)),
            ("-1d", Err(SinceError::Form)),
            ("+1d", Err(SinceError::Form)),
            ("90 d", Err(SinceError::Form)),
            ("", Err(SinceError::Form)),
            ("2026-9-1", Err(SinceError::Form)),
            ("2026-02-30", Err(SinceError::Form)),
            ("2026-09-01T00:00:00Z", Err(SinceError::Form)),
        ] {
            assert_eq!(Since::parse(text), since, "{text:?}");
            if let Ok(since) = since {
                assert_eq!(since.to_string(), text);
            }
        }
    }

    #[test]
    fn a_day_begins_at_midnight_utc_and_a_number_of_days_moves_on() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let midnight = at("2026-09-01T00:00:00Z");
        assert_eq!(Since::parse("2026-09-01").unwrap().cutoff(at("2030-01-01T00:00:00Z")), midnight);
        assert_eq!(Since::Days(90).cutoff(at("2026-11-30T00:00:00Z")), midnight);
        assert_eq!(Since::Days(90).cutoff(at("2026-11-30T23:59:59Z")), midnight);
        assert_eq!(Since::Days(90).cutoff(at("2026-12-01T00:00:00Z")), at("2026-09-02T00:00:00Z"));
        assert_eq!(Since::Days(1).cutoff(at("2026-03-01T12:00:00Z")), at("2026-02-28T00:00:00Z"));
    }

    #[test]
    fn entries_are_roles_paths_and_patterns() {
        for (entry, path, fits) in [
            ("Work", "Work", true),
            ("Work", "work", false),
            ("Work", "Work/2026", false),
            ("Work/*", "Work/2026", true),
            ("Work/*", "Work/2026/May", true),
            ("Work/*", "Work", false),
            ("Work/%", "Work/2026", true),
            ("Work/%", "Work/2026/May", false),
            ("Work/%/May", "Work/2026/May", true),
            ("*", "anything/at all", true),
            ("%", "top", true),
            ("%", "top/below", false),
            ("%/%", "top/below", true),
            ("*ab*ab*", "xxabyyabzz", true),
            ("*ab*ab*", "xxabyyaazz", false),
            ("a%c", "ac", true),
            ("", "", true),
            ("", "x", false),
            ("Entwürfe*", "Entwürfe 2026", true),
            ("日本%", "日本語", true),
            ("inbox", "INBOX", true),
            ("Inbox/*", "INBOX/Sub", true),
            ("INBOX/sub", "inbox/sub", true),
            ("*/inbox", "Old/INBOX", false),
        ] {
            assert_eq!(names(entry, path, Some('/'), None), fits, "{entry:?} {path:?}");
        }
        assert!(names("Work.%", "Work.a/b", Some('.'), None));
        assert!(!names("Work.%", "Work.a.b", Some('.'), None));
        assert!(names("Work.%", "Work.a.b", None, None), "without a delimiter nothing ends a level");
        assert!(names("junk", "Spam", Some('/'), Some(Role::Junk)));
        assert!(!names("Junk", "Spam", Some('/'), Some(Role::Junk)), "a role is a word in lower case");
    }

    #[test]
    fn what_is_excluded_is_out_though_it_is_included() {
        let both = choice(Some(&["inbox", "Work*"]), &["Work/Old"]);
        for (path, role, kept) in [
            ("INBOX", Some(Role::Inbox), true),
            ("Work", None, true),
            ("Work/New", None, true),
            ("Work/Old", None, false),
            ("Sent", Some(Role::Sent), false),
        ] {
            assert_eq!(both.keeps(path, Some('/'), role), kept, "{path}");
        }
        assert!(choice(None, &[]).keeps("x", None, None) && choice(None, &[]).is_all());
        assert!(!choice(None, &["trash"]).keeps("Trash", None, Some(Role::Trash)));
    }

    #[test]
    fn a_pattern_of_nothing_but_stars_costs_no_more_than_another() {
        let (pattern, path) = ("*%".repeat(100), "a/".repeat(500));
        assert!(matches(&pattern, &path, Some('/')));
        assert!(!matches(&format!("{pattern}b"), &path, Some('/')));
    }

    #[test]
    fn messages_are_judged_by_what_the_server_tells_of_them() {
        let uid = |n| Uid::new(n).unwrap();
        let fact = |n, size, date| Facts { uid: uid(n), size, date };
        let window = Window { since: Some(100), max_bytes: Some(10) };
        let outside = window.outside(&[
            fact(1, Some(1), Some(99)),
            fact(2, Some(10), Some(100)),
            fact(3, Some(11), Some(101)),
            fact(4, None, None),
            fact(5, Some(99), Some(5)),
        ]);
        assert_eq!(outside, UidSet::parse("1,3,5").unwrap());
    }
}
