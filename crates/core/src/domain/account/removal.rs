//! An account that goes. It is marked in the transaction that tells of its deletion, whatever it holds, and from then on no
//! transaction sees anything of it (`enter_tenant` in migration 38). What it has goes in portions, each a transaction of its own
//! ([`portion`], driven by the job `remove_accounts`); its row is the last.
//!
//! The next table with rows of an account: it goes with its parent, if that has few of them; else a line of [`Stage`].

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use uuid::Uuid;

use crate::domain::event::{self, AccountDeleted};
use crate::domain::oauth::grant;
use crate::platform::db::{Db, DbError, SystemTx, TenantTx};
use crate::platform::id::{AccountId, GrantId, TenantId};
use crate::queue::job::{Job, enqueue};
use crate::queue::lease;
use std::time::Duration;

/// Deletes an account: nobody sees anything of it from the commit on. `false`: there is none. The caller holds its lease by
/// [`lease::lock`].
///
/// Its address is free, its passwords are forgotten, and who synchronises it can write nothing more.
pub async fn delete(tx: &mut TenantTx, id: AccountId) -> Result<bool, DbError> {
    let grant: Option<GrantId> = sqlx::query_scalar(
        "SELECT grant_id FROM accounts WHERE tenant_id = $1 AND id = $2 AND removed_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?
    .flatten();
    // A column of a credential that is added must be forgotten here, too; a test goes by their type.
    let marked = sqlx::query(
        "UPDATE accounts SET removed_at = now(), grant_id = NULL, email_key = 'removed ' || id, state = 'paused', read_by = 32767,
           imap_password = NULL, imap_password_key = NULL, smtp_password = NULL, smtp_password_key = NULL,
           cause_code = NULL, cause_text = NULL, cause_upstream = NULL, cause_since = NULL, cause_next_try_at = NULL
         WHERE tenant_id = $1 AND id = $2 AND removed_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(id)
    .execute(tx.conn())
    .await?;
    if marked.rows_affected() == 0 {
        return Ok(false);
    }
    if let Some(grant) = grant {
        grant::forget(tx, grant).await?;
    }
    lease::close(tx, id).await?;
    sqlx::query("UPDATE account_leases SET removed_at = now() WHERE tenant_id = $1 AND account_id = $2")
        .bind(tx.tenant())
        .bind(id)
        .execute(tx.conn())
        .await?;
    sqlx::query(
        "INSERT INTO account_removals (tenant_id, account_id, total)
         SELECT $1, $2, coalesce(sum(total), 0) FROM mailboxes WHERE tenant_id = $1 AND account_id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .execute(tx.conn())
    .await?;
    let tenant_id = tx.tenant();
    enqueue(tx, &Job::RemoveAccounts { tenant_id }, Duration::ZERO).await?;
    event::tell(tx, id, AccountDeleted { id });
    Ok(true)
}

/// How far the removal of an account has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removal {
    /// Which.
    pub account: AccountId,
    /// When it was deleted.
    pub asked_at: DateTime<Utc>,
    /// Messages its mailboxes showed then; one in two mailboxes counts twice.
    pub total: i64,
    /// Messages that are removed.
    pub removed: i64,
}

/// The tenant's accounts that are deleted and not removed yet, the first deleted one first.
///
/// # Errors
/// When the database refuses.
pub async fn list(db: &Db, tenant: TenantId) -> Result<Vec<Removal>, DbError> {
    let mut tx = db.removal(tenant).await?;
    let rows = sqlx::query(
        "SELECT account_id, asked_at, total, removed FROM account_removals WHERE tenant_id = $1 ORDER BY asked_at, account_id",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    tx.release();
    let read = |row: &sqlx::postgres::PgRow| -> Result<Removal, sqlx::Error> {
        Ok(Removal {
            account: row.try_get("account_id")?,
            asked_at: row.try_get("asked_at")?,
            total: row.try_get("total")?,
            removed: row.try_get("removed")?,
        })
    };
    Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
}

/// One of the tenant's accounts that is not deleted.
///
/// # Errors
/// When the database refuses.
pub async fn any(tx: &mut TenantTx) -> Result<Option<AccountId>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT id FROM accounts WHERE tenant_id = $1 AND removed_at IS NULL ORDER BY id LIMIT 1",
    )
    .bind(tx.tenant())
    .fetch_optional(tx.conn())
    .await?)
}

