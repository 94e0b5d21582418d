//! The jobs: one file each, which says all there is to say of its kind.
//!
//! A file has a `DECLARATION` (kind, attempts, priority, sweep), a `key` and a `run`. What a job carries is a line of the list in
//! [`crate::queue::job`], because `domain` and `sync` enqueue jobs and stand below this group. The rest of each kind is joined to
//! that line here.
//!
//! The next job: a line of that list, the file, and its `mod` below.

pub mod act_on_messages;
pub mod audit_account;
pub mod cut_event_log;
pub mod file_sent_copy;
pub mod index_text;
pub mod narrow_account;
pub mod probe_submission;
pub mod push_changes;
pub mod read_again;
pub mod remove_accounts;
pub mod remove_mailboxes;
pub mod remove_tenant;
pub mod renew_grant;
pub mod send_submission;
pub mod sync_account;

use std::time::Duration;

use crate::platform::db::{Db, DbError};
use crate::platform::id::TenantId;
use crate::queue::job::{Declaration, Job, enqueue, every_job};
use crate::sync::driver::SyncContext;

macro_rules! joined {
    ($($(#[$doc:meta])* $file:ident: $name:ident { $($id:ident: $of:ty),+ },)+) => {
        /// What the file of each job declares, in the order of the list.
        pub const ALL: &[&Declaration] = &[$(&$file::DECLARATION,)+];

        impl Job {
            /// The kinds that this release knows. A worker claims no other: what a later release has asked for waits for one
            /// of its workers.
            pub const KINDS: &[&str] = &[$($file::DECLARATION.kind,)+];

            /// What is declared of this kind of job.
            #[must_use]
            pub fn declaration(&self) -> &'static Declaration {
                match self { $(Self::$name { .. } => &$file::DECLARATION,)+ }
            }

            /// Jobs of one kind and key are one while the first has not finished.
            #[must_use]
            pub fn dedupe_key(&self) -> String {
                match self { $(Self::$name { $($id),+ } => $file::key($(*$id),+),)+ }
            }
        }

        /// Does what `job` says. Running it twice, late or never is harmless.
        ///
        /// # Errors
        /// As the job's own `run`.
        pub async fn run(env: &SyncContext, tenant: TenantId, job: Job) -> Result<(), JobError> {
            match job { $(Job::$name { $($id),+ } => $file::run(env, tenant, $($id),+).await,)+ }
        }
    };
}
every_job!(joined);

/// The failure of a job: whether to try again is said inside, by the one who knows.
#[derive(Debug)]
pub struct JobError {
    /// What happened, for the log and the row; no secrets, no contents.
    pub cause: anyhow::Error,
    /// What follows from it.
    pub then: Then,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Try again; the queue chooses when.
    Retry,
    /// Try again after this time.
    RetryAfter(Duration),
    /// It was not its turn: try again after this time, and do not count the attempt.
    Postpone(Duration),
    /// Never try again.
    Fail,
}

impl JobError {
    /// Try again, later each time.
    pub fn retry(cause: impl Into<anyhow::Error>) -> Self {
        Self { cause: cause.into(), then: Then::Retry }
    }
    /// Try again after `wait`.
    pub fn retry_after(wait: Duration, cause: impl Into<anyhow::Error>) -> Self {
        Self { cause: cause.into(), then: Then::RetryAfter(wait) }
    }
    /// It was not its turn yet; try again after `wait` without counting this as an attempt.
    pub fn postpone(wait: Duration, cause: impl Into<anyhow::Error>) -> Self {
        Self { cause: cause.into(), then: Then::Postpone(wait) }
    }
    /// Trying again would not help.
    pub fn fail(cause: impl Into<anyhow::Error>) -> Self {
        Self { cause: cause.into(), then: Then::Fail }
    }
}

impl std::fmt::Display for JobError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.cause)
    }
}

impl From<DbError> for JobError {
    fn from(error: DbError) -> Self {
        Self::retry(error)
    }
}

/// Enqueues the job of each thing that a sweep found without one, in a transaction of its own; see [`past`].
///
/// # Errors
/// When the database is away.
async fn enqueue_lost<Id>(
    db: &Db,
    lost: Vec<(TenantId, Id)>,
    job_of: impl Fn(Id) -> Job,
) -> Result<(), DbError> {
    for (tenant, id) in lost {
        let job = job_of(id);
        let enqueued = async {
            let mut tx = db.tenant(tenant).await?;
            enqueue(&mut tx, &job, Duration::ZERO).await?;
            tx.commit().await
        };
        past(db, job.dedupe_key(), enqueued.await).await?;
    }
    Ok(())
}

/// On to the next, when something could not be done for this account or submission: somebody may hold its rows for minutes, and it is
/// asked first again in the next turn. What was not done is done then. A database that is away is the end of the turn.
///
/// # Errors
/// Then.
pub async fn past(db: &Db, what: impl std::fmt::Display, done: Result<(), DbError>) -> Result<(), DbError> {
    let Err(error) = done else { return Ok(()) };
    db.ping().await?;
    tracing::warn!(%what, ?error, "one was passed over; it is tried again at the next turn");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::platform::id::{AccountId, GrantId, OperationId, SubmissionId};
    use crate::queue::job::Sweep;

    #[test]
    fn every_kind_is_known_and_its_payload_is_read_as_it_was_written() {
        let (account_id, submission_id) = (AccountId::new(), SubmissionId::new());
        let all = [
            Job::SyncAccount { account_id },
            Job::PushChanges { account_id },
            Job::AuditAccount { account_id },
            Job::IndexText { account_id },
            Job::ReadAgain { account_id },
            Job::RemoveAccounts { tenant_id: TenantId::new() },
            Job::RemoveMailboxes { tenant_id: TenantId::new() },
            Job::NarrowAccount { account_id },
            Job::RemoveTenant { tenant_id: TenantId::new() },
            Job::CutEventLog { tenant_id: TenantId::new() },
            Job::RenewGrant { grant_id: GrantId::new() },
            Job::ActOnMessages { operation_id: OperationId::new() },
            Job::SendSubmission { submission_id },
            Job::FileSentCopy { submission_id },
            Job::ProbeSubmission { submission_id },
        ];
        assert_eq!(all.iter().map(|job| job.declaration().kind).collect::<Vec<_>>(), Job::KINDS);
        for job in all {
            let written = serde_json::to_value(&job).unwrap();
            assert_eq!(written["job"], job.declaration().kind);
            assert_eq!(serde_json::from_value::<Job>(written).unwrap(), job);
        }
    }

    #[test]
    fn a_kind_is_called_as_its_file_and_is_swept_or_says_why_not() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/jobs");
        let files: BTreeSet<String> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(files, Job::KINDS.iter().map(|kind| (*kind).to_owned()).collect());
        for declared in ALL {
            assert!(declared.attempts > 0, "{}", declared.kind);
            match declared.sweep {
                Sweep::Every(period, _) => assert!(period >= Duration::from_secs(1), "{}", declared.kind),
                Sweep::Needless(why) => assert!(why.len() > 20, "{}: {why:?}", declared.kind),
            }
        }
    }
}
