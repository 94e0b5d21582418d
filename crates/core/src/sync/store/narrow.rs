//! What is outside leaves our copy, in portions that each commit ([`portion`], driven by the job `narrow_account`).
//!
//! It is no deletion: nothing is told of it, and nothing of it is asked of the server. A message that goes outside in one mailbox and
//! is kept in another is told as updated. One of which an edit waits stays until the server has heard of it.

use chrono::{DateTime, Utc};
use mail::keep::Keep;
use mail::uid::Uid;
use sqlx::Row as _;
use uuid::Uuid;

use super::Target;
use super::keep::put_outside;
use crate::domain::event::{self, Event, MessagePart, MessageUpdated};
use crate::platform::db::{DbError, SystemTx, TenantTx};
use crate::platform::id::{AccountId, MailboxId, MessageId, TenantId};

/// What of an account is outside by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// What is older.
    before: Option<DateTime<Utc>>,
    /// What is larger.
    over: Option<i64>,
}

impl Bounds {
    /// Those of `keep` at this moment.
    #[must_use]
    pub fn of(keep: &Keep, now: DateTime<Utc>) -> Self {
        Self {
            before: keep.since.map(|since| since.cutoff(now)),
            over: keep.max_message_bytes.map(|most| i64::try_from(most).unwrap_or(i64::MAX)),
        }
    }
}

/// SQL: placement `p` of mailbox `b` is outside. `$3` and `$4` are [`Bounds`]. Also with an index: `sort_at` is the date of arrival
/// within a sane range.
const IS_OUTSIDE: &str = "coalesce(NOT b.synchronised OR p.sort_at < $3 OR $4::bigint IS NOT NULL
    AND (SELECT g.size_bytes > $4 FROM messages g WHERE g.tenant_id = p.tenant_id AND g.id = p.message_id), false)";

/// Where the next portion of a mailbox begins: its rows are in the order of arrival, oldest first.
pub type From = (DateTime<Utc>, Uuid);

/// A way through all mailboxes of an account, kept in its row of `account_narrowings`: whoever comes next goes on there.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// It goes by the bounds of this moment.
    pub at: DateTime<Utc>,
    /// The mailbox it is at; `None`: it has been through all.
    pub mailbox: Option<MailboxId>,
    /// Where it is in that mailbox; `None`: at its beginning.
    pub from: Option<From>,
    /// It has left something here because edits wait of it.
    pub passed_over: bool,
}

/// Where the account's pass is; `None`: none has begun. The caller holds the account's lease row.
///
/// # Errors
/// Those of the database.
pub async fn pass(tx: &mut TenantTx, account: AccountId) -> Result<Option<Pass>, DbError> {
    let row = sqlx::query(
        "SELECT bounds_at, mailbox, sort_at, message, passed_over FROM account_narrowings
         WHERE tenant_id = $1 AND account_id = $2 AND bounds_at IS NOT NULL",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (sort_at, message): (Option<DateTime<Utc>>, Option<Uuid>) =
        (row.try_get("sort_at")?, row.try_get("message")?);
    Ok(Some(Pass {
        at: row.try_get("bounds_at")?,
        mailbox: row.try_get("mailbox")?,
        from: sort_at.zip(message),
        passed_over: row.try_get("passed_over")?,
    }))
}

/// Begins a pass by the bounds of the moment `at`, whoever asked for it. Returns that moment as the row has it. The caller holds
/// the account's lease row.
///
/// # Errors
/// Those of the database.
pub async fn begin(
    tx: &mut TenantTx,
    account: AccountId,
    at: DateTime<Utc>,
) -> Result<DateTime<Utc>, DbError> {
    let at: DateTime<Utc> = sqlx::query_scalar(
        "INSERT INTO account_narrowings (tenant_id, account_id, bounds_at) VALUES ($1, $2, $3)
         ON CONFLICT (tenant_id, account_id) DO UPDATE SET bounds_at = $3
         RETURNING bounds_at",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(at)
    .fetch_one(tx.conn())
    .await?;
    let mailbox = next_mailbox(tx, account, None).await?;
    go_on(tx, account, &Pass { at, mailbox, from: None, passed_over: false }).await?;
    Ok(at)
}

/// The next portion begins there.
///
/// # Errors
/// Those of the database.
pub async fn go_on(tx: &mut TenantTx, account: AccountId, pass: &Pass) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE account_narrowings SET mailbox = $3, sort_at = $4, message = $5, passed_over = $6
         WHERE tenant_id = $1 AND account_id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(pass.mailbox)
    .bind(pass.from.map(|(at, _)| at))
    .bind(pass.from.map(|(_, message)| message))
    .bind(pass.passed_over)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The mailbox behind this one, or the first; `None`: there is none.
///
/// # Errors
/// Those of the database.
pub async fn next_mailbox(
    tx: &mut TenantTx,
    account: AccountId,
    behind: Option<MailboxId>,
) -> Result<Option<MailboxId>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT id FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND id > $3 ORDER BY id LIMIT 1",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(behind.map_or(Uuid::nil(), |id| id.0))
    .fetch_optional(tx.conn())
    .await?)
}

