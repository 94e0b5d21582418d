//! Long work of a tenant: one [`Action`] on more messages than a request changes itself.
//!
//! The selection is frozen when the work is asked for. A worker goes through it in batches; each batch changes its
//! messages and moves `done` in one transaction, so nothing is lost or repeated by a crash, a second run or two runs at
//! once. Clients know an operation as a job (`/api/jobs/{id}`); the rows of [`crate::queue::job`] only say that one waits.
//!
//! The next kind of long work: an [`Action`], or beside it what its `step` does with a batch.

pub mod action;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use uuid::Uuid;

pub use action::Action;

use crate::domain::message::transfer::TransferError;
use crate::platform::db::{DbError, SystemTx, TenantTx};
use crate::platform::id::{MessageId, OperationId, UserId};
use crate::platform::words::words;
use crate::queue::job::{self, Job};

/// Messages that a request changes itself, well within a second; more become an operation.
pub const AT_ONCE: usize = 500;
/// Messages of one operation. Its selection is one row of 16 bytes for each.
pub const MAX_MESSAGES: usize = 100_000;
/// Messages changed by one transaction: what a cancellation waits for, and how long rows are locked.
const BATCH: i32 = 500;
/// Starts without a batch in between after which the work is given up.
const MAX_ATTEMPTS: i32 = 10;

words! {
    /// How far an operation is.
    pub enum OperationState {
        /// It waits for a worker.
        Queued = "queued",
        /// A worker is at it.
        Running = "running",
        /// All of the selection is behind us.
        Done = "done",
        /// It cannot go on; what was done stays.
        Failed = "failed",
        /// Its tenant stopped it; what was done stays.
        Cancelled = "cancelled",
    }
}

/// An operation as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The action's name.
    pub kind: String,
    /// How far it is.
    pub state: OperationState,
    /// Messages of the selection that are behind us.
    pub done: i32,
    /// Messages of the selection.
    pub total: i32,
    /// Those of `done` that still existed and were changed.
    pub updated: i32,
    /// Why it failed.
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When a worker first took it up.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended, however it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

impl Operation {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            kind: row.try_get("kind")?,
            state: row.try_get("state")?,
            done: row.try_get("done")?,
            total: row.try_get("total")?,
            updated: row.try_get("updated")?,
            error: row.try_get("error")?,
            created_at: row.try_get("created_at")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
        })
    }
}

/// Freezes the selection and enqueues the work, in the caller's transaction. Each id is expected once: a second
/// `delete` of a message would take it out of Trash for good.
pub async fn create(
    tx: &mut TenantTx,
    user: UserId,
    action: &Action,
    selection: &[MessageId],
) -> Result<Operation, DbError> {
    let ids: Vec<Uuid> = selection.iter().map(|id| id.0).collect();
    let row = sqlx::query(
        "INSERT INTO operations (tenant_id, id, user_id, kind, action, selection, total)
         VALUES ($1, $2, $3, $4, $5, $6::uuid[], cardinality($6::uuid[]))
         RETURNING id, kind, state, done, total, updated, error, created_at, started_at, finished_at",
    )
    .bind(tx.tenant())
    .bind(OperationId::new())
    .bind(user)
    .bind(action.name())
    .bind(Json(action))
    .bind(&ids)
    .fetch_one(tx.conn())
    .await?;
    let operation = Operation::read(&row)?;
    enqueue(tx, operation.id).await?;
    Ok(operation)
}

/// Enqueues the work of an operation that is not over.
pub async fn enqueue(tx: &mut TenantTx, id: OperationId) -> Result<(), DbError> {
    let work = Job::ActOnMessages { operation_id: id };
    job::enqueue(tx, &work, Duration::ZERO).await?;
    Ok(())
}

/// One operation. `None`: there is none of this id in the tenant.
pub async fn get(tx: &mut TenantTx, id: OperationId) -> Result<Option<Operation>, DbError> {
    let row = sqlx::query(
        "SELECT id, kind, state, done, total, updated, error, created_at, started_at, finished_at
         FROM operations WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.as_ref().map(Operation::read).transpose()?)
}

