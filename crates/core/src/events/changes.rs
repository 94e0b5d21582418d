//! What changed since a state: the log folded to what was created, updated and destroyed (RFC 8620 §5.2).
//!
//! Exact for whoever takes in what was created, then what was updated, then what was destroyed. What came and went between the
//! two states is named as created and as destroyed: who listed in between has it, and nobody else learns of it again.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;
use uuid::Uuid;

use super::log::{self, Entry, Filter};
use crate::domain::event::EventKind;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::AccountId;
use crate::platform::words::words;

/// Lines of the log that one answer goes through at most.
const LINES_MAX: usize = 50_000;
/// Lines read at once.
const LINES_AT_ONCE: usize = 2_000;

words! {
    /// What changes are asked for.
    pub enum Type {
        /// Messages.
        Message = "message",
        /// Mailboxes; how many messages are in them is no change of theirs.
        Mailbox = "mailbox",
        /// Conversations.
        Thread = "thread",
        /// Submissions.
        Submission = "submission",
    }
}

impl Type {
    /// What may differ of one.
    const fn parts(self) -> &'static [&'static str] {
        match self {
            Self::Message => &["flags", "keywords", "mailboxes", "thread"],
            Self::Mailbox => &["attributes", "cause", "messages", "name", "selectable"],
            Self::Thread => &["messages"],
            Self::Submission => &["state"],
        }
    }
}

/// An object that is another than before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updated {
    /// Its id.
    pub id: Uuid,
    /// What differs.
    pub changed: BTreeSet<String>,
}

/// What changed of one type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// What was not there before, in order.
    pub created: Vec<Uuid>,
    /// What was there before and is another now.
    pub updated: Vec<Updated>,
    /// What was there before and is no more.
    pub destroyed: Vec<Uuid>,
}

/// What changed between two states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// By type, in the order asked for.
    pub of: Vec<(Type, Changed)>,
    /// The position that these lead to.
    pub position: i64,
    /// There are more after it.
    pub has_more: bool,
}

/// What one line says of one object.
enum Said {
    Created,
    Updated(Vec<String>),
    Destroyed,
}

/// What became of an object.
#[derive(Debug, Default)]
struct Fate {
    /// When it was first named, as a number.
    number: usize,
    was: bool,
    is: bool,
    changed: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Fold {
    fates: HashMap<(Type, Uuid), Fate>,
}

impl Fold {
    /// Takes in a line, unless that names more than `limit` objects.
    fn take(&mut self, types: &[Type], entry: &Entry, limit: usize) -> bool {
        let said: Vec<_> = said(entry).into_iter().filter(|(of, ..)| types.contains(of)).collect();
        let new = said.iter().filter(|(of, id, _)| !self.fates.contains_key(&(*of, *id))).count();
        // One line at least, or an answer would lead nowhere.
        if new > 0 && !self.fates.is_empty() && self.fates.len() + new > limit {
            return false;
        }
        for (of, id, what) in said {
            let number = self.fates.len();
            let fate = self.fates.entry((of, id)).or_insert_with(|| {
                let was = !matches!(what, Said::Created);
                Fate { number, was, is: was, changed: BTreeSet::new() }
            });
            match what {
                Said::Created => {
                    // It went and came back: all of it may be another.
                    let parts = if fate.was { of.parts() } else { &[] };
                    fate.changed.extend(parts.iter().map(|part| (*part).to_owned()));
                    fate.is = true;
                }
                Said::Destroyed => fate.is = false,
                Said::Updated(changed) => fate.changed.extend(changed),
            }
        }
        true
    }