/// Writes down how much is to go, if our user asked for the pass of the moment `at` and nobody has counted yet. Nobody waits for the
/// number: where it takes long the database refuses, and the pass goes on without.
///
/// # Errors
/// Those of the database.
pub async fn count(
    tx: &mut TenantTx,
    account: AccountId,
    bounds: Bounds,
    at: DateTime<Utc>,
) -> Result<(), DbError> {
    sqlx::query("SET LOCAL statement_timeout = '3s'").execute(tx.conn()).await?;
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "UPDATE account_narrowings SET total = (
           SELECT count(*) FROM mailboxes b JOIN message_mailboxes p ON p.tenant_id = b.tenant_id AND p.mailbox_id = b.id
           WHERE b.tenant_id = $1 AND b.account_id = $2 AND p.hidden_at IS NULL AND {IS_OUTSIDE})
         WHERE tenant_id = $1 AND account_id = $2 AND total IS NULL AND asked_at IS NOT NULL AND bounds_at = $5"
    )))
    .bind(tx.tenant())
    .bind(account)
    .bind(bounds.before)
    .bind(bounds.over)
    .bind(at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes a portion of what is outside out of a mailbox, `rows` at most, those behind `pass.from`. Where the pass goes on: `from` is
/// `None` when nothing is left in the mailbox. What has edits is passed over. The caller holds the account's lease row.
///
/// # Errors
/// Those of the database.
pub async fn portion(
    tx: &mut TenantTx,
    (account, mailbox): (AccountId, MailboxId),
    bounds: Bounds,
    pass: Pass,
    rows: i64,
) -> Result<Pass, DbError> {
    let looked = LOOK_AT.max(rows);
    // As a list of candidates: what is behind the date is passed at once, what is large may be anywhere.
    let found = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT c.*, b.generation AS present, b.synchronised FROM (
           SELECT p.* FROM message_mailboxes p WHERE p.tenant_id = $1 AND p.mailbox_id = $2 AND p.hidden_at IS NULL
             AND (p.sort_at, p.message_id) > ($5, $6) ORDER BY p.sort_at, p.message_id LIMIT $7) p
         JOIN mailboxes b ON b.tenant_id = $1 AND b.id = $2
         CROSS JOIN LATERAL (SELECT p.id, p.message_id, p.uid, p.generation, p.sort_at, {IS_OUTSIDE} AS goes,
           EXISTS (SELECT 1 FROM edits e WHERE e.tenant_id = $1 AND e.message_id = p.message_id) AS edited) c
         ORDER BY c.sort_at, c.message_id"
    )))
    .bind(tx.tenant())
    .bind(mailbox)
    .bind(bounds.before)
    .bind(bounds.over)
    .bind(pass.from.map_or(DateTime::UNIX_EPOCH - chrono::Duration::days(365_000), |(at, _)| at))
    .bind(pass.from.map_or(Uuid::nil(), |(_, id)| id))
    .bind(looked)
    .fetch_all(tx.conn())
    .await?;
    let (mut places, mut messages, mut uids, mut last) =
        (Vec::<Uuid>::new(), Vec::<Uuid>::new(), Vec::new(), None);
    let (mut present, mut synchronised, mut passed_over) = (0, true, pass.passed_over);
    let mut more = found.len() >= usize::try_from(looked).unwrap_or(usize::MAX);
    for row in &found {
        let at: DateTime<Utc> = row.try_get("sort_at")?;
        if bounds.over.is_none()
            && bounds.before.is_none_or(|before| at >= before)
            && row.try_get::<bool, _>("synchronised")?
        {
            // All that follows is younger.
            more = false;
            break;
        }
        if i64::try_from(places.len()).unwrap_or(i64::MAX) >= rows {
            more = true;
            break;
        }
        last = Some((at, row.try_get::<Uuid, _>("message_id")?));
        (present, synchronised) = (row.try_get("present")?, row.try_get("synchronised")?);
        let (goes, edited): (bool, bool) = (row.try_get("goes")?, row.try_get("edited")?);
        passed_over |= goes && edited;
        if goes && !edited {
            places.push(row.try_get("id")?);
            messages.push(row.try_get("message_id")?);
            let uid: Option<i64> = row.try_get("uid")?;
            if row.try_get::<i32, _>("generation")? == present {
                uids.extend(uid.and_then(|uid| Uid::try_from(uid).ok()));
            }
        }
    }
    if !places.is_empty() {
        uids.sort_unstable();
        if synchronised {
            let target = Target { account, mailbox, generation: present };
            put_outside(tx, &target, &uids.into_iter().collect()).await?;
        }
        leave(tx, account, &places, &messages).await?;
    }
    Ok(Pass { from: last.filter(|_| more), passed_over, ..pass })
}

