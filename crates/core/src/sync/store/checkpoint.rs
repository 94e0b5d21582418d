//! How far a mailbox is vouched for, written in the transaction of the rows it vouches for.

use chrono::{DateTime, Utc};
use mail::sync::Checkpoint;

use super::Target;
use crate::platform::db::{DbError, TenantTx};

/// Writes all columns of the checkpoint. `exists` is what the server counted when the mailbox was opened: until the
/// backfill is complete it stands for the total that progress is measured against.
pub async fn write(tx: &mut TenantTx, target: &Target, at: &Checkpoint, exists: u32) -> Result<(), DbError> {
    let counted = if at.tail_uid == 1 && at.exists_seen > 0 { at.exists_seen } else { exists };
    sqlx::query(
        "UPDATE mailboxes SET generation = $3, uidvalidity = $4, uidnext = nullif($5, 0), head_uid = $6, tail_uid = $7::bigint,
           modseq = nullif($8, 0), base_modseq = CASE WHEN $7::bigint = 1 THEN NULL ELSE coalesce(base_modseq, nullif($8, 0)) END,
           exists_seen = $9,
           state = CASE WHEN $7::bigint = 0 THEN 'new' WHEN $7::bigint > 1 THEN 'backfill' WHEN state = 'failed' THEN state ELSE 'synced' END
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(at.generation)
    .bind(at.uidvalidity.map(i64::from))
    .bind(i64::from(at.uidnext))
    .bind(i64::from(at.head_uid))
    .bind(i64::from(at.tail_uid))
    .bind(at.modseq.to_i64())
    .bind(i64::from(counted))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// SQL: the cause of mailbox `b` is still to be told though the mailbox was read.
const LASTS: &str = "CASE b.cause_code
    WHEN 'refused' THEN b.cause_since BETWEEN now() - interval '1 day' AND now() + interval '1 minute'
    WHEN 'edits-refused' THEN EXISTS (
      SELECT 1 FROM edits e JOIN message_mailboxes p ON p.tenant_id = e.tenant_id AND p.message_id = e.message_id AND p.mailbox_id = b.id
      WHERE e.tenant_id = b.tenant_id AND e.account_id = b.account_id AND e.refusals > 0)
    ELSE false END";

/// How far a visit came that found nothing left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visited {
    /// The database's time before the mailbox was opened: what had come by then is here.
    pub opened_at: Option<DateTime<Utc>>,
    /// What had gone by then is gone, too.
    pub removals: bool,
    /// All of the mailbox was compared.
    pub whole: bool,
}

/// A visit found nothing left to do.
pub async fn visited(tx: &mut TenantTx, target: &Target, visit: Visited) -> Result<(), DbError> {
    // Reading well does not make up for what was refused: a change of the tree is told for a day, one of messages while it
    // waits.
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE mailboxes b SET last_synced_at = now(),
           cause_code = CASE WHEN k.lasts THEN b.cause_code END, cause_text = CASE WHEN k.lasts THEN b.cause_text END,
           cause_upstream = CASE WHEN k.lasts THEN b.cause_upstream END, cause_since = CASE WHEN k.lasts THEN b.cause_since END,
           state = CASE WHEN b.tail_uid = 1 THEN 'synced' WHEN b.tail_uid = 0 THEN 'new' ELSE 'backfill' END,
           last_full_at = CASE WHEN $3 THEN now() ELSE b.last_full_at END,
           arrivals_read_at = coalesce($4, b.arrivals_read_at),
           read_at = CASE WHEN $5 THEN coalesce($4, b.read_at) ELSE b.read_at END
         FROM (SELECT b.id, {LASTS} AS lasts FROM mailboxes b WHERE b.tenant_id = $1 AND b.id = $2) k
         WHERE b.tenant_id = $1 AND b.id = k.id"
    )))
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(visit.whole)
    .bind(visit.opened_at)
    .bind(visit.removals)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// All of the mailbox was compared, as a user had asked for at `asked_at`; what was asked for since stays asked for.
pub async fn read_anew(tx: &mut TenantTx, target: &Target, asked_at: DateTime<Utc>) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE mailboxes SET resync_asked_at = NULL WHERE tenant_id = $1 AND id = $2
           AND (resync_asked_at <= $3 OR resync_asked_at > clock_timestamp())",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(asked_at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Mailboxes whose numbers are those we know need no visit: they are as fresh as the listing.
pub async fn unchanged(
    tx: &mut TenantTx,
    target_ids: &[crate::platform::id::MailboxId],
) -> Result<(), DbError> {
    let ids: Vec<uuid::Uuid> = target_ids.iter().map(|id| id.0).collect();
    sqlx::query("UPDATE mailboxes SET last_synced_at = now() WHERE tenant_id = $1 AND id = ANY ($2)")
        .bind(tx.tenant())
        .bind(&ids)
        .execute(tx.conn())
        .await?;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE mailboxes b SET cause_code = NULL, cause_text = NULL, cause_upstream = NULL, cause_since = NULL
         WHERE b.tenant_id = $1 AND b.id = ANY ($2) AND b.cause_code IN ('refused', 'edits-refused') AND NOT {LASTS}"
    )))
    .bind(tx.tenant())
    .bind(&ids)
    .execute(tx.conn())
    .await?;
    Ok(())
}
