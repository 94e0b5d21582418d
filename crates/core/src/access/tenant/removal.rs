//! A tenant that goes: suspended for good at once, removed in portions by the job `remove_tenant`, its row last.

use chrono::{DateTime, Utc};
use sqlx::AssertSqlSafe;

use crate::platform::db::{DbError, SystemTx, TenantTx};
use crate::platform::id::TenantId;

/// Deletes the tenant of `tx`: it is suspended and its slug is free. `false`: there is none, or it is deleted already. Asking for
/// the job, and stopping what runs ([`crate::queue::suspension::stop`]), is the caller's.
///
/// # Errors
/// When the database refuses.
pub async fn delete(tx: &mut TenantTx) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE tenants SET removed_at = now(), suspended_at = coalesce(suspended_at, now()), slug = 'removed-' || id
         WHERE id = $1 AND removed_at IS NULL",
    )
    .bind(tx.tenant())
    .execute(tx.conn())
    .await?;
    // Nothing is read, sent or filed any more. Jobs of a deleted tenant are claimed, and those would come back for ever.
    sqlx::query("DELETE FROM jobs WHERE tenant_id = $1 AND state = 'ready'")
        .bind(tx.tenant())
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether the tenant of `tx` is deleted: nothing of any other is removed.
///
/// # Errors
/// When the database refuses.
pub async fn is_deleted(tx: &mut TenantTx) -> Result<bool, DbError> {
    let deleted: Option<bool> =
        sqlx::query_scalar("SELECT removed_at IS NOT NULL FROM tenants WHERE id = $1")
            .bind(tx.tenant())
            .fetch_optional(tx.conn())
            .await?;
    Ok(deleted.unwrap_or(false))
}

/// Tenants that are deleted and have no job that removes them.
///
/// # Errors
/// When the database refuses.
pub async fn lost(tx: &mut SystemTx) -> Result<Vec<TenantId>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT t.id FROM tenants t WHERE t.removed_at IS NOT NULL AND NOT EXISTS (
           SELECT 1 FROM jobs j WHERE j.tenant_id = t.id AND j.kind = 'remove_tenant'
             AND j.dedupe_key = t.id::text AND j.state IN ('ready','running'))
         LIMIT 500",
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Tenants that are being removed (and since when they are deleted), or lose accounts or mailboxes.
///
/// # Errors
/// When the database refuses.
pub async fn all(tx: &mut SystemTx) -> Result<Vec<(TenantId, Option<DateTime<Utc>>)>, DbError> {
    Ok(sqlx::query_as(
        "SELECT t.id, t.removed_at FROM tenants t
         WHERE t.removed_at IS NOT NULL OR EXISTS (SELECT 1 FROM account_removals r WHERE r.tenant_id = t.id)
           OR EXISTS (SELECT 1 FROM mailbox_removals r WHERE r.tenant_id = t.id) ORDER BY t.id",
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Tables that hold rows of tenants, those that refer to others before these, so that no row takes many with it. The catalogue is
/// asked: a table that is new needs no line here. The job goes on until its own row is the last, and the audit trail goes by a
/// function.
///
/// # Errors
/// When the database refuses.
pub async fn tables(tx: &mut TenantTx) -> Result<Vec<String>, DbError> {
    Ok(sqlx::query_scalar(
        "WITH RECURSIVE refers AS (
           SELECT c.oid AS oid, 0 AS depth FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
             AND NOT a.attisdropped
           WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname NOT IN ('jobs', 'audit_log')
           UNION
           SELECT f.conrelid, r.depth + 1 FROM refers r JOIN pg_constraint f ON f.confrelid = r.oid AND f.contype = 'f'
             AND f.conrelid <> f.confrelid
           WHERE r.depth < 16)
         SELECT c.relname::text FROM refers r JOIN pg_class c ON c.oid = r.oid WHERE c.relname NOT IN ('jobs', 'audit_log')
         GROUP BY c.relname ORDER BY max(r.depth) DESC, c.relname",
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Removes at most `rows` of the tenant from one of [`tables`]. How many went.
///
/// # Errors
/// When the database refuses.
pub async fn portion(tx: &mut TenantTx, table: &str, rows: i64) -> Result<u64, DbError> {
    let sql = format!(
        "DELETE FROM {table} WHERE tenant_id = $1 AND ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE tenant_id = $1 LIMIT $2))"
    );
    let done = sqlx::query(AssertSqlSafe(sql)).bind(tx.tenant()).bind(rows).execute(tx.conn()).await?;
    Ok(done.rows_affected())
}

/// The same of the jobs that do not run, but for its removal.
///
/// # Errors
/// When the database refuses.
pub async fn jobs(tx: &mut TenantTx, rows: i64) -> Result<u64, DbError> {
    let done = sqlx::query(
        "DELETE FROM jobs WHERE tenant_id = $1 AND id = ANY (ARRAY(
           SELECT id FROM jobs WHERE tenant_id = $1 AND kind <> 'remove_tenant' AND state <> 'running' LIMIT $2))",
    )
    .bind(tx.tenant())
    .bind(rows)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// The same of the audit trail; none before every process knows that the tenant is deleted.
///
/// # Errors
/// When the database refuses.
pub async fn trail(tx: &mut TenantTx, rows: i64) -> Result<u64, DbError> {
    let rows = i32::try_from(rows).unwrap_or(i32::MAX);
    let gone: i64 =
        sqlx::query_scalar("SELECT remove_tenant_trail($1)").bind(rows).fetch_one(tx.conn()).await?;
    Ok(u64::try_from(gone).unwrap_or_default())
}

/// Removes the tenant's row, with its jobs and whatever was written since the portions. `false`: it is too early.
///
/// # Errors
/// When the database refuses.
pub async fn row(tx: &mut TenantTx) -> Result<bool, DbError> {
    let done: bool = sqlx::query_scalar("SELECT remove_tenant_row()").fetch_one(tx.conn()).await?;
    // They refer to no tenant's row, and whoever was about to write events has ended.
    for table in ["events", "tenant_streams"] {
        portion(tx, table, 100_000).await?;
    }
    Ok(done)
}