/// Rows looked at in one portion.
const LOOK_AT: i64 = 2_000;

/// Deletes these placements and the messages that are nowhere else.
async fn leave(
    tx: &mut TenantTx,
    account: AccountId,
    places: &[Uuid],
    messages: &[Uuid],
) -> Result<(), DbError> {
    sqlx::query("DELETE FROM message_mailboxes WHERE tenant_id = $1 AND id = ANY ($2)")
        .bind(tx.tenant())
        .bind(places)
        .execute(tx.conn())
        .await?;
    let rows: Vec<(Uuid, bool, bool)> = sqlx::query_as(
        "SELECT g.id, EXISTS (SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = $1 AND p.message_id = g.id), g.gone_at IS NULL
         FROM messages g WHERE g.tenant_id = $1 AND g.id = ANY ($2)",
    )
    .bind(tx.tenant())
    .bind(messages)
    .fetch_all(tx.conn())
    .await?;
    crate::domain::thread::refresh(tx, messages).await?;
    let (stay, go): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, elsewhere, _)| *elsewhere);
    let told: Vec<Event> = stay
        .iter()
        .filter(|(_, _, shown)| *shown)
        .map(|(id, ..)| MessageUpdated { id: MessageId(*id), changed: vec![MessagePart::Mailboxes] }.into())
        .collect();
    event::record(tx, account, &told);
    let go: Vec<Uuid> = go.into_iter().map(|(id, ..)| id).collect();
    crate::domain::message::remove(tx, account, &go).await?;
    sqlx::query(
        "UPDATE account_narrowings SET removed = removed + $3 WHERE tenant_id = $1 AND account_id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(i64::try_from(places.len()).unwrap_or(i64::MAX))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Whether anything outside is still here, because edits of it wait.
///
/// # Errors
/// Those of the database.
pub async fn any_left(tx: &mut TenantTx, account: AccountId, bounds: Bounds) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "SELECT EXISTS (
           SELECT 1 FROM edits e JOIN message_mailboxes p ON p.tenant_id = e.tenant_id AND p.message_id = e.message_id
           JOIN mailboxes b ON b.tenant_id = p.tenant_id AND b.id = p.mailbox_id
           WHERE e.tenant_id = $1 AND e.account_id = $2 AND NOT p.marked AND {IS_OUTSIDE})"
    )))
    .bind(tx.tenant())
    .bind(account)
    .bind(bounds.before)
    .bind(bounds.over)
    .fetch_one(tx.conn())
    .await?)
}

/// Nothing is here any more that is outside by the bounds of the moment `at`. What has moved on since is for the next pass.
///
/// # Errors
/// Those of the database.
pub async fn narrowed(tx: &mut TenantTx, account: AccountId, at: DateTime<Utc>) -> Result<(), DbError> {
    sqlx::query("DELETE FROM account_narrowings WHERE tenant_id = $1 AND account_id = $2")
        .bind(tx.tenant())
        .bind(account)
        .execute(tx.conn())
        .await?;
    sqlx::query("UPDATE accounts SET narrowed_at = $3 WHERE tenant_id = $1 AND id = $2")
        .bind(tx.tenant())
        .bind(account)
        .bind(at)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Accounts with something to take out and no job that does, and once a day each of which not all is kept: its days have moved on,
/// or a worker of the release before migration 42 has fetched what is outside.
///
/// # Errors
/// When the database refuses.
pub async fn due(tx: &mut SystemTx) -> Result<Vec<(TenantId, AccountId)>, DbError> {
    Ok(sqlx::query_as(
        "SELECT a.tenant_id, a.id FROM accounts a JOIN tenants t ON t.id = a.tenant_id
         WHERE t.suspended_at IS NULL AND a.removed_at IS NULL
           AND ((a.keep_since IS NOT NULL OR a.keep_mailboxes IS NOT NULL OR a.keep_max_bytes IS NOT NULL) AND (a.narrowed_at IS NULL OR a.narrowed_at NOT BETWEEN
                  (date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC') AND now() + interval '1 minute')
             OR EXISTS (SELECT 1 FROM account_narrowings n WHERE n.tenant_id = a.tenant_id AND n.account_id = a.id))
           AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = a.tenant_id AND j.kind = 'narrow_account'
             AND j.dedupe_key = a.id::text AND j.state IN ('ready','running'))
         LIMIT 500",
    )
    .fetch_all(tx.conn())
    .await?)
}
