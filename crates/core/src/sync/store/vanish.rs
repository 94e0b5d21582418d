//! Placements that the server no longer has, and messages that are in no mailbox any more.
//!
//! A message whose last placement went stays until it is `over`, because in a move the old place may be seen before
//! the new one; then [`sweep_gone`] removes it with what only it used.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};
use mail::sync::edits::{Held, MailboxKey};
use mail::uid::UidSet;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::Target;
use crate::domain::edits;
use crate::domain::event::{self, Event, MessageDeleted, MessagePart, MessageUpdated};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId, MessageId};
use crate::queue::lease;

/// How long a message in no mailbox is kept at least: longer than a quick round needs to see where it was moved.
pub const GONE_KEPT_FOR: Duration = Duration::from_secs(120);

/// How long it is kept at most, whatever has not been read.
const GONE_KEPT_AT_MOST: Duration = Duration::from_secs(24 * 3600);

/// Placements that one transaction removes. Each costs its triggers a few look-ups and a row of the log, and nobody may be kept
/// waiting for a second.
pub const PORTION: usize = 2_000;

/// Messages removed in one transaction of [`sweep_gone`].
const SWEEP_BATCH: i64 = 500;

/// SQL: messages of an account that went before this time are over, and nobody waits for them any more. `tenant` and
/// `account` are what the statement calls the account.
///
/// Where they went may be told by mail that is not read yet: old mail of a new mailbox, or what has come into another one
/// since it was last looked at.
pub(crate) fn over(tenant: &str, account: &str) -> String {
    let (least, most) = (GONE_KEPT_FOR.as_secs(), GONE_KEPT_AT_MOST.as_secs());
    format!(
        "(SELECT greatest(clock_timestamp() - interval '{most} seconds', least(clock_timestamp() - interval '{least} seconds',
            min(CASE WHEN b.tail_uid = 1 THEN coalesce(b.last_synced_at, '-infinity') ELSE '-infinity' END)))
          FROM mailboxes b WHERE b.tenant_id = {tenant} AND b.account_id = {account} AND b.selectable AND b.synchronised)"
    )
}

/// A placement that was deleted.
#[derive(sqlx::FromRow)]
struct Removed {
    #[sqlx(rename = "message_id")]
    message: Uuid,
    #[sqlx(rename = "mailbox_id")]
    mailbox: Uuid,
    visible: bool,
}

/// Deletes placements with these UIDs, [`PORTION`] at most; UIDs we do not have are ignored. Returns how many: as many as
/// that means that there may be more, which want a transaction of their own.
pub async fn vanish(tx: &mut TenantTx, target: &Target, uids: &UidSet) -> Result<usize, DbError> {
    let (first, last): (Vec<i64>, Vec<i64>) =
        uids.ranges().map(|(a, b)| (i64::from(a), i64::from(b))).unzip();
    if first.is_empty() {
        return Ok(0);
    }
    let edited = leave_edited(tx, target, &first, &last).await?;
    if edited >= edits::PORTION {
        return Ok(PORTION);
    }
    // As an array: of ids in a query the planner expects the portion, and reads the table for fifty.
    let mut removed: Vec<Removed> = sqlx::query_as(
        "DELETE FROM message_mailboxes WHERE tenant_id = $1 AND id = ANY (ARRAY(
           SELECT p.id FROM unnest($4::bigint[], $5::bigint[]) AS r(first, last)
           CROSS JOIN LATERAL (
             SELECT id FROM message_mailboxes WHERE tenant_id = $1 AND mailbox_id = $2 AND generation = $3
               AND uid BETWEEN r.first AND r.last OFFSET 0) p
           LIMIT $6))
         RETURNING message_id, mailbox_id, hidden_at IS NULL AS visible",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(first)
    .bind(last)
    .bind(PORTION as i64)
    .fetch_all(tx.conn())
    .await?;
    let left: Vec<Uuid> = removed.iter().filter(|r| r.visible).map(|r| r.message).collect();
    let twins = reunite(tx, target, &left).await?;
    let count = removed.len() + edited;
    removed.extend(twins.into_iter().map(|message| Removed {
        message,
        mailbox: target.mailbox.0,
        visible: true,
    }));
    announce(tx, target, removed).await?;
    Ok(count)
}

