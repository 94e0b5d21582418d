//! The list of jobs: one arm, one file in `jobs/` with one `run`.
//!
//! A job that is added to `emailclient_core::queue::job::Job` makes the `match` below incomplete, which is the reminder.

pub mod act_on_messages;
pub mod audit_account;
pub mod file_sent_copy;
pub mod index_text;
pub mod probe_submission;
pub mod push_changes;
pub mod send_submission;
pub mod sync_account;

use emailclient_core::platform::id::TenantId;
use emailclient_core::queue::job::Job;

use crate::environment::Environment;
use crate::error::JobError;

/// Does what `job` says. Running it twice, late or never is harmless.
///
/// # Errors
/// As the job's own `run`.
pub async fn run(env: &Environment, tenant: TenantId, job: Job) -> Result<(), JobError> {
    match job {
        Job::SyncAccount { account_id } => sync_account::run(env, tenant, account_id).await,
        Job::PushChanges { account_id } => push_changes::run(env, tenant, account_id).await,
        Job::AuditAccount { account_id } => audit_account::run(env, tenant, account_id).await,
        Job::IndexText { account_id } => index_text::run(env, tenant, account_id).await,
        Job::ActOnMessages { operation_id } => act_on_messages::run(env, tenant, operation_id).await,
        Job::SendSubmission { submission_id } => send_submission::run(env, tenant, submission_id).await,
        Job::FileSentCopy { submission_id } => file_sent_copy::run(env, tenant, submission_id).await,
        Job::ProbeSubmission { submission_id } => probe_submission::run(env, tenant, submission_id).await,
    }
}
