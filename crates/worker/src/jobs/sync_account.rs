//! One round of synchronisation of an account.

use std::time::Duration;

use emailclient_core::platform::id::{AccountId, TenantId};
use emailclient_core::sync::driver::{self, SyncError};
use mail::sync::Depth;

use crate::environment::Environment;
use crate::error::JobError;

/// While another job has the account. Short: a user may be waiting for this one.
const BUSY: Duration = Duration::from_millis(250);

/// Runs a round. What went wrong on the server's side is recorded at the account, with the time of the next try, and
/// is no failure of the job.
///
/// # Errors
/// When the database refused, the account was busy or the process stops.
pub async fn run(env: &Environment, tenant: TenantId, account: AccountId) -> Result<(), JobError> {
    if !env.config.imap_enabled {
        return Ok(());
    }
    let report = driver::sync_account(env, tenant, account, Depth::Full).await;
    settle(account, report)
}

/// What the end of a round means for its job.
pub(super) fn settle(account: AccountId, result: Result<driver::Report, SyncError>) -> Result<(), JobError> {
    match result {
        Ok(report) => {
            tracing::info!(%account, visited = report.visited, failed = report.failed, created = report.created, flagged = report.flagged,
                removed = report.removed, pushed = report.pushed, "round done");
            Ok(())
        }
        Err(SyncError::NoSuchAccount | SyncError::Paused) => Ok(()),
        Err(error) if error.is_recorded() => {
            tracing::warn!(%account, %error, "round ended early; the account says when it is tried again");
            Ok(())
        }
        Err(error @ (SyncError::Busy | SyncError::Stopped)) => Err(JobError::postpone(BUSY, error)),
        Err(error) => Err(JobError::retry(error)),
    }
}