/// Messages with edits leave these UIDs: what is shown of them is folded anew. A portion of them; returns how many.
async fn leave_edited(
    tx: &mut TenantTx,
    target: &Target,
    first: &[i64],
    last: &[i64],
) -> Result<usize, DbError> {
    if !edits::any(tx, target.account).await? {
        return Ok(0);
    }
    let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT p.id, p.message_id FROM unnest($4::bigint[], $5::bigint[]) AS r(first, last)
         CROSS JOIN LATERAL (
           SELECT id, message_id FROM message_mailboxes WHERE tenant_id = $1 AND mailbox_id = $2 AND generation = $3
             AND uid BETWEEN r.first AND r.last OFFSET 0) p
         WHERE EXISTS (SELECT 1 FROM edits e WHERE e.tenant_id = $1 AND e.message_id = p.message_id)
         LIMIT $6",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(first)
    .bind(last)
    .bind(edits::PORTION as i64)
    .fetch_all(tx.conn())
    .await?;
    let Some(taken) = reunite_edited(tx, target, &rows).await? else {
        drop_held(tx, target.account, &rows).await?;
        return Ok(rows.len());
    };
    announce_gone(tx, target.account, &taken).await?;
    Ok(rows.len())
}

/// [`reunite`] for messages with edits. Returns the copies that gave up their places; `None`: there was none, and nothing was
/// written.
async fn reunite_edited(
    tx: &mut TenantTx,
    target: &Target,
    rows: &[(Uuid, Uuid)],
) -> Result<Option<Vec<Uuid>>, DbError> {
    let messages: Vec<Uuid> = rows.iter().map(|(_, message)| *message).collect();
    let twins: bool = sqlx::query_scalar(
        "SELECT EXISTS (
           SELECT 1 FROM messages o JOIN messages n ON n.tenant_id = $1 AND n.account_id = $3 AND n.blob_hash = o.blob_hash
             AND n.id <> o.id AND n.created_at > clock_timestamp() - make_interval(secs => $6)
           JOIN message_mailboxes p ON p.tenant_id = $1 AND p.message_id = n.id AND p.mailbox_id = $4 AND p.generation = $5
           WHERE o.tenant_id = $1 AND o.id = ANY ($2))",
    )
    .bind(tx.tenant())
    .bind(&messages)
    .bind(target.account)
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(GONE_KEPT_FOR.as_secs_f64())
    .fetch_one(tx.conn())
    .await?;
    if !twins {
        return Ok(None);
    }
    let first = edits::load(tx, target.account, &messages).await?;
    sqlx::query("DELETE FROM message_mailboxes WHERE tenant_id = $1 AND id = ANY ($2)")
        .bind(tx.tenant())
        .bind(rows.iter().map(|(row, _)| *row).collect::<Vec<_>>())
        .execute(tx.conn())
        .await?;
    let taken = reunite(tx, target, &messages).await?;
    let mut works = edits::load_again(tx, target.account, &first).await?;
    let here = edits::key(target.mailbox);
    for work in &mut works {
        // What comes there anew has none of the flags that were stored in what went.
        work.message.placement_gone(here);
    }
    edits::save(tx, target.account, &works).await?;
    Ok(Some(taken))
}

/// The server has these messages no more where these rows say.
async fn drop_held(tx: &mut TenantTx, account: AccountId, rows: &[(Uuid, Uuid)]) -> Result<(), DbError> {
    let gone: BTreeSet<u128> = rows.iter().map(|(row, _)| row.as_u128()).collect();
    let messages: Vec<Uuid> = rows.iter().map(|(_, message)| *message).collect();
    let mut works = edits::load(tx, account, &messages).await?;
    for work in &mut works {
        let left = |h: &Held| h.row.is_some_and(|row| gone.contains(&row));
        let mailboxes: Vec<MailboxKey> =
            work.message.server.iter().filter(|h| left(h)).map(|h| h.mailbox).collect();
        work.message.server.retain(|h| !left(h));
        mailboxes.into_iter().for_each(|mailbox| work.message.placement_gone(mailbox));
    }
    edits::save(tx, account, &works).await.map(drop)
}

