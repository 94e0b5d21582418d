//! The stored bytes of messages, one row for equal bytes of an account.
//!
//! Here: reading them. They are written by the synchronisation and by what files our own copies, and never changed.

use sqlx::Row as _;
use uuid::Uuid;

use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MessageId};

/// The source of one message, as it is stored: what can be told without reading it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its account.
    pub account_id: AccountId,
    /// SHA-256 of the bytes.
    pub hash: Vec<u8>,
    /// How many bytes there are.
    pub size: usize,
    never_parse: bool,
}

/// The source of one message, read.
#[derive(Debug, Clone)]
pub struct Source {
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

/// How many bytes of a source are read at once: a row is held whole, in the driver and once more in its connection's buffer.
pub const PIECE_BYTES: usize = 512 * 1024;

/// The source of a visible message, not yet read.
///
/// # Errors
/// Those of the database.
pub async fn find(tx: &mut TenantTx, id: MessageId) -> Result<Option<Stored>, DbError> {
    let row = sqlx::query(
        "SELECT g.account_id, g.never_parse, b.hash, octet_length(b.raw) AS size FROM messages g
         JOIN blobs b ON b.tenant_id = g.tenant_id AND b.account_id = g.account_id AND b.hash = g.blob_hash
         WHERE g.tenant_id = $1 AND g.id = $2 AND g.gone_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Stored {
        account_id: row.try_get("account_id")?,
        hash: row.try_get("hash")?,
        size: usize::try_from(row.try_get::<i32, _>("size")?).unwrap_or_default(),
        never_parse: row.try_get("never_parse")?,
    }))
}

/// At most [`PIECE_BYTES`] of a source, from `offset` on. `None`: the source is gone.
///
/// # Errors
/// Those of the database.
pub async fn piece(
    tx: &mut TenantTx,
    stored: &Stored,
    offset: usize,
    length: usize,
) -> Result<Option<Vec<u8>>, DbError> {
    // Counted from 1; no source is longer than PostgreSQL's numbers.
    let first = i32::try_from(offset.saturating_add(1)).unwrap_or(i32::MAX);
    let length = i32::try_from(length.min(PIECE_BYTES)).unwrap_or(i32::MAX);
    Ok(sqlx::query_scalar(
        "SELECT substring(raw FROM $4 FOR $5) FROM blobs WHERE tenant_id = $1 AND account_id = $2 AND hash = $3",
    )
    .bind(tx.tenant())
    .bind(stored.account_id)
    .bind(&stored.hash)
    .bind(first)
    .bind(length)
    .fetch_optional(tx.conn())
    .await?)
}

/// Reads a source whole, piece by piece. `None`: it is gone.
///
/// # Errors
/// Those of the database.
pub async fn load(tx: &mut TenantTx, stored: Stored) -> Result<Option<Source>, DbError> {
    let mut raw = Vec::with_capacity(stored.size);
    while raw.len() < stored.size {
        match piece(tx, &stored, raw.len(), stored.size - raw.len()).await? {
            Some(bytes) if !bytes.is_empty() => raw.extend_from_slice(&bytes),
            _ => return Ok(None),
        }
    }
    Ok(Some(Source { hash: stored.hash, raw, never_parse: stored.never_parse }))
}

/// The source of a visible message, read whole.
///
/// # Errors
/// Those of the database.
pub async fn of_message(tx: &mut TenantTx, id: MessageId) -> Result<Option<Source>, DbError> {
    match find(tx, id).await? {
        Some(stored) => load(tx, stored).await,
        None => Ok(None),
    }
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
