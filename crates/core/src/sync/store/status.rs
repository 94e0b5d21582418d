//! States and causes as clients see them, and the record of rounds.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::Row as _;

use super::Target;
pub use crate::domain::account::AccountState;
use crate::domain::event::{self, AccountSynced};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, RunId};
use crate::sync::run;
use wire::provider::Provider;
use wire::trouble::Trouble;

/// Why something does not work: a code of ours, a sentence, and the server's own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// For programs.
    pub code: &'static str,
    /// For people.
    pub text: String,
    /// What the server said.
    pub upstream: Option<String>,
    /// Its response code, in capitals.
    pub response_code: Option<String>,
}

impl Cause {
    /// Without a word of the server.
    #[must_use]
    pub fn of(trouble: Trouble) -> Self {
        Self { code: trouble.code(), text: trouble.text().to_owned(), upstream: None, response_code: None }
    }

    /// What the server said, as clients see it; nothing when it said nothing.
    #[must_use]
    pub fn upstream_json(&self, retryable: bool) -> Option<Value> {
        let text = self.upstream.as_deref()?;
        let code = &self.response_code;
        Some(json!({ "protocol": "imap", "response_code": code, "text": text, "retryable": retryable }))
    }
}

/// Sets the account's state; an event tells of it when it is another one than before, not
/// for the beginning and end of every round. A paused account stays paused, and one whose submission server refuses the
/// password stays `needs_reauth` however well reading goes: see [`crate::domain::submission::credentials`].
///
/// With `cause`, `retry_in` says when the next attempt is; the lease row is moved there too, so that nobody tries
/// earlier unless a user asks.
pub async fn set_account(
    tx: &mut TenantTx,
    account: AccountId,
    state: AccountState,
    cause: Option<&Cause>,
    retry_in: Option<Duration>,
) -> Result<(), DbError> {
    if state == AccountState::Connected {
        // Some mailbox may have failed all the same, and may do so for weeks.
        is_well(tx, account).await?;
    }
    let upstream = cause.and_then(|c| c.upstream_json(state != AccountState::NeedsReauth));
    let changed: Option<bool> = sqlx::query_scalar(
        "UPDATE accounts a SET state = $3, cause_code = coalesce($4, o.kept), cause_text = CASE WHEN o.kept IS NULL THEN $5 ELSE a.cause_text END,
           cause_upstream = CASE WHEN o.kept IS NULL THEN $6 ELSE a.cause_upstream END,
           cause_since = CASE WHEN o.kept IS NOT NULL THEN a.cause_since WHEN $4::text IS NULL THEN NULL
             WHEN o.cause_code = $4 THEN coalesce(o.cause_since, now()) ELSE now() END,
           cause_next_try_at = CASE WHEN o.kept IS NULL THEN now() + make_interval(secs => $7::float8) ELSE a.cause_next_try_at END
         FROM (SELECT id, state, cause_code, cause_since, cause_upstream,
                 CASE WHEN cause_code = $8 AND $4::text IS NULL THEN cause_code END AS kept
               FROM accounts WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE) o
         WHERE a.tenant_id = $1 AND a.id = o.id AND o.state <> 'paused'
           AND ($3 = 'needs_reauth' OR o.state <> 'needs_reauth' OR o.cause_upstream->>'protocol' IS DISTINCT FROM 'smtp')
         RETURNING (o.state <> a.state AND NOT (o.state IN ('syncing', 'connected') AND a.state IN ('syncing', 'connected')))
           OR o.cause_code IS DISTINCT FROM a.cause_code",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(state)
    .bind(cause.map(|c| c.code))
    .bind(cause.map(|c| c.text.as_str()))
    .bind(upstream)
    .bind(retry_in.map(|d| d.as_secs_f64()))
    .bind(WATCH_FAILED)
    .fetch_optional(tx.conn())
    .await?;
    if changed == Some(true) {
        event::tell_state(tx, account, state, cause.map(|c| c.code));
    }
    if let Some(wait) = retry_in {
        put_off(tx, account, wait).await?;
    }
    Ok(())
}

/// The cause of an account that is read and cannot be watched.
pub const WATCH_FAILED: &str = "watch-failed";

/// The watch failed over `cause` and begins anew after `wait`. The state stays, and so does a cause of something worse; rounds
/// that succeed leave this one.
pub async fn watch_failed(
    tx: &mut TenantTx,
    account: AccountId,
    cause: &Cause,
    wait: Duration,
) -> Result<(), DbError> {
    let before: Option<(AccountState, Option<String>)> = sqlx::query_as(
        "UPDATE accounts a SET cause_code = $3, cause_text = $4, cause_upstream = $5,
           cause_since = CASE WHEN o.cause_code IS NULL THEN now() ELSE o.cause_since END,
           cause_next_try_at = now() + make_interval(secs => $6)
         FROM (SELECT id, state, cause_code, cause_since FROM accounts WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE) o
         WHERE a.tenant_id = $1 AND a.id = o.id AND o.state IN ('connected', 'syncing') AND coalesce(o.cause_code, $3) = $3
         RETURNING o.state, o.cause_code",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(cause.code)
    .bind(&cause.text)
    .bind(cause.upstream_json(true))
    .bind(wait.as_secs_f64())
    .fetch_optional(tx.conn())
    .await?;
    let Some((state, None)) = before else { return Ok(()) };
    event::tell_state(tx, account, state, Some(cause.code));
    Ok(())
}

/// The watch works: see [`watch_failed`].
pub async fn watch_is_well(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    let state: Option<AccountState> = sqlx::query_scalar(
        "UPDATE accounts SET cause_code = NULL, cause_text = NULL, cause_upstream = NULL, cause_since = NULL, cause_next_try_at = NULL
         WHERE tenant_id = $1 AND id = $2 AND cause_code = $3 RETURNING state",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(WATCH_FAILED)
    .fetch_optional(tx.conn())
    .await?;
    let Some(state) = state else { return Ok(()) };
    event::tell_state(tx, account, state, None);
    Ok(())
}

/// Moves the account's next turn to `wait` from now. Until then it waits, whoever has it tried meanwhile.
async fn put_off(tx: &mut TenantTx, account: AccountId, wait: Duration) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE account_leases SET next_due_at = now() + make_interval(secs => $3), wait_until = now() + make_interval(secs => $3)
         WHERE tenant_id = $1 AND account_id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(wait.as_secs_f64())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The provider of the account's mail, and whether the account proves who it is by tokens.
pub async fn provider(tx: &mut TenantTx, account: AccountId) -> Result<(&'static Provider, bool), DbError> {
    let row: Option<(String, bool)> = sqlx::query_as(
        "SELECT imap_host, grant_id IS NOT NULL FROM accounts WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map_or((wire::provider::of(""), false), |(host, tokens)| (wire::provider::of(&host), tokens)))
}

/// How long an account has been failing, and how its next turn stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    /// Since the first failure in a row; a refusal of credentials is the first of its own, whatever was the matter before.
    pub since: Duration,
    /// Until the next turn as it was before this failure.
    pub due_in: Duration,
    /// What is left of the wait that the failure before this one began; `None` when it is over.
    pub left: Option<Duration>,
}

/// Whether an account's server refused the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It failed us in another way.
    No,
    /// It did, and means it.
    Meant,
    /// It did, as it does for a while with tokens that are good.
    MayPass,
}

/// Notes that an account's server failed us. Refusals are timed from the first of them.
pub async fn fails(tx: &mut TenantTx, account: AccountId, refused: Refused) -> Result<Failing, DbError> {
    // A server that comes back after an hour may refuse everybody until its directory is there.
    let row = sqlx::query(
        "UPDATE account_leases l SET failing_since = CASE
           WHEN EXISTS (SELECT 1 FROM accounts a WHERE a.tenant_id = $1 AND a.id = $2
             AND ($3 AND a.state IN ('unreachable', 'throttled') OR $4 AND a.cause_code IS DISTINCT FROM $5))
           THEN now() ELSE coalesce(l.failing_since, now()) END
         WHERE tenant_id = $1 AND account_id = $2
         RETURNING extract(epoch FROM now() - failing_since)::float8 AS since, extract(epoch FROM next_due_at - now())::float8 AS due_in,
           extract(epoch FROM wait_until - now())::float8 AS left",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(refused == Refused::Meant)
    .bind(refused == Refused::MayPass)
    .bind(Trouble::AuthFailed.code())
    .fetch_optional(tx.conn())
    .await?;
    let of = |column: &str| -> Result<Duration, DbError> {
        let seconds = row.as_ref().map(|r| r.try_get::<Option<f64>, _>(column)).transpose()?.flatten();
        // What is over is due now.
        Ok(Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default())
    };
    let left = Some(of("left")?).filter(|left| !left.is_zero());
    Ok(Failing { since: of("since")?, due_in: of("due_in")?, left })
}

/// Whether edits may have the server tried now. While it fails they wait for the account's next turn, which brings them
/// along: where it is only out of reach they bring that forward, once a minute, and never where somebody has to act or the
/// server asked for patience. Whoever holds the lease asks; nobody else changes this meanwhile.
pub async fn edits_may_try(tx: &mut TenantTx, account: AccountId) -> Result<bool, DbError> {
    let row = sqlx::query(
        "SELECT l.failing_since IS NULL AS well, a.state IN ('needs_reauth', 'throttled') AS never,
                coalesce(l.woken_at > now() - interval '1 minute', false) AS lately
         FROM account_leases l JOIN accounts a ON a.tenant_id = l.tenant_id AND a.id = l.account_id
         WHERE l.tenant_id = $1 AND l.account_id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(false) };
    // Also for one that `needs_reauth` because the submission server refuses the password: reading and edits go on.
    if row.try_get("well")? {
        return Ok(true);
    }
    if row.try_get("never")? || row.try_get("lately")? {
        return Ok(false);
    }
    sqlx::query("UPDATE account_leases SET woken_at = now() WHERE tenant_id = $1 AND account_id = $2")
        .bind(tx.tenant())
        .bind(account)
        .execute(tx.conn())
        .await?;
    Ok(true)
}

/// The server let us work: the next failure is a first one.
async fn is_well(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE account_leases SET failing_since = NULL, wait_until = NULL
         WHERE tenant_id = $1 AND account_id = $2 AND failing_since IS NOT NULL",
    )
    .bind(tx.tenant())
    .bind(account)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A round over all mailboxes ended well: it began at `started`.
pub async fn round_succeeded(
    tx: &mut TenantTx,
    account: AccountId,
    started: DateTime<Utc>,
) -> Result<(), DbError> {
    is_well(tx, account).await?;
    let told: Option<bool> = sqlx::query_scalar(
        "UPDATE accounts a SET last_synced_at = $3, synced_told = true
         FROM (SELECT id, synced_told FROM accounts WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE) o
         WHERE a.tenant_id = $1 AND a.id = o.id RETURNING o.synced_told",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(started)
    .fetch_optional(tx.conn())
    .await?;
    if told == Some(false) {
        event::tell(tx, account, AccountSynced { id: account });
    }
    Ok(())
}

/// Whether it was told that all mail of the account is here, since it was read for the first time or anew.
pub async fn is_all_here(tx: &mut TenantTx, account: AccountId) -> Result<bool, DbError> {
    let told: Option<bool> =
        sqlx::query_scalar("SELECT synced_told FROM accounts WHERE tenant_id = $1 AND id = $2")
            .bind(tx.tenant())
            .bind(account)
            .fetch_optional(tx.conn())
            .await?;
    Ok(told.unwrap_or_default())
}

/// The mailbox could not be read; the round goes on with the others.
pub async fn mailbox_failed(tx: &mut TenantTx, target: &Target, cause: &Cause) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE mailboxes SET state = 'failed', cause_code = $3, cause_text = $4, cause_upstream = $5,
           cause_since = CASE WHEN cause_code = $3 THEN coalesce(cause_since, now()) ELSE now() END
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(cause.code)
    .bind(&cause.text)
    .bind(cause.upstream_json(true))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The mailbox was read but for some messages: its state stays, the cause says which are missing.
pub async fn mailbox_incomplete(tx: &mut TenantTx, target: &Target, cause: &Cause) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE mailboxes SET cause_code = $3, cause_text = $4, cause_upstream = $5, cause_since = (
           SELECT min(last_at) FROM ingest_attempts WHERE tenant_id = $1 AND mailbox_id = $2 AND next_try_at IS NOT NULL)
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(target.mailbox)
    .bind(cause.code)
    .bind(&cause.text)
    .bind(cause.upstream_json(true))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A round begins: takes the queued row if there is one, makes one otherwise. A row that a dead process left
/// running is closed first.
pub async fn start_run(tx: &mut TenantTx, account: AccountId) -> Result<RunId, DbError> {
    let tenant = tx.tenant();
    run::interrupt(tx, account, "interrupted").await?;
    let queued: Option<RunId> = sqlx::query_scalar(
        "UPDATE sync_runs SET state = 'running', started_at = now()
         WHERE tenant_id = $1 AND account_id = $2 AND state = 'queued' RETURNING id",
    )
    .bind(tenant)
    .bind(account)
    .fetch_optional(tx.conn())
    .await?;
    match queued {
        Some(id) => Ok(id),
        None => start_own_run(tx, account).await,
    }
}

/// A round that nobody asked for begins; one that is queued stays so. No other may be running.
pub async fn start_own_run(tx: &mut TenantTx, account: AccountId) -> Result<RunId, DbError> {
    let id = RunId::new();
    sqlx::query("INSERT INTO sync_runs (tenant_id, id, account_id, state, started_at) VALUES ($1, $2, $3, 'running', now())")
        .bind(tx.tenant())
        .bind(id)
        .bind(account)
        .execute(tx.conn())
        .await?;
    Ok(id)
}

/// A round ended, with the code of what went wrong if something did.
pub async fn finish_run(tx: &mut TenantTx, run: RunId, error: Option<&str>) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE sync_runs SET state = CASE WHEN $3::text IS NULL THEN 'done' ELSE 'failed' END, finished_at = now(), error = $3
         WHERE tenant_id = $1 AND id = $2 AND state = 'running'",
    )
    .bind(tx.tenant())
    .bind(run)
    .bind(error)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A round failed that had taken over what it was asked meanwhile ([`crate::queue::job::take_over`]), and does not come to it: the
/// run that waits ends in the same way, unless a job stands for it that will do it.
pub async fn fail_taken_over(tx: &mut TenantTx, account: AccountId, error: &str) -> Result<(), DbError> {
    // Locked by a statement of its own: whoever asks in this moment has the row, and its job is seen by the next one only.
    sqlx::query(
        "SELECT 1 FROM sync_runs WHERE tenant_id = $1 AND account_id = $2 AND state = 'queued' FOR UPDATE",
    )
    .bind(tx.tenant())
    .bind(account)
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "UPDATE sync_runs SET state = 'failed', finished_at = now(), error = $3
         WHERE tenant_id = $1 AND account_id = $2 AND state = 'queued' AND NOT EXISTS (
           SELECT 1 FROM jobs WHERE tenant_id = $1 AND kind = 'sync_account' AND dedupe_key = $4
             AND (state = 'ready' OR (state = 'running' AND rerun)))",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(error)
    .bind(account.to_string())
    .execute(tx.conn())
    .await?;
    Ok(())
}
