//! From an account to a session that is logged in and has its extensions switched on.

use mail::backoff::CAPABILITY_OFF_FOR;

use super::{SyncContext, SyncError, trouble};
use crate::capability_off;
use crate::dial::Deadlines;
use crate::id::{AccountId, TenantId};
use crate::imap::{Credentials, Endpoint, ImapError, Session, connect};
use crate::seal::Place;
use crate::sync_store::view;

/// The column whose ciphertext this is, as it was sealed.
const PASSWORD_FIELD: &str = "imap_password";

/// Connects and logs in with the stored credentials; QRESYNC is enabled where offered, and what the server is known to
/// fail at is left alone. Stands in line with the other connections of the process, as its haste allows.
///
/// # Errors
/// [`SyncError::NoSuchAccount`], [`SyncError::Credentials`], [`SyncError::Imap`] or [`SyncError::Db`].
pub async fn open(ctx: &SyncContext, tenant: TenantId, account: AccountId) -> Result<Session, SyncError> {
    enter(ctx, tenant, account).await.map(|(session, _)| session)
}

/// [`open`], with the server it leads to, for [`forgo`].
///
/// # Errors
/// As [`open`].
pub async fn enter(
    ctx: &SyncContext,
    tenant: TenantId,
    account: AccountId,
) -> Result<(Session, Endpoint), SyncError> {
    let mut tx = ctx.db.tenant(tenant).await?;
    let stored = view::connection(&mut tx, account).await?.ok_or(SyncError::NoSuchAccount)?;
    let off = capability_off::list(&mut tx, &stored.endpoint).await?;
    drop(tx);
    let sealed = stored.password.ok_or(SyncError::Credentials(None))?;
    let place = Place { tenant, account, field: PASSWORD_FIELD };
    let password = ctx.keyring.open(place, &sealed).map_err(|e| SyncError::Credentials(Some(e)))?;
    let deadlines = Deadlines { reply: ctx.config.imap_command_timeout, ..Deadlines::default() };
    ctx.pace.wait(&stored.endpoint.host, ctx.haste).await;
    let connection = connect(&ctx.outbound, &ctx.tls, &stored.endpoint, &deadlines).await?;
    let mut session = connection.login(&Credentials::Password { user: stored.username, password }).await?;
    session.restrict(|c| {
        for capability in &off {
            c.forgo(capability);
        }
    });
    if session.capabilities().can_qresync() {
        match session.enable(&["QRESYNC"]).await {
            Ok(enabled) if enabled.iter().any(|e| e == "QRESYNC") => {}
            Ok(_) => session.restrict(|c| c.qresync = false),
            Err(error) => forgo(ctx, tenant, &stored.endpoint, &mut session, error).await?,
        }
    }
    Ok((session, stored.endpoint))
}

/// When `error` was a BAD to a command that relied on an extension: this session does without it, and so do others for a
/// week.
///
/// # Errors
/// `error` itself when it was something else, or the database's.
pub async fn forgo(
    ctx: &SyncContext,
    tenant: TenantId,
    server: &Endpoint,
    session: &mut Session,
    error: ImapError,
) -> Result<(), SyncError> {
    // Exchange Online and others say with BAD that they are asked too often.
    let refused = matches!(error, ImapError::Protocol(_)) && session.is_usable();
    let Some(capability) = session.take_broken_promise().filter(|_| refused) else {
        return Err(error.into());
    };
    let words = trouble::cause_of(&error).upstream.unwrap_or_default();
    tracing::warn!(
        host = server.host,
        port = server.port,
        capability,
        "the server offers it and answers BAD; not used for a week"
    );
    let mut tx = ctx.db.tenant(tenant).await?;
    capability_off::note(&mut tx, server, capability, &words, CAPABILITY_OFF_FOR).await?;
    Ok(tx.commit().await?)
}
