//! The mailbox tree as the planner decided it, in one transaction.

use mail::mailbox::{decode_name, split_last};
use mail::sync::{ListedMailbox, TreeWrite};
use mail::uid::{Uid, UidSet};
use serde_json::json;

use super::view::Entry;
use super::{Target, attempts, status, vanish};
use crate::db::{DbError, TenantTx};
use crate::event::{self, NewEvent};
use crate::id::{AccountId, MailboxId};

/// Names of mailboxes that our users deleted or renamed away and the server still lists: they must not come back.
pub async fn names_to_ignore(tx: &mut TenantTx, account: AccountId) -> Result<Vec<Vec<u8>>, DbError> {
    let hex: Vec<Option<String>> = sqlx::query_scalar(
        "SELECT CASE kind WHEN 'delete_mailbox' THEN data->>'wire_name_hex' ELSE data->>'from_hex' END FROM pending_changes
         WHERE tenant_id = $1 AND account_id = $2 AND kind IN ('delete_mailbox', 'rename_mailbox')",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_all(tx.conn())
    .await?;
    Ok(hex.into_iter().flatten().filter_map(|h| hex::decode(h).ok()).collect())
}

/// Performs `writes`; their numbers are indexes into `listed` and `entries`.
pub async fn apply(
    tx: &mut TenantTx,
    account: AccountId,
    writes: &[TreeWrite],
    listed: &[ListedMailbox],
    entries: &[Entry],
) -> Result<(), DbError> {
    let tree = Tree { account, listed, entries };
    tree.clear_names(tx, writes).await?;
    let mut events = Vec::new();
    for write in writes {
        events.extend(tree.perform(tx, *write).await?);
    }
    event::record(tx, Some(account), &events).await
}

struct Tree<'a> {
    account: AccountId,
    listed: &'a [ListedMailbox],
    entries: &'a [Entry],
}

