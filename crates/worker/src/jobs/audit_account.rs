//! The daily comparison of an account with its server.

use std::time::Duration;

use emailclient_core::platform::id::{AccountId, TenantId};
use emailclient_core::sync::driver::{self, SyncError};
use emailclient_core::sync::due;

use crate::environment::Environment;
use crate::error::JobError;

/// After this long the job makes room for others and goes on later.
const SLICE: Duration = Duration::from_secs(5);
/// How long it makes room.
const ROOM: Duration = Duration::from_secs(2);
/// A server that failed us is left to the rounds, which say so, and audited later.
const LATER: Duration = Duration::from_secs(3600);

/// Compares the mailboxes that are due, in slices.
///
/// # Errors
/// When the database refused, or there is more to do.
pub async fn run(env: &Environment, tenant: TenantId, account: AccountId) -> Result<(), JobError> {
    if !env.config.imap_enabled {
        return Ok(());
    }
    match driver::audit_account(env, tenant, account, SLICE).await {
        Ok(audited) => {
            tracing::info!(%account, mailboxes = audited.mailboxes, repairs = audited.repairs, done = audited.done, "audit");
            if audited.done {
                return Ok(());
            }
            Err(JobError::postpone(ROOM, anyhow::anyhow!("mailboxes are left to be compared")))
        }
        Err(SyncError::NoSuchAccount | SyncError::Paused) => Ok(()),
        Err(error @ (SyncError::Busy | SyncError::Stopped | SyncError::Lost)) => {
            Err(JobError::postpone(ROOM, error))
        }
        Err(error) if error.is_recorded() => {
            tracing::info!(%account, %error, "the audit is put off");
            let mut tx = env.db.tenant(tenant).await?;
            due::put_off_audit(&mut tx, account, LATER).await?;
            Ok(tx.commit().await?)
        }
        Err(error) => Err(JobError::retry(error)),
    }
}
