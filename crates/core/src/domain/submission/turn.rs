//! Whose turn it is where an account has more to send than its server takes at once.
//!
//! A submission whose time has come and that finds no seat ([`crate::queue::job`] brings it back) is as it was: no attempt is
//! counted. Whoever is done calls the one that waits longest.

use std::time::Duration;

use super::attempt::{self, Claim};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, SubmissionId};
use crate::queue::job::{self, Job};

/// Counting further would change nothing.
const MANY: i64 = 2_000;

/// Whether a submission is to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It is, from this account.
    Now(AccountId),
    /// Look again after this.
    Later(Duration),
    /// Nothing is to be done (any more).
    Nothing,
}

/// Whether the submission is to be sent now; takes nothing.
pub async fn due(tx: &mut TenantTx, id: SubmissionId) -> Result<Due, DbError> {
    let account: Option<AccountId> = sqlx::query_scalar(
        "SELECT account_id FROM submissions WHERE tenant_id = $1 AND id = $2 AND state = 'queued' AND send_after <= now()",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    match account {
        Some(account) => Ok(Due::Now(account)),
        None => match attempt::why_not(tx, id).await? {
            Claim::Later(wait) => Ok(Due::Later(wait)),
            Claim::Ours(_) | Claim::Nothing => Ok(Due::Nothing),
        },
    }
}

/// How many submissions of the account wait though their time has come; no more than some thousands are counted.
pub async fn waiting(tx: &mut TenantTx, account: AccountId) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT 1 FROM submissions
           WHERE tenant_id = $1 AND account_id = $2 AND state = 'queued' AND send_after <= now() LIMIT $3) s",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(MANY)
    .fetch_one(tx.conn())
    .await?)
}

/// Has the submission tried now that waits longest for a seat. One that is just looking for a seat comes back by itself.
pub async fn call_next(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    let next: Option<SubmissionId> = sqlx::query_scalar(
        "SELECT s.id FROM submissions s
         JOIN jobs j ON j.tenant_id = s.tenant_id AND j.kind = 'send_submission' AND j.dedupe_key = s.id::text
         WHERE s.tenant_id = $1 AND s.account_id = $2 AND s.state = 'queued' AND s.send_after <= now()
           AND j.state = 'ready' AND j.run_at > now()
         ORDER BY s.send_after, s.id LIMIT 1 FOR UPDATE OF j SKIP LOCKED",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?;
    if let Some(submission_id) = next {
        job::enqueue(tx, &Job::SendSubmission { submission_id }, Duration::ZERO).await?;
    }
    Ok(())
}
