//! Answers kept under a client's Idempotency-Key, in the transaction that did what they tell.

use serde_json::Value;

use crate::platform::db::{DbError, TenantTx};

/// What a key belongs to: the same text of another caller or route is another key.
#[derive(Debug, Clone, Copy)]
pub struct Slot<'a> {
    /// `user:<id>`.
    pub caller: &'a str,
    /// Method and path.
    pub route: &'a str,
    /// The client's text.
    pub key: &'a str,
}

/// A kept answer.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Kept {
    /// SHA-256 of what was asked.
    pub body_hash: Vec<u8>,
    /// HTTP status.
    pub status: i16,
    /// Header names and values, a JSON object.
    pub headers: Value,
    /// The body as it was sent.
    pub body: Vec<u8>,
}

/// The answer under this key, if one is kept and younger than 24 hours.
pub async fn find(tx: &mut TenantTx, slot: &Slot<'_>) -> Result<Option<Kept>, DbError> {
    Ok(sqlx::query_as(
        "SELECT body_hash, status, headers, body FROM idempotency_keys
         WHERE tenant_id = $1 AND caller = $2 AND route = $3 AND key = $4 AND created_at > now() - interval '24 hours'",
    )
    .bind(tx.tenant())
    .bind(slot.caller)
    .bind(slot.route)
    .bind(slot.key)
    .fetch_optional(tx.conn())
    .await?)
}

/// Claims the key until this transaction ends. `false`: another transaction holds it.
pub async fn lock(tx: &mut TenantTx, slot: &Slot<'_>) -> Result<bool, DbError> {
    let name =
        format!("{}\0{}\0{}\0{}", tx.tenant(), slot.caller, slot.route, slot.key).replace('\0', "\u{1}");
    Ok(sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 7203453))")
        .bind(name)
        .fetch_one(tx.conn())
        .await?)
}

/// Keeps an answer. `false`: one is kept already, and this transaction must not commit.
pub async fn keep(tx: &mut TenantTx, slot: &Slot<'_>, answer: &Kept) -> Result<bool, DbError> {
    let written = sqlx::query(
        "INSERT INTO idempotency_keys AS k (tenant_id, caller, route, key, body_hash, status, headers, body)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (tenant_id, caller, route, key) DO UPDATE SET body_hash = excluded.body_hash,
           status = excluded.status, headers = excluded.headers, body = excluded.body, created_at = now()
         WHERE k.created_at <= now() - interval '24 hours'",
    )
    .bind(tx.tenant())
    .bind(slot.caller)
    .bind(slot.route)
    .bind(slot.key)
    .bind(&answer.body_hash)
    .bind(answer.status)
    .bind(&answer.headers)
    .bind(&answer.body)
    .execute(tx.conn())
    .await?;
    Ok(written.rows_affected() == 1)
}
