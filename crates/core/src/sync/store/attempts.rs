//! Messages that are in the way: of a process that dies over them, of a statement the database refuses, or of a server
//! that cannot deliver them.
//!
//! Before a worker looks into what it fetches, [`begin`] notes the UIDs, one row for all of them; the row goes in the
//! transaction that stores the last ([`end`]). A row that is still there when a later lease looks ([`settle`]) tells
//! where a process ended: what it names and what is not stored counts one death each. From then on these go one at a
//! time; a message that has cost [`RAW_AFTER`] processes is stored without being looked into, and one that cost two more
//! all the same is left out. Messages that the server refuses when asked for them alone are left out at once.
//! What is left out is tried again at growing distances, in the end once a day. A message at which the line broke
//! ([`broke_the_line`]) is not left out: each round asks for it, alone.

use mail::sync::LocalView;
use mail::uid::{Uid, UidSet};
use sqlx::{AssertSqlSafe, Row as _};

use super::Target;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::MailboxId;
use crate::queue::lease::Lease;

/// Deaths after which a message is stored without being looked into: one may be anybody's fault.
const RAW_AFTER: i32 = 2;
/// Deaths after which it is left out: then it is not the parser that dies.
const OUT_AFTER: i32 = 4;

/// SQL: message `a` of [`load`]'s table is left out now. It is for a day at most, and from its last try on: beyond, the clock
/// was set back since.
pub(super) const LEFT_OUT: &str =
    "coalesce(a.next_try_at > now() AND a.next_try_at <= now() + interval '1 day'
    AND a.last_at < now() + interval '1 minute', false)";

/// Notes what is about to be looked into. Commit it before the first byte is; it need not reach the disk, because it is
/// this process that may die, not the database.
pub async fn begin(tx: &mut TenantTx, lease: &Lease, target: &Target, uids: &UidSet) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO ingest_batches (tenant_id, mailbox_id, epoch, generation, uids) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (tenant_id, mailbox_id, epoch) DO UPDATE
           SET generation = excluded.generation, uids = excluded.uids, started_at = excluded.started_at",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(lease.epoch)
    .bind(target.generation)
    .bind(uids.to_string())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes the note back: nothing of it can end this process any more.
pub async fn end(tx: &mut TenantTx, lease: &Lease, target: &Target) -> Result<(), DbError> {
    sqlx::query("DELETE FROM ingest_batches WHERE tenant_id = $1 AND mailbox_id = $2 AND epoch = $3")
        .bind(tx.tenant())
        .bind(target.mailbox)
        .bind(lease.epoch)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Takes back whatever this lease noted: the process stops because it was told to, not because of a message.
pub async fn end_all(tx: &mut TenantTx, lease: &Lease) -> Result<(), DbError> {
    sqlx::query(
        "DELETE FROM ingest_batches t USING mailboxes b WHERE t.tenant_id = $1 AND t.epoch = $3
           AND b.tenant_id = t.tenant_id AND b.id = t.mailbox_id AND b.account_id = $2",
    )
    .bind(tx.tenant())
    .bind(lease.account)
    .bind(lease.epoch)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Whether an earlier lease left a note in this mailbox. Then [`settle`] before the mailbox is read.
pub async fn left_over(tx: &mut TenantTx, lease: &Lease, mailbox: MailboxId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM ingest_batches WHERE tenant_id = $1 AND mailbox_id = $2 AND epoch < $3)",
    )
    .bind(tx.tenant())
    .bind(mailbox)
    .bind(lease.epoch)
    .fetch_one(tx.conn())
    .await?)
}

