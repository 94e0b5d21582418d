//! The driver of synchronisation: performs what the planner (`mail::sync`) decides, against a server and our rows.
//!
//! - `open`: from an account to a session
//! - `round`: a whole round, or only the pushing of local edits; `tree`, `visit`: its parts
//! - `fetch`: messages from the server to rows, as a pipeline
//! - `push`: local edits to the server
//! - `head`: new mail of the mailbox a watcher has open
//! - `trouble`: what a failure means for the account
//!
//! Nothing is decided here but how errors are survived. Every write is fenced by the account's lease, no transaction is
//! open while the network is waited for, and a process that dies at any point resumes from the checkpoints. A new
//! variant of the planner's `ServerRead`, `ServerWrite` or `Write` gets its arm in `visit` or `push`.

mod fetch;
mod head;
mod open;
mod push;
mod round;
mod tree;
mod trouble;
mod visit;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mail::sync::Depth;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{ImapError, MemoryBudget};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::db::{Db, DbError};
use crate::dial::Outbound;
use crate::id::{AccountId, TenantId};
use crate::lease::{self, LEASE, Lease, LeaseError};
use crate::seal::{Keyring, SealError};
use crate::sync_store::attempts;
use crate::tls::TlsConfig;

pub use head::{Fresh, fetch_new};
pub use open::open;

/// Bytes of messages held in memory by all rounds of a process together.
pub const MEMORY_BYTES: usize = 64 << 20;

/// What a round needs of its process.
#[derive(Clone, Debug)]
pub struct SyncContext {
    /// The database.
    pub db: Db,
    /// Settings.
    pub config: Arc<Config>,
    /// Time and jitter.
    pub clock: SharedClock,
    /// Keys for credentials.
    pub keyring: Arc<Keyring>,
    /// The one way out.
    pub outbound: Arc<Outbound>,
    /// Trust for TLS.
    pub tls: TlsConfig,
    /// This process, in leases.
    pub worker_id: Uuid,
    /// Shared by all rounds of the process, usually [`MEMORY_BYTES`].
    pub memory: MemoryBudget,
    /// Fires when the process is to stop: rounds end at the next wait, and what they stored stays.
    pub shutdown: CancellationToken,
}

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Mailboxes that were opened.
    pub visited: usize,
    /// Mailboxes that could not be read; their rows say why.
    pub failed: usize,
    /// Messages that were not known before.
    pub created: usize,
    /// Placements whose flags changed on the server.
    pub flagged: usize,
    /// Placements that went.
    pub removed: usize,
    /// Local edits that the server confirmed.
    pub pushed: usize,
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// Another worker, or another job of this one, has the account: try again in a moment.
    #[error("the account is being synchronised")]
    Busy,
    /// The account is gone.
    #[error("there is no such account")]
    NoSuchAccount,
    /// The lease ran out or was taken over; nothing was written since.
    #[error("the lease of the account was lost")]
    Lost,
    /// The process stops; the rest is for the next round.
    #[error("the process stops")]
    Stopped,
    /// The account has no password, or one that cannot be decrypted. Its rows say so.
    #[error("the stored credentials cannot be used")]
    Credentials(#[source] Option<SealError>),
    /// The server failed us. The account's rows say why and when the next round is due, so the job need not be repeated.
    #[error(transparent)]
    Imap(#[from] ImapError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<LeaseError> for SyncError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::Lost => Self::Lost,
            LeaseError::Db(error) => Self::Db(error),
        }
    }
}

impl SyncError {
    /// Whether the account's rows record the failure and when to try again, so that the queue need not.
    #[must_use]
    pub const fn is_recorded(&self) -> bool {
        matches!(self, Self::Imap(_) | Self::Credentials(_))
    }
}

/// One round over all mailboxes: local edits go out, then everything that changed comes in.
///
/// # Errors
/// [`SyncError`]. What was stored until then stays and is not read again.
pub async fn sync_account(
    ctx: &SyncContext,
    tenant: TenantId,
    account: AccountId,
    depth: Depth,
) -> Result<Report, SyncError> {
    let lease = take(ctx, tenant, account).await?;
    guarded(ctx, &lease, round::run(ctx, &lease, depth)).await
}

/// Brings local edits to the server and reads the mailboxes they touched; others are left for the next round.
///
/// # Errors
/// [`SyncError`], as for [`sync_account`].
pub async fn push_changes(
    ctx: &SyncContext,
    tenant: TenantId,
    account: AccountId,
) -> Result<Report, SyncError> {
    let lease = take(ctx, tenant, account).await?;
    guarded(ctx, &lease, round::push(ctx, &lease)).await
}

async fn take(ctx: &SyncContext, tenant: TenantId, account: AccountId) -> Result<Lease, SyncError> {
    let mut tx = ctx.db.tenant(tenant).await?;
    let lease = lease::acquire(&mut tx, account, ctx.worker_id, LEASE).await?;
    if lease.is_none() && !crate::mailbox::account_exists(&mut tx, account).await? {
        return Err(SyncError::NoSuchAccount);
    }
    tx.commit().await?;
    lease.ok_or(SyncError::Busy)
}

/// Runs `work` while the lease is renewed beside it, and gives the lease up afterwards.
async fn guarded<T>(
    ctx: &SyncContext,
    lease: &Lease,
    work: impl Future<Output = Result<T, SyncError>>,
) -> Result<T, SyncError> {
    let (result, told_to_stop) = tokio::select! {
        result = work => (result, false),
        () = keep(ctx, lease) => (Err(SyncError::Lost), false),
        () = ctx.shutdown.cancelled() => (Err(SyncError::Stopped), true),
    };
    if !matches!(result, Err(SyncError::Lost)) {
        // Without this the next holder only waits for the lease to run out.
        if let Err(error) = release(ctx, lease, told_to_stop).await {
            tracing::warn!(account_id = %lease.account, %error, "the lease could not be given up");
        }
    }
    result
}

async fn release(ctx: &SyncContext, lease: &Lease, told_to_stop: bool) -> Result<(), DbError> {
    if told_to_stop {
        // On its own: the row of the lease may still be locked by what was just abandoned.
        let mut tx = ctx.db.tenant(lease.tenant).await?;
        attempts::end_all(&mut tx, lease).await?;
        tx.commit().await?;
    }
    let mut tx = ctx.db.tenant(lease.tenant).await?;
    lease::release(&mut tx, lease).await?;
    tx.commit().await
}

/// Renews the lease until it is lost. A database that is away for a moment is no loss yet: the time decides.
async fn keep(ctx: &SyncContext, lease: &Lease) {
    let every = LEASE / 3;
    let mut held_until = tokio::time::Instant::now() + LEASE;
    loop {
        tokio::time::sleep(every.min(Duration::from_secs(10))).await;
        match renew(ctx, lease).await {
            Ok(true) => held_until = tokio::time::Instant::now() + LEASE,
            Ok(false) => return,
            Err(_) if tokio::time::Instant::now() < held_until => {}
            Err(_) => return,
        }
    }
}

async fn renew(ctx: &SyncContext, lease: &Lease) -> Result<bool, DbError> {
    let mut tx = ctx.db.tenant(lease.tenant).await?;
    let held = lease::renew(&mut tx, lease, LEASE).await?;
    tx.commit().await?;
    Ok(held)
}
