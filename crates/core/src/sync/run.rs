//! Rounds of synchronisation as clients see them: asked for here, carried out under `sync::store`.
//!
//! At most one round of an account waits and one runs. A request while one runs waits behind it, so that everything on
//! the server before the request is covered by the round it is answered with.

use crate::domain::states::mailbox_role;
use mail::mailbox::Role;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};

use crate::domain::account::Cause;
use crate::platform::db::{DbError, SystemTx, TenantTx};
use crate::platform::id::{AccountId, MailboxId, RunId};
use crate::platform::words::words;
use crate::queue::job::{Job, enqueue_as, priority};
use crate::queue::lease;
use crate::sync::GIVE_UP_AFTER;

words! {
    /// How far a round is.
    pub enum RunState {
        /// It waits for a worker.
        Queued = "queued",
        /// A worker is at it.
        Running = "running",
        /// It came to its end.
        Done = "done",
        /// It did not.
        Failed = "failed",
    }
}

words! {
    /// How far our copy of a mailbox is.
    pub enum MailboxState {
        /// Nothing was read yet.
        New = "new",
        /// Old mail is being read.
        Backfill = "backfill",
        /// All of it is here.
        Synced = "synced",
        /// It cannot be read.
        Failed = "failed",
    }
}

/// One round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// Whose it is.
    pub account_id: AccountId,
    /// How far it is.
    pub state: RunState,
    /// When it began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

fn from_row(row: &PgRow) -> Result<Run, sqlx::Error> {
    Ok(Run {
        id: row.try_get("id")?,
        account_id: row.try_get("account_id")?,
        state: row.try_get("state")?,
        started_at: row.try_get("started_at")?,
        finished_at: row.try_get("finished_at")?,
    })
}

/// Asks for a round of an account that exists: the one that waits already, or a new one. A user waits for it.
///
/// # Errors
/// [`DbError::MissingReference`] when the account does not exist.
pub async fn request(tx: &mut TenantTx, account: AccountId) -> Result<Run, DbError> {
    // The update changes nothing; it makes the statement return the waiting row, and locks it against being started.
    let row = sqlx::query(
        "INSERT INTO sync_runs (tenant_id, id, account_id, state) VALUES ($1, $2, $3, 'queued')
         ON CONFLICT (tenant_id, account_id) WHERE state = 'queued' DO UPDATE SET state = 'queued'
         RETURNING id, account_id, state, started_at, finished_at",
    )
    .bind(tx.tenant())
    .bind(RunId::new())
    .bind(account)
    .fetch_one(tx.conn())
    .await?;
    enqueue_as(tx, &Job::SyncAccount { account_id: account }, Duration::ZERO, priority::USER).await?;
    Ok(from_row(&row)?)
}

/// Asks for a round that compares everything there is: in `mailbox`, or in all mailboxes of the account. Nothing that is
/// known is fetched again, but for messages that could not be read before.
///
/// # Errors
/// As [`request`].
pub async fn resync(
    tx: &mut TenantTx,
    account: AccountId,
    mailbox: Option<MailboxId>,
) -> Result<Run, DbError> {
    // A worker's transactions begin with the lease and then lock mailboxes, several at once.
    lease::lock(tx, &[account]).await?;
    sqlx::query(
        "UPDATE mailboxes SET resync_asked_at = clock_timestamp()
         WHERE tenant_id = $1 AND account_id = $2 AND ($3::uuid IS NULL OR id = $3) AND selectable AND synchronised",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(mailbox)
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "UPDATE ingest_attempts a SET next_try_at = now() FROM mailboxes b
         WHERE a.tenant_id = $1 AND b.tenant_id = $1 AND b.id = a.mailbox_id AND b.account_id = $2
           AND ($3::uuid IS NULL OR b.id = $3) AND a.next_try_at > now()",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(mailbox)
    .execute(tx.conn())
    .await?;
    will_be_read_anew(tx, account).await?;
    request(tx, account).await
}

/// Mail of the account is read anew: it is told when all of it is here again.
///
/// # Errors
/// Those of the database.
pub async fn will_be_read_anew(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    sqlx::query("UPDATE accounts SET synced_told = false WHERE tenant_id = $1 AND id = $2 AND synced_told")
        .bind(tx.tenant())
        .bind(account)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Ends the record of the round that is running, which will not come to its own end.
pub async fn interrupt(tx: &mut TenantTx, account: AccountId, reason: &str) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE sync_runs SET state = 'failed', finished_at = now(), error = $3
         WHERE tenant_id = $1 AND account_id = $2 AND state = 'running'",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(reason)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A condition on a row: somebody asked for the round. Those that nobody asked for begin as they are written down.
const ASKED: &str = "started_at IS DISTINCT FROM requested_at";

/// The last rounds of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latest {
    /// Asked for by a client.
    pub asked: Option<Run>,
    /// Asked for by nobody.
    pub background: Option<Run>,
}

/// The last round that was asked for, and the last that was not.
pub async fn latest(tx: &mut TenantTx, account: AccountId) -> Result<Latest, DbError> {
    let last = |condition: &str| {
        format!(
            "(SELECT id, account_id, state, started_at, finished_at, {ASKED} AS asked FROM sync_runs
              WHERE tenant_id = $1 AND account_id = $2 AND {condition} ORDER BY requested_at DESC, id DESC LIMIT 1)"
        )
    };
    let both = format!("{} UNION ALL {}", last(ASKED), last(&format!("NOT ({ASKED})")));
    let rows = sqlx::query(AssertSqlSafe(both)).bind(tx.tenant()).bind(account).fetch_all(tx.conn()).await?;
    let mut latest = Latest::default();
    for row in &rows {
        let place = if row.try_get("asked")? { &mut latest.asked } else { &mut latest.background };
        *place = Some(from_row(row)?);
    }
    Ok(latest)
}