/// Turns the notes of earlier leases into deaths of the messages they name, but for those of `known`, which are stored.
pub async fn settle(
    tx: &mut TenantTx,
    lease: &Lease,
    target: &Target,
    known: &UidSet,
) -> Result<(), DbError> {
    let notes: Vec<(i32, String)> = sqlx::query_as(
        "DELETE FROM ingest_batches WHERE tenant_id = $1 AND mailbox_id = $2 AND epoch < $3 RETURNING generation, uids",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(lease.epoch)
    .fetch_all(tx.conn())
    .await?;
    let mut suspects = UidSet::new();
    for (_, uids) in notes.iter().filter(|(generation, _)| *generation == target.generation) {
        // Written by ourselves, so it is a set.
        suspects = suspects.union(&UidSet::parse(uids).unwrap_or_default());
    }
    let suspects = suspects.difference(known);
    if suspects.is_empty() {
        return Ok(());
    }
    tracing::warn!(mailbox_id = %target.mailbox, messages = suspects.len(),
        "a worker ended while it looked into messages; they are fetched one at a time");
    sqlx::query(
        "INSERT INTO ingest_attempts AS a (tenant_id, mailbox_id, generation, uid, deaths, reason)
         SELECT $1, $2, $3, unnest($4::bigint[]), 1, 'process-ended'
         ON CONFLICT (tenant_id, mailbox_id, generation, uid) DO UPDATE
           SET deaths = a.deaths + 1, reason = excluded.reason, last_at = now(),
               next_try_at = CASE WHEN a.deaths + 1 >= $5 THEN now() + interval '1 day' ELSE a.next_try_at END",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(numbers(&suspects))
    .bind(OUT_AFTER)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Tells the planner what is in the way; what it knows as stored is not.
pub async fn load(tx: &mut TenantTx, target: &Target, view: &mut LocalView) -> Result<(), DbError> {
    let rows = sqlx::query(AssertSqlSafe(format!(
        "SELECT uid, deaths >= $4 AS raw, {LEFT_OUT} AS out FROM ingest_attempts a
         WHERE tenant_id = $1 AND mailbox_id = $2 AND generation = $3 ORDER BY uid",
    )))
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(RAW_AFTER)
    .fetch_all(tx.conn())
    .await?;
    for row in rows {
        let Ok(uid) = Uid::try_from(row.try_get::<i64, _>("uid")?) else { continue };
        if view.known.contains(uid) {
            continue;
        }
        let set = match (row.try_get("out")?, row.try_get("raw")?) {
            (true, _) => &mut view.unreadable,
            (false, true) => &mut view.raw,
            (false, false) => &mut view.alone,
        };
        set.insert(uid);
    }
    Ok(())
}

/// The line broke at each of these. Nothing counts against them, and no time passes before they are asked for again: the
/// rows say that they are missing, and that others are not to be asked for with them.
pub async fn broke_the_line(
    tx: &mut TenantTx,
    target: &Target,
    uids: &UidSet,
    reason: &str,
) -> Result<(), DbError> {
    // Some may have come since: a row would have them looked for in each round.
    sqlx::query(
        "INSERT INTO ingest_attempts (tenant_id, mailbox_id, generation, uid, reason)
         SELECT $1, $2, $3, u, $5 FROM unnest($4::bigint[]) AS x(u) WHERE NOT EXISTS (
           SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = $1 AND p.mailbox_id = $2 AND p.generation = $3 AND p.uid = u)
         ON CONFLICT (tenant_id, mailbox_id, generation, uid) DO UPDATE SET reason = excluded.reason, last_at = now()",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(numbers(uids))
    .bind(reason)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// How many of a mailbox that are in the way, and not left out, had their last try before this one's.
pub async fn longer_waiting(tx: &mut TenantTx, target: &Target, uid: Uid) -> Result<usize, DbError> {
    let count: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT count(*) FROM ingest_attempts a JOIN ingest_attempts o
           ON a.tenant_id = o.tenant_id AND a.mailbox_id = o.mailbox_id AND a.generation = o.generation
         WHERE o.tenant_id = $1 AND o.mailbox_id = $2 AND o.generation = $3 AND o.uid = $4
           AND (a.last_at, a.uid) < (o.last_at, o.uid) AND NOT {LEFT_OUT}",
    )))
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(i64::from(uid))
    .fetch_one(tx.conn())
    .await?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// The server refused these when it was asked for each of them alone: they are left out for a quarter of an
/// hour, then two hours, then a day each time. The shorter ones are for a server that had a bad moment: new mail must
/// not wait a day for it.
pub async fn refused(tx: &mut TenantTx, target: &Target, uids: &UidSet, reason: &str) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO ingest_attempts AS a (tenant_id, mailbox_id, generation, uid, refusals, reason, next_try_at)
         SELECT $1, $2, $3, unnest($4::bigint[]), 1, $5, now() + interval '15 minutes'
         ON CONFLICT (tenant_id, mailbox_id, generation, uid) DO UPDATE
           SET refusals = a.refusals + 1, reason = excluded.reason, last_at = now(),
               next_try_at = now() + CASE a.refusals WHEN 0 THEN interval '15 minutes' WHEN 1 THEN interval '2 hours'
                                       ELSE interval '1 day' END",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(numbers(uids))
    .bind(reason)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// These are stored, or gone from the server.
pub async fn forget(tx: &mut TenantTx, target: &Target, uids: &UidSet) -> Result<(), DbError> {
    let (first, last): (Vec<i64>, Vec<i64>) =
        uids.ranges().map(|(a, b)| (i64::from(a), i64::from(b))).unzip();
    sqlx::query(
        "DELETE FROM ingest_attempts a USING unnest($4::bigint[], $5::bigint[]) AS r(first, last)
         WHERE a.tenant_id = $1 AND a.mailbox_id = $2 AND a.generation = $3 AND a.uid BETWEEN r.first AND r.last",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(target.generation)
    .bind(first)
    .bind(last)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The UIDs of these mailboxes mean nothing any more.
pub async fn forget_all(tx: &mut TenantTx, mailboxes: &[MailboxId]) -> Result<(), DbError> {
    sqlx::query("DELETE FROM ingest_attempts WHERE tenant_id = $1 AND mailbox_id = ANY ($2)")
        .bind(tx.tenant())
        .bind(mailboxes.iter().map(|id| id.0).collect::<Vec<_>>())
        .execute(tx.conn())
        .await?;
    Ok(())
}

fn numbers(uids: &UidSet) -> Vec<i64> {
    uids.iter().map(i64::from).collect()
}
