//! Brings local edits of an account to its server.

use emailclient_core::platform::id::{AccountId, TenantId};
use emailclient_core::sync::driver;

use super::sync_account::settle;
use crate::environment::Environment;
use crate::error::JobError;

/// Pushes what there is to push; harmless when there is nothing.
///
/// # Errors
/// As [`super::sync_account::run`].
pub async fn run(env: &Environment, tenant: TenantId, account: AccountId) -> Result<(), JobError> {
    if !env.config.imap_enabled {
        return Ok(());
    }
    settle(account, driver::push_changes(env, tenant, account).await)
}
