//! The stored bytes of messages, one row for equal bytes of an account.
//!
//! Here: reading them. They are written by the synchronisation and by what files our own copies, and never changed.

use sqlx::Row as _;
use uuid::Uuid;

use crate::db::{DbError, TenantTx};
use crate::id::{AccountId, MessageId};

/// The source of one message.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its account.
    pub account_id: AccountId,
    /// SHA-256 of the bytes.
    pub hash: Vec<u8>,
    /// The bytes as the server gave them.
    pub raw: Vec<u8>,
    never_parse: bool,
}

impl Source {
    /// The bytes for whoever looks into them: none of a message over which processes ended.
    #[must_use]
    pub fn readable(&self) -> &[u8] {
        if self.never_parse { &[] } else { &self.raw }
    }
}

/// The source of a visible message.
pub async fn of_message(tx: &mut TenantTx, id: MessageId) -> Result<Option<Source>, DbError> {
    let row = sqlx::query(
        "SELECT g.account_id, g.never_parse, b.hash, b.raw FROM messages g
         JOIN blobs b ON b.tenant_id = g.tenant_id AND b.account_id = g.account_id AND b.hash = g.blob_hash
         WHERE g.tenant_id = $1 AND g.id = $2 AND g.gone_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Source {
        account_id: row.try_get("account_id")?,
        hash: row.try_get("hash")?,
        raw: row.try_get("raw")?,
        never_parse: row.try_get("never_parse")?,
    }))
}

/// SHA-256 of a visible message's source, without reading the source: enough to answer a conditional request.
pub async fn hash_of_message(tx: &mut TenantTx, id: MessageId) -> Result<Option<Vec<u8>>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT blob_hash FROM messages WHERE tenant_id = $1 AND id = $2 AND gone_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?)
}

/// The sources of those of `ids` that are at most `max_bytes` long and may be looked into, in no order.
pub async fn of_messages(
    tx: &mut TenantTx,
    ids: &[MessageId],
    max_bytes: i64,
) -> Result<Vec<(MessageId, Vec<u8>)>, DbError> {
    let raw: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query(
        "SELECT g.id, b.raw FROM unnest($2::uuid[]) AS w(id)
         CROSS JOIN LATERAL (SELECT m.id, m.account_id, m.blob_hash FROM messages m
           WHERE m.tenant_id = $1 AND m.id = w.id AND m.size_bytes <= $3 AND NOT m.never_parse OFFSET 0) g
         JOIN blobs b ON b.tenant_id = $1 AND b.account_id = g.account_id AND b.hash = g.blob_hash",
    )
    .bind(tx.tenant())
    .bind(&raw)
    .bind(max_bytes)
    .fetch_all(tx.conn())
    .await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("raw")?))).collect()
}
