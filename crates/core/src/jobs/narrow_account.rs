//! Takes what is not to be kept of an account out of our copy, in portions that each commit. Nothing is asked of its server.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

use super::remove_accounts::SLICE;
use super::{JobError, enqueue_lost};
use crate::domain::account;
use crate::platform::clock::Clock;
use crate::platform::db::{Db, DbError};
use crate::platform::failpoint;
use crate::platform::id::{AccountId, TenantId};
use crate::queue::job::{Declaration, Job, Sweep, priority};
use crate::queue::lease;
use crate::queue::portion::Size;
use crate::sync::driver::SyncContext;
use crate::sync::store::narrow::{self, Bounds, Pass};

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

/// While some edits wait for long, those messages leave after this time whose edits have reached the server.
const PASS_AGAIN: TimeDelta = TimeDelta::hours(1);

/// Goes on where the last committed portion ended.
///
/// # Errors
/// When the database refused, or the process stops, or the slice is over; what was committed before stays.
pub async fn run(env: &SyncContext, tenant: TenantId, account: AccountId) -> Result<(), JobError> {
    let end = Instant::now() + SLICE;
    let over = || env.shutdown.is_cancelled() || Instant::now() > end;
    match all(&env.db, env.clock.as_ref(), (tenant, account), &over).await {
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

/// How far what is outside has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Narrowed {
    /// All of it.
    All,
    /// It was `over` before.
    Some,
    /// All but that of which edits wait.
    EditsWait,
}

/// Takes portions out until nothing is left or it is `over`, which is asked before each. Goes on where the last committed one ended.
///
/// # Errors
/// When the database refused; what was committed before stays.
pub async fn all(
    db: &Db,
    clock: &dyn Clock,
    of: (TenantId, AccountId),
    over: &impl Fn() -> bool,
) -> Result<Narrowed, DbError> {
    let mut size = Size::default();
    while !over() {
        match step(db, clock, of, size.rows).await? {
            Step::Began(bounds, at) => count(db, of, (bounds, at)).await,
            Step::Portion(time) => {
                failpoint::pass("narrowed-portion");
                size.took(time);
            }
            Step::Mailbox => {}
            Step::EditsWait => return Ok(Narrowed::EditsWait),
            Step::All => return Ok(Narrowed::All),
        }
    }
    Ok(Narrowed::Some)
}

enum Step {
    /// A pass by the bounds of this moment.
    Began(Bounds, DateTime<Utc>),
    /// More of the same mailbox is left.
    Portion(Duration),
    /// A mailbox is done.
    Mailbox,
    EditsWait,
    All,
}

/// One transaction of a pass. What is wanted, and where the pass is, are read in each: both may have changed since the last.
async fn step(
    db: &Db,
    clock: &dyn Clock,
    (tenant, account): (TenantId, AccountId),
    rows: i64,
) -> Result<Step, DbError> {
    let mut tx = db.tenant(tenant).await?;
    lease::lock(&mut tx, &[account]).await?;
    let begun = Instant::now();
    let wanted = account::keep::wanted(&mut tx, account).await?;
    let now = Bounds::of(&wanted, clock.now());
    let step = match narrow::pass(&mut tx, account).await? {
        Some(pass) => {
            let bounds = Bounds::of(&wanted, pass.at);
            if let Some(mailbox) = pass.mailbox {
                let after = narrow::portion(&mut tx, (account, mailbox), bounds, pass, rows).await?;
                if after.from.is_some() {
                    narrow::go_on(&mut tx, account, &after).await?;
                    Step::Portion(begun.elapsed())
                } else {
                    let next = narrow::next_mailbox(&mut tx, account, Some(mailbox)).await?;
                    narrow::go_on(&mut tx, account, &Pass { mailbox: next, ..after }).await?;
                    Step::Mailbox
                }
            } else if !pass.passed_over {
                narrow::narrowed(&mut tx, account, pass.at).await?;
                Step::All
            } else if now == bounds
                && clock.now() - pass.at < PASS_AGAIN
                && narrow::any_left(&mut tx, account, bounds).await?
            {
                Step::EditsWait
            } else {
                Step::Began(now, narrow::begin(&mut tx, account, clock.now()).await?)
            }
        }
        None => Step::Began(now, narrow::begin(&mut tx, account, clock.now()).await?),
    };
    tx.commit().await?;
    Ok(step)
}

async fn count(db: &Db, (tenant, account): (TenantId, AccountId), (bounds, at): (Bounds, DateTime<Utc>)) {
    let counted = async {
        let mut tx = db.tenant(tenant).await?;
        narrow::count(&mut tx, account, bounds, at).await?;
        tx.commit().await
    };
    if let Err(error) = counted.await {
        tracing::info!(account_id = %account, %error, "what is outside is not counted");
    }
}

/// Gives a job to accounts that lost theirs, and to those whose days have moved on.
async fn sweep(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let due = narrow::due(&mut tx).await?;
    drop(tx);
    enqueue_lost(db, due, |account_id| Job::NarrowAccount { account_id }).await
}