/// A message that was moved away and back between two looks came under its new UID before its old one was missed: what
/// was taken for a second copy is the one that left, and gets its id. Only a copy that is new may be; of two that stood
/// side by side for longer, each keeps its own. Returns the messages that gave up their places.
async fn reunite(tx: &mut TenantTx, target: &Target, left: &[Uuid]) -> Result<Vec<Uuid>, DbError> {
    if left.is_empty() {
        return Ok(Vec::new());
    }
    // Each side by itself: joined, ten thousand equal messages of either are a hundred million rows.
    let copies: Vec<(Uuid, Vec<u8>, DateTime<Utc>)> = sqlx::query_as(
        "SELECT n.id, n.blob_hash || convert_to(coalesce(n.email_id, ''), 'UTF8'), n.created_at
         FROM (SELECT DISTINCT blob_hash FROM messages WHERE tenant_id = $1 AND id = ANY ($2)) o
         JOIN messages n ON n.tenant_id = $1 AND n.account_id = $3 AND n.blob_hash = o.blob_hash
           AND n.created_at > clock_timestamp() - make_interval(secs => $6)
         JOIN message_mailboxes p ON p.tenant_id = $1 AND p.message_id = n.id AND p.mailbox_id = $4 AND p.generation = $5
           AND p.hidden_at IS NULL
         ORDER BY p.uid",
    )
    .bind(tx.tenant())
    .bind(left)
    .bind(target.account)
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(GONE_KEPT_FOR.as_secs_f64())
    .fetch_all(tx.conn())
    .await?;
    if copies.is_empty() {
        return Ok(Vec::new());
    }
    // A placement that our user removed, and that the server keeps as `\Deleted`, is no place of the message.
    let originals: Vec<(Uuid, Vec<u8>, DateTime<Utc>)> = sqlx::query_as(
        "SELECT o.id, o.blob_hash || convert_to(coalesce(o.email_id, ''), 'UTF8'), o.created_at FROM messages o WHERE o.tenant_id = $1 AND o.id = ANY ($2)
           AND NOT EXISTS (SELECT 1 FROM message_mailboxes q WHERE q.tenant_id = $1 AND q.message_id = o.id AND q.mailbox_id = $3
             AND NOT q.marked)
         ORDER BY o.id",
    )
    .bind(tx.tenant())
    .bind(left)
    .bind(target.mailbox)
    .fetch_all(tx.conn())
    .await?;
    let (old, new) = pair(originals, copies);
    if new.is_empty() {
        return Ok(new);
    }
    sqlx::query(
        "UPDATE message_mailboxes p SET message_id = n.old FROM unnest($2::uuid[], $3::uuid[]) AS n(old, new)
         WHERE p.tenant_id = $1 AND p.message_id = n.new AND NOT EXISTS (
           SELECT 1 FROM message_mailboxes q WHERE q.tenant_id = $1 AND q.message_id = n.old AND q.mailbox_id = p.mailbox_id
             AND NOT q.marked)",
    )
    .bind(tx.tenant())
    .bind(&old)
    .bind(&new)
    .execute(tx.conn())
    .await?;
    // What our user asked of the copy was meant for the message.
    sqlx::query(
        "UPDATE edits e SET message_id = n.old FROM unnest($2::uuid[], $3::uuid[]) AS n(old, new)
         WHERE e.tenant_id = $1 AND e.message_id = n.new",
    )
    .bind(tx.tenant())
    .bind(&old)
    .bind(&new)
    .execute(tx.conn())
    .await?;
    // Not to be taken for one that was moved: the next copy belongs to the message that is left.
    sqlx::query(
        "UPDATE messages m SET gone_at = clock_timestamp() - make_interval(secs => $3) WHERE tenant_id = $1 AND id = ANY ($2)
           AND NOT EXISTS (SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = $1 AND p.message_id = m.id)",
    )
    .bind(tx.tenant())
    .bind(&new)
    .bind(GONE_KEPT_AT_MOST.as_secs_f64())
    .execute(tx.conn())
    .await?;
    Ok(new)
}

