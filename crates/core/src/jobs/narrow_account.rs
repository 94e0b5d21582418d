//! Takes what is not to be kept of an account out of our copy, in portions that each commit. Nothing is asked of its server.

use std::time::Duration;

use tokio::time::Instant;

use super::remove_accounts::SLICE;
use super::{JobError, enqueue_lost};
use crate::domain::account;
use crate::platform::db::{Db, DbError};
use crate::platform::failpoint;
use crate::platform::id::{AccountId, MailboxId, TenantId};
use crate::queue::job::{Declaration, Job, Sweep, priority};
use crate::queue::lease;
use crate::queue::portion::Size;
use crate::sync::driver::SyncContext;
use crate::sync::store::narrow::{self, Bounds};

/// Nobody waits for it. It makes room every few seconds, as `remove_accounts` does.
pub const DECLARATION: Declaration = Declaration {
    kind: "narrow_account",
    attempts: 1000,
    priority: priority::BACKGROUND,
    sweep: Sweep::Every(Duration::from_secs(60), |db, _| Box::pin(sweep(db))),
};

/// Its dedupe key.
#[must_use]
pub fn key(account_id: AccountId) -> String {
    account_id.to_string()
}

/// How soon it is looked again whether edits that kept messages here have reached the server.
const EDITS_WAIT: Duration = Duration::from_secs(30);

/// Goes on where the last committed portion ended.
///
/// # Errors
/// When the database refused, or the process stops, or the slice is over; what was committed before stays.
pub async fn run(env: &SyncContext, tenant: TenantId, account: AccountId) -> Result<(), JobError> {
    let end = Instant::now() + SLICE;
    let over = || env.shutdown.is_cancelled() || Instant::now() > end;
    match all(env, tenant, account, &over).await {
        Ok(Narrowed::All) | Err(DbError::Deleted) => Ok(()),
        Ok(Narrowed::Some) => {
            Err(JobError::postpone(Duration::from_millis(200), anyhow::anyhow!("more is outside")))
        }
        Ok(Narrowed::EditsWait) => {
            Err(JobError::postpone(EDITS_WAIT, anyhow::anyhow!("edits wait of what is outside")))
        }
        Err(error) => Err(error.into()),
    }
}

enum Narrowed {
    All,
    Some,
    EditsWait,
}

async fn all(
    env: &SyncContext,
    tenant: TenantId,
    account: AccountId,
    over: &impl Fn() -> bool,
) -> Result<Narrowed, DbError> {
    let mut tx = env.db.tenant(tenant).await?;
    let wanted = account::keep::wanted(&mut tx, account).await?;
    let bounds = Bounds::of(&wanted, env.clock.now());
    narrow::count(&mut tx, account, bounds).await?;
    let mailboxes = narrow::mailboxes(&mut tx, account).await?;
    tx.commit().await?;
    for mailbox in mailboxes {
        if !one(&env.db, tenant, (account, mailbox), bounds, over).await? {
            return Ok(Narrowed::Some);
        }
    }
    let mut tx = env.db.tenant(tenant).await?;
    lease::lock(&mut tx, &[account]).await?;
    if account::keep::wanted(&mut tx, account).await? != wanted {
        return Ok(Narrowed::Some);
    }
    let left = narrow::any_left(&mut tx, account, bounds).await?;
    if !left {
        narrow::narrowed(&mut tx, account).await?;
    }
    tx.commit().await?;
    Ok(if left { Narrowed::EditsWait } else { Narrowed::All })
}

/// Whether nothing is left in the mailbox that can go.
async fn one(
    db: &Db,
    tenant: TenantId,
    of: (AccountId, MailboxId),
    bounds: Bounds,
    over: &impl Fn() -> bool,
) -> Result<bool, DbError> {
    let (mut size, mut from) = (Size::default(), None);
    loop {
        if over() {
            return Ok(false);
        }
        let mut tx = db.tenant(tenant).await?;
        lease::lock(&mut tx, &[of.0]).await?;
        let begun = Instant::now();
        from = narrow::portion(&mut tx, of, bounds, from, size.rows).await?;
        tx.commit().await?;
        if from.is_none() {
            return Ok(true);
        }
        failpoint::pass("narrowed-portion");
        size.took(begun.elapsed());
    }
}

/// Gives a job to accounts that lost theirs, and to those whose days have moved on.
async fn sweep(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let due = narrow::due(&mut tx).await?;
    drop(tx);
    enqueue_lost(db, due, |account_id| Job::NarrowAccount { account_id }).await
}
