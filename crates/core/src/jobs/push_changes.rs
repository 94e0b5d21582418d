//! Brings local edits of an account to its server.

use super::JobError;
use super::sync_account::settle;
use crate::platform::id::{AccountId, TenantId};
use crate::queue::job::{Declaration, Sweep, priority};
use crate::sync::driver::{self, SyncContext};

/// Somebody looks at the mailbox whose edits these are.
pub const DECLARATION: Declaration = Declaration {
    kind: "push_changes",
    attempts: 20,
    priority: priority::PUSH,
    sweep: Sweep::Needless("a round begins with the edits that wait"),
};

/// Its dedupe key.
#[must_use]
pub fn key(account_id: AccountId) -> String {
    account_id.to_string()
}

/// Pushes what there is to push; harmless when there is nothing.
///
/// # Errors
/// As [`super::sync_account::run`].
pub async fn run(env: &SyncContext, tenant: TenantId, account: AccountId) -> Result<(), JobError> {
    if !env.config.imap_enabled {
        return Ok(());
    }
    settle(account, driver::push_changes(env, tenant, account).await)
}
