//! What the planner is told about our copy.

use chrono::{DateTime, Utc};
use mail::keep::Keep;
use mail::modseq::ModSeq;
use mail::sync::{Checkpoint, LocalEntry, LocalView};
use mail::uid::{Uid, UidSet, UidValidity};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::attempts::LEFT_OUT;
use super::edits::Portion;
use super::{Target, attempts, keep};
use crate::domain::account;
use crate::domain::states::mailbox_role;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId};
use crate::sync::GIVE_UP_AFTER;

/// A mailbox row and what the planner sees of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The row.
    pub id: MailboxId,
    /// For the planner.
    pub local: LocalEntry,
    /// Our user subscribed or unsubscribed and the server has not confirmed it.
    pub subscription_waits: bool,
    /// Its messages are kept here.
    pub synchronised: bool,
}

/// One mailbox for a visit.
#[derive(Debug, Clone, Default)]
pub struct Visit {
    /// For the planner.
    pub local: LocalView,
    /// What is behind its commands, and where the next portion begins.
    pub edits: Portion,
    /// How much of the account is kept.
    pub keep: Keep,
    /// Its messages are not.
    pub outside: bool,
    /// When a user asked for all of it to be compared: the mark that [`super::checkpoint::read_anew`] takes away.
    pub resync_asked_at: Option<DateTime<Utc>>,
    /// The database's time before the mailbox is opened: what was done before, the visit sees. Told by whoever opens it.
    pub opened_at: Option<DateTime<Utc>>,
}

const CHECKPOINT: &str =
    "b.generation, b.uidvalidity, b.uidnext, b.head_uid, b.tail_uid, b.modseq, b.exists_seen";

/// The lowest generation is the first entry of an index; asked whether a lower one exists, the planner reads the table.
const OLD_GENERATION: &str = "coalesce((SELECT p.generation FROM message_mailboxes p
    WHERE p.tenant_id = $1 AND p.mailbox_id = b.id AND p.uid IS NOT NULL ORDER BY p.generation LIMIT 1) < b.generation, false)
    AS old_generation";

/// Most mailboxes keep all they have.
const SOME_OUTSIDE: &str =
    "EXISTS (SELECT 1 FROM mailbox_outside o WHERE o.tenant_id = $1 AND o.mailbox_id = b.id
    AND o.generation = b.generation) AS some_outside";

/// Mailboxes under a name that our user gave them and the server has not heard of: their own, or that of one above them.
/// There may be another mailbox of that name on the server, which must not be taken for ours. A statement of its own part,
/// since few changes are of this kind and the other ones may be a hundred thousand.
pub(super) const UNTOLD: &str = "untold AS MATERIALIZED (
    SELECT b.id, c.attempts FROM pending_changes c
    JOIN mailboxes b ON b.tenant_id = c.tenant_id AND b.account_id = c.account_id AND (b.id = c.mailbox_id
      OR (c.kind = 'rename_mailbox' AND starts_with(encode(b.wire_name, 'hex'), (c.data->>'to_hex') || encode(convert_to(b.delimiter, 'UTF8'), 'hex'))))
    WHERE c.tenant_id = $1 AND c.account_id = $2 AND c.kind IN ('create_mailbox', 'rename_mailbox'))";

/// The same, without those that the server refuses to make: moves to them are told to it, and taken back.
pub(super) const WAITS_FOR_ITS_NAME: &str = "SELECT id FROM untold WHERE attempts < 5";
const _: () = assert!(GIVE_UP_AFTER == 5, "the number in the statement");

fn checkpoint(row: &PgRow) -> Result<Checkpoint, sqlx::Error> {
    let short = |name: &str| -> Result<u32, sqlx::Error> {
        Ok(row.try_get::<Option<i64>, _>(name)?.and_then(|n| u32::try_from(n).ok()).unwrap_or(0))
    };
    let uidvalidity: Option<i64> = row.try_get("uidvalidity")?;
    Ok(Checkpoint {
        generation: row.try_get("generation")?,
        uidvalidity: uidvalidity.and_then(|v| UidValidity::try_from(v).ok()),
        uidnext: short("uidnext")?,
        head_uid: short("head_uid")?,
        tail_uid: short("tail_uid")?,
        modseq: ModSeq::from_i64(row.try_get::<Option<i64>, _>("modseq")?.unwrap_or(0)),
        exists_seen: short("exists_seen")?,
    })
}

