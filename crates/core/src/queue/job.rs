//! The job queue: rows of `jobs`, enqueued in the transaction that decided the work.
//!
//! A job carries ids only, loads the state, decides, acts and records; running it twice, late or never is harmless.
//! The lease table's own statements are in [`queue`]; apalis drives them from the worker. The next job: a variant of
//! [`Job`], a file in the worker's `jobs/`, and a row in the scheduler's table when it is periodic.

pub mod queue;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, JobId, OperationId, SubmissionId};

/// The NOTIFY channel that wakes workers at commit.
pub const CHANNEL: &str = "emailclient_jobs";

/// Wakes when any transaction that enqueued a job commits.
pub type Listener = sqlx::postgres::PgListener;

/// Priorities, most urgent first: someone waits; what leaves; new mail; local edits; rounds that are due; indexing; old mail;
/// audits.
///
/// They make three kinds of jobs, and some of a worker's places are kept for the first two: what is at least
/// [`PUSH`](priority::PUSH) is quick, or somebody looks at it; from [`BACKGROUND`](priority::BACKGROUND) on it ends soon: a
/// round that is due, twenty seconds of indexing; below that it may last for hours. A row stays what it is while it runs: what it is asked meanwhile is kept beside it
/// (`asked_priority`) and is its urgency once it is ready again.
///
/// Old mail is the last part of a round, makes way for what its account is asked meanwhile ([`take_over`]) and moves the
/// round to its own kind ([`slow_down`]).
pub mod priority {
    /// A user waits for the result.
    pub const USER: i16 = 50;
    /// Mail that is to leave.
    pub const SEND: i16 = 45;
    /// A mailbox has news.
    pub const HEAD: i16 = 40;
    /// Local edits on their way to the server.
    pub const PUSH: i16 = 30;
    /// Rounds that are due.
    pub const ROUND: i16 = 20;
    /// Text indexing and other catching up.
    pub const BACKGROUND: i16 = 10;
    /// Rounds that have come to their old mail.
    pub const BACKFILL: i16 = 8;
    /// Comparing what should be equal.
    pub const AUDIT: i16 = 5;
}

/// Everything a worker can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub enum Job {
    /// One round of synchronisation: pushes local edits, then reads what changed.
    SyncAccount {
        /// Which.
        account_id: AccountId,
    },
    /// Pushes local edits of an account to its server.
    PushChanges {
        /// Which.
        account_id: AccountId,
    },
    /// Compares all of an account with its server.
    AuditAccount {
        /// Which.
        account_id: AccountId,
    },
    /// Indexes the text of messages that are not yet searchable.
    IndexText {
        /// Which.
        account_id: AccountId,
    },
    /// Does one thing to many messages, in batches.
    ActOnMessages {
        /// Which.
        operation_id: OperationId,
    },
    /// Hands a queued message to the SMTP server.
    SendSubmission {
        /// Which.
        submission_id: SubmissionId,
    },
    /// Files the Sent copy of a message that went out.
    FileSentCopy {
        /// Which.
        submission_id: SubmissionId,
    },
    /// Looks in the mailboxes for a message whose fate is unknown.
    ProbeSubmission {
        /// Which.
        submission_id: SubmissionId,
    },
}

/// The kinds that this release knows. A worker claims no other: what a later release has asked for waits for one of its
/// workers.
pub const KINDS: [&str; 8] = [
    "sync_account",
    "push_changes",
    "audit_account",
    "index_text",
    "act_on_messages",
    "send_submission",
    "file_sent_copy",
    "probe_submission",
];

impl Job {
    /// Name of the kind, as the column `kind` has it; one of [`KINDS`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::SyncAccount { .. } => "sync_account",
            Self::PushChanges { .. } => "push_changes",
            Self::AuditAccount { .. } => "audit_account",
            Self::IndexText { .. } => "index_text",
            Self::ActOnMessages { .. } => "act_on_messages",
            Self::SendSubmission { .. } => "send_submission",
            Self::FileSentCopy { .. } => "file_sent_copy",
            Self::ProbeSubmission { .. } => "probe_submission",
        }
    }

    /// Jobs with the same key are one while the first has not finished.
    #[must_use]
    pub fn dedupe_key(&self) -> String {
        match self {
            Self::SyncAccount { account_id }
            | Self::PushChanges { account_id }
            | Self::AuditAccount { account_id }
            | Self::IndexText { account_id } => account_id.to_string(),
            Self::ActOnMessages { operation_id } => operation_id.to_string(),
            Self::SendSubmission { submission_id }
            | Self::FileSentCopy { submission_id }
            | Self::ProbeSubmission { submission_id } => submission_id.to_string(),
        }
    }

    fn max_attempts(&self) -> i32 {
        match self {
            // Their own rows count attempts and decide when to give up.
            Self::ActOnMessages { .. }
            | Self::SendSubmission { .. }
            | Self::FileSentCopy { .. }
            | Self::ProbeSubmission { .. } => 1000,
            _ => 20,
        }
    }
}

