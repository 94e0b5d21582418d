//! Placements that the server no longer has, and messages that are in no mailbox any more.
//!
//! A message whose last placement went stays until it is `over`, because in a move the old place may be seen before
//! the new one; then [`sweep_gone`] removes it with what only it used.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};
use mail::uid::UidSet;
use serde_json::json;
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use super::Target;
use crate::db::{DbError, TenantTx};
use crate::event::{self, NewEvent};
use crate::id::{AccountId, MailboxId};
use crate::lease;

/// How long a message in no mailbox is kept at least: longer than a quick round needs to see where it was moved.
pub const GONE_KEPT_FOR: Duration = Duration::from_secs(120);

/// How long it is kept at most, whatever has not been read.
const GONE_KEPT_AT_MOST: Duration = Duration::from_secs(24 * 3600);

/// Placements that one statement removes. Each costs its triggers a few look-ups, and a statement has 15 seconds.
pub const PORTION: usize = 10_000;

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
          FROM mailboxes b WHERE b.tenant_id = {tenant} AND b.account_id = {account} AND b.selectable)"
    )
}

/// A placement that was deleted.
struct Removed {
    message: Uuid,
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
    let rows = sqlx::query(
        "DELETE FROM message_mailboxes WHERE tenant_id = $1 AND id IN (
           SELECT p.id FROM unnest($4::bigint[], $5::bigint[]) AS r(first, last)
           CROSS JOIN LATERAL (
             SELECT id FROM message_mailboxes WHERE tenant_id = $1 AND mailbox_id = $2 AND generation = $3
               AND uid BETWEEN r.first AND r.last OFFSET 0) p
           LIMIT $6)
         RETURNING message_id, hidden_at IS NULL AS visible",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(first)
    .bind(last)
    .bind(PORTION as i64)
    .fetch_all(tx.conn())
    .await?;
    let mut removed = removed(&rows);
    let left: Vec<Uuid> = removed.iter().filter(|r| r.visible).map(|r| r.message).collect();
    let twins = reunite(tx, target, &left).await?;
    let count = removed.len();
    removed.extend(twins.into_iter().map(|message| Removed { message, visible: true }));
    announce(tx, target, removed).await?;
    Ok(count)
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
        "SELECT n.id, n.blob_hash, n.created_at
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
    let originals: Vec<(Uuid, Vec<u8>, DateTime<Utc>)> = sqlx::query_as(
        "SELECT o.id, o.blob_hash, o.created_at FROM messages o WHERE o.tenant_id = $1 AND o.id = ANY ($2)
           AND NOT EXISTS (SELECT 1 FROM message_mailboxes q WHERE q.tenant_id = $1 AND q.message_id = o.id AND q.mailbox_id = $3)
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
           SELECT 1 FROM message_mailboxes q WHERE q.tenant_id = $1 AND q.message_id = n.old AND q.mailbox_id = p.mailbox_id)",
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

/// Each copy with the oldest of the originals with its bytes that no copy before it has got.
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
    let rows = sqlx::query(
        "DELETE FROM message_mailboxes WHERE tenant_id = $1 AND id IN (
           SELECT id FROM message_mailboxes
           WHERE tenant_id = $1 AND mailbox_id = $2 AND generation <> $3 AND uid IS NOT NULL LIMIT $4)
         RETURNING message_id, hidden_at IS NULL AS visible",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(PORTION as i64)
    .fetch_all(tx.conn())
    .await?;
    announce(tx, target, removed(&rows)).await
}

/// Of a placement `p` without UID: no change waits for it any more, and a server that shows late what it moved has had
/// its time.
pub(super) const FORSAKEN: &str = "p.created_at < now() - interval '10 minutes'
    AND NOT EXISTS (SELECT 1 FROM pending_changes c WHERE c.tenant_id = p.tenant_id AND c.target_placement_id = p.id)";

/// Deletes placements of our own moves and copies whose message never came; a portion, as [`vanish`].
pub async fn drop_forsaken(tx: &mut TenantTx, target: &Target) -> Result<usize, DbError> {
    let rows = sqlx::query(AssertSqlSafe(format!(
        "DELETE FROM message_mailboxes WHERE tenant_id = $1 AND id IN (
           SELECT p.id FROM message_mailboxes p
           WHERE p.tenant_id = $1 AND p.mailbox_id = $2 AND p.uid IS NULL AND {FORSAKEN} LIMIT $3)
         RETURNING message_id, hidden_at IS NULL AS visible"
    )))
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(PORTION as i64)
    .fetch_all(tx.conn())
    .await?;
    announce(tx, target, removed(&rows)).await
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
    let (mut left, unseen) = turn_back(tx, &ids).await?;
    // What is seen again is told once, so its place here goes at the same time.
    let back: Vec<Uuid> = left.keys().copied().collect();
    for portion in back.chunks(PORTION) {
        leave(tx, &ids, Some(portion)).await?;
    }
    let rows = leave(tx, &ids, None).await?;
    for row in rows.iter().filter(|r| r.get("visible")) {
        left.entry(row.get("message_id")).or_insert(row.get("mailbox_id"));
    }
    announce_left(tx, account, left, &unseen).await?;
    Ok(rows.len() >= PORTION)
}

