//! From an account to a session that is logged in and has its extensions switched on.

use super::{SyncContext, SyncError};
use crate::dial::Deadlines;
use crate::id::{AccountId, TenantId};
use crate::imap::{Credentials, Session, connect};
use crate::seal::Place;
use crate::sync_store::view;

/// The column whose ciphertext this is, as it was sealed.
const PASSWORD_FIELD: &str = "imap_password";

/// Connects and logs in with the stored credentials; QRESYNC is enabled where offered.
///
/// # Errors
/// [`SyncError::NoSuchAccount`], [`SyncError::Credentials`], [`SyncError::Imap`] or [`SyncError::Db`].
pub async fn open(ctx: &SyncContext, tenant: TenantId, account: AccountId) -> Result<Session, SyncError> {
    let mut tx = ctx.db.tenant(tenant).await?;
    let stored = view::connection(&mut tx, account).await?.ok_or(SyncError::NoSuchAccount)?;
    drop(tx);
    let sealed = stored.password.ok_or(SyncError::Credentials(None))?;
    let place = Place { tenant, account, field: PASSWORD_FIELD };
    let password = ctx.keyring.open(place, &sealed).map_err(|e| SyncError::Credentials(Some(e)))?;
    let deadlines = Deadlines { reply: ctx.config.imap_command_timeout, ..Deadlines::default() };
    let connection = connect(&ctx.outbound, &ctx.tls, &stored.endpoint, &deadlines).await?;
    let mut session = connection.login(&Credentials::Password { user: stored.username, password }).await?;
    if session.capabilities().can_qresync() {
        let enabled = session.enable(&["QRESYNC"]).await?;
        if !enabled.iter().any(|e| e == "QRESYNC") {
            session.restrict(|c| c.qresync = false);
        }
    }
    Ok(session)
}
