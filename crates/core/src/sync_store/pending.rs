//! Our users' edits on their way to the server: what waits, what the server confirmed, what it refused.
//!
//! A confirmation is recorded in the transaction that makes our rows agree with it; doing so twice changes nothing. A
//! refusal is counted, and after [`GIVE_UP_AFTER`] of them the edit is taken back: see [`super::take_back`].

use mail::flags::Flags;
use mail::sync::StoreChange;
use mail::uid::Uid;
use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::vanish;
use super::view::EditRow;
use crate::db::{DbError, TenantTx};
use crate::event::{self, NewEvent};
use crate::id::{AccountId, ChangeId, MailboxId};
use crate::mailbox::change::Meant;

/// A server that refused so many times will not change its mind.
pub const GIVE_UP_AFTER: i32 = 5;

/// A change of the mailbox tree that the server has not confirmed.
#[derive(Debug, Clone)]
pub struct TreeChange {
    /// The row.
    pub id: ChangeId,
    /// What to do.
    pub kind: TreeChangeKind,
    /// What is known of the mailbox to rename or delete.
    pub meant: Meant,
}

/// What to do with a mailbox on the server; names as on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeChangeKind {
    /// CREATE
    Create {
        /// The mailbox.
        name: Vec<u8>,
        /// What it is for.
        role: Option<mail::mailbox::Role>,
    },
    /// RENAME
    Rename {
        /// As the server has it.
        from: Vec<u8>,
        /// As it shall be.
        to: Vec<u8>,
    },
    /// DELETE
    Delete {
        /// The mailbox.
        name: Vec<u8>,
    },
    /// SUBSCRIBE or UNSUBSCRIBE
    Subscribe {
        /// The mailbox.
        name: Vec<u8>,
        /// Which of the two.
        on: bool,
    },
}

