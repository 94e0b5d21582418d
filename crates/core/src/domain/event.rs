//! The event log: every change of a message, mailbox, account or submission, written in the change's own transaction.
//!
//! Kinds are `noun.verb`: `message.created`, `message.updated`, `message.deleted`, `mailbox.created`,
//! `mailbox.updated`, `mailbox.deleted`, `mailbox.reset`, `account.created`, `account.updated`, `account.deleted`,
//! `submission.queued`, `submission.sent`, `submission.failed`, `submission.unknown`, `submission.cancelled`.

use serde_json::Value;
use uuid::Uuid;

use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::AccountId;

/// One event to be written.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// What happened, `noun.verb`.
    pub kind: &'static str,
    /// The object it happened to.
    pub object_id: Uuid,
    /// Ids and states that tell a reader where to look; never contents.
    pub data: Value,
}

/// Adds events of one account, in order, in one statement.
pub async fn record(
    tx: &mut TenantTx,
    account: Option<AccountId>,
    events: &[NewEvent],
) -> Result<(), DbError> {
    if events.is_empty() {
        return Ok(());
    }
    let kinds: Vec<&str> = events.iter().map(|e| e.kind).collect();
    let objects: Vec<Uuid> = events.iter().map(|e| e.object_id).collect();
    let data: Vec<Value> = events.iter().map(|e| e.data.clone()).collect();
    sqlx::query(
        "INSERT INTO events (tenant_id, account_id, kind, object_id, data)
         SELECT $1, $2, e.kind, e.object_id, e.data FROM unnest($3::text[], $4::uuid[], $5::jsonb[]) WITH ORDINALITY AS e(kind, object_id, data, n) ORDER BY n",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(kinds)
    .bind(objects)
    .bind(data)
    .execute(tx.conn())
    .await?;
    Ok(())
}