/// Deletes the placements of a portion of messages, or of these, in the mailboxes: all that a message has there.
async fn leave(
    tx: &mut TenantTx,
    mailboxes: &[Uuid],
    messages: Option<&[Uuid]>,
) -> Result<Vec<sqlx::postgres::PgRow>, DbError> {
    Ok(sqlx::query(
        "DELETE FROM message_mailboxes WHERE tenant_id = $1 AND mailbox_id = ANY ($2) AND message_id IN (
           SELECT message_id FROM message_mailboxes
           WHERE tenant_id = $1 AND mailbox_id = ANY ($2) AND ($4::uuid[] IS NULL OR message_id = ANY ($4)) LIMIT $3)
         RETURNING message_id, mailbox_id, hidden_at IS NULL AS visible",
    )
    .bind(tx.tenant())
    .bind(mailboxes)
    .bind(PORTION as i64)
    .bind(messages)
    .fetch_all(tx.conn())
    .await?)
}

/// Forgets our users' moves and copies into mailboxes that are no more, and shows what they moved where it is. Of what they
/// copied and then deleted, the deletion counted on the copy, unless that was deleted as well: it is forgotten too. Returns
/// the messages that are seen again, each with the mailbox it does not reach, and which of them our user had deleted there.
async fn turn_back(
    tx: &mut TenantTx,
    mailboxes: &[Uuid],
) -> Result<(BTreeMap<Uuid, Uuid>, BTreeSet<Uuid>), DbError> {
    let (mut back, mut unseen) = (BTreeMap::new(), BTreeSet::new());
    loop {
        let rows = sqlx::query(
            "WITH dropped AS (
               DELETE FROM pending_changes WHERE tenant_id = $1 AND id IN (
                 SELECT id FROM pending_changes
                 WHERE tenant_id = $1 AND target_mailbox_id = ANY ($2) AND kind IN ('move', 'copy') LIMIT $3)
               RETURNING id, placement_id, kind, target_mailbox_id, target_placement_id),
             relied AS (
               DELETE FROM pending_changes e USING dropped d, message_mailboxes t
               WHERE e.tenant_id = $1 AND e.placement_id = d.placement_id AND e.kind = 'expunge' AND e.id > d.id
                 AND d.kind = 'copy' AND t.tenant_id = $1 AND t.id = d.target_placement_id AND t.hidden_at IS NULL
               RETURNING e.placement_id),
             shown AS (
               UPDATE message_mailboxes p SET hidden_at = NULL
               WHERE p.tenant_id = $1 AND p.hidden_at IS NOT NULL AND p.id IN (
                 SELECT placement_id FROM dropped WHERE kind = 'move' UNION ALL SELECT placement_id FROM relied)
               RETURNING p.id, p.message_id)
             SELECT s.message_id, d.target_mailbox_id, m.gone_at IS NOT NULL AS unseen
             FROM dropped d LEFT JOIN shown s ON s.id = d.placement_id
             LEFT JOIN messages m ON m.tenant_id = $1 AND m.id = s.message_id",
        )
        .bind(tx.tenant())
        .bind(mailboxes)
        .bind(PORTION as i64)
        .fetch_all(tx.conn())
        .await?;
        for row in &rows {
            if let Some(message) = row.get::<Option<Uuid>, _>("message_id") {
                back.entry(message).or_insert(row.get("target_mailbox_id"));
                if row.get("unseen") {
                    unseen.insert(message);
                }
            }
        }
        if rows.len() < PORTION {
            return Ok((back, unseen));
        }
    }
}

/// Events for messages that left a mailbox, or did not reach it.
async fn announce_left(
    tx: &mut TenantTx,
    account: AccountId,
    mailbox_of: BTreeMap<Uuid, Uuid>,
    unseen: &BTreeSet<Uuid>,
) -> Result<(), DbError> {
    let mut by_mailbox: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
    for (message, mailbox) in mailbox_of {
        by_mailbox.entry(mailbox).or_default().push(message);
    }
    for (mailbox, messages) in by_mailbox {
        announce_places(tx, account, &messages, unseen, json!({ "mailbox_id": mailbox })).await?;
    }
    Ok(())
}

fn removed(rows: &[sqlx::postgres::PgRow]) -> Vec<Removed> {
    rows.iter().map(|r| Removed { message: r.get("message_id"), visible: r.get("visible") }).collect()
}

/// Events for placements that clients could see: deleted when it was the last one, updated when others are left.
async fn announce(tx: &mut TenantTx, target: &Target, removed: Vec<Removed>) -> Result<usize, DbError> {
    let mut shown: Vec<Uuid> = removed.iter().filter(|r| r.visible).map(|r| r.message).collect();
    shown.sort_unstable();
    shown.dedup();
    announce_gone(tx, target.account, &shown, json!({ "mailbox_id": target.mailbox })).await?;
    Ok(removed.len())
}

