//! Messages by the ids that the server has for them in every mailbox, so that bytes that are here are not fetched again.
//!
//! They hang on the conversation: its key ([`thread_key`]) leads to its messages, each with its own id. A server that puts a
//! million messages into one conversation has some of them fetched twice, and nothing else comes of it.

use std::collections::HashMap;

use wire::imap::LastingIds;

use super::Target;
use super::prepare::key_of;
use super::vanish::over;
use crate::platform::db::{Db, DbError};
use crate::platform::id::TenantId;

/// Messages of one conversation that are looked at.
const OF_A_THREAD: i64 = 500;

/// The id as it is stored. No ObjectID (RFC 8474) has such a form.
#[must_use]
pub fn email_id(ids: LastingIds) -> String {
    format!("gm:{}", ids.message)
}

/// The key of its conversation; no Message-ID has such a form.
#[must_use]
pub fn thread_key(ids: LastingIds) -> Option<[u8; 16]> {
    key_of(&format!("<x-gm-thrid:{}>", ids.thread))
}

/// Bytes of a message that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Here {
    /// Under this hash.
    pub hash: [u8; 32],
    /// So many.
    pub size: u64,
}

/// Which of these messages the account has and this mailbox has not: what arrives here is a further place of them.
///
/// # Errors
/// Those of the database.
pub async fn here(
    db: &Db,
    tenant: TenantId,
    target: &Target,
    ids: &[LastingIds],
) -> Result<HashMap<LastingIds, Here>, DbError> {
    let keyed: Vec<(LastingIds, [u8; 16])> =
        ids.iter().filter_map(|ids| Some((*ids, thread_key(*ids)?))).collect();
    if keyed.is_empty() {
        return Ok(HashMap::new());
    }
    let mut tx = db.tenant(tenant).await?;
    // As `ingest` looks for them, so that it finds what is promised here.
    let rows: Vec<(i64, Vec<u8>, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "SELECT a.at, m.blob_hash, m.size_bytes
         FROM unnest($4::bytea[], $5::text[]) WITH ORDINALITY AS a(key, email_id, at)
         JOIN thread_keys k ON k.tenant_id = $1 AND k.account_id = $2 AND k.key = a.key
         CROSS JOIN LATERAL (
           SELECT c.id, c.blob_hash, c.size_bytes FROM (
             SELECT id, blob_hash, size_bytes, email_id, gone_at FROM messages
             WHERE tenant_id = $1 AND thread_id = k.thread_id LIMIT $7) c
           WHERE c.email_id = a.email_id AND (c.gone_at IS NULL OR c.gone_at >= {over}) LIMIT 1) m
         WHERE NOT EXISTS (
           SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = $1 AND p.message_id = m.id AND p.mailbox_id = $3
             AND p.generation = $6 AND p.uid IS NOT NULL)",
        over = over("$1", "$2")
    )))
    .bind(tenant)
    .bind(target.account)
    .bind(target.mailbox)
    .bind(keyed.iter().map(|(_, key)| key.as_slice()).collect::<Vec<_>>())
    .bind(keyed.iter().map(|(ids, _)| email_id(*ids)).collect::<Vec<_>>())
    .bind(target.generation)
    .bind(OF_A_THREAD)
    .fetch_all(tx.conn())
    .await?;
    tx.release();
    let found = rows.into_iter().filter_map(|(at, hash, size)| {
        let (ids, _) = keyed.get(usize::try_from(at).ok()?.checked_sub(1)?)?;
        Some((*ids, Here { hash: hash.try_into().ok()?, size: u64::try_from(size).ok()? }))
    });
    Ok(found.collect())
}
