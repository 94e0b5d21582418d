//! Flags and keywords as our user sets them: written to the placements at once, pushed to the server by a job.
//!
//! Only `flags` and `keywords` are written; `base_flags` and `base_keywords` stay what the server last confirmed, and
//! the difference is what [`Job::PushChanges`] sends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mail::flags::{Flags, Keywords};
use serde_json::json;
use sqlx::Row as _;
use uuid::Uuid;

use crate::db::{DbError, TenantTx};
use crate::event::{self, NewEvent};
use crate::id::{AccountId, MailboxId, MessageId};
use crate::job::{self, Job};
use crate::lease;

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
    let messages: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    lock_accounts(tx, &messages).await?;
    // Locked in one order, so that two edits of the same messages wait for each other instead of deadlocking.
    let rows = sqlx::query(
        "SELECT id, account_id, message_id, flags, keywords FROM message_mailboxes
         WHERE tenant_id = $1 AND message_id = ANY ($2) AND hidden_at IS NULL AND ($3::uuid IS NULL OR mailbox_id = $3)
         ORDER BY id FOR UPDATE",
    )
    .bind(tx.tenant())
    .bind(&messages)
    .bind(mailbox)
    .fetch_all(tx.conn())
    .await?;
    let mut edited = Edited::default();
    for row in &rows {
        let before = (
            Flags::from_bits(row.try_get("flags")?),
            Keywords::from_wire(row.try_get::<Vec<String>, _>("keywords")?),
        );
        let after = edit.apply(before.0, &before.1);
        if after != before {
            edited.placements.push(row.try_get("id")?);
            edited.flags.push(after.0.bits());
            edited.keywords.push(json!(after.1.as_slice()));
            edited.messages.entry(row.try_get("account_id")?).or_default().insert(row.try_get("message_id")?);
        }
    }
    edited.write(tx).await?;
    Ok(edited.messages.into_values().flatten().collect())
}

/// Before anything else of the accounts is locked, as a worker does. It locks placements and, by trigger, the counts of
/// their mailbox in one order, we in the other: the database would end one of the two.
pub(super) async fn lock_accounts(tx: &mut TenantTx, messages: &[Uuid]) -> Result<(), DbError> {
    let accounts: Vec<AccountId> =
        sqlx::query_scalar("SELECT DISTINCT account_id FROM messages WHERE tenant_id = $1 AND id = ANY ($2)")
            .bind(tx.tenant())
            .bind(messages)
            .fetch_all(tx.conn())
            .await?;
    lease::lock(tx, &accounts).await
}

#[derive(Default)]
struct Edited {
    placements: Vec<Uuid>,
    flags: Vec<i16>,
    keywords: Vec<serde_json::Value>,
    messages: BTreeMap<AccountId, BTreeSet<MessageId>>,
}

impl Edited {
    async fn write(&self, tx: &mut TenantTx) -> Result<(), DbError> {
        if self.placements.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "UPDATE message_mailboxes p SET flags = e.flags, keywords = ARRAY(SELECT jsonb_array_elements_text(e.keywords))
             FROM unnest($2::uuid[], $3::smallint[], $4::jsonb[]) AS e(id, flags, keywords)
             WHERE p.tenant_id = $1 AND p.id = e.id",
        )
        .bind(tx.tenant())
        .bind(&self.placements)
        .bind(&self.flags)
        .bind(&self.keywords)
        .execute(tx.conn())
        .await?;
        for (account, messages) in &self.messages {
            record(tx, *account, "message.updated", messages.iter().copied(), "flags").await?;
            push(tx, *account).await?;
        }
        Ok(())
    }
}

/// One event for each message, saying what of it to read again.
pub(super) async fn record(
    tx: &mut TenantTx,
    account: AccountId,
    kind: &'static str,
    messages: impl Iterator<Item = MessageId>,
    changed: &str,
) -> Result<(), DbError> {
    let events: Vec<NewEvent> =
        messages.map(|id| NewEvent { kind, object_id: id.0, data: json!({ "changed": changed }) }).collect();
    event::record(tx, Some(account), &events).await
}

/// Asks a worker to bring the account's edits to its server.
pub(crate) async fn push(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    job::enqueue(tx, &Job::PushChanges { account_id: account }, Duration::ZERO, job::priority::PUSH).await?;
    Ok(())
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