/// One round, for a day after its end at least.
pub async fn get(tx: &mut TenantTx, id: RunId) -> Result<Option<Run>, DbError> {
    let row = sqlx::query(
        "SELECT id, account_id, state, started_at, finished_at FROM sync_runs WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.as_ref().map(from_row).transpose()?)
}

/// Forgets rounds that ended more than a day ago, but for the last ones of each account. Returns how many.
pub async fn prune(tx: &mut SystemTx) -> Result<u64, DbError> {
    let done = sqlx::query(AssertSqlSafe(format!(
        "DELETE FROM sync_runs WHERE (tenant_id, id) IN (
           SELECT r.tenant_id, r.id FROM sync_runs r
           CROSS JOIN LATERAL (SELECT r.started_at IS DISTINCT FROM r.requested_at AS asked) a
           WHERE r.finished_at < now() - interval '1 day' AND EXISTS (
             SELECT 1 FROM sync_runs WHERE tenant_id = r.tenant_id AND account_id = r.account_id
               AND requested_at > r.requested_at AND ({ASKED}) = a.asked)
           LIMIT 20000)",
    )))
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected())
}

/// How far one mailbox is. Placements are counted.
#[derive(Debug, Clone)]
pub struct MailboxProgress {
    /// Its id.
    pub id: crate::platform::id::MailboxId,
    /// Last part of its path.
    pub name: String,
    /// Its special use, if it has one.
    pub role: Option<Role>,
    /// How far our copy is.
    pub state: MailboxState,
    /// Placements that are here.
    pub synced: i64,
    /// Placements on the server, as last seen.
    pub total: i64,
    /// When it was last read to the end.
    pub last_synced_at: Option<DateTime<Utc>>,
    /// Why it cannot be read, or is not as its user wants it.
    pub cause: Option<Cause>,
    /// When all of it was last compared with the server.
    pub last_audit_at: Option<DateTime<Utc>>,
    /// What such comparisons had to repair although the server's numbers said that nothing had changed; stays 0.
    pub audit_repairs: i64,
}

/// How far all mailboxes of an account are together.
#[derive(Debug, Clone, Copy, Default, sqlx::FromRow)]
pub struct Sums {
    /// Placements that are here.
    pub synced: i64,
    /// Placements on the servers, as last seen.
    pub total: i64,
    /// When the mailbox that has waited longest was compared with the server.
    pub last_audit_at: Option<DateTime<Utc>>,
    /// As [`MailboxProgress::audit_repairs`].
    pub audit_repairs: i64,
}

/// Placements of a mailbox on the server, without those that are not kept.
const TOTAL: &str = "CASE WHEN state = 'synced' THEN total + (SELECT count(*) FROM ingest_attempts a WHERE a.tenant_id = $1
    AND a.mailbox_id = mailboxes.id AND a.generation = mailboxes.generation) ELSE greatest(total::bigint, exists_seen - (SELECT coalesce(sum(o.last_uid - o.first_uid + 1), 0)::bigint FROM mailbox_outside o WHERE o.tenant_id = $1
    AND o.mailbox_id = mailboxes.id AND o.generation = mailboxes.generation)) END";