/// Enqueues `job` to run `delay` from now, in the caller's transaction.
///
/// An equal job that waits is kept (and brought forward if this one is more urgent or earlier); one that runs now is
/// run once more when it ends, so that what this transaction wrote is seen. One that waits gets this payload, since a worker of
/// another release may have written what this one cannot read. Returns the id of the row that stands for it.
pub async fn enqueue(tx: &mut TenantTx, job: &Job, delay: Duration, priority: i16) -> Result<JobId, DbError> {
    let tenant = tx.tenant();
    let id: uuid::Uuid = sqlx::query_scalar(
        "INSERT INTO jobs (tenant_id, id, kind, payload, priority, run_at, max_attempts, dedupe_key)
         VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), $7, $8)
         ON CONFLICT (tenant_id, kind, dedupe_key) WHERE dedupe_key IS NOT NULL AND state IN ('ready','running') DO UPDATE SET
           rerun = jobs.rerun OR jobs.state = 'running',
           payload = CASE WHEN jobs.state = 'ready' THEN excluded.payload ELSE jobs.payload END,
           priority = CASE WHEN jobs.state = 'running' THEN jobs.priority ELSE greatest(jobs.priority, excluded.priority) END,
           asked_priority = CASE WHEN jobs.state = 'running' THEN greatest(jobs.asked_priority, excluded.priority) END,
           run_at = CASE WHEN jobs.state = 'ready' THEN least(jobs.run_at, excluded.run_at) ELSE jobs.run_at END
         RETURNING id",
    )
    .bind(tenant)
    .bind(JobId::new())
    .bind(job.kind())
    .bind(sqlx::types::Json(job))
    .bind(priority)
    .bind(delay.as_secs_f64())
    .bind(job.max_attempts())
    .bind(job.dedupe_key())
    .fetch_one(tx.conn())
    .await?;
    if delay.is_zero() {
        // Delivered at commit; equal payloads of one transaction are sent once.
        sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(tx.conn()).await?;
    }
    Ok(JobId(id))
}

/// The running round of an account comes to its old mail: nobody waits for it any more, so it leaves the places that are
/// kept for others.
pub async fn slow_down(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    // Its turn among those that read old mail begins now, however long ago it was asked for.
    sqlx::query(
        "UPDATE jobs SET priority = $3, run_at = CASE WHEN priority = $3 THEN run_at ELSE now() END,
           asked_priority = CASE WHEN rerun THEN asked_priority END
         WHERE tenant_id = $1 AND kind = 'sync_account' AND dedupe_key = $2 AND state = 'running'",
    )
    .bind(tx.tenant())
    .bind(account.to_string())
    .bind(priority::BACKFILL)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes over what an account was asked while its round runs: another round, the pushing of edits. `true`: there was
/// something, and the caller must do all of it now, because no job stands for it any more. When the caller is stopped or
/// its process dies, its own job is run again, as urgently as what it took over, and does the same.
pub async fn take_over(tx: &mut TenantTx, account: AccountId) -> Result<bool, DbError> {
    let taken = sqlx::query(
        "WITH asked AS (
           SELECT id, kind, priority FROM jobs
           WHERE tenant_id = $1 AND kind IN ('sync_account', 'push_changes') AND dedupe_key = $2
             AND ((kind = 'sync_account' AND state = 'running' AND rerun) OR (kind = 'push_changes' AND state = 'ready'))
         )
         UPDATE jobs SET rerun = false, state = CASE state WHEN 'ready' THEN 'done' ELSE state END,
           finished_at = CASE state WHEN 'ready' THEN now() END,
           asked_priority = CASE state WHEN 'running' THEN
             greatest(asked_priority, (SELECT max(priority) FROM asked WHERE kind = 'push_changes')) END
         WHERE tenant_id = $1 AND dedupe_key = $2 AND EXISTS (SELECT 1 FROM asked)
           AND ((kind = 'sync_account' AND state = 'running') OR (kind = 'push_changes' AND state = 'ready'))",
    )
    .bind(tx.tenant())
    .bind(account.to_string())
    .execute(tx.conn())
    .await?;
    Ok(taken.rows_affected() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_known_and_its_payload_is_read_as_it_was_written() {
        let (account_id, submission_id) = (AccountId::new(), SubmissionId::new());
        let all = [
            Job::SyncAccount { account_id },
            Job::PushChanges { account_id },
            Job::AuditAccount { account_id },
            Job::IndexText { account_id },
            Job::ActOnMessages { operation_id: OperationId::new() },
            Job::SendSubmission { submission_id },
            Job::FileSentCopy { submission_id },
            Job::ProbeSubmission { submission_id },
        ];
        assert_eq!(all.iter().map(Job::kind).collect::<Vec<_>>(), KINDS);
        for job in all {
            let written = serde_json::to_value(&job).unwrap();
            assert_eq!(written["job"], job.kind());
            assert_eq!(serde_json::from_value::<Job>(written).unwrap(), job);
        }
    }
}
