//! The record of the daily audit: which mailbox is due, what was repaired, who waits for the account.

use super::Target;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId};
use crate::platform::metrics::table;

/// The mailbox whose audit is due for longest. Those that are still being read for the first time, or that our user made or
/// renamed and the server does not know by that name yet, are left out.
pub async fn next(tx: &mut TenantTx, account: AccountId) -> Result<Option<MailboxId>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT b.id FROM mailboxes b WHERE b.tenant_id = $1 AND b.account_id = $2 AND b.selectable AND b.synchronised AND b.tail_uid = 1
           AND (b.last_audit_at IS NULL OR b.last_audit_at NOT BETWEEN now() - interval '20 hours' AND now() + interval '1 minute')
           AND NOT EXISTS (SELECT 1 FROM pending_changes c WHERE c.tenant_id = $1 AND c.account_id = $2
                           AND c.mailbox_id = b.id AND c.kind IN ('create_mailbox', 'rename_mailbox', 'delete_mailbox'))
         ORDER BY b.last_audit_at NULLS FIRST, b.id LIMIT 1",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?)
}

/// The mailbox was compared, and so much repaired in it.
pub async fn done(tx: &mut TenantTx, target: &Target, repairs: u64) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE mailboxes SET last_audit_at = now(), audit_repairs = audit_repairs + $3 WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(i64::try_from(repairs).unwrap_or(i64::MAX))
    .execute(tx.conn())
    .await?;
    metrics::counter!(table::AUDIT_REPAIRS.name).increment(repairs);
    Ok(())
}

/// Makes the counts of the mailbox those of its placements. Returns whether they were others.
pub async fn repair_counts(tx: &mut TenantTx, target: &Target) -> Result<bool, DbError> {
    // First the lock, then the count: what others change meanwhile they add to the count afterwards.
    sqlx::query("SELECT 1 FROM mailboxes WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE")
        .bind(tx.tenant())
        .bind(target.mailbox)
        .execute(tx.conn())
        .await?;
    let done = sqlx::query(
        "UPDATE mailboxes b SET total = n.total, unread = n.unread
         FROM (SELECT count(*)::int AS total, (count(*) FILTER (WHERE flags & 1 = 0))::int AS unread
               FROM message_mailboxes WHERE tenant_id = $1 AND mailbox_id = $2 AND hidden_at IS NULL) n
         WHERE b.tenant_id = $1 AND b.id = $2 AND (b.total <> n.total OR b.unread <> n.unread)",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Whether other work on the account is due, of any kind that needs its lease.
pub async fn somebody_waits(tx: &mut TenantTx, account: AccountId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM jobs WHERE tenant_id = $1 AND kind IN ('sync_account', 'push_changes')
           AND dedupe_key = $2::uuid::text AND state IN ('ready', 'running') AND run_at <= now() + interval '1 second')",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_one(tx.conn())
    .await?)
}