/// The mailboxes that are told of.
const TOLD: &str = "mailboxes WHERE tenant_id = $1 AND account_id = $2 AND synchronised AND (selectable OR cause_code = 'refused')";

/// The sums over all mailboxes of [`progress`].
///
/// # Errors
/// Those of the database.
pub async fn sums(tx: &mut TenantTx, account: AccountId) -> Result<Sums, DbError> {
    Ok(sqlx::query_as(AssertSqlSafe(format!(
        "SELECT coalesce(sum(total), 0)::bigint AS synced, coalesce(sum({TOTAL}), 0)::bigint AS total,
                CASE WHEN bool_and(last_audit_at IS NOT NULL) THEN min(last_audit_at) END AS last_audit_at,
                coalesce(sum(audit_repairs), 0)::bigint AS audit_repairs
         FROM {TOLD}"
    )))
    .bind(tx.tenant())
    .bind(account)
    .fetch_one(tx.conn())
    .await?)
}

/// How far the selectable mailboxes of an account are, and those that the server refused to make: `limit` of them in the
/// order of their paths, those that follow `after`. `None`: that one is gone.
///
/// # Errors
/// Those of the database.
pub async fn progress(
    tx: &mut TenantTx,
    account: AccountId,
    after: Option<MailboxId>,
    limit: i64,
) -> Result<Option<Vec<MailboxProgress>>, DbError> {
    let place: Option<String> = match after {
        None => None,
        Some(after) => {
            let path = sqlx::query_scalar(
                "SELECT path FROM mailboxes WHERE tenant_id = $1 AND id = $2 AND account_id = $3",
            )
            .bind(tx.tenant())
            .bind(after)
            .bind(account)
            .fetch_optional(tx.conn())
            .await?;
            match path {
                Some(path) => Some(path),
                None => return Ok(None),
            }
        }
    };
    let from = if place.is_some() { "AND (path, id) > ($5, $6)" } else { "" };
    let rows = sqlx::query(AssertSqlSafe(format!(
        "SELECT id, name, role, state, total::bigint AS synced, last_synced_at, last_audit_at, audit_repairs,
                cause_code, cause_text, cause_upstream, cause_since,
                CASE cause_code
                  WHEN 'refused' THEN (SELECT l.next_due_at FROM account_leases l WHERE l.tenant_id = $1 AND l.account_id = $2
                    AND l.paused_at IS NULL AND EXISTS (SELECT 1 FROM pending_changes c WHERE c.tenant_id = $1 AND c.account_id = $2
                      AND c.mailbox_id = mailboxes.id AND c.kind IN ('create_mailbox', 'rename_mailbox') AND c.attempts < $3))
                  WHEN 'unreadable-messages' THEN (SELECT min(a.next_try_at) FROM ingest_attempts a WHERE a.tenant_id = $1
                    AND a.mailbox_id = mailboxes.id AND a.generation = mailboxes.generation)
                  ELSE (SELECT l.next_due_at FROM account_leases l WHERE l.tenant_id = $1 AND l.account_id = $2
                    AND l.paused_at IS NULL)
                END AS cause_next_try_at,
                {TOTAL} AS total
         FROM {TOLD} {from} ORDER BY path, id LIMIT $4"
    )))
    .bind(tx.tenant())
    .bind(account)
    .bind(GIVE_UP_AFTER)
    .bind(limit)
    .bind(place)
    .bind(after)
    .fetch_all(tx.conn())
    .await?;
    let read = |r: &PgRow| -> Result<MailboxProgress, sqlx::Error> {
        Ok(MailboxProgress {
            id: r.try_get("id")?,
            name: r.try_get("name")?,
            role: mailbox_role(r)?,
            state: r.try_get("state")?,
            synced: r.try_get("synced")?,
            total: r.try_get("total")?,
            last_synced_at: r.try_get("last_synced_at")?,
            cause: Cause::read(r)?,
            last_audit_at: r.try_get("last_audit_at")?,
            audit_repairs: r.try_get("audit_repairs")?,
        })
    };
    let found = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok(Some(found))
}

/// When the account's next round is due; never while it is paused.
pub async fn next_due(tx: &mut TenantTx, account: AccountId) -> Result<Option<DateTime<Utc>>, DbError> {
    Ok(sqlx::query_scalar("SELECT next_due_at FROM account_leases WHERE tenant_id = $1 AND account_id = $2 AND paused_at IS NULL")
        .bind(tx.tenant())
        .bind(account)
        .fetch_optional(tx.conn())
        .await?)
}
