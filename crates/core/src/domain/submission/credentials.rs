//! A submission server that refuses the account's password: the user has to act, and the messages wait for it.
//!
//! The account is `needs_reauth` with the server's words as its cause, until a client writes other credentials or a later
//! attempt gets in. Nothing here talks to a server.

use std::time::Duration;

use mail::smtp_reply::SmtpReply;
use serde_json::json;

use super::attempt::Attempt;
use crate::domain::account;
use crate::domain::event;
use crate::domain::states::AccountState;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, SubmissionId};
use crate::queue::job::{self, Job};
use wire::provider::TOKEN_PATIENCE;
use wire::smtp::reply_text;
use wire::trouble::Trouble;

const CODE: &str = Trouble::AuthFailed.code();
/// Credentials that were changed while an attempt used the old ones are tried this soon.
const CHANGED_MEANWHILE: Duration = Duration::from_secs(1);
/// When the user does not act, the password is tried this often at most: servers lock accounts for less.
const AT_MOST_EVERY: Duration = Duration::from_secs(8 * 3600);

/// Records at the account that its submission server refused the login; returns when to try again. `meant`: it said what is
/// wrong with the token, so it is no token that will be taken later. If a client changed the
/// account since the attempt began, the refusal says nothing about the credentials there are now: the account stays as it
/// is. One that is paused says so and nothing else; sending goes on, and tells again once the account does.
pub(super) async fn refused(
    tx: &mut TenantTx,
    attempt: &Attempt,
    (reply, meant): (&SmtpReply, bool),
    unit: f64,
) -> Result<Duration, DbError> {
    let since = refused_since(tx, attempt, reply).await?;
    let patience = if meant { None } else { patience_with_tokens(tx, attempt.account_id).await? };
    if patience.is_some_and(|patience| since < patience) {
        return Ok(mail::backoff::bounded(since, TOKEN_PATIENCE, unit));
    }
    let wait = mail::backoff::auth(since, unit).unwrap_or(AT_MOST_EVERY);
    if account::paused(tx, attempt.account_id).await? == Some(true) {
        return Ok(wait);
    }
    let upstream = json!({
        "protocol": "smtp", "response_code": reply.code.to_string(), "text": reply_text(reply), "retryable": false,
    });
    let known: Option<bool> = sqlx::query_scalar(
        "UPDATE accounts a SET state = CASE WHEN a.state = 'paused' THEN a.state ELSE 'needs_reauth' END,
                cause_code = $4, cause_text = $5, cause_upstream = $6,
                cause_since = CASE WHEN o.known THEN coalesce(a.cause_since, now()) ELSE now() END,
                cause_next_try_at = now() + make_interval(secs => $7)
         FROM (SELECT id, state = 'needs_reauth' AND cause_upstream->>'protocol' = 'smtp' AS known
               FROM accounts WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE) o,
              submission_attempts t
         WHERE a.tenant_id = $1 AND a.id = o.id AND t.tenant_id = $1 AND t.submission_id = $3 AND t.number = $8
           AND (a.updated_at <= t.started_at OR a.updated_at > clock_timestamp())
         RETURNING coalesce(o.known, false)",
    )
    .bind(tx.tenant())
    .bind(attempt.account_id)
    .bind(attempt.id)
    .bind(CODE)
    .bind(Trouble::AuthFailed.text())
    .bind(upstream)
    .bind(wait.as_secs_f64())
    .bind(attempt.number)
    .fetch_optional(tx.conn())
    .await?;
    match known {
        None => Ok(CHANGED_MEANWHILE),
        Some(true) => Ok(wait),
        Some(false) => {
            event::tell_state(tx, attempt.account_id, AccountState::NeedsReauth, Some(CODE));
            Ok(wait)
        }
    }
}

/// For how long the provider may refuse tokens that are good; `None`: not at all, or the account has none. The message waits
/// meanwhile, and nobody is asked to act.
async fn patience_with_tokens(tx: &mut TenantTx, account: AccountId) -> Result<Option<Duration>, DbError> {
    let host: Option<String> = sqlx::query_scalar(
        "SELECT smtp_host FROM accounts WHERE tenant_id = $1 AND id = $2 AND grant_id IS NOT NULL",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?;
    Ok(host.and_then(|host| wire::provider::of(&host).refuses_good_tokens_for))
}

/// How long ago this submission's server refused it for the first time with this code, if not just now.
async fn refused_since(tx: &mut TenantTx, attempt: &Attempt, reply: &SmtpReply) -> Result<Duration, DbError> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "SELECT extract(epoch FROM now() - min(started_at))::float8 FROM submission_attempts
         WHERE tenant_id = $1 AND submission_id = $2 AND (number = $3 OR code = $4)",
    )
    .bind(tx.tenant())
    .bind(attempt.id)
    .bind(attempt.number)
    .bind(i32::from(reply.code))
    .fetch_one(tx.conn())
    .await?;
    Ok(Duration::try_from_secs_f64(seconds.unwrap_or_default()).unwrap_or_default())
}

/// The submission server let us in: an account that needed other credentials for it needs none any more. Its next round,
/// due at once, says how it stands.
pub(super) async fn accepted(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    let in_trouble: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM accounts
           WHERE tenant_id = $1 AND id = $2 AND state = 'needs_reauth' AND cause_upstream->>'protocol' = 'smtp')",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_one(tx.conn())
    .await?;
    if !in_trouble {
        return Ok(());
    }
    // The lease first, as all who write both.
    sqlx::query("UPDATE account_leases SET next_due_at = now() WHERE tenant_id = $1 AND account_id = $2")
        .bind(tx.tenant())
        .bind(account)
        .execute(tx.conn())
        .await?;
    let done = sqlx::query(
        "UPDATE accounts SET state = 'connecting', cause_code = NULL, cause_text = NULL, cause_upstream = NULL,
                cause_since = NULL, cause_next_try_at = NULL
         WHERE tenant_id = $1 AND id = $2 AND state = 'needs_reauth' AND cause_upstream->>'protocol' = 'smtp'",
    )
    .bind(tx.tenant())
    .bind(account)
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 0 {
        return Ok(());
    }
    event::tell_state(tx, account, AccountState::Connecting, None);
    Ok(())
}

/// Makes due at once what waits because its last attempt did not get as far as the envelope: for when a client changed
/// where or with what the account sends. Returns how many.
pub async fn retry_unreached(tx: &mut TenantTx, account: AccountId) -> Result<usize, DbError> {
    let ids: Vec<SubmissionId> = sqlx::query_scalar(
        "UPDATE submissions s SET send_after = now(), updated_at = now()
         WHERE tenant_id = $1 AND account_id = $2 AND state = 'queued' AND attempt > 0 AND send_after > now()
           AND EXISTS (SELECT 1 FROM submission_attempts t WHERE t.tenant_id = s.tenant_id AND t.submission_id = s.id
                       AND t.number = s.attempt AND t.phase = 'connect')
         RETURNING id",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_all(tx.conn())
    .await?;
    for id in &ids {
        job::enqueue(tx, &Job::SendSubmission { submission_id: *id }, Duration::ZERO).await?;
    }
    Ok(ids.len())
}