pub(super) async fn announce_gone(
    tx: &mut TenantTx,
    account: AccountId,
    messages: &[Uuid],
    data: serde_json::Value,
) -> Result<(), DbError> {
    announce_places(tx, account, messages, &BTreeSet::new(), data).await
}

/// Events for messages whose places changed: deleted without one that clients can see, updated with one. Of those that had
/// none before (`unseen`) only that they are back, if they are.
pub(super) async fn announce_places(
    tx: &mut TenantTx,
    account: AccountId,
    messages: &[Uuid],
    unseen: &BTreeSet<Uuid>,
    data: serde_json::Value,
) -> Result<(), DbError> {
    let back: Vec<Uuid> = unseen.iter().copied().collect();
    for portion in messages.chunks(PORTION) {
        let rows = sqlx::query(
            "SELECT m.id, m.gone_at IS NOT NULL AS gone, CASE WHEN m.id = ANY ($3) THEN (
               SELECT p.mailbox_id FROM message_mailboxes p
               WHERE p.tenant_id = $1 AND p.message_id = m.id AND p.hidden_at IS NULL LIMIT 1) END AS back_in
             FROM messages m WHERE m.tenant_id = $1 AND m.id = ANY ($2)",
        )
        .bind(tx.tenant())
        .bind(portion)
        .bind(&back)
        .fetch_all(tx.conn())
        .await?;
        let mut events: Vec<NewEvent> = Vec::with_capacity(rows.len());
        for row in rows {
            let object_id: Uuid = row.get("id");
            let (kind, data) = match (unseen.contains(&object_id), row.get("gone")) {
                (true, true) => continue,
                (true, false) => {
                    ("message.created", json!({ "mailbox_id": row.get::<Option<Uuid>, _>("back_in") }))
                }
                (false, true) => ("message.deleted", data.clone()),
                (false, false) => ("message.updated", data.clone()),
            };
            events.push(NewEvent { kind, object_id, data });
        }
        // The newest message of a conversation may be the one that went.
        crate::thread::refresh(tx, portion).await?;
        event::record(tx, Some(account), &events).await?;
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
    let gone = sqlx::query(AssertSqlSafe(format!(
        "DELETE FROM messages WHERE tenant_id = $1 AND id IN (
           SELECT m.id FROM messages m WHERE m.tenant_id = $1 AND m.account_id = $2 AND m.gone_at < {over}
             AND NOT EXISTS (SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = m.tenant_id AND p.message_id = m.id)
           LIMIT $3)
         RETURNING blob_hash, thread_id",
        over = over("$1", "$2")
    )))
    .bind(tenant)
    .bind(account)
    .bind(SWEEP_BATCH)
    .fetch_all(tx.conn())
    .await?;
    if gone.is_empty() {
        return Ok(0);
    }
    let hashes: Vec<Vec<u8>> = gone.iter().map(|r| r.get("blob_hash")).collect();
    let threads: Vec<Uuid> = gone.iter().map(|r| r.get("thread_id")).collect();
    sqlx::query(
        "DELETE FROM blobs b WHERE b.tenant_id = $1 AND b.account_id = $2 AND b.hash = ANY ($3) AND NOT EXISTS (
           SELECT 1 FROM messages m WHERE m.tenant_id = b.tenant_id AND m.account_id = b.account_id AND m.blob_hash = b.hash)",
    )
    .bind(tenant)
    .bind(account)
    .bind(hashes)
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "DELETE FROM threads t WHERE t.tenant_id = $1 AND t.id = ANY ($2)
           AND NOT EXISTS (SELECT 1 FROM messages m WHERE m.tenant_id = t.tenant_id AND m.thread_id = t.id)",
    )
    .bind(tenant)
    .bind(threads)
    .execute(tx.conn())
    .await?;
    Ok(gone.len() as u64)
}

/// Removes bytes of the account that no message refers to: a process that ended between storing bytes and the rows of their
/// messages leaves such. Returns how many; call again while it is not 0.
///
/// The caller holds the account's lease with no message under way, so that nobody is about to refer to them.
pub async fn sweep_orphans(tx: &mut TenantTx, account: AccountId) -> Result<u64, DbError> {
    // Looked for without the lock, which a whole account would take too long for.
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
    if orphans.is_empty() {
        return Ok(0);
    }
    lease::lock(tx, &[account]).await?;
    let done = sqlx::query(
        "DELETE FROM blobs b WHERE b.tenant_id = $1 AND b.account_id = $2 AND b.hash = ANY ($3) AND NOT EXISTS (
           SELECT 1 FROM messages m WHERE m.tenant_id = b.tenant_id AND m.account_id = b.account_id AND m.blob_hash = b.hash)",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(orphans)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}
