//! What proves that a mailbox is the one we know: facts of some of its messages.

use mail::sync::{Facts, sample};
use mail::uid::Uid;

use super::{Target, view};
use crate::platform::db::{DbError, TenantTx};

/// The facts of some messages, spread over all that we hold of the mailbox in this generation.
pub async fn held(tx: &mut TenantTx, target: &Target) -> Result<Vec<Facts>, DbError> {
    let uids = sample(&view::known(tx, target).await?);
    if uids.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT p.uid, m.size_bytes, floor(extract(epoch FROM p.internal_date))::bigint FROM message_mailboxes p
         JOIN messages m ON m.tenant_id = p.tenant_id AND m.id = p.message_id
         WHERE p.tenant_id = $1 AND p.mailbox_id = $2 AND p.generation = $3 AND p.uid = ANY ($4)",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(uids.iter().map(i64::from).collect::<Vec<_>>())
    .fetch_all(tx.conn())
    .await?;
    let facts = |(uid, size, date): (i64, i64, i64)| {
        Some(Facts { uid: Uid::try_from(uid).ok()?, size: u64::try_from(size).ok(), date: Some(date) })
    };
    Ok(rows.into_iter().filter_map(facts).collect())
}
