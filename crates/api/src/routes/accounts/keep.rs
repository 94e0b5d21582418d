//! `sync` of an account: how much of it is kept, as clients say and see it.

use chrono::{DateTime, Utc};
use emailclient_core::domain::account::keep::{Kept, Narrowing};
use mail::keep::{Choice, Keep, Since};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::error::FieldError;
use crate::limits::{self, Limits};

/// Which mailboxes of an account are kept.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct ChoiceIn {
    /// Only these: paths, patterns (`*` for anything, `%` for anything within a level) or roles (`junk`). Left out or `null`: all.
    include: Option<Vec<String>>,
    /// Of those, not these.
    exclude: Option<Vec<String>>,
}

/// How much of an account is kept; what is left out, or `null`, leaves nothing out.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct SyncIn {
    /// Mail that arrived since this day (`2026-09-01`, UTC), or in so many days (`90d`).
    since: Option<String>,
    /// Which mailboxes.
    mailboxes: Option<ChoiceIn>,
    /// Larger messages are not kept.
    #[schema(minimum = 1024, maximum = 1073741824)]
    max_message_bytes: Option<u64>,
}

/// A part of it; what is left out stays, `null` takes away what is there.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct SyncPatch {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    since: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<ChoicePatch>)]
    mailboxes: Option<Option<ChoicePatch>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u64>, minimum = 1024, maximum = 1073741824)]
    max_message_bytes: Option<Option<u64>>,
}

/// The same of its mailboxes.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct ChoicePatch {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    include: Option<Option<Vec<String>>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    exclude: Option<Option<Vec<String>>>,
}

/// `null` is something that was said.
pub fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl SyncIn {
    /// What it means. Faults go to `faults`; where there are any the result means nothing.
    pub fn keep(self, faults: &mut Vec<FieldError>) -> Keep {
        let choice = self.mailboxes.unwrap_or_default();
        Keep {
            since: self.since.and_then(|text| since(&text, faults)),
            mailboxes: Choice { include: choice.include, exclude: choice.exclude.unwrap_or_default() },
            max_message_bytes: self.max_message_bytes,
        }
    }
}

impl SyncPatch {
    /// `old` with these fields replaced (RFC 7396).
    pub fn over(self, old: &Keep, faults: &mut Vec<FieldError>) -> Keep {
        let mut keep = old.clone();
        if let Some(text) = self.since {
            keep.since = text.and_then(|text| since(&text, faults));
        }
        if let Some(choice) = self.mailboxes {
            let mut new = if choice.is_some() { keep.mailboxes } else { Choice::default() };
            if let Some(ChoicePatch { include, exclude }) = choice {
                new.include = include.unwrap_or(new.include);
                new.exclude = exclude.map_or(new.exclude, Option::unwrap_or_default);
            }
            keep.mailboxes = new;
        }
        if let Some(most) = self.max_message_bytes {
            keep.max_message_bytes = most;
        }
        keep
    }
}

fn since(text: &str, faults: &mut Vec<FieldError>) -> Option<Since> {
    match Since::parse(text) {
        Ok(since) => Some(since),
        Err(error) => {
            faults.push(FieldError::new("/sync/since", "invalid", error.to_string()));
            None
        }
    }
}

/// Sizes that a message may be limited to.
const MESSAGE_BYTES: std::ops::RangeInclusive<u64> = 1024..=1 << 30;

/// Judges what is wanted at this moment. `old` is what the account has: what stays as it was is not judged again.
pub fn check(keep: &Keep, old: Option<&Keep>, now: DateTime<Utc>, faults: &mut Vec<FieldError>) {
    if old == Some(keep) {
        return;
    }
    if let Some(Since::Date(date)) =
        keep.since.filter(|since| old.is_none_or(|old| old.since != Some(*since)))
        && date > now.date_naive()
    {
        faults.push(FieldError::new("/sync/since", "in-the-future", "today, in UTC, is the latest"));
    }
    if keep.max_message_bytes.is_some_and(|most| !MESSAGE_BYTES.contains(&most)) {
        faults.push(FieldError::new(
            "/sync/max_message_bytes",
            "out-of-range",
            "1024 to 1073741824 are expected",
        ));
    }
    let Choice { include, exclude } = &keep.mailboxes;
    if include.as_ref().is_some_and(Vec::is_empty) {
        let detail = "no mailbox would be kept; null keeps all";
        faults.push(FieldError::new("/sync/mailboxes/include", "empty", detail));
    }
    let mut limits = Limits::default();
    for (list, at) in [(include.as_deref().unwrap_or_default(), "include"), (exclude.as_slice(), "exclude")] {
        limits.count(format!("/sync/mailboxes/{at}"), list.len(), limits::SYNC_MAILBOXES);
        for (n, entry) in list.iter().enumerate().take(limits::SYNC_MAILBOXES) {
            let pointer = format!("/sync/mailboxes/{at}/{n}");
            limits.text(pointer.clone(), entry, limits::SYNC_MAILBOX_BYTES);
            if entry.is_empty() || entry.chars().any(char::is_control) {
                faults.push(FieldError::new(&pointer, "invalid", "a path, a pattern or a role is expected"));
            } else if list.iter().take(n).any(|other| other == entry) {
                faults.push(FieldError::new(&pointer, "duplicate", "this stands in the list already"));
            } else if at == "exclude" && include.iter().flatten().any(|other| other == entry) {
                faults.push(FieldError::new(&pointer, "contradiction", "this is included as well"));
            }
        }
    }
    if exclude.iter().any(|entry| entry == "*") {
        let detail = "no mailbox would be kept";
        faults.push(FieldError::new("/sync/mailboxes/exclude", "contradiction", detail));
    }
    faults.extend(limits.faults());
}