/// Changes of the tree that wait, oldest first. Rows that mean nothing any more are dropped.
pub async fn tree_changes(tx: &mut TenantTx, account: AccountId) -> Result<Vec<TreeChange>, DbError> {
    let rows = sqlx::query(
        "SELECT c.id, c.kind, c.data, b.wire_name, b.role FROM pending_changes c
         LEFT JOIN mailboxes b ON b.tenant_id = c.tenant_id AND b.id = c.mailbox_id
         WHERE c.tenant_id = $1 AND c.account_id = $2
           AND c.kind IN ('create_mailbox', 'rename_mailbox', 'delete_mailbox', 'subscribe', 'unsubscribe')
           AND c.attempts < $3
         ORDER BY c.id",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(GIVE_UP_AFTER)
    .fetch_all(tx.conn())
    .await?;
    let mut changes = Vec::new();
    for row in rows {
        let id = row.try_get("id")?;
        let (kind, data): (&str, Value) = (row.try_get("kind")?, row.try_get("data")?);
        let name: Option<Vec<u8>> = row.try_get("wire_name")?;
        let told = |key: &str| data.get(key).and_then(Value::as_str).and_then(|h| hex::decode(h).ok());
        let role = row.try_get::<Option<&str>, _>("role")?.and_then(mail::mailbox::Role::parse);
        let kind = match (kind, name) {
            ("create_mailbox", Some(name)) => Some(TreeChangeKind::Create { name, role }),
            ("rename_mailbox", _) => {
                told("from_hex").zip(told("to_hex")).map(|(from, to)| TreeChangeKind::Rename { from, to })
            }
            ("delete_mailbox", _) => told("wire_name_hex").map(|name| TreeChangeKind::Delete { name }),
            ("subscribe", Some(name)) => Some(TreeChangeKind::Subscribe { name, on: true }),
            ("unsubscribe", Some(name)) => Some(TreeChangeKind::Subscribe { name, on: false }),
            _ => None,
        };
        match kind {
            Some(kind) => changes.push(TreeChange { id, kind, meant: Meant::read(&data) }),
            None => done(tx, &[id]).await?,
        }
    }
    Ok(changes)
}

/// These changes are what the server has now.
pub async fn done(tx: &mut TenantTx, changes: &[ChangeId]) -> Result<(), DbError> {
    let ids: Vec<Uuid> = changes.iter().map(|c| c.0).collect();
    sqlx::query("DELETE FROM pending_changes WHERE tenant_id = $1 AND id = ANY ($2)")
        .bind(tx.tenant())
        .bind(ids)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The server has stored this change of flags: it becomes part of the base, whatever was edited since.
pub async fn confirm_flags(tx: &mut TenantTx, rows: &[EditRow], change: &StoreChange) -> Result<(), DbError> {
    let added: Vec<&str> = change.add_keywords.iter().collect();
    let removed: Vec<String> = change.remove_keywords.iter().map(str::to_lowercase).collect();
    // The order of keywords in a row is that of `Keywords`; what differs from it only makes the next comparison look.
    sqlx::query(
        "UPDATE message_mailboxes SET base_flags = (base_flags | $3) & ~$4::smallint,
           base_keywords = ARRAY(
             SELECT DISTINCT ON (lower(k) COLLATE \"C\") k FROM unnest(base_keywords || $5::text[]) AS u(k)
             WHERE lower(k) <> ALL ($6) ORDER BY lower(k) COLLATE \"C\", k)
         WHERE tenant_id = $1 AND id = ANY ($2)",
    )
    .bind(tx.tenant())
    .bind(placements(rows))
    .bind(change.add.bits())
    .bind(change.remove.bits())
    .bind(added)
    .bind(removed)
    .execute(tx.conn())
    .await?;
    Ok(())
}

fn placements(rows: &[EditRow]) -> Vec<Uuid> {
    rows.iter().map(|r| r.placement.0).collect()
}

pub(super) fn changes(rows: &[EditRow]) -> Vec<ChangeId> {
    rows.iter().filter_map(|r| r.change).collect()
}

/// The server does not take this change of flags: the placements show what it has instead. What our user changed beside it
/// meanwhile stays.
pub async fn take_back_flags(
    tx: &mut TenantTx,
    account: AccountId,
    rows: &[EditRow],
    change: &StoreChange,
) -> Result<(), DbError> {
    let keywords: Vec<String> =
        change.add_keywords.iter().chain(change.remove_keywords.iter()).map(str::to_lowercase).collect();
    let messages: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE message_mailboxes SET flags = (flags & ~$3::smallint) | (base_flags & $3),
           keywords = ARRAY(
             SELECT DISTINCT ON (lower(k) COLLATE \"C\") k FROM (
               SELECT k FROM unnest(keywords) AS u(k) WHERE lower(k) <> ALL ($4)
               UNION ALL SELECT k FROM unnest(base_keywords) AS u(k) WHERE lower(k) = ANY ($4)) AS kept
             ORDER BY lower(k) COLLATE \"C\", k)
         WHERE tenant_id = $1 AND id = ANY ($2) RETURNING message_id",
    )
    .bind(tx.tenant())
    .bind(placements(rows))
    .bind(change.add.union(change.remove).bits())
    .bind(keywords)
    .fetch_all(tx.conn())
    .await?;
    updated(tx, account, &messages).await
}

async fn updated(tx: &mut TenantTx, account: AccountId, messages: &[Uuid]) -> Result<(), DbError> {
    let events: Vec<NewEvent> = messages
        .iter()
        .map(|id| NewEvent { kind: "message.updated", object_id: *id, data: json!({ "changed": "flags" }) })
        .collect();
    event::record(tx, Some(account), &events).await
}

/// Messages arrived in the target of a move or copy, under the UID given where the server told it, in the order of
/// `rows`. `uidvalidity` is that of the target; UIDs of another generation than the one we know are ignored, since the
/// arrival will be found by its contents.
pub async fn confirm_arrival(
    tx: &mut TenantTx,
    account: AccountId,
    rows: &[EditRow],
    uids: &[Option<Uid>],
    uidvalidity: Option<u32>,
) -> Result<(), DbError> {
    let told: Vec<(Uuid, Uuid, i64)> = rows
        .iter()
        .zip(uids)
        .filter_map(|(row, uid)| Some((row.target_placement?.0, row.placement.0, i64::from((*uid)?))))
        .collect();
    if told.is_empty() {
        return Ok(());
    }
    let targets: Vec<Uuid> = told.iter().map(|t| t.0).collect();
    let sources: Vec<Uuid> = told.iter().map(|t| t.1).collect();
    let numbers: Vec<i64> = told.iter().map(|t| t.2).collect();
    // The arrival may have been read before this confirmation: then its placement is the one that stays.
    let dropped = sqlx::query(
        "DELETE FROM message_mailboxes p USING unnest($2::uuid[], $3::bigint[]) AS n(id, uid), mailboxes b
         WHERE p.tenant_id = $1 AND p.id = n.id AND p.uid IS NULL AND b.tenant_id = $1 AND b.id = p.mailbox_id
           AND b.uidvalidity = $4 AND EXISTS (
             SELECT 1 FROM message_mailboxes o WHERE o.tenant_id = $1 AND o.mailbox_id = p.mailbox_id
               AND o.generation = b.generation AND o.uid = n.uid)
         RETURNING p.message_id, p.hidden_at IS NULL AS visible",
    )
    .bind(tx.tenant())
    .bind(&targets)
    .bind(&numbers)
    .bind(uidvalidity.map(i64::from))
    .fetch_all(tx.conn())
    .await?;
    left(tx, account, &dropped).await?;
    // The server carries along what it has: what others changed at the original since is not our user's to take back.
    let arrived = sqlx::query(
        "UPDATE message_mailboxes p SET uid = n.uid, generation = b.generation, base_flags = s.base_flags,
           base_keywords = s.base_keywords,
           flags = (s.base_flags & ~(o.flags # o.base_flags)) | (o.flags & (o.flags # o.base_flags)),
           keywords = CASE WHEN o.keywords = o.base_keywords THEN s.base_keywords ELSE ARRAY(
             SELECT DISTINCT ON (lower(k) COLLATE \"C\") k FROM (
               SELECT k FROM unnest(s.base_keywords) AS u(k) WHERE lower(k) NOT IN (
                 SELECT lower(x) FROM unnest(o.base_keywords) AS u(x) EXCEPT SELECT lower(x) FROM unnest(o.keywords) AS u(x))
               UNION ALL SELECT k FROM unnest(o.keywords) AS u(k) WHERE lower(k) NOT IN (
                 SELECT lower(x) FROM unnest(o.base_keywords) AS u(x))) AS merged
             ORDER BY lower(k) COLLATE \"C\", k) END
         FROM unnest($2::uuid[], $3::uuid[], $4::bigint[]) AS n(id, source, uid), message_mailboxes s, mailboxes b,
           message_mailboxes o
         WHERE p.tenant_id = $1 AND p.id = n.id AND p.uid IS NULL AND s.tenant_id = $1 AND s.id = n.source
           AND b.tenant_id = $1 AND b.id = p.mailbox_id AND b.uidvalidity = $5 AND o.tenant_id = $1 AND o.id = n.id
         RETURNING p.message_id, p.hidden_at IS NULL AND (p.flags <> o.flags OR p.keywords <> o.keywords) AS changed",
    )
    .bind(tx.tenant())
    .bind(&targets)
    .bind(&sources)
    .bind(&numbers)
    .bind(uidvalidity.map(i64::from))
    .fetch_all(tx.conn())
    .await?;
    let changed: Vec<Uuid> =
        arrived.iter().filter(|r| r.get("changed")).map(|r| r.get("message_id")).collect();
    updated(tx, account, &changed).await
}

/// A COPY is about to be sent. Unlike MOVE it must not be sent twice: should its answer never come, the target is looked
/// at first.
pub async fn copy_begins(tx: &mut TenantTx, rows: &[EditRow]) -> Result<(), DbError> {
    let ids: Vec<Uuid> = changes(rows).iter().map(|c| c.0).collect();
    sqlx::query(
        "UPDATE pending_changes SET data = data || '{\"copying\": true}' WHERE tenant_id = $1 AND id = ANY ($2)",
    )
    .bind(tx.tenant())
    .bind(ids)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Where copies were to go of which nobody knows whether they were made.
pub async fn copies_in_doubt(tx: &mut TenantTx, account: AccountId) -> Result<Vec<MailboxId>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT target_mailbox_id FROM pending_changes
         WHERE tenant_id = $1 AND account_id = $2 AND target_mailbox_id IS NOT NULL AND data ? 'copying'",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_all(tx.conn())
    .await?)
}

/// Copies that were found in their targets have been made. Of the others only those may be sent again whose target was
/// looked at (`looked_at`) and is here as a whole, or is gone: in old mail that is not here yet a copy may be hidden.
pub async fn settle_copies(
    tx: &mut TenantTx,
    account: AccountId,
    looked_at: &[MailboxId],
) -> Result<(), DbError> {
    sqlx::query(
        "WITH made AS (
           SELECT c.id, c.kind FROM pending_changes c
           JOIN message_mailboxes p ON p.tenant_id = c.tenant_id AND p.id = c.target_placement_id AND p.uid IS NOT NULL
           WHERE c.tenant_id = $1 AND c.account_id = $2 AND c.data ? 'copying'
         ), copied AS (
           DELETE FROM pending_changes c USING made WHERE c.tenant_id = $1 AND c.id = made.id AND made.kind = 'copy'
         )
         UPDATE pending_changes c SET kind = 'expunge', target_mailbox_id = NULL, target_placement_id = NULL, attempts = 0,
           data = c.data - 'copying'
         FROM made WHERE c.tenant_id = $1 AND c.id = made.id AND made.kind = 'move'",
    )
    .bind(tx.tenant())
    .bind(account)
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "UPDATE pending_changes c SET data = data - 'copying' WHERE tenant_id = $1 AND account_id = $2 AND data ? 'copying'
           AND (target_mailbox_id IS NULL OR EXISTS (
             SELECT 1 FROM mailboxes b WHERE b.tenant_id = $1 AND b.id = c.target_mailbox_id AND b.id = ANY ($3) AND b.tail_uid = 1))",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(looked_at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The messages of a move that was done as a copy are in the target; what is left is to delete the originals.
pub async fn copied(tx: &mut TenantTx, rows: &[EditRow]) -> Result<(), DbError> {
    let ids: Vec<Uuid> = changes(rows).iter().map(|c| c.0).collect();
    sqlx::query(
        "UPDATE pending_changes SET kind = 'expunge', target_mailbox_id = NULL, target_placement_id = NULL, attempts = 0,
           data = data - 'copying'
         WHERE tenant_id = $1 AND id = ANY ($2) AND kind = 'move'",
    )
    .bind(tx.tenant())
    .bind(ids)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The originals are gone from the server: so are their placements and the changes that wanted it.
pub async fn confirm_gone(tx: &mut TenantTx, account: AccountId, rows: &[EditRow]) -> Result<(), DbError> {
    done(tx, &changes(rows)).await?;
    let gone = sqlx::query(
        "DELETE FROM message_mailboxes WHERE tenant_id = $1 AND id = ANY ($2)
         RETURNING message_id, hidden_at IS NULL AS visible",
    )
    .bind(tx.tenant())
    .bind(placements(rows))
    .fetch_all(tx.conn())
    .await?;
    left(tx, account, &gone).await
}

/// Tells of deleted placements that clients saw: an original is hidden, unless what wanted it gone was taken back while the
/// server was at it.
async fn left(tx: &mut TenantTx, account: AccountId, deleted: &[PgRow]) -> Result<(), DbError> {
    let mut seen: Vec<Uuid> =
        deleted.iter().filter(|r| r.get("visible")).map(|r| r.get("message_id")).collect();
    seen.sort_unstable();
    seen.dedup();
    vanish::announce_gone(tx, account, &seen, json!({ "changed": "mailboxes" })).await
}

/// The originals are marked `\Deleted` and stay on a server without UIDPLUS: hidden here until somebody expunges them.
pub async fn confirm_marked(tx: &mut TenantTx, rows: &[EditRow]) -> Result<(), DbError> {
    done(tx, &changes(rows)).await?;
    sqlx::query(
        "UPDATE message_mailboxes SET flags = flags | $3, base_flags = base_flags | $3, hidden_at = coalesce(hidden_at, now())
         WHERE tenant_id = $1 AND id = ANY ($2)",
    )
    .bind(tx.tenant())
    .bind(placements(rows))
    .bind(Flags::DELETED.bits())
    .execute(tx.conn())
    .await?;
    Ok(())
}
