//! Hands one submission to its SMTP server: claim, conversation, end. The decisions are `core::domain::submission`'s.
//!
//! Every step is committed before it is taken, so this process may die anywhere: before the dot another worker tries
//! again, from the dot on the submission is `unknown` until it is found.

use std::time::Duration;

use mail::envelope::Envelope;
use mail::smtp_reply::SmtpReply;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use wire::smtp::{Point, Progress, SendError, SmtpError, Stopped};

use super::{JobError, enqueue_lost, past};
use crate::connect::ConnectError;
use crate::connect::smtp::{self, Failure, Line, Seat};
use crate::domain::submission::{
    self, Attempt, Claim, Due, Ending, Finished, Handover, LEASE, Mark, Phase, RecipientState,
};
use crate::platform::db::{Db, DbError, SystemTx};
use crate::platform::id::{AccountId, SubmissionId, TenantId};
use crate::queue::job::{Declaration, Job, Sweep, priority};
use crate::sync::driver::SyncContext;
use crate::sync::run as rounds;

/// The rows of `submissions` count the attempts and decide when to give up.
pub const DECLARATION: Declaration = Declaration {
    kind: "send_submission",
    attempts: 1000,
    priority: priority::SEND,
    sweep: Sweep::Every(Duration::from_secs(5), |db, _| Box::pin(sweep(db))),
};

/// Its dedupe key.
#[must_use]
pub fn key(submission_id: SubmissionId) -> String {
    submission_id.to_string()
}

/// While SMTP is switched off, mail waits; this is how often the switch is looked at.
const SWITCHED_OFF: Duration = Duration::from_secs(60);
/// A verdict that cannot be written is tried again this often, a second apart: together under the rest of the lease.
const WRITE_TRIES: u32 = 20;

/// Sends the submission if it is due. A second run finds nothing to do.
///
/// # Errors
/// `retry_after` when it is to be tried again later; the database's errors.
pub async fn run(env: &SyncContext, tenant: TenantId, submission_id: SubmissionId) -> Result<(), JobError> {
    if !env.config.smtp_enabled {
        return Err(JobError::retry_after(SWITCHED_OFF, anyhow::anyhow!("sending is switched off")));
    }
    let Some((handover, seat)) = claim(env, tenant, submission_id).await? else {
        return mark_answered(env, tenant, submission_id).await;
    };
    tracing::info!(submission = %submission_id, number = handover.attempt.number, "submission {submission_id}: attempt begins");
    let Attempted { ending, line, own_server } = attempt(env, tenant, &handover, seat).await;
    let finished = write_down(env, tenant, &handover, &ending, own_server).await;
    match line {
        Some((line, true)) => line.quit().await,
        Some((line, false)) => line.hang_up().await,
        None => {}
    }
    call_next(env, tenant, handover.attempt.account_id).await;
    let Some(finished) = finished? else {
        tracing::warn!(submission = %submission_id, "submission {submission_id}: the lease was lost, its end was not recorded");
        return Ok(());
    };
    tracing::info!(submission = %submission_id, state = %finished.state, code = ending.code, "submission {submission_id}: {}", finished.state);
    match finished.retry_after {
        Some(wait) => {
            Err(JobError::retry_after(wait, anyhow::anyhow!("deferred with code {:?}", ending.code)))
        }
        None => Ok(()),
    }
}

/// Marks what was answered, if the submission is sent: the job that is asked for when it is, finds nothing else to do.
async fn mark_answered(env: &SyncContext, tenant: TenantId, id: SubmissionId) -> Result<(), JobError> {
    let mut tx = env.db.tenant(tenant).await?;
    submission::mark_answered(&mut tx, id).await?;
    Ok(tx.commit().await?)
}

/// Takes a seat at the account's server, and the submission with it. The seat comes first: the claim counts an attempt.
async fn claim(
    env: &SyncContext,
    tenant: TenantId,
    id: SubmissionId,
) -> Result<Option<(Handover, Seat)>, JobError> {
    let mut tx = env.db.tenant(tenant).await?;
    // Left by a worker that died: released here too, so that nothing waits for the scheduler's turn.
    submission::release_expired(&mut tx, id).await?;
    let due = submission::due(&mut tx, id).await?;
    tx.commit().await?;
    let not_yet = || anyhow::anyhow!("not due, or another worker has it");
    let account = match due {
        Due::Now(account) => account,
        Due::Later(wait) => return Err(JobError::retry_after(wait, not_yet())),
        Due::Nothing => return Ok(None),
    };
    let mut tx = env.db.tenant(tenant).await?;
    let Some(seat) = smtp::seat(&mut tx, env, account).await? else {
        let waiting = submission::waiting(&mut tx, account).await?;
        tx.release();
        let error = ConnectError::<SmtpError>::InUse;
        return Err(JobError::postpone(comes_back_in(waiting, env.clock.unit()), error));
    };
    let claimed = submission::claim(&mut tx, id, env.worker_id).await?;
    tx.commit().await?;
    let wait = match claimed {
        Claim::Ours(handover) => return Ok(Some((*handover, seat))),
        Claim::Later(wait) => Some(wait),
        Claim::Nothing => None,
    };
    seat.release().await;
    wait.map_or(Ok(None), |wait| Err(JobError::retry_after(wait, not_yet())))
}