    fn end(self, types: &[Type]) -> Vec<(Type, Changed)> {
        let mut fates: Vec<((Type, Uuid), Fate)> = self.fates.into_iter().collect();
        fates.sort_by_key(|(_, fate)| fate.number);
        let mut of: Vec<(Type, Changed)> = types.iter().map(|t| (*t, Changed::default())).collect();
        for ((kind, id), fate) in fates {
            let Some((_, changed)) = of.iter_mut().find(|(t, _)| *t == kind) else { continue };
            match (fate.was, fate.is) {
                (false, true) => changed.created.push(id),
                (true, false) => changed.destroyed.push(id),
                (true, true) => changed.updated.push(Updated { id, changed: fate.changed }),
                // Who listed in between has it, and who did not need not look for it.
                (false, false) => {
                    changed.created.push(id);
                    changed.destroyed.push(id);
                }
            }
        }
        of
    }
}

fn parts(data: &Value) -> Vec<String> {
    let words = data.get("changed").and_then(Value::as_array).into_iter().flatten();
    words.filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

/// What a line says, of each object it says something of.
fn said(entry: &Entry) -> Vec<(Type, Uuid, Said)> {
    let (Some(object), Some(kind)) = (entry.object_id, EventKind::from_word(&entry.kind)) else {
        return Vec::new();
    };
    let messages = || Said::Updated(vec!["messages".to_owned()]);
    let mut said = Vec::new();
    match kind {
        EventKind::MessageCreated => said.push((Type::Message, object, Said::Created)),
        EventKind::MessageDeleted => said.push((Type::Message, object, Said::Destroyed)),
        EventKind::MessageUpdated => {
            said.push((Type::Message, object, Said::Updated(parts(&entry.data))));
        }
        EventKind::MailboxCreated => said.push((Type::Mailbox, object, Said::Created)),
        EventKind::MailboxDeleted => said.push((Type::Mailbox, object, Said::Destroyed)),
        EventKind::MailboxUpdated => said.push((Type::Mailbox, object, Said::Updated(parts(&entry.data)))),
        EventKind::MailboxReset => said.push((Type::Mailbox, object, messages())),
        // The release before did not say.
        EventKind::SubmissionQueued if entry.data.get("again") != Some(&Value::Bool(true)) => {
            said.push((Type::Submission, object, Said::Created));
        }
        EventKind::SubmissionQueued
        | EventKind::SubmissionSent
        | EventKind::SubmissionFailed
        | EventKind::SubmissionUnknown
        | EventKind::SubmissionCancelled => {
            said.push((Type::Submission, object, Said::Updated(vec!["state".to_owned()])));
        }
        EventKind::ThreadMerged => {
            said.push((Type::Thread, object, Said::Destroyed));
            let into = entry.data.get("into").and_then(Value::as_str).and_then(|id| id.parse().ok());
            said.extend(into.map(|into| (Type::Thread, into, messages())));
        }
        _ => {}
    }
    if let Some(thread) = entry.thread_id {
        let what = match (entry.thread_shown, kind) {
            (Some(true), _) => Said::Created,
            (Some(false), _) => Said::Destroyed,
            (None, EventKind::MessageUpdated) => {
                let joined = |part: String| if part == "thread" { "messages".to_owned() } else { part };
                Said::Updated(parts(&entry.data).into_iter().map(joined).collect())
            }
            (None, _) => messages(),
        };
        said.push((Type::Thread, thread.0, what));
    }
    said
}

/// What changed of `types` in the account after the position `since`, up to `until`: `limit` objects at most.
///
/// # Errors
/// Those of the database.
pub async fn since(
    tx: &mut TenantTx,
    account: AccountId,
    types: &[Type],
    (since, until): (i64, i64),
    limit: usize,
) -> Result<Changes, DbError> {
    let filter = Filter { accounts: Some(BTreeSet::from([account])), kinds: None, backfill: true };
    let (mut fold, mut at, mut lines) = (Fold::default(), since, 0);
    loop {
        let entries = log::read(tx, (at, until), &filter, LINES_AT_ONCE).await?;
        for entry in &entries {
            if !fold.take(types, entry, limit) {
                return Ok(Changes { of: fold.end(types), position: at, has_more: true });
            }
            at = entry.position;
        }
        lines += entries.len();
        if entries.len() < LINES_AT_ONCE {
            return Ok(Changes { of: fold.end(types), position: until, has_more: false });
        }
        if lines >= LINES_MAX {
            return Ok(Changes { of: fold.end(types), position: at, has_more: true });
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use serde_json::json;

    use super::*;
    use crate::platform::id::ThreadId;

    fn entry(kind: &str, object: u128, thread: Option<(u128, Option<bool>)>, data: Value) -> Entry {
        Entry {
            position: 0,
            kind: kind.to_owned(),
            account_id: None,
            object_id: Some(Uuid::from_u128(object)),
            thread_id: thread.map(|(id, _)| ThreadId(Uuid::from_u128(id))),
            thread_shown: thread.and_then(|(_, shown)| shown),
            backfill: false,
            data,
            created_at: DateTime::UNIX_EPOCH,
        }
    }

    fn fold(types: &[Type], entries: &[Entry]) -> Vec<(Type, Changed)> {
        let mut fold = Fold::default();
        for entry in entries {
            assert!(fold.take(types, entry, usize::MAX));
        }
        fold.end(types)
    }

    #[test]
    fn what_came_and_went_is_both_and_what_went_and_came_is_another() {
        let none = || json!({});
        let changed = fold(
            &[Type::Message],
            &[
                entry("message.created", 1, None, none()),
                entry("message.updated", 1, None, json!({ "changed": ["flags"] })),
                entry("message.created", 2, None, none()),
                entry("message.deleted", 2, None, none()),
                entry("message.deleted", 3, None, none()),
                entry("message.created", 3, None, none()),
                entry("message.deleted", 4, None, none()),
                entry("message.updated", 5, None, json!({ "changed": ["mailboxes"] })),
                entry("mailbox.created", 6, None, none()),
                entry("later.kind", 7, None, none()),
            ],
        );
        let id = Uuid::from_u128;
        let (_, changed) = &changed[0];
        assert_eq!(changed.created, [id(1), id(2)]);
        assert_eq!(changed.destroyed, [id(2), id(4)]);
        let updated: Vec<_> =
            changed.updated.iter().map(|u| (u.id, u.changed.iter().cloned().collect())).collect();
        assert_eq!(
            updated,
            [
                (id(3), ["flags", "keywords", "mailboxes", "thread"].map(str::to_owned).into()),
                (id(5), vec!["mailboxes".to_owned()])
            ]
        );
    }

    #[test]
    fn a_merged_conversation_is_destroyed_and_the_other_one_updated() {
        let data = json!({ "changed": ["thread"] });
        let changed = fold(
            &[Type::Thread],
            &[
                entry("message.created", 1, Some((20, Some(true))), json!({})),
                entry("message.updated", 2, Some((20, None)), data),
                entry("thread.merged", 10, None, json!({ "into": Uuid::from_u128(20) })),
                entry("message.deleted", 3, Some((30, Some(false))), json!({})),
                entry("message.created", 4, Some((40, None)), json!({})),
            ],
        );
        let id = Uuid::from_u128;
        let (_, changed) = &changed[0];
        assert_eq!(
            (changed.created.as_slice(), changed.destroyed.as_slice()),
            ([id(20)].as_slice(), [id(10), id(30)].as_slice())
        );
        assert_eq!(changed.updated.iter().map(|u| u.id).collect::<Vec<_>>(), [id(40)]);
    }

    #[test]
    fn an_answer_ends_before_the_line_that_would_be_too_much_and_has_one_at_least() {
        let mut fold = Fold::default();
        assert!(fold.take(&[Type::Message], &entry("message.created", 1, None, json!({})), 1));
        assert!(fold.take(&[Type::Message], &entry("message.deleted", 1, None, json!({})), 1));
        assert!(!fold.take(&[Type::Message], &entry("message.created", 2, None, json!({})), 1));
    }
}
