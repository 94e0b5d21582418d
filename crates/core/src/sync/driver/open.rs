//! From an account to a session that is logged in and has its extensions switched on.

use std::time::Duration;

use mail::backoff::CAPABILITY_OFF_FOR;
use tokio::time::sleep;

use super::{SyncContext, SyncError, trouble};
use crate::platform::id::{AccountId, TenantId};
use crate::platform::seal::Place;
use crate::sync::capability_off;
use crate::sync::store::{connections, view};
use wire::dial::Deadlines;
use wire::imap::{Credentials, Endpoint, Haste, ImapError, Session, connect};

/// A watch of this process needs no longer to say goodbye.
const WATCH_ENDS_IN: Duration = Duration::from_millis(200);
/// Between attempts while a watch ends its connection: another process looks every two seconds whether it is to.
const WAITS_FOR_WATCH: [Duration; 5] = [
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1_000),
    Duration::from_millis(2_000),
    Duration::from_millis(3_000),
];
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
    let is_one = connections::is_one(&mut tx, account).await?;
    drop(tx);
    let sealed = stored.password.ok_or(SyncError::Credentials(None))?;
    let place = Place { tenant, account, field: PASSWORD_FIELD };
    let password = ctx.keyring.open(place, &sealed).map_err(|e| SyncError::Credentials(Some(e)))?;
    let credentials = Credentials::Password { user: stored.username, password };
    let mut session = in_turn(ctx, (tenant, account), is_one, (&stored.endpoint, &credentials)).await?;
    session.count_for(tenant.0.as_u128());
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

/// Logs in; where the connection of our own watch is in the way, once that has ended. A server that refuses a connection
/// because of others gets one of ours at a time from then on.
async fn in_turn(
    ctx: &SyncContext,
    (tenant, account): (TenantId, AccountId),
    is_one: bool,
    (endpoint, credentials): (&Endpoint, &Credentials),
) -> Result<Session, SyncError> {
    let deadlines = Deadlines { reply: ctx.config.imap_command_timeout, ..Deadlines::default() };
    let mut waits = WAITS_FOR_WATCH.into_iter();
    if is_one && ctx.haste != Haste::Watch && make_way(ctx, tenant, account).await? {
        sleep(WATCH_ENDS_IN).await;
    }
    loop {
        ctx.pace.wait(&endpoint.host, ctx.haste).await;
        let refused = match log_in(ctx, endpoint, credentials, &deadlines).await {
            Err(error) if error.is_too_many_connections() => error,
            other => return Ok(other?),
        };
        let mut tx = ctx.db.tenant(tenant).await?;
        connections::note_one(&mut tx, account).await?;
        tx.commit().await?;
        // The watch is the one that gives way, not the one that takes.
        if ctx.haste == Haste::Watch || !make_way(ctx, tenant, account).await? {
            return Err(refused.into());
        }
        let Some(wait) = waits.next() else { return Err(refused.into()) };
        tracing::info!(%account, wait_ms = wait.as_millis() as u64, "the server allows no more connections; the watch gives way");
        sleep(wait).await;
    }
}

async fn log_in(
    ctx: &SyncContext,
    endpoint: &Endpoint,
    credentials: &Credentials,
    deadlines: &Deadlines,
) -> Result<Session, ImapError> {
    connect(&ctx.outbound, &ctx.tls, endpoint, deadlines).await?.login(credentials).await
}

/// Whether there is a watch that may have a connection; it is told to end it.
async fn make_way(ctx: &SyncContext, tenant: TenantId, account: AccountId) -> Result<bool, SyncError> {
    let mut tx = ctx.db.tenant(tenant).await?;
    let watched = connections::want(&mut tx, account).await?;
    tx.commit().await?;
    ctx.give_way.tell(account, true);
    Ok(watched)
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
