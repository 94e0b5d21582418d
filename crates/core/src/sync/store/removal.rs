//! Mailboxes that go, whatever they hold. One is marked in the transaction that tells of it, and from then on no transaction sees
//! anything of it (`enter_tenant` in migration 41). What it holds goes in portions, each a transaction of its own ([`portion`]);
//! its row is the last.
//!
//! What is told of messages is told when they go: the last mailbox that a message leaves decides which event it is.

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

use super::edits;
use crate::domain::event::{self, Event, MessageDeleted, MessagePart, MessageUpdated};
use crate::platform::db::{Db, DbError, SystemTx, TenantTx};
use crate::platform::failpoint;
use crate::platform::id::{AccountId, MailboxId, MessageId, TenantId};
use crate::queue::job::{Job, enqueue};
use crate::queue::lease;
use crate::queue::portion::Size;

/// A mailbox with no more in it goes at once: it is one portion.
const AT_ONCE: i64 = 500;

/// Portions of messages with edits that are seen to at once.
const EDITED_AT_ONCE: usize = 2;

/// Marks mailboxes: nobody sees anything of them from the commit on, their names are free, and what our users asked of them
/// alone is forgotten. The caller holds the account's lease row, tells of them, and sees to what else was asked.
///
/// # Errors
/// Those of the database.
pub async fn mark(tx: &mut TenantTx, account: AccountId, ids: &[Uuid]) -> Result<(), DbError> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO mailbox_removals (tenant_id, account_id, mailbox_id, total)
         SELECT tenant_id, account_id, id, total FROM mailboxes WHERE tenant_id = $1 AND id = ANY ($2) ON CONFLICT DO NOTHING",
    )
    .bind(tx.tenant())
    .bind(ids)
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "DELETE FROM pending_changes WHERE tenant_id = $1 AND account_id = $2 AND mailbox_id = ANY ($3)",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(ids)
    .execute(tx.conn())
    .await?;
    // NUL cannot stand in a name on the wire.
    sqlx::query(
        "UPDATE mailboxes SET wire_name = '\\x00'::bytea || uuid_send(id), role = NULL, mailboxid = NULL, selectable = false
         WHERE tenant_id = $1 AND id = ANY ($2)",
    )
    .bind(tx.tenant())
    .bind(ids)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Removes what is marked in this transaction where it is little, and asks for the job that removes the rest where it is not.
/// Whether all of it is removed.
///
/// # Errors
/// Those of the database.
pub async fn at_once(tx: &mut TenantTx, account: AccountId, mailbox: MailboxId) -> Result<bool, DbError> {
    let held: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT 1 FROM message_mailboxes WHERE tenant_id = $1 AND mailbox_id = $2 LIMIT $3) p",
    )
    .bind(tx.tenant())
    .bind(mailbox)
    .bind(AT_ONCE + 1)
    .fetch_one(tx.conn())
    .await?;
    // What our users moved here is back where it was, before anybody looks.
    let mut edited = true;
    for _ in 0..EDITED_AT_ONCE {
        edited = edited && edits::mailboxes_gone(tx, account, &[mailbox.0]).await?;
    }
    if held <= AT_ONCE && !edited {
        // The second one finds nothing.
        for _ in 0..2 {
            if portion(tx, (account, mailbox), AT_ONCE).await?.is_none() {
                return Ok(true);
            }
        }
    }
    let tenant_id = tx.tenant();
    enqueue(tx, &Job::RemoveMailboxes { tenant_id }, Duration::ZERO).await?;
    Ok(false)
}

/// How far the removal of a mailbox has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// Whose.
    pub account: AccountId,
    /// Which.
    pub mailbox: MailboxId,
    /// When it was deleted.
    pub asked_at: DateTime<Utc>,
    /// Messages it showed then.
    pub total: i64,
    /// Places of messages that are removed.
    pub removed: i64,
}

