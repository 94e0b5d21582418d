//! Our users' changes of the tree of mailboxes on their way to the server.
//!
//! A refusal is counted, and after [`GIVE_UP_AFTER`] of them the change is taken back: see [`super::take_back`].

use serde_json::Value;
use sqlx::Row as _;
use uuid::Uuid;

use crate::domain::mailbox::meant::Meant;
use crate::domain::states::mailbox_role;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, ChangeId};
use crate::sync::GIVE_UP_AFTER;

/// A change of the mailbox tree that the server has not confirmed.
#[derive(Debug, Clone)]
pub struct TreeChange {
    /// The row.
    pub id: ChangeId,
    /// What to do.
    pub kind: TreeChangeKind,
    /// What is known of the mailbox to rename or delete.
    pub meant: Meant,
}

/// What to do with a mailbox on the server; names as on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeChangeKind {
    /// CREATE
    Create {
        /// The mailbox.
        name: Vec<u8>,
        /// What it is for.
        role: Option<mail::mailbox::Role>,
    },
    /// RENAME
    Rename {
        /// As the server has it.
        from: Vec<u8>,
        /// As it shall be.
        to: Vec<u8>,
    },
    /// DELETE
    Delete {
        /// The mailbox.
        name: Vec<u8>,
    },
    /// SUBSCRIBE or UNSUBSCRIBE
    Subscribe {
        /// The mailbox.
        name: Vec<u8>,
        /// Which of the two.
        on: bool,
    },
}

/// Changes of the tree that wait, oldest first, up to the first that has to wait: a mailbox that is deleted goes here before it
/// goes on the server. Rows that mean nothing any more are dropped.
pub async fn tree_changes(tx: &mut TenantTx, account: AccountId) -> Result<Vec<TreeChange>, DbError> {
    let rows = sqlx::query(
        "SELECT c.id, c.kind, c.data, b.wire_name, b.role, EXISTS (
           SELECT 1 FROM mailbox_removals r WHERE r.tenant_id = c.tenant_id AND r.mailbox_id = (c.data->>'after')::uuid) AS waits
         FROM pending_changes c
         LEFT JOIN mailboxes b ON b.tenant_id = c.tenant_id AND b.id = c.mailbox_id
         WHERE c.tenant_id = $1 AND c.account_id = $2
           AND c.kind IN ('create_mailbox', 'rename_mailbox', 'delete_mailbox', 'subscribe', 'unsubscribe')
           AND c.attempts < $3
         ORDER BY c.id",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(GIVE_UP_AFTER)
    .fetch_all(tx.conn())
    .await?;
    let mut changes = Vec::new();
    for row in rows {
        if row.try_get("waits")? {
            break;
        }
        let id = row.try_get("id")?;
        let (kind, data): (&str, Value) = (row.try_get("kind")?, row.try_get("data")?);
        let name: Option<Vec<u8>> = row.try_get("wire_name")?;
        let told = |key: &str| data.get(key).and_then(Value::as_str).and_then(|h| hex::decode(h).ok());
        let role = mailbox_role(&row)?;
        let kind = match (kind, name) {
            ("create_mailbox", Some(name)) => Some(TreeChangeKind::Create { name, role }),
            ("rename_mailbox", _) => {
                told("from_hex").zip(told("to_hex")).map(|(from, to)| TreeChangeKind::Rename { from, to })
            }
            ("delete_mailbox", _) => told("wire_name_hex").map(|name| TreeChangeKind::Delete { name }),
            ("subscribe", Some(name)) => Some(TreeChangeKind::Subscribe { name, on: true }),
            ("unsubscribe", Some(name)) => Some(TreeChangeKind::Subscribe { name, on: false }),
            _ => None,
        };
        match kind {
            Some(kind) => changes.push(TreeChange { id, kind, meant: Meant::read(&data) }),
            None => done(tx, &[id]).await?,
        }
    }
    Ok(changes)
}

/// These changes are what the server has now.
pub async fn done(tx: &mut TenantTx, changes: &[ChangeId]) -> Result<(), DbError> {
    let ids: Vec<Uuid> = changes.iter().map(|c| c.0).collect();
    sqlx::query("DELETE FROM pending_changes WHERE tenant_id = $1 AND id = ANY ($2)")
        .bind(tx.tenant())
        .bind(ids)
        .execute(tx.conn())
        .await?;
    Ok(())
}
