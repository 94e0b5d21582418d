//! Transfers whose answer never came, or did not tell the UID: decided by what was read since.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use mail::sync::edits::{Change, MailboxKey, Resolved, State};
use uuid::Uuid;

use crate::domain::edits::{self, PORTION, Work, key};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId};
use crate::sync::store::Target;

/// Mailboxes to be read before transfers whose answer never came, or did not tell the UID, are decided: in this order, those
/// that were left before those they lead to.
pub async fn doubtful(tx: &mut TenantTx, account: AccountId) -> Result<Vec<MailboxId>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT m.id FROM edits e CROSS JOIN LATERAL (VALUES (e.target_mailbox_id, 1), (e.sent_from, 0)) AS m(id, rank)
         WHERE e.tenant_id = $1 AND e.account_id = $2 AND e.state IN ('in_doubt', 'copied', 'done_unseen') AND m.id IS NOT NULL
         GROUP BY m.id, m.rank ORDER BY m.rank, m.id",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_all(tx.conn())
    .await?)
}

/// The mailbox was read, of a server without UIDPLUS: what a removal of ours that was not answered has left as `\Deleted` is
/// ours.
pub async fn left_marked(tx: &mut TenantTx, target: &Target) -> Result<(), DbError> {
    let messages: Vec<Uuid> = sqlx::query_scalar(
        "SELECT e.message_id FROM edits e WHERE e.tenant_id = $1 AND e.account_id = $2 AND e.kind IN ('move', 'remove')
           AND e.state = 'open' AND e.sent_from = $3 ORDER BY e.id LIMIT $4",
    )
    .bind(tx.tenant())
    .bind(target.account)
    .bind(target.mailbox)
    .bind(PORTION as i64)
    .fetch_all(tx.conn())
    .await?;
    let mut works = edits::load(tx, target.account, &messages).await?;
    for work in &mut works {
        work.message.left_marked(key(target.mailbox));
        work.message.settle();
    }
    edits::save(tx, target.account, &works).await.map(drop)
}

/// Ends the edits of a portion of messages that are over without a command, decides transfers in doubt whose mailboxes were
/// read since. Returns where to go on; `None` when all were looked at.
pub async fn settle(tx: &mut TenantTx, account: AccountId, after: i64) -> Result<Option<i64>, DbError> {
    let rows: Vec<(i64, Uuid)> = sqlx::query_as(
        "SELECT id, message_id FROM edits WHERE tenant_id = $1 AND account_id = $2 AND id > $3 ORDER BY id LIMIT $4",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(after)
    .bind(PORTION as i64)
    .fetch_all(tx.conn())
    .await?;
    let next = if rows.len() >= PORTION { rows.last().map(|(id, _)| *id) } else { None };
    let messages: Vec<Uuid> = rows.into_iter().map(|(_, message)| message).collect();
    let mut works = edits::load(tx, account, &messages).await?;
    let read = if works.iter().any(is_in_doubt) {
        if sent_in_the_future(tx, account).await? {
            works = edits::load(tx, account, &messages).await?;
        }
        read_at(tx, account).await?
    } else {
        ReadAt::default()
    };
    let mut lost = Vec::new();
    for work in &mut works {
        if resolve(work, &read) {
            lost.push(work.id.0);
        }
        work.message.settle();
    }
    edits::save(tx, account, &works).await?;
    keep(tx, &lost).await?;
    Ok(next)
}

fn is_in_doubt(work: &Work) -> bool {
    work.message.edits.iter().any(|e| matches!(e.state, State::InDoubt | State::Copied | State::DoneUnseen))
}

/// When each mailbox was last read: its arrivals, and all of it.
type ReadAt = HashMap<MailboxKey, (Option<DateTime<Utc>>, Option<DateTime<Utc>>)>;

/// What was sent before the clock was set back counts as sent now: a mailbox that is read from now on tells of it. Whether
/// there was any.
async fn sent_in_the_future(tx: &mut TenantTx, account: AccountId) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE edits SET sent_at = clock_timestamp()
         WHERE tenant_id = $1 AND account_id = $2 AND sent_at > clock_timestamp()",
    )
    .bind(tx.tenant())
    .bind(account)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() > 0)
}

/// A reading that the clock puts into the future vouches for nothing that was sent since.
async fn read_at(tx: &mut TenantTx, account: AccountId) -> Result<ReadAt, DbError> {
    type Row = (Uuid, Option<DateTime<Utc>>, Option<DateTime<Utc>>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, CASE WHEN arrivals_read_at <= clock_timestamp() THEN arrivals_read_at END,
                CASE WHEN read_at <= clock_timestamp() THEN read_at END
         FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND tail_uid = 1",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.into_iter().map(|(id, arrivals, all)| (MailboxKey(id.as_u128()), (arrivals, all))).collect())
}

/// Decides what is in doubt of a message. Whether it is lost.
fn resolve(work: &mut Work, read: &ReadAt) -> bool {
    let mut lost = false;
    let doubtful: Vec<i64> = work.message.edits.iter().map(|e| e.id).collect();
    for id in doubtful {
        let Some(at) = work.message.edits.iter().position(|e| e.id == id) else { continue };
        let (Some(sent), Some(edit)) = (work.sent_at(at), work.message.edits.get(at)) else { continue };
        let of = |mailbox: MailboxKey| read.get(&mailbox).copied().unwrap_or_default();
        let to = edit.target();
        // The target is looked at after the mailbox that was left: else what went from one to the other between the two looks
        // is seen in neither.
        let moves = edit.state == State::InDoubt && matches!(edit.change, Change::Move { .. });
        let source_read = edit.sent_from.filter(|_| moves).and_then(|from| of(from).1);
        let since = |mailbox: MailboxKey| {
            let (arrivals, all) = of(mailbox);
            // Of the target it counts what came, of the source what went.
            let is_target = Some(mailbox) == to;
            let moment = if is_target { arrivals.max(all) } else { all };
            moment.is_some_and(|moment| {
                moment > sent && !(is_target && source_read.is_some_and(|at| moment < at))
            })
        };
        lost |= work.message.resolve(at, since) == Resolved::Lost;
    }
    lost
}

/// Messages that our own command took away and that did not arrive: their bytes are kept for a month.
async fn keep(tx: &mut TenantTx, lost: &[Uuid]) -> Result<(), DbError> {
    if !lost.is_empty() {
        tracing::warn!(messages = lost.len(), "moved by the server, and not found where they should be");
        sqlx::query(
            "UPDATE messages SET kept_until = now() + interval '30 days' WHERE tenant_id = $1 AND id = ANY ($2)",
        )
        .bind(tx.tenant())
        .bind(lost)
        .execute(tx.conn())
        .await?;
    }
    Ok(())
}
