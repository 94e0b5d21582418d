//! What a user may do: undo while it is queued, give up or resend what is stuck.

use std::time::Duration;

use super::announce;
use crate::domain::event::{self, DraftUpdated};
use crate::domain::states::SubmissionState;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, DraftId, SubmissionId};
use crate::queue::job::{self, Job};

/// How a cancellation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It will not be sent.
    Cancelled,
    /// Its fate was unknown; it counts as failed now.
    GivenUp,
}

/// Why a submission was not cancelled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// There is none of this id.
    #[error("no such submission")]
    NotFound,
    /// The hand-over has begun or is over; its state.
    #[error("too late, the submission is {0}")]
    TooLate(SubmissionState),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<sqlx::Error> for CancelError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

/// Cancels a queued submission, or gives up an unknown one. One UPDATE decides against the worker's claim.
pub async fn cancel(tx: &mut TenantTx, id: SubmissionId) -> Result<Cancelled, CancelError> {
    let tenant = tx.tenant();
    let done: Option<(AccountId, SubmissionState)> = sqlx::query_as(
        "UPDATE submissions SET state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE 'failed' END,
                failure = CASE WHEN state = 'queued' THEN NULL ELSE 'given up by the user' END, updated_at = now()
         WHERE tenant_id = $1 AND id = $2 AND state IN ('queued', 'unknown') RETURNING account_id, state",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    match done {
        Some((account, state)) => {
            announce(tx, account, id, state, true);
            let undone = state == SubmissionState::Cancelled;
            if undone {
                // Its draft is among those to be written again.
                let draft: Option<DraftId> =
                    sqlx::query_scalar("SELECT id FROM drafts WHERE tenant_id = $1 AND submission_id = $2")
                        .bind(tenant)
                        .bind(id)
                        .fetch_optional(tx.conn())
                        .await?;
                event::record(tx, account, draft.map(|id| DraftUpdated { id }.into()).as_slice());
            }
            Ok(if undone { Cancelled::Cancelled } else { Cancelled::GivenUp })
        }
        None => match state_of(tx, id).await? {
            None => Err(CancelError::NotFound),
            Some(state) => Err(CancelError::TooLate(state)),
        },
    }
}

/// Why a submission was not sent again.
#[derive(Debug, thiserror::Error)]
pub enum ResendError {
    /// There is none of this id.
    #[error("no such submission")]
    NotFound,
    /// It is on its way or has arrived; its state.
    #[error("the submission is {0}")]
    NotStuck(SubmissionState),
    /// Its draft was sent by another submission since; that one's state.
    #[error("its message was sent by a newer submission, which is {0}")]
    SentSince(SubmissionState),
    /// Every recipient was served.
    #[error("every recipient has the message")]
    NobodyLeft,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<sqlx::Error> for ResendError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

/// Queues an unknown, failed or cancelled submission again: the same bytes, the same Message-ID, to the recipients that
/// were not accepted yet, with a new day's patience.
pub async fn resend(tx: &mut TenantTx, id: SubmissionId) -> Result<(), ResendError> {
    let tenant = tx.tenant();
    let draft = hold_draft(tx, id).await?;
    if let Some(draft) = draft
        && let Some(state) = sent_since(tx, draft, id).await?
    {
        return Err(ResendError::SentSince(state));
    }
    let account: Option<AccountId> = sqlx::query_scalar(
        "UPDATE submissions SET state = 'queued', phase = 'connect', send_after = now(), failure = NULL, probes = 0,
                give_up_at = now() + make_interval(secs => $3), updated_at = now()
         WHERE tenant_id = $1 AND id = $2 AND state IN ('unknown', 'failed', 'cancelled') RETURNING account_id",
    )
    .bind(tenant)
    .bind(id)
    .bind(mail::backoff::SEND_GIVE_UP_AFTER.as_secs_f64())
    .fetch_optional(tx.conn())
    .await?;
    let Some(account) = account else {
        return Err(state_of(tx, id).await?.map_or(ResendError::NotFound, ResendError::NotStuck));
    };
    let open = sqlx::query(
        "UPDATE submission_recipients SET state = 'pending', code = NULL, text = NULL
         WHERE tenant_id = $1 AND submission_id = $2 AND state IN ('pending', 'deferred', 'refused', 'bounced')",
    )
    .bind(tenant)
    .bind(id)
    .execute(tx.conn())
    .await?;
    if open.rows_affected() == 0 {
        return Err(ResendError::NobodyLeft);
    }
    if let Some(draft) = draft {
        point_draft_at(tx, draft, id).await?;
    }
    announce(tx, account, id, SubmissionState::Queued, true);
    job::enqueue(tx, &Job::SendSubmission { submission_id: id }, Duration::ZERO).await?;
    Ok(())
}

/// The submission's draft, held if it is still there, so that neither a send nor another resend of it happens
/// meanwhile. `None`: there is no such submission.
async fn hold_draft(tx: &mut TenantTx, id: SubmissionId) -> Result<Option<DraftId>, DbError> {
    let draft: Option<Option<DraftId>> =
        sqlx::query_scalar("SELECT draft_id FROM submissions WHERE tenant_id = $1 AND id = $2")
            .bind(tx.tenant())
            .bind(id)
            .fetch_optional(tx.conn())
            .await?;
    let Some(draft) = draft.flatten() else { return Ok(None) };
    sqlx::query("SELECT 1 FROM drafts WHERE tenant_id = $1 AND id = $2 FOR UPDATE")
        .bind(tx.tenant())
        .bind(draft)
        .execute(tx.conn())
        .await?;
    Ok(Some(draft))
}

/// The state of another submission of the draft that is on its way, has arrived or may have.
async fn sent_since(
    tx: &mut TenantTx,
    draft: DraftId,
    id: SubmissionId,
) -> Result<Option<SubmissionState>, DbError> {
    let state = sqlx::query_scalar(
        "SELECT state FROM submissions
         WHERE tenant_id = $1 AND draft_id = $2 AND id <> $3 AND state IN ('queued', 'sending', 'sent', 'unknown')
         ORDER BY created_at DESC LIMIT 1",
    )
    .bind(tx.tenant())
    .bind(draft)
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    Ok(state)
}

/// Makes `id` the submission that the draft is judged by: with a newer one that failed it would count as unsent.
async fn point_draft_at(tx: &mut TenantTx, draft: DraftId, id: SubmissionId) -> Result<(), DbError> {
    let account: Option<AccountId> = sqlx::query_scalar(
        "UPDATE drafts SET submission_id = $3, version = version + 1, updated_at = clock_timestamp()
         WHERE tenant_id = $1 AND id = $2 AND submission_id IS DISTINCT FROM $3 RETURNING account_id",
    )
    .bind(tx.tenant())
    .bind(draft)
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    if let Some(account) = account {
        event::tell(tx, account, DraftUpdated { id: draft });
    }
    Ok(())
}

async fn state_of(tx: &mut TenantTx, id: SubmissionId) -> Result<Option<SubmissionState>, DbError> {
    let state = sqlx::query_scalar("SELECT state FROM submissions WHERE tenant_id = $1 AND id = $2")
        .bind(tx.tenant())
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    Ok(state)
}
