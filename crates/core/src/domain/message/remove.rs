//! Removing messages for good.

use uuid::Uuid;

use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::AccountId;

/// Removes messages of an account with their edits, places and words, and the bytes and conversations that only they used.
/// How many went.
///
/// Nobody may be about to refer to the same bytes: the caller holds the account's lease row, or the account is deleted.
///
/// # Errors
/// When the database refuses.
pub async fn remove(tx: &mut TenantTx, account: AccountId, ids: &[Uuid]) -> Result<u64, DbError> {
    let tenant = tx.tenant();
    // A message of a mailbox that is being removed may use the same.
    let hidden = tx.unhide().await?;
    sqlx::query("DELETE FROM edits WHERE tenant_id = $1 AND message_id = ANY ($2)")
        .bind(tenant)
        .bind(ids)
        .execute(tx.conn())
        .await?;
    let gone: Vec<(Vec<u8>, Uuid)> = sqlx::query_as(
        "DELETE FROM messages WHERE tenant_id = $1 AND id = ANY ($2) RETURNING blob_hash, thread_id",
    )
    .bind(tenant)
    .bind(ids)
    .fetch_all(tx.conn())
    .await?;
    let count = gone.len() as u64;
    let (hashes, threads): (Vec<Vec<u8>>, Vec<Uuid>) = gone.into_iter().unzip();
    sqlx::query(
        "DELETE FROM blobs b WHERE b.tenant_id = $1 AND b.account_id = $2 AND b.hash = ANY ($3) AND NOT EXISTS (
           SELECT 1 FROM messages m WHERE m.tenant_id = b.tenant_id AND m.account_id = b.account_id AND m.blob_hash = b.hash)",
    )
    .bind(tenant)
    .bind(account)
    .bind(hashes)
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "DELETE FROM threads t WHERE t.tenant_id = $1 AND t.id = ANY ($2)
           AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.tenant_id = t.tenant_id AND m.thread_id = t.id)",
    )
    .bind(tenant)
    .bind(threads)
    .execute(tx.conn())
    .await?;
    tx.hide_again(hidden).await?;
    Ok(count)
}