/// The account's mailboxes. Those that our users made or renamed and the server does not know yet are left out: a
/// listing must neither remove nor rename them.
///
/// What waits is gathered once for the account, not looked for mailbox by mailbox.
pub async fn tree(tx: &mut TenantTx, account: AccountId) -> Result<Vec<Entry>, DbError> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
        "WITH {UNTOLD}, changes AS MATERIALIZED (
           SELECT mailbox_id, kind FROM pending_changes WHERE tenant_id = $1 AND account_id = $2)
         SELECT b.id, b.wire_name, b.delimiter, b.selectable, b.subscribed, b.role, b.mailboxid, b.synchronised, {CHECKPOINT},
           b.state = 'failed' OR b.resync_asked_at IS NOT NULL
           OR EXISTS (SELECT 1 FROM ingest_attempts a WHERE a.tenant_id = $1 AND a.mailbox_id = b.id AND a.generation = b.generation
                      AND NOT {LEFT_OUT}) AS unfinished,
           EXISTS (SELECT 1 FROM changes c WHERE c.mailbox_id = b.id AND c.kind IN ('subscribe', 'unsubscribe'))
             AS subscription_waits,
           coalesce((SELECT floor(extract(epoch FROM p.sort_at))::bigint FROM message_mailboxes p
                     WHERE p.tenant_id = $1 AND p.mailbox_id = b.id AND p.hidden_at IS NULL
                     ORDER BY p.sort_at DESC LIMIT 1), 0) AS active_at
         FROM mailboxes b WHERE b.tenant_id = $1 AND b.account_id = $2
           AND b.id NOT IN (SELECT id FROM untold)
         ORDER BY b.id"
    )))
    .bind(tx.tenant())
    .bind(account)
    .fetch_all(tx.conn())
    .await?;
    Ok(rows.iter().map(entry).collect::<Result<_, sqlx::Error>>()?)
}

fn entry(row: &PgRow) -> Result<Entry, sqlx::Error> {
    let delimiter: Option<String> = row.try_get("delimiter")?;
    let local = LocalEntry {
        wire_name: row.try_get("wire_name")?,
        delimiter: delimiter.and_then(|d| d.chars().next()),
        selectable: row.try_get("selectable")?,
        subscribed: row.try_get("subscribed")?,
        role: mailbox_role(row)?,
        mailboxid: row.try_get("mailboxid")?,
        checkpoint: checkpoint(row)?,
        unfinished: row.try_get("unfinished")?,
        active_at: row.try_get("active_at")?,
    };
    Ok(Entry {
        id: row.try_get("id")?,
        local,
        subscription_waits: row.try_get("subscription_waits")?,
        synchronised: row.try_get("synchronised")?,
    })
}

/// Everything a visit needs of one mailbox; `None` when it is gone.
pub async fn visit(
    tx: &mut TenantTx,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<Option<(Target, Visit)>, DbError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {CHECKPOINT}, b.resync_asked_at, b.synchronised, {OLD_GENERATION}, {SOME_OUTSIDE}, a.keep_since, a.keep_mailboxes, a.keep_max_bytes
         FROM mailboxes b JOIN accounts a ON a.tenant_id = b.tenant_id AND a.id = b.account_id
         WHERE b.tenant_id = $1 AND b.id = $2 AND b.account_id = $3"
    )))
    .bind(tx.tenant())
    .bind(mailbox)
    .bind(account)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let at = checkpoint(&row)?;
    let target = Target { account, mailbox, generation: at.generation };
    let edits = super::edits::ready(tx, &target, 0).await?;
    let resync_asked_at: Option<DateTime<Utc>> = row.try_get("resync_asked_at")?;
    let mut local = LocalView {
        checkpoint: at,
        known: known(tx, &target).await?,
        old_generation: row.try_get("old_generation")?,
        read_anew: resync_asked_at.is_some(),
        ready: edits.ready.clone(),
        ..LocalView::default()
    };
    if row.try_get("some_outside")? {
        local.outside = keep::outside(tx, &target).await?.difference(&local.known);
    }
    attempts::load(tx, &target, &mut local).await?;
    let (keep, outside) = (account::keep::read(&row)?, !row.try_get::<bool, _>("synchronised")?);
    Ok(Some((target, Visit { local, edits, keep, outside, resync_asked_at, opened_at: None })))
}