/// Tenants with accounts to remove and no job that does.
///
/// # Errors
/// When the database refuses.
pub async fn lost(tx: &mut SystemTx) -> Result<Vec<TenantId>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT r.tenant_id FROM account_removals r JOIN tenants t ON t.id = r.tenant_id
         WHERE t.suspended_at IS NULL AND NOT EXISTS (
           SELECT 1 FROM jobs j WHERE j.tenant_id = r.tenant_id AND j.kind = 'remove_accounts'
             AND j.dedupe_key = r.tenant_id::text AND j.state IN ('ready','running'))
         LIMIT 500",
    )
    .fetch_all(tx.conn())
    .await?)
}

/// What of an account goes, in this order: what nobody looks at first, what others refer to last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// What is to be indexed.
    Unindexed,
    /// What waits for the mail server.
    Edits,
    /// Drafts with their files.
    Drafts,
    /// What was sent, or waits for it.
    Submissions,
    /// Messages that lists showed, newest first, with their places, words, bytes and conversations.
    Shown,
    /// Messages in no mailbox.
    Unseen,
    /// Bytes that no message refers to.
    Blobs,
    /// Conversations without a message.
    Threads,
    /// Rounds.
    Runs,
    /// Mailboxes, with what is noted of messages that could not be read.
    Mailboxes,
    /// The account.
    Account,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 11] = [
        Self::Unindexed,
        Self::Edits,
        Self::Drafts,
        Self::Submissions,
        Self::Shown,
        Self::Unseen,
        Self::Blobs,
        Self::Threads,
        Self::Runs,
        Self::Mailboxes,
        Self::Account,
    ];

    /// Statement that removes `$3` rows of account `$2`, where one does.
    const fn statement(self) -> Option<&'static str> {
        Some(match self {
            Self::Unindexed => {
                "DELETE FROM unindexed_batches WHERE tenant_id = $1 AND id = ANY (ARRAY(
                   SELECT id FROM unindexed_batches WHERE tenant_id = $1 AND account_id = $2 LIMIT $3))"
            }
            Self::Edits => {
                "DELETE FROM edits WHERE tenant_id = $1 AND id = ANY (ARRAY(
                   SELECT id FROM edits WHERE tenant_id = $1 AND account_id = $2 LIMIT $3))"
            }
            Self::Drafts => {
                "DELETE FROM drafts WHERE tenant_id = $1 AND id = ANY (ARRAY(
                   SELECT id FROM (
                     SELECT d.id, sum(w.bytes) OVER (ORDER BY d.id) - w.bytes AS before FROM (
                       SELECT id FROM drafts WHERE tenant_id = $1 AND account_id = $2 ORDER BY id LIMIT $3) d
                     CROSS JOIN LATERAL (SELECT coalesce(sum(f.size_bytes), 0) AS bytes FROM draft_attachments f
                       WHERE f.tenant_id = $1 AND f.draft_id = d.id) w) s
                   WHERE before < $4))"
            }
            Self::Submissions => {
                "DELETE FROM submissions WHERE tenant_id = $1 AND id = ANY (ARRAY(
                   SELECT id FROM (
                     SELECT id, sum(octet_length(mime)) OVER (ORDER BY id) - octet_length(mime) AS before FROM (
                       SELECT id, mime FROM submissions WHERE tenant_id = $1 AND account_id = $2 ORDER BY id LIMIT $3) d) s
                   WHERE before < $4))"
            }
            Self::Blobs => {
                "DELETE FROM blobs b WHERE tenant_id = $1 AND account_id = $2 AND hash = ANY (ARRAY(
                   SELECT hash FROM (
                     SELECT hash, sum(size_bytes) OVER (ORDER BY hash) - size_bytes AS before FROM (
                       SELECT hash, size_bytes FROM blobs WHERE tenant_id = $1 AND account_id = $2 ORDER BY hash LIMIT $3) d) s
                   WHERE before < $4))"
            }
            Self::Threads => {
                "DELETE FROM threads WHERE tenant_id = $1 AND id = ANY (ARRAY(
                   SELECT id FROM threads WHERE tenant_id = $1 AND account_id = $2 LIMIT $3))"
            }
            Self::Runs => {
                "DELETE FROM sync_runs WHERE tenant_id = $1 AND id = ANY (ARRAY(
                   SELECT id FROM sync_runs WHERE tenant_id = $1 AND account_id = $2 LIMIT $3))"
            }
            Self::Mailboxes => {
                "DELETE FROM mailboxes WHERE tenant_id = $1 AND id = ANY (ARRAY(
                   SELECT id FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 LIMIT $3))"
            }
            Self::Account => "DELETE FROM accounts WHERE tenant_id = $1 AND id = $2 AND removed_at IS NOT NULL",
            Self::Shown | Self::Unseen => return None,
        })
    }
}