/// Time until a submission comes back that found all seats taken. Whoever gets up calls the next one ([`call_next`]), so this
/// is for what nobody calls; the more there are, the longer, so that they do not keep the queue busy.
fn comes_back_in(waiting: i64, unit: f64) -> Duration {
    let seconds = (waiting as f64 / 20.0).clamp(2.0, 40.0);
    Duration::from_secs_f64(seconds * (0.75 + unit.clamp(0.0, 1.0) / 2.0))
}

/// A seat is free: the submission that waits longest for one is due now.
async fn call_next(env: &SyncContext, tenant: TenantId, account: AccountId) {
    let called = async {
        let mut tx = env.db.tenant(tenant).await?;
        submission::call_next(&mut tx, account).await?;
        tx.commit().await
    };
    if let Err(error) = called.await {
        tracing::debug!(%account, %error, "the next submission was not called; it comes back by itself");
    }
}

/// What came of a conversation.
struct Attempted {
    ending: Ending,
    /// Still to be ended, and whether with a goodbye.
    line: Option<(Line, bool)>,
    /// The operator named it in `OUTBOUND_ALLOW`.
    own_server: bool,
}

impl Attempted {
    fn without_line(ending: Ending, own_server: bool) -> Self {
        Self { ending, line: None, own_server }
    }
}

/// The conversation, with the lease kept alive beside it.
async fn attempt(env: &SyncContext, tenant: TenantId, handover: &Handover, seat: Seat) -> Attempted {
    let count = handover.recipients.len();
    let lost = CancellationToken::new();
    let _renewal =
        AbortOnDropHandle::new(tokio::spawn(keep_lease(env.clone(), tenant, handover.attempt, lost.clone())));
    let mut recorder = Recorder { env, tenant, handover, lost: &lost, offered: None, held: false };
    let connected = tokio::select! {
        connected = seat.connect() => connected,
        () = lost.cancelled() => return Attempted::without_line(Ending::interrupted(count), false),
    };
    let mut line = match connected {
        Ok(line) => line,
        Err(Failure { error, own_server }) => {
            if let ConnectError::Grant(_) = &error {
                tell(env, tenant, handover.attempt.account_id).await;
            }
            return Attempted::without_line(no_line(&error, count), own_server);
        }
    };
    let own_server = line.own_server;
    let envelope = Envelope {
        sender: handover.sender.clone(),
        recipients: handover.recipients.iter().map(|(_, address)| address.clone()).collect(),
    };
    let result = line.send(&envelope, &handover.mime, &mut recorder).await;
    if recorder.held {
        return Attempted { ending: Ending::held(count), line: Some((line, false)), own_server };
    }
    let usable = matches!(&result, Ok(_) | Err(SendError::Before(SmtpError::Refused(_))));
    let ending = Ending::of(&result, recorder.offered.as_deref(), count);
    Attempted { ending, line: Some((line, usable)), own_server }
}

/// There is no token to send with: a round says so at the account.
async fn tell(env: &SyncContext, tenant: TenantId, account: AccountId) {
    let asked = async {
        let mut tx = env.db.tenant(tenant).await?;
        rounds::request(&mut tx, account).await?;
        tx.commit().await
    };
    if let Err(error) = asked.await {
        tracing::debug!(%account, %error, "no round was asked for; the next one says it");
    }
}

/// What is wrong on our side is no fault of the message: it waits.
fn no_line(error: &ConnectError<SmtpError>, recipients: usize) -> Ending {
    match error {
        ConnectError::Server(error) => Ending::before(error, recipients),
        ConnectError::Db(_) => Ending::unready("our database did not answer", recipients),
        other => Ending::unready(&other.to_string(), recipients),
    }
}

/// Renews the lease until dropped; fires `lost` when another worker has it or the end is too near.
async fn keep_lease(env: SyncContext, tenant: TenantId, attempt: Attempt, lost: CancellationToken) {
    loop {
        tokio::time::sleep(LEASE / 3).await;
        let renewed = async {
            let mut tx = env.db.tenant(tenant).await?;
            let held = submission::renew(&mut tx, &attempt).await?;
            tx.commit().await?;
            Ok::<bool, DbError>(held)
        };
        match renewed.await {
            Ok(true) => {}
            Ok(false) => return lost.cancel(),
            // The next try may succeed; if none does, the row itself refuses the dot ten seconds before the end.
            Err(error) => {
                tracing::warn!(submission = %attempt.id, %error, "submission {}: the lease was not renewed", attempt.id)
            }
        }
    }
}