/// INBOX for its newest mail alone: of the UIDs we hold those above the head, and no edits. Does not grow with the
/// mailbox. `None` when there is no INBOX yet.
pub async fn head(tx: &mut TenantTx, account: AccountId) -> Result<Option<(Target, Visit)>, DbError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT b.id, {CHECKPOINT}, {OLD_GENERATION},
           ARRAY(SELECT p.uid FROM message_mailboxes p WHERE p.tenant_id = $1 AND p.mailbox_id = b.id
                 AND p.generation = b.generation AND p.uid > b.head_uid ORDER BY p.uid) AS above,
           a.keep_since, a.keep_mailboxes, a.keep_max_bytes
         FROM mailboxes b JOIN accounts a ON a.tenant_id = b.tenant_id AND a.id = b.account_id
         WHERE b.tenant_id = $1 AND b.account_id = $2 AND b.role = 'inbox' AND b.selectable AND b.synchronised"
    )))
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let at = checkpoint(&row)?;
    let target = Target { account, mailbox: row.try_get("id")?, generation: at.generation };
    let above: Vec<i64> = row.try_get("above")?;
    let mut local = LocalView {
        checkpoint: at,
        known: above.into_iter().filter_map(|uid| Uid::try_from(uid).ok()).collect(),
        old_generation: row.try_get("old_generation")?,
        ..LocalView::default()
    };
    attempts::load(tx, &target, &mut local).await?;
    let keep = account::keep::read(&row)?;
    Ok(Some((target, Visit { local, keep, ..Visit::default() })))
}

/// The UIDs we hold, as ranges: a million of them in order are one row.
pub async fn known(tx: &mut TenantTx, target: &Target) -> Result<UidSet, DbError> {
    let rows = sqlx::query(
        "SELECT min(uid) AS first, max(uid) AS last FROM (
           SELECT uid, uid - row_number() OVER (ORDER BY uid) AS island FROM message_mailboxes
           WHERE tenant_id = $1 AND mailbox_id = $2 AND generation = $3 AND uid IS NOT NULL) u
         GROUP BY island ORDER BY 1",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .fetch_all(tx.conn())
    .await?;
    let mut known = UidSet::new();
    for row in rows {
        let (first, last): (i64, i64) = (row.try_get("first")?, row.try_get("last")?);
        if let (Ok(first), Ok(last)) = (Uid::try_from(first), Uid::try_from(last)) {
            known.insert_range(first, last);
        }
    }
    Ok(known)
}

/// A mailbox as the server calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The row.
    pub id: MailboxId,
    /// Its name on the wire.
    pub wire_name: Vec<u8>,
    /// Its delimiter.
    pub delimiter: Option<char>,
}

/// The account's Trash, once the server has it.
pub async fn trash(tx: &mut TenantTx, account: AccountId) -> Result<Option<Named>, DbError> {
    let row: Option<(MailboxId, Vec<u8>, Option<String>)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "WITH {UNTOLD}
         SELECT id, wire_name, delimiter FROM mailboxes
         WHERE tenant_id = $1 AND account_id = $2 AND role = 'trash' AND selectable AND id NOT IN (SELECT id FROM untold)
         ORDER BY id LIMIT 1"
    )))
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|(id, wire_name, delimiter)| Named {
        id,
        wire_name,
        delimiter: delimiter.and_then(|d| d.chars().next()),
    }))
}

/// The name under which the server has a mailbox, and the database's time; `None` when it is gone, or the server does not
/// know of it yet.
pub async fn wire_name(
    tx: &mut TenantTx,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<Option<(Vec<u8>, DateTime<Utc>)>, DbError> {
    Ok(sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "WITH {UNTOLD}
         SELECT wire_name, clock_timestamp() FROM mailboxes
         WHERE tenant_id = $1 AND account_id = $2 AND id = $3 AND id NOT IN ({WAITS_FOR_ITS_NAME})"
    )))
    .bind(tx.tenant())
    .bind(account)
    .bind(mailbox)
    .fetch_optional(tx.conn())
    .await?)
}