/// Which mailboxes of an account are kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccountSyncMailboxes)]
pub struct ChoiceView {
    /// Only these; `null`: all.
    include: Option<Vec<String>>,
    /// Of those, not these.
    exclude: Vec<String>,
}

/// How far it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccountSyncProgress)]
pub struct ProgressView {
    /// `done`; `narrowing`: what is outside is leaving; `widening`: mail that is kept is being read (the sync status says how
    /// far).
    state: &'static str,
    /// Places of messages that leave; `null` until they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<i64>,
    /// Those that have left.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<i64>,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_at: Option<DateTime<Utc>>,
}

/// How much of an account is kept.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccountSync)]
pub struct SyncView {
    /// A day, or a number of days as `90d`; `null`: all mail.
    since: Option<String>,
    mailboxes: ChoiceView,
    max_message_bytes: Option<u64>,
    progress: ProgressView,
}

impl From<Kept> for SyncView {
    fn from(kept: Kept) -> Self {
        let state = match (&kept.narrowing, kept.widening) {
            (Some(_), _) => "narrowing",
            (None, true) => "widening",
            (None, false) => "done",
        };
        let narrowing: Option<Narrowing> = kept.narrowing;
        let Keep { since, mailboxes: Choice { include, exclude }, max_message_bytes } = kept.wanted;
        Self {
            since: since.map(|since| since.to_string()),
            mailboxes: ChoiceView { include, exclude },
            max_message_bytes,
            progress: ProgressView {
                state,
                total: narrowing.and_then(|n| n.total),
                removed: narrowing.map(|n| n.removed),
                asked_at: narrowing.map(|n| n.asked_at),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> DateTime<Utc> {
        "2026-12-01T00:30:00Z".parse().unwrap()
    }

    fn faults_of(said: serde_json::Value) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let keep = serde_json::from_value::<SyncIn>(said).unwrap().keep(&mut faults);
        check(&keep, None, now(), &mut faults);
        faults.into_iter().map(|f| (f.pointer, f.code)).collect()
    }

    #[test]
    fn what_cannot_be_meant_is_refused_where_it_stands() {
        for (said, pointer, code) in [
            (json!({"since": "2026-12-02"}), "/sync/since", "in-the-future"),
            (json!({"since": "0d"}), "/sync/since", "invalid"),
            (json!({"since": "yesterday"}), "/sync/since", "invalid"),
            (json!({"max_message_bytes": 1023}), "/sync/max_message_bytes", "out-of-range"),
            (json!({"max_message_bytes": 1_073_741_825_u64}), "/sync/max_message_bytes", "out-of-range"),
            (json!({"mailboxes": {"include": []}}), "/sync/mailboxes/include", "empty"),
            (json!({"mailboxes": {"include": ["a", "a"]}}), "/sync/mailboxes/include/1", "duplicate"),
            (
                json!({"mailboxes": {"include": ["a"], "exclude": ["b", "a"]}}),
                "/sync/mailboxes/exclude/1",
                "contradiction",
            ),
            (json!({"mailboxes": {"exclude": ["*"]}}), "/sync/mailboxes/exclude", "contradiction"),
            (json!({"mailboxes": {"exclude": [""]}}), "/sync/mailboxes/exclude/0", "invalid"),
            (json!({"mailboxes": {"exclude": ["a\nb"]}}), "/sync/mailboxes/exclude/0", "invalid"),
            (json!({"mailboxes": {"exclude": ["x".repeat(257)]}}), "/sync/mailboxes/exclude/0", "too-long"),
            (
                json!({"mailboxes": {"exclude": (0..101).map(|n| n.to_string()).collect::<Vec<_>>()}}),
                "/sync/mailboxes/exclude",
                "too-many",
            ),
        ] {
            assert_eq!(faults_of(said.clone()), [(pointer.to_owned(), code.to_owned())], "{said}");
        }
        for said in [
            json!({}),
            json!({"since": null, "mailboxes": null, "max_message_bytes": null}),
            json!({"since": "2026-12-01", "mailboxes": {"include": ["inbox", "Work/*"], "exclude": ["Work/Old"]}, "max_message_bytes": 1024}),
        ] {
            assert_eq!(faults_of(said.clone()), [], "{said}");
        }
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_takes_away() {
        let mut faults = Vec::new();
        let whole = json!({"since": "90d", "mailboxes": {"include": ["inbox"], "exclude": ["x"]}, "max_message_bytes": 5000});
        let old = serde_json::from_value::<SyncIn>(whole).unwrap().keep(&mut faults);
        let mut over = |patch: serde_json::Value| {
            serde_json::from_value::<SyncPatch>(patch).unwrap().over(&old, &mut faults)
        };
        assert_eq!(over(json!({})), old);
        assert_eq!(over(json!({"since": null})), Keep { since: None, ..old.clone() });
        assert_eq!(
            over(json!({"max_message_bytes": 9000})),
            Keep { max_message_bytes: Some(9000), ..old.clone() }
        );
        assert_eq!(over(json!({"mailboxes": null})).mailboxes, Choice::default());
        let narrower = over(json!({"mailboxes": {"include": null}})).mailboxes;
        assert_eq!(narrower, Choice { include: None, exclude: vec!["x".to_owned()] });
        assert_eq!(over(json!({"mailboxes": {"exclude": null}})).mailboxes.exclude, Vec::<String>::new());
        assert!(faults.is_empty());
    }

    #[test]
    fn a_day_that_was_given_before_is_not_judged_again() {
        let keep = Keep { since: Some(Since::parse("2026-12-02").unwrap()), ..Keep::default() };
        let larger = Keep { max_message_bytes: Some(4096), ..keep.clone() };
        let mut faults = Vec::new();
        check(&larger, Some(&keep), now(), &mut faults);
        assert!(faults.is_empty());
    }
}