/// Each copy with the oldest of the originals with its bytes, and the server's id of it, that no copy before it has got.
fn pair(
    originals: Vec<(Uuid, Vec<u8>, DateTime<Utc>)>,
    copies: Vec<(Uuid, Vec<u8>, DateTime<Utc>)>,
) -> (Vec<Uuid>, Vec<Uuid>) {
    let mut waiting: HashMap<Vec<u8>, VecDeque<(Uuid, DateTime<Utc>)>> = HashMap::new();
    for (id, hash, stored) in originals {
        waiting.entry(hash).or_default().push_back((id, stored));
    }
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for (id, hash, stored) in copies {
        let Some(queue) = waiting.get_mut(&hash) else { continue };
        if queue.front().is_some_and(|(_, before)| *before < stored) {
            old.extend(queue.pop_front().map(|(original, _)| original));
            new.push(id);
        }
    }
    (old, new)
}

/// Deletes what is left of earlier generations of the mailbox, once all of the present one has been read; a portion, as
/// [`vanish`].
pub async fn drop_earlier_generations(tx: &mut TenantTx, target: &Target) -> Result<usize, DbError> {
    if edits::any(tx, target.account).await? {
        let edited: Vec<(Uuid, Uuid)> = sqlx::query_as(
            "SELECT p.id, p.message_id FROM message_mailboxes p
             WHERE p.tenant_id = $1 AND p.mailbox_id = $2 AND p.generation <> $3 AND p.uid IS NOT NULL
               AND EXISTS (SELECT 1 FROM edits e WHERE e.tenant_id = $1 AND e.message_id = p.message_id) LIMIT $4",
        )
        .bind(tx.tenant())
        .bind(target.mailbox)
        .bind(target.generation)
        .bind(edits::PORTION as i64)
        .fetch_all(tx.conn())
        .await?;
        drop_held(tx, target.account, &edited).await?;
        if edited.len() >= edits::PORTION {
            return Ok(PORTION);
        }
    }
    let removed: Vec<Removed> = sqlx::query_as(
        "DELETE FROM message_mailboxes WHERE tenant_id = $1 AND id = ANY (ARRAY(
           SELECT id FROM message_mailboxes
           WHERE tenant_id = $1 AND mailbox_id = $2 AND generation <> $3 AND uid IS NOT NULL LIMIT $4))
         RETURNING message_id, mailbox_id, hidden_at IS NULL AS visible",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(PORTION as i64)
    .fetch_all(tx.conn())
    .await?;
    announce(tx, target, removed).await
}

/// Deletes every placement of mailboxes that are no more. Messages that were on their way into one are where they came from:
/// nobody deleted those. Of a message that was in several of them one thing is told, after it is gone from all.
pub async fn empty(tx: &mut TenantTx, account: AccountId, mailboxes: &[MailboxId]) -> Result<(), DbError> {
    while empty_some(tx, account, mailboxes).await? {}
    Ok(())
}

/// A portion of [`empty`], as [`vanish`]. Whether there may be more.
pub async fn empty_some(
    tx: &mut TenantTx,
    account: AccountId,
    mailboxes: &[MailboxId],
) -> Result<bool, DbError> {
    let ids: Vec<Uuid> = mailboxes.iter().map(|id| id.0).collect();
    if super::edits::mailboxes_gone(tx, account, &ids).await? {
        return Ok(true);
    }
    let rows = leave(tx, &ids).await?;
    let mut left: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
    let mut told = BTreeSet::new();
    for row in rows.iter().filter(|row| row.visible) {
        if told.insert(row.message) {
            left.entry(row.mailbox).or_default().push(row.message);
        }
    }
    for (_mailbox, messages) in left {
        announce_gone(tx, account, &messages).await?;
    }
    Ok(rows.len() >= PORTION)
}

/// Deletes the placements of a portion of messages in the mailboxes: all that a message has there.
async fn leave(tx: &mut TenantTx, mailboxes: &[Uuid]) -> Result<Vec<Removed>, DbError> {
    Ok(sqlx::query_as(
        "DELETE FROM message_mailboxes WHERE tenant_id = $1 AND mailbox_id = ANY ($2) AND message_id IN (
           SELECT message_id FROM message_mailboxes WHERE tenant_id = $1 AND mailbox_id = ANY ($2) LIMIT $3)
         RETURNING message_id, mailbox_id, hidden_at IS NULL AS visible",
    )
    .bind(tx.tenant())
    .bind(mailboxes)
    .bind(PORTION as i64)
    .fetch_all(tx.conn())
    .await?)
}