impl Tree<'_> {
    /// Two mailboxes may have swapped names, and names are unique: every renamed row first gets its id for a name.
    async fn clear_names(&self, tx: &mut TenantTx, writes: &[TreeWrite]) -> Result<(), DbError> {
        let renamed: Vec<uuid::Uuid> = writes
            .iter()
            .filter_map(|w| match w {
                TreeWrite::Rename { local, .. } => self.entries.get(*local).map(|e| e.id.0),
                _ => None,
            })
            .collect();
        if renamed.is_empty() {
            return Ok(());
        }
        // NUL cannot stand in a name on the wire.
        sqlx::query("UPDATE mailboxes SET wire_name = '\\x00'::bytea || uuid_send(id) WHERE tenant_id = $1 AND id = ANY ($2)")
            .bind(tx.tenant())
            .bind(renamed)
            .execute(tx.conn())
            .await?;
        Ok(())
    }

    async fn perform(&self, tx: &mut TenantTx, write: TreeWrite) -> Result<Option<NewEvent>, DbError> {
        match write {
            TreeWrite::Create { listed } => match self.listed.get(listed) {
                Some(mailbox) => self.create(tx, mailbox).await,
                None => Ok(None),
            },
            TreeWrite::Rename { local, listed, relink } => {
                let Some((entry, mailbox)) = self.pair(local, listed) else { return Ok(None) };
                self.rename(tx, entry, mailbox).await?;
                if relink {
                    self.forget_numbers(tx, entry.id).await?;
                }
                Ok(Some(status::mailbox_event("mailbox.updated", entry.id, json!({ "changed": "name" }))))
            }
            TreeWrite::Recreate { local, listed } => {
                let Some((entry, mailbox)) = self.pair(local, listed) else { return Ok(None) };
                self.update(tx, entry.id, mailbox).await?;
                self.forget_numbers(tx, entry.id).await?;
                Ok(Some(status::mailbox_event("mailbox.reset", entry.id, json!({}))))
            }
            TreeWrite::Update { local, listed } => {
                let Some((entry, mailbox)) = self.pair(local, listed) else { return Ok(None) };
                self.update(tx, entry.id, mailbox).await?;
                Ok(Some(status::mailbox_event("mailbox.updated", entry.id, json!({}))))
            }
            TreeWrite::Empty { local } => {
                let Some(entry) = self.entries.get(local) else { return Ok(None) };
                self.empty(tx, entry).await?;
                self.forget_numbers(tx, entry.id).await?;
                Ok(None)
            }
            TreeWrite::Remove { local } => {
                let Some(entry) = self.entries.get(local) else { return Ok(None) };
                self.empty(tx, entry).await?;
                sqlx::query("DELETE FROM mailboxes WHERE tenant_id = $1 AND id = $2")
                    .bind(tx.tenant())
                    .bind(entry.id)
                    .execute(tx.conn())
                    .await?;
                Ok(Some(status::mailbox_event("mailbox.deleted", entry.id, json!({}))))
            }
        }
    }

    fn pair(&self, local: usize, listed: usize) -> Option<(&Entry, &ListedMailbox)> {
        Some((self.entries.get(local)?, self.listed.get(listed)?))
    }

    async fn create(&self, tx: &mut TenantTx, mailbox: &ListedMailbox) -> Result<Option<NewEvent>, DbError> {
        let id = MailboxId::new();
        let path = decode_name(&mailbox.wire_name);
        let (_, name) = split_last(&path, mailbox.delimiter);
        let made = sqlx::query(
            "INSERT INTO mailboxes (tenant_id, id, account_id, wire_name, path, name, delimiter, role, mailboxid, selectable, subscribed)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (tenant_id, account_id, wire_name) DO NOTHING",
        )
        .bind(tx.tenant())
        .bind(id)
        .bind(self.account)
        .bind(&mailbox.wire_name)
        .bind(&path)
        .bind(name)
        .bind(mailbox.delimiter.map(String::from))
        .bind(mailbox.role.map(mail::mailbox::Role::as_str))
        .bind(&mailbox.mailboxid)
        .bind(mailbox.selectable())
        .bind(mailbox.subscribed)
        .execute(tx.conn())
        .await?;
        if made.rows_affected() == 0 {
            super::refusal::made_elsewhere(tx, self.account, &mailbox.wire_name).await?;
        }
        Ok((made.rows_affected() == 1).then(|| status::mailbox_event("mailbox.created", id, json!({}))))
    }

    async fn rename(&self, tx: &mut TenantTx, entry: &Entry, mailbox: &ListedMailbox) -> Result<(), DbError> {
        let path = decode_name(&mailbox.wire_name);
        let (_, name) = split_last(&path, mailbox.delimiter);
        sqlx::query(
            "UPDATE mailboxes SET wire_name = $3, path = $4, name = $5 WHERE tenant_id = $1 AND id = $2",
        )
        .bind(tx.tenant())
        .bind(entry.id)
        .bind(&mailbox.wire_name)
        .bind(&path)
        .bind(name)
        .execute(tx.conn())
        .await?;
        Ok(())
    }

    async fn update(&self, tx: &mut TenantTx, id: MailboxId, mailbox: &ListedMailbox) -> Result<(), DbError> {
        sqlx::query(
            "UPDATE mailboxes SET delimiter = $3, role = $4, mailboxid = coalesce($5, mailboxid), selectable = $6, subscribed = $7
             WHERE tenant_id = $1 AND id = $2",
        )
        .bind(tx.tenant())
        .bind(id)
        .bind(mailbox.delimiter.map(String::from))
        .bind(mailbox.role.map(mail::mailbox::Role::as_str))
        .bind(&mailbox.mailboxid)
        .bind(mailbox.selectable())
        .bind(mailbox.subscribed)
        .execute(tx.conn())
        .await?;
        Ok(())
    }

    /// Nothing of what was known about UIDs holds any more; placements wait in their old generation.
    async fn forget_numbers(&self, tx: &mut TenantTx, id: MailboxId) -> Result<(), DbError> {
        attempts::forget_all(tx, id).await?;
        sqlx::query(
            "UPDATE mailboxes SET generation = generation + 1, uidvalidity = NULL, uidnext = NULL, head_uid = 0, tail_uid = 0,
               modseq = NULL, base_modseq = NULL, exists_seen = 0, state = 'new' WHERE tenant_id = $1 AND id = $2",
        )
        .bind(tx.tenant())
        .bind(id)
        .execute(tx.conn())
        .await?;
        Ok(())
    }

    async fn empty(&self, tx: &mut TenantTx, entry: &Entry) -> Result<(), DbError> {
        let target = Target {
            account: self.account,
            mailbox: entry.id,
            generation: entry.local.checkpoint.generation,
        };
        vanish::vanish(tx, &target, &UidSet::range(Uid::MIN, Uid::MAX)).await?;
        vanish::drop_earlier_generations(tx, &target).await?;
        Ok(())
    }
}
