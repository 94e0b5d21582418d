//! What becomes of edits when mailboxes go, or are not made.

use mail::sync::edits::MailboxKey;
use uuid::Uuid;

use crate::domain::edits::{self, PORTION, key};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId};

/// These mailboxes go: edits that lead into one or out of it have nothing left to do, and what the server had there it has
/// no more. A portion of messages; whether there may be others.
pub async fn mailboxes_gone(tx: &mut TenantTx, account: AccountId, gone: &[Uuid]) -> Result<bool, DbError> {
    let messages: Vec<Uuid> = sqlx::query_scalar(
        "SELECT e.message_id FROM edits e WHERE e.tenant_id = $1 AND e.account_id = $2 AND (
           e.mailbox_id = ANY ($3) OR e.target_mailbox_id = ANY ($3) OR EXISTS (
             SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = $1 AND p.message_id = e.message_id AND p.mailbox_id = ANY ($3)))
         ORDER BY e.id LIMIT $4",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(gone)
    .bind(PORTION as i64)
    .fetch_all(tx.conn())
    .await?;
    let mut works = edits::load(tx, account, &messages).await?;
    for work in &mut works {
        for id in gone {
            work.message.mailbox_gone(MailboxKey(id.as_u128()));
        }
        work.message.settle();
    }
    edits::save(tx, account, &works).await?;
    Ok(messages.len() >= PORTION)
}

/// The server does not make this mailbox: what was to go into it stays where it is.
pub async fn target_refused(tx: &mut TenantTx, account: AccountId, to: MailboxId) -> Result<(), DbError> {
    loop {
        let messages: Vec<Uuid> = sqlx::query_scalar(
            "SELECT DISTINCT message_id FROM edits WHERE tenant_id = $1 AND account_id = $2
               AND (target_mailbox_id = $3 OR mailbox_id = $3) LIMIT $4",
        )
        .bind(tx.tenant())
        .bind(account)
        .bind(to)
        .bind(PORTION as i64)
        .fetch_all(tx.conn())
        .await?;
        if messages.is_empty() {
            return Ok(());
        }
        let mut works = edits::load(tx, account, &messages).await?;
        for work in &mut works {
            work.message.mailbox_gone(key(to));
        }
        edits::save(tx, account, &works).await?;
    }
}

/// Whether anything that a mailbox holds on the server is on its way out of it.
pub async fn leaves(tx: &mut TenantTx, source: MailboxId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(
        // Nothing is hidden there without an edit of its message; of the placements alone all would be looked at.
        "SELECT EXISTS (SELECT 1 FROM mailboxes b JOIN edits e ON e.tenant_id = b.tenant_id AND e.account_id = b.account_id
                        JOIN message_mailboxes p ON p.tenant_id = e.tenant_id AND p.message_id = e.message_id AND p.mailbox_id = b.id
                        WHERE b.tenant_id = $1 AND b.id = $2 AND p.uid IS NOT NULL AND p.hidden_at IS NOT NULL AND NOT p.marked)
           OR EXISTS (SELECT 1 FROM edits WHERE tenant_id = $1 AND mailbox_id = $2 AND kind IN ('copy', 'move'))",
    )
    .bind(tx.tenant())
    .bind(source)
    .fetch_one(tx.conn())
    .await?)
}