/// Events for placements that clients could see: deleted when it was the last one, updated when others are left.
async fn announce(tx: &mut TenantTx, target: &Target, removed: Vec<Removed>) -> Result<usize, DbError> {
    let mut shown: Vec<Uuid> = removed.iter().filter(|r| r.visible).map(|r| r.message).collect();
    shown.sort_unstable();
    shown.dedup();
    announce_gone(tx, target.account, &shown).await?;
    Ok(removed.len())
}

/// Events for messages that left a place: deleted without another one that clients can see, updated with one.
async fn announce_gone(tx: &mut TenantTx, account: AccountId, messages: &[Uuid]) -> Result<(), DbError> {
    for portion in messages.chunks(PORTION) {
        let rows: Vec<(MessageId, bool)> = sqlx::query_as(
            "SELECT id, gone_at IS NOT NULL FROM messages WHERE tenant_id = $1 AND id = ANY ($2)",
        )
        .bind(tx.tenant())
        .bind(portion)
        .fetch_all(tx.conn())
        .await?;
        let told = |(id, gone): (MessageId, bool)| match gone {
            true => Event::from(MessageDeleted { id }),
            false => MessageUpdated { id, changed: vec![MessagePart::Mailboxes] }.into(),
        };
        let events: Vec<Event> = rows.into_iter().map(told).collect();
        // The newest message of a conversation may be the one that went.
        crate::domain::thread::refresh(tx, portion).await?;
        event::record(tx, account, &events);
    }
    Ok(())
}

/// Removes messages in no mailbox that are `over`, the bytes and threads only they used.
///
/// Returns how many messages went; call again while it is not 0. Waits for a batch of the account that is being
/// stored, since that may be about to use the same bytes.
pub async fn sweep_gone(tx: &mut TenantTx, account: AccountId) -> Result<u64, DbError> {
    let tenant = tx.tenant();
    lease::lock(tx, &[account]).await?;
    // A placement that is hidden still waits for the server: its message stays until then.
    let over: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT m.id FROM messages m WHERE m.tenant_id = $1 AND m.account_id = $2 AND m.gone_at < {over}
           AND (m.kept_until IS NULL OR m.kept_until < now())
           AND NOT EXISTS (SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = m.tenant_id AND p.message_id = m.id)
         LIMIT $3",
        over = over("$1", "$2")
    )))
    .bind(tenant)
    .bind(account)
    .bind(SWEEP_BATCH)
    .fetch_all(tx.conn())
    .await?;
    if over.is_empty() {
        return Ok(0);
    }
    // Edits that waited for it to turn up again wait for nothing any more.
    crate::domain::message::remove(tx, account, &over).await
}

/// Removes bytes of the account that no message refers to: a process that ended between storing bytes and the rows of their
/// messages leaves such. Returns how many; call again while it is not 0.
///
/// The caller holds the account's lease with no message under way, so that nobody is about to refer to them.
pub async fn sweep_orphans(tx: &mut TenantTx, account: AccountId) -> Result<u64, DbError> {
    // Looked for without the lock, which a whole account would take too long for. What a mailbox that is being removed holds is
    // no orphan.
    let hidden = tx.unhide().await?;
    let orphans: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT b.hash FROM blobs b WHERE b.tenant_id = $1 AND b.account_id = $2 AND NOT EXISTS (
           SELECT 1 FROM messages m WHERE m.tenant_id = b.tenant_id AND m.account_id = b.account_id AND m.blob_hash = b.hash)
         LIMIT $3",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(SWEEP_BATCH)
    .fetch_all(tx.conn())
    .await?;
    tx.hide_again(hidden).await?;
    if orphans.is_empty() {
        return Ok(0);
    }
    lease::lock(tx, &[account]).await?;
    let hidden = tx.unhide().await?;
    let done = sqlx::query(
        "DELETE FROM blobs b WHERE b.tenant_id = $1 AND b.account_id = $2 AND b.hash = ANY ($3) AND NOT EXISTS (
           SELECT 1 FROM messages m WHERE m.tenant_id = b.tenant_id AND m.account_id = b.account_id AND m.blob_hash = b.hash)",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(orphans)
    .execute(tx.conn())
    .await?;
    tx.hide_again(hidden).await?;
    Ok(done.rows_affected())
}