/// Ends an operation before its time; waits for the batch in hand, whose changes stay. `false`: it was over already,
/// or there is none.
pub async fn cancel(tx: &mut TenantTx, id: OperationId) -> Result<bool, DbError> {
    close(tx, id, OperationState::Cancelled, None).await
}

/// Ends an operation that cannot go on. `error` is told to the client.
pub async fn fail(tx: &mut TenantTx, id: OperationId, error: &str) -> Result<bool, DbError> {
    close(tx, id, OperationState::Failed, Some(error)).await
}

async fn close(
    tx: &mut TenantTx,
    id: OperationId,
    state: OperationState,
    error: Option<&str>,
) -> Result<bool, DbError> {
    let closed = sqlx::query(
        "UPDATE operations SET state = $3, error = $4, finished_at = now(), selection = '{}'
         WHERE tenant_id = $1 AND id = $2 AND finished_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(state)
    .bind(error)
    .execute(tx.conn())
    .await?;
    Ok(closed.rows_affected() == 1)
}

/// Counts a start, to be committed before the work. `false`: it is over, or was given up just now because so many
/// starts came to nothing.
pub async fn begin(tx: &mut TenantTx, id: OperationId) -> Result<bool, DbError> {
    let attempts: Option<i32> = sqlx::query_scalar(
        "UPDATE operations SET state = 'running', started_at = coalesce(started_at, now()), attempts = attempts + 1
         WHERE tenant_id = $1 AND id = $2 AND finished_at IS NULL RETURNING attempts",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    match attempts {
        None => Ok(false),
        Some(attempts) if attempts <= MAX_ATTEMPTS => Ok(true),
        Some(_) => {
            fail(tx, id, "it was tried many times without success; what was done before stays").await?;
            Ok(false)
        }
    }
}

/// What follows a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is more.
    More,
    /// It is over: done, or ended by somebody else.
    Over,
}

/// Does the next batch of an operation that was begun, and remembers in this transaction how far it came. Holds the
/// operation's row, so that a second worker and a cancellation wait for the end of the batch.
///
/// # Errors
/// [`TransferError`]; then the transaction must not be committed.
pub async fn step(tx: &mut TenantTx, id: OperationId) -> Result<Step, TransferError> {
    let row = sqlx::query(
        "SELECT action, done, total, selection[done + 1 : done + $3] AS batch FROM operations
         WHERE tenant_id = $1 AND id = $2 AND state = 'running' FOR UPDATE",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(BATCH)
    .fetch_optional(tx.conn())
    .await
    .map_err(DbError::from)?;
    let Some(row) = row else { return Ok(Step::Over) };
    let (action, batch, left) = read_batch(&row).map_err(DbError::from)?;
    let changed = action.apply(tx, &batch).await?;
    sqlx::query(
        "UPDATE operations SET done = done + $3, updated = updated + $4, attempts = 0 WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(count(batch.len()))
    .bind(count(changed))
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    if left > count(batch.len()) {
        return Ok(Step::More);
    }
    close(tx, id, OperationState::Done, None).await?;
    Ok(Step::Over)
}

/// What is to be done, with which messages now, and how many of the selection are left before them.
fn read_batch(row: &PgRow) -> Result<(Action, Vec<MessageId>, i32), sqlx::Error> {
    let action: Json<Action> = row.try_get("action")?;
    let batch: Vec<Uuid> = row.try_get("batch")?;
    let (done, total): (i32, i32) = (row.try_get("done")?, row.try_get("total")?);
    Ok((action.0, batch.into_iter().map(MessageId).collect(), total - done))
}

fn count(messages: usize) -> i32 {
    i32::try_from(messages).unwrap_or(i32::MAX)
}

/// Removes operations that ended a week ago. Returns how many.
pub async fn prune(tx: &mut SystemTx) -> Result<u64, DbError> {
    let done = sqlx::query("DELETE FROM operations WHERE finished_at < now() - interval '7 days'")
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected())
}