/// The tenant's mailboxes that are deleted and not removed yet, those of one account if it is named, the first deleted one first.
/// Those of accounts that are deleted are left out: they go with them.
///
/// # Errors
/// When the database refuses.
pub async fn list(db: &Db, tenant: TenantId, account: Option<AccountId>) -> Result<Vec<Removal>, DbError> {
    let mut tx = db.removal(tenant).await?;
    let rows = sqlx::query(
        "SELECT r.account_id, r.mailbox_id, r.asked_at, r.total, r.removed FROM mailbox_removals r
         JOIN accounts a ON a.tenant_id = r.tenant_id AND a.id = r.account_id AND a.removed_at IS NULL
         WHERE r.tenant_id = $1 AND ($2::uuid IS NULL OR r.account_id = $2) ORDER BY r.asked_at, r.mailbox_id",
    )
    .bind(tenant)
    .bind(account)
    .fetch_all(tx.conn())
    .await?;
    tx.release();
    let read = |row: &sqlx::postgres::PgRow| -> Result<Removal, sqlx::Error> {
        Ok(Removal {
            account: row.try_get("account_id")?,
            mailbox: row.try_get("mailbox_id")?,
            asked_at: row.try_get("asked_at")?,
            total: row.try_get("total")?,
            removed: row.try_get("removed")?,
        })
    };
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

/// Tenants with mailboxes to remove and no job that does.
///
/// # Errors
/// When the database refuses.
pub async fn lost(tx: &mut SystemTx) -> Result<Vec<TenantId>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT r.tenant_id FROM mailbox_removals r JOIN tenants t ON t.id = r.tenant_id
         WHERE t.suspended_at IS NULL AND NOT EXISTS (
           SELECT 1 FROM jobs j WHERE j.tenant_id = r.tenant_id AND j.kind = 'remove_mailboxes'
             AND j.dedupe_key = r.tenant_id::text AND j.state IN ('ready','running'))
         LIMIT 500",
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Removes a marked mailbox portion by portion until it is gone or `over`. Whether it is gone. Two that do so at once take turns.
///
/// # Errors
/// When the database refuses; what was committed before stays. [`DbError::Deleted`]: its account went meanwhile.
pub async fn finish(
    db: &Db,
    tenant: TenantId,
    (account, mailbox): (AccountId, MailboxId),
    over: impl Fn() -> bool,
) -> Result<bool, DbError> {
    let (mut size, mut seen_to) = (Size::default(), None);
    while !over() {
        let mut tx = db.removal(tenant).await?;
        lease::lock(&mut tx, &[account]).await?;
        // Edits look at all there are of the account: not for each portion, and its size is not theirs.
        let newest = newest_edit(&mut tx, account).await?;
        if newest > seen_to {
            if edits::mailboxes_gone(&mut tx, account, &[mailbox.0]).await? {
                tx.commit().await?;
                continue;
            }
            seen_to = newest;
        }
        let begun = tokio::time::Instant::now();
        let left = portion(&mut tx, (account, mailbox), size.rows).await?;
        if left.is_none() {
            // The server may hear of it from now on.
            crate::domain::edits::ask::push(&mut tx, account).await?;
        }
        tx.commit().await?;
        failpoint::pass("removed-portion");
        if left.is_none() {
            return Ok(true);
        }
        size.took(begun.elapsed());
    }
    Ok(false)
}

/// Whoever writes edits holds the account's lease row, as the caller does: later ones have larger ids.
async fn newest_edit(tx: &mut TenantTx, account: AccountId) -> Result<Option<i64>, DbError> {
    Ok(sqlx::query_scalar("SELECT max(id) FROM edits WHERE tenant_id = $1 AND account_id = $2")
        .bind(tx.tenant())
        .bind(account)
        .fetch_one(tx.conn())
        .await?)
}

/// Removes `rows` places of a marked mailbox at most, newest first, because lists begin there and pass over what is marked.
/// `None`: nothing was left, and the mailbox is removed. The caller holds the account's lease row, and has seen to edits.
///
/// # Errors
/// Those of the database.
pub async fn portion(
    tx: &mut TenantTx,
    (account, mailbox): (AccountId, MailboxId),
    rows: i64,
) -> Result<Option<u64>, DbError> {
    let found = next(tx, mailbox, rows).await?;
    if found.places.is_empty() {
        if edits::mailboxes_gone(tx, account, &[mailbox.0]).await? {
            return Ok(Some(0));
        }
        sqlx::query("DELETE FROM mailboxes WHERE tenant_id = $1 AND id = $2")
            .bind(tx.tenant())
            .bind(mailbox)
            .execute(tx.conn())
            .await?;
        return Ok(None);
    }
    // Where a client took it away meanwhile, that was told.
    let untold: BTreeSet<Uuid> = sqlx::query_scalar(
        "SELECT id FROM messages WHERE tenant_id = $1 AND id = ANY ($2) AND gone_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(&found.shown)
    .fetch_all(tx.conn())
    .await?
    .into_iter()
    .collect();
    let gone = sqlx::query("DELETE FROM message_mailboxes WHERE tenant_id = $1 AND id = ANY ($2)")
        .bind(tx.tenant())
        .bind(&found.places)
        .execute(tx.conn())
        .await?
        .rows_affected();
    announce(tx, account, &untold.into_iter().collect::<Vec<_>>()).await?;
    sqlx::query(
        "UPDATE mailbox_removals SET removed = removed + $3, reached = least(reached, $4) WHERE tenant_id = $1 AND mailbox_id = $2",
    )
    .bind(tx.tenant())
    .bind(mailbox)
    .bind(i64::try_from(gone).unwrap_or(i64::MAX))
    .bind(found.reached)
    .execute(tx.conn())
    .await?;
    Ok(Some(gone))
}

/// The places of a portion.
#[derive(Default)]
struct Found {
    places: Vec<Uuid>,
    /// Messages that were seen there.
    shown: Vec<Uuid>,
    reached: Option<DateTime<Utc>>,
}

/// Where the last portion ended is written down: what it left behind in the index is there until nobody can see it any more.
async fn next(tx: &mut TenantTx, mailbox: MailboxId, rows: i64) -> Result<Found, DbError> {
    let shown: Vec<(Uuid, Uuid, DateTime<Utc>)> = sqlx::query_as(
        "SELECT id, message_id, sort_at FROM message_mailboxes WHERE tenant_id = $1 AND mailbox_id = $2 AND hidden_at IS NULL
           AND sort_at <= (SELECT reached FROM mailbox_removals WHERE tenant_id = $1 AND mailbox_id = $2)
         ORDER BY sort_at DESC, message_id DESC LIMIT $3",
    )
    .bind(tx.tenant())
    .bind(mailbox)
    .bind(rows)
    .fetch_all(tx.conn())
    .await?;
    if !shown.is_empty() {
        return Ok(Found {
            reached: shown.last().map(|(_, _, at)| *at),
            places: shown.iter().map(|(place, ..)| *place).collect(),
            shown: shown.iter().map(|(_, message, _)| *message).collect(),
        });
    }
    // What nobody saw, and what came after it was passed: whoever had begun before the mark may have written it.
    let left: Vec<(Uuid, Uuid, bool)> = sqlx::query_as(
        "SELECT id, message_id, hidden_at IS NULL FROM message_mailboxes WHERE tenant_id = $1 AND mailbox_id = $2 LIMIT $3",
    )
    .bind(tx.tenant())
    .bind(mailbox)
    .bind(rows)
    .fetch_all(tx.conn())
    .await?;
    Ok(Found {
        places: left.iter().map(|(place, ..)| *place).collect(),
        shown: left.iter().filter(|(_, _, seen)| *seen).map(|(_, message, _)| *message).collect(),
        reached: None,
    })
}

/// Deleted without a place that clients can see, updated with one. Nothing of a message that stands in another marked mailbox
/// only: that one's portion tells.
async fn announce(tx: &mut TenantTx, account: AccountId, messages: &[Uuid]) -> Result<(), DbError> {
    let rows: Vec<(MessageId, bool, bool)> = sqlx::query_as(
        "SELECT g.id, g.gone_at IS NOT NULL, EXISTS (
           SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = $1 AND p.message_id = g.id AND p.hidden_at IS NULL
             AND NOT EXISTS (SELECT 1 FROM mailbox_removals r WHERE r.tenant_id = $1 AND r.mailbox_id = p.mailbox_id))
         FROM messages g WHERE g.tenant_id = $1 AND g.id = ANY ($2)",
    )
    .bind(tx.tenant())
    .bind(messages)
    .fetch_all(tx.conn())
    .await?;
    let told = |(id, gone, shown): (MessageId, bool, bool)| match (gone, shown) {
        (true, _) => Some(Event::from(MessageDeleted { id })),
        (false, true) => Some(MessageUpdated { id, changed: vec![MessagePart::Mailboxes] }.into()),
        (false, false) => None,
    };
    let events: Vec<Event> = rows.into_iter().filter_map(told).collect();
    crate::domain::thread::refresh(tx, messages).await?;
    event::record(tx, account, &events);
    Ok(())
}