struct Recorder<'a> {
    env: &'a SyncContext,
    tenant: TenantId,
    handover: &'a Handover,
    lost: &'a CancellationToken,
    offered: Option<Vec<SmtpReply>>,
    /// The tenant was suspended in the middle.
    held: bool,
}

impl Recorder<'_> {
    async fn mark(&self, phase: Phase, replies: &[SmtpReply]) -> Result<Mark, DbError> {
        let positions = self.handover.recipients.iter().map(|(position, _)| *position);
        let recipients: Vec<(i32, SmtpReply)> = positions.zip(replies.iter().cloned()).collect();
        let mut tx = self.env.db.tenant(self.tenant).await?;
        let mark = submission::mark(&mut tx, &self.handover.attempt, phase, &recipients).await?;
        tx.commit().await?;
        Ok(mark)
    }
}

impl Progress for Recorder<'_> {
    async fn reached(&mut self, point: Point<'_>) -> Result<(), Stopped> {
        if self.lost.is_cancelled() {
            return Err(Stopped);
        }
        let marked = match point {
            Point::Envelope => self.mark(Phase::Envelope, &[]).await,
            Point::Data(replies) => {
                self.offered = Some(replies.to_vec());
                self.mark(Phase::Data, replies).await
            }
            Point::Dot => self.mark(Phase::Dot, &[]).await,
        };
        match marked {
            Ok(Mark::Entered) => Ok(()),
            Ok(Mark::Lost) => Err(Stopped),
            Ok(Mark::Held) => {
                self.held = true;
                Err(Stopped)
            }
            Err(error) => {
                let id = self.handover.attempt.id;
                tracing::warn!(submission = %id, %error, "submission {id}: the phase could not be recorded, the hand-over stops");
                Err(Stopped)
            }
        }
    }
}

/// Records the end, again and again while the lease lasts: a verdict that is lost turns a sent message into `unknown`.
async fn write_down(
    env: &SyncContext,
    tenant: TenantId,
    handover: &Handover,
    ending: &Ending,
    own_server: bool,
) -> Result<Option<Finished>, DbError> {
    let mut tries = 0;
    loop {
        let written = async {
            let mut tx = env.db.tenant(tenant).await?;
            let finished =
                submission::finish(&mut tx, handover, ending, own_server, env.clock.unit()).await?;
            if finished.is_none() && ending.verdicts.iter().any(|v| v.state == RecipientState::Accepted) {
                // The lease ran out while the server answered: if nobody else went on, its word still counts.
                submission::record_found(&mut tx, handover.attempt.id).await?;
            }
            tx.commit().await?;
            Ok(finished)
        };
        tries += 1;
        match written.await {
            Err(error) if tries < WRITE_TRIES => {
                tracing::warn!(submission = %handover.attempt.id, %error, "the end of an attempt could not be recorded yet");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            other => return other,
        }
    }
}

/// Releases what a worker had in hand that died, and gives a job to what lost its own.
///
/// # Errors
/// When the database refuses.
pub async fn sweep(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let abandoned = abandoned(&mut tx).await?;
    let lost = lost(&mut tx).await?;
    drop(tx);
    for (tenant, id) in abandoned {
        let released = async {
            let mut tx = db.tenant(tenant).await?;
            submission::release_expired(&mut tx, id).await?;
            tx.commit().await
        };
        past(db, id, released.await).await?;
    }
    enqueue_lost(db, lost, |submission_id| Job::SendSubmission { submission_id }).await
}

/// Submissions in hand-over whose worker stopped renewing.
pub async fn abandoned(tx: &mut SystemTx) -> Result<Vec<(TenantId, SubmissionId)>, DbError> {
    Ok(sqlx::query_as(
        "SELECT tenant_id, id FROM submissions WHERE state = 'sending' AND lease_until < now() LIMIT 500",
    )
    .fetch_all(tx.conn())
    .await?)
}

/// Submissions that should have left a while ago and have no live job.
pub async fn lost(tx: &mut SystemTx) -> Result<Vec<(TenantId, SubmissionId)>, DbError> {
    Ok(sqlx::query_as(
        "SELECT s.tenant_id, s.id FROM submissions s
         WHERE s.state = 'queued' AND s.send_after < now() - interval '30 seconds'
           AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = s.tenant_id AND j.kind = 'send_submission'
                           AND j.dedupe_key = s.id::text AND j.state IN ('ready','running'))
         LIMIT 500",
    )
    .fetch_all(tx.conn())
    .await?)
}
