//! Flags and keywords as our user sets them: seen at once, pushed to the server by a job. See [`crate::domain::edits`].

use mail::flags::{Flags, Keywords};

use crate::domain::edits::ask;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{MailboxId, MessageId};

/// A change of flags and keywords. What is in both lists of a pair ends up removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlagEdit {
    /// Flags to set.
    pub add: Flags,
    /// Flags to clear.
    pub remove: Flags,
    /// Keywords to set; those the server could not store are left out, as are new ones on a message that is full.
    pub keywords_add: Vec<String>,
    /// Keywords to clear, in any case.
    pub keywords_remove: Vec<String>,
}

impl FlagEdit {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What becomes of the flags and keywords of one placement.
    #[must_use]
    pub fn apply(&self, flags: Flags, keywords: &Keywords) -> (Flags, Keywords) {
        let mut edited = keywords.clone();
        for name in &self.keywords_add {
            // The only errors are those that the field's doc names.
            let _ = edited.insert(name);
        }
        for name in &self.keywords_remove {
            edited.remove(name);
        }
        (flags.union(self.add).difference(self.remove), edited)
    }
}

/// Edits every visible placement of `ids`, or those in `mailbox`. Returns the messages that changed.
///
/// One event for each of them and one job for each account, in this transaction.
pub async fn flags(
    tx: &mut TenantTx,
    ids: &[MessageId],
    mailbox: Option<MailboxId>,
    edit: &FlagEdit,
) -> Result<Vec<MessageId>, DbError> {
    let mut changed = Vec::new();
    for (account, messages) in ask::lock(tx, ids).await? {
        let asked = ask::ask(tx, account, &messages, |_, visible| ask::flags(visible, mailbox, edit)).await?;
        changed.extend(asked);
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_sets_and_clears_flags_and_keywords_in_any_case() {
        let edit = FlagEdit {
            add: Flags::SEEN,
            remove: Flags::FLAGGED,
            keywords_add: vec!["work".into(), "not an atom".into()],
            keywords_remove: vec!["OLD".into()],
        };
        let (flags, keywords) =
            edit.apply(Flags::FLAGGED | Flags::DRAFT, &Keywords::from_wire(["old", "Work"]));
        assert_eq!(flags, Flags::SEEN | Flags::DRAFT);
        assert_eq!(keywords.as_slice(), ["Work"]);
        assert!(!edit.is_empty() && FlagEdit::default().is_empty());
    }
}