/// Bytes that go in one portion, beside the last thing of it: a message of 50 MB is as many rows as thousands of small ones.
const PORTION_BYTES: i64 = 16 * 1024 * 1024;

/// Removes at most `rows` of what an account has of this kind. How many went; 0: none is left.
///
/// # Errors
/// When the database refuses.
pub async fn portion(tx: &mut TenantTx, account: AccountId, stage: Stage, rows: i64) -> Result<u64, DbError> {
    let Some(statement) = stage.statement() else { return messages(tx, account, stage, rows).await };
    let mut query = sqlx::query(statement).bind(tx.tenant()).bind(account);
    if statement.contains("$3") {
        query = query.bind(rows);
    }
    if statement.contains("$4") {
        query = query.bind(PORTION_BYTES);
    }
    Ok(query.execute(tx.conn()).await?.rows_affected())
}

/// Newest first, because lists and searches of the tenant's other accounts begin there and pass over what is marked. Where a
/// portion ended is written down: what it left behind in the index is there until nobody can see it any more.
async fn messages(tx: &mut TenantTx, account: AccountId, stage: Stage, rows: i64) -> Result<u64, DbError> {
    let tenant = tx.tenant();
    let found = if stage == Stage::Shown {
        sqlx::query(
            "SELECT id, size_bytes, sort_at FROM messages WHERE tenant_id = $1 AND account_id = $2 AND gone_at IS NULL
               AND sort_at <= (SELECT reached FROM account_removals WHERE tenant_id = $1 AND account_id = $2)
             ORDER BY sort_at DESC, id DESC LIMIT $3",
        )
    } else {
        sqlx::query(
            "SELECT id, size_bytes, NULL::timestamptz AS sort_at FROM messages WHERE tenant_id = $1 AND account_id = $2 LIMIT $3",
        )
    };
    let found = found.bind(tenant).bind(account).bind(rows).fetch_all(tx.conn()).await?;
    let (mut ids, mut bytes, mut reached) = (Vec::<Uuid>::new(), 0, None);
    for row in &found {
        if bytes >= PORTION_BYTES {
            break;
        }
        bytes += row.try_get::<i64, _>("size_bytes")?;
        reached = row.try_get::<Option<DateTime<Utc>>, _>("sort_at")?;
        ids.push(row.try_get("id")?);
    }
    if ids.is_empty() {
        return Ok(0);
    }
    let removed = crate::domain::message::remove(tx, account, &ids).await?;
    sqlx::query(
        "UPDATE account_removals SET removed = removed + $3, reached = least(reached, $4) WHERE tenant_id = $1 AND account_id = $2",
    )
    .bind(tenant)
    .bind(account)
    .bind(i64::try_from(removed).unwrap_or(i64::MAX))
    .bind(reached)
    .execute(tx.conn())
    .await?;
    Ok(removed)
}
