//! The job queue: rows of `jobs`, enqueued in the transaction that decided the work.
//!
//! A job carries ids only, loads the state, decides, acts and records; running it twice, late or never is harmless.
//! The lease table's own statements are in [`queue`]; apalis drives them from the worker. What is said of each kind
//! stands in its file of [`crate::jobs`]; here is what jobs carry, so that every group can enqueue them.

pub mod queue;

use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::platform::config::Config;
use crate::platform::db::{Db, DbError, TenantTx};
use crate::platform::id::{AccountId, GrantId, JobId, OperationId, SubmissionId, TenantId};

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

/// The list of jobs, handed to the macro `$with`: the file below `jobs/` that says all of the kind, and what the job carries.
macro_rules! every_job {
    ($with:ident) => {
        $with! {
            /// One round of synchronisation: pushes local edits, then reads what changed.
            sync_account: SyncAccount { account_id: AccountId },
            /// Pushes local edits of an account to its server.
            push_changes: PushChanges { account_id: AccountId },
            /// Compares all of an account with its server.
            audit_account: AuditAccount { account_id: AccountId },
            /// Indexes the text of messages that are not yet searchable.
            index_text: IndexText { account_id: AccountId },
            /// Reads stored mail again that an earlier parser read.
            read_again: ReadAgain { account_id: AccountId },
            /// Removes what is left of the accounts that a tenant has deleted.
            remove_accounts: RemoveAccounts { tenant_id: TenantId },
            /// Removes what is left of the mailboxes that a tenant's accounts have lost.
            remove_mailboxes: RemoveMailboxes { tenant_id: TenantId },
            /// Takes what is not to be kept of an account out of our copy.
            narrow_account: NarrowAccount { account_id: AccountId },
            /// Removes a tenant that is deleted, with all that it has.
            remove_tenant: RemoveTenant { tenant_id: TenantId },
            /// Cuts what is old off the event log of a tenant.
            cut_event_log: CutEventLog { tenant_id: TenantId },
            /// Asks a provider for a token before the one there is ends.
            renew_grant: RenewGrant { grant_id: GrantId },
            /// Does one thing to many messages, in batches.
            act_on_messages: ActOnMessages { operation_id: OperationId },
            /// Hands a queued message to the SMTP server.
            send_submission: SendSubmission { submission_id: SubmissionId },
            /// Files the Sent copy of a message that went out.
            file_sent_copy: FileSentCopy { submission_id: SubmissionId },
            /// Looks in the mailboxes for a message whose fate is unknown.
            probe_submission: ProbeSubmission { submission_id: SubmissionId },
        }
    };
}
pub(crate) use every_job;

macro_rules! payloads {
    ($($(#[$doc:meta])* $file:ident: $name:ident { $($id:ident: $of:ty),+ },)+) => {
        /// Everything a worker can be asked to do.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "job", rename_all = "snake_case")]
        pub enum Job {
            $($(#[$doc])* $name {
                $(
                    /// Which.
                    $id: $of,
                )+
            },)+
        }
    };
}
every_job!(payloads);

/// What a kind of job declares beside its `run` (`jobs/<kind>.rs`).
#[derive(Debug)]
pub struct Declaration {
    /// Its name, as the column `kind` and its payload have it. Rows of other releases bear it too: it never changes.
    pub kind: &'static str,
    /// Tries after which its row is `dead`.
    pub attempts: i32,
    /// Its urgency, where whoever asks does not say another.
    pub priority: i16,
    /// How work that lost its job gets one.
    pub sweep: Sweep,
}

/// How work that lost its job, or whose time has come, gets a job.
#[derive(Debug)]
pub enum Sweep {
    /// The leading scheduler looks this often.
    Every(Duration, Look),
    /// Nobody looks, for this reason.
    Needless(&'static str),
}

/// A look of the scheduler, which enqueues what it finds. Harmless when done twice.
pub type Look = for<'a> fn(&'a Db, &'a Config) -> Looking<'a>;
/// A look that is being taken.
pub type Looking<'a> = Pin<Box<dyn Future<Output = Result<(), DbError>> + Send + 'a>>;

/// Enqueues `job` to run `delay` from now, as urgent as its kind is, in the caller's transaction. See [`enqueue_as`].
pub async fn enqueue(tx: &mut TenantTx, job: &Job, delay: Duration) -> Result<JobId, DbError> {
    enqueue_as(tx, job, delay, job.declaration().priority).await
}

/// Enqueues `job` to run `delay` from now with `priority`, in the caller's transaction.
///
/// An equal job that waits is kept (and brought forward if this one is more urgent or earlier); one that runs now is
/// run once more when it ends, so that what this transaction wrote is seen. One that waits gets this payload, since a worker of
/// another release may have written what this one cannot read. Returns the id of the row that stands for it.
pub async fn enqueue_as(
    tx: &mut TenantTx,
    job: &Job,
    delay: Duration,
    priority: i16,
) -> Result<JobId, DbError> {
    let (tenant, declared) = (tx.tenant(), job.declaration());
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
    .bind(declared.kind)
    .bind(sqlx::types::Json(job))
    .bind(priority)
    .bind(delay.as_secs_f64())
    .bind(declared.attempts)
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
