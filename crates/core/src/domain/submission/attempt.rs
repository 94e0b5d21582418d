//! What a worker does with a submission: claims it, keeps its lease, records how far it came and how it ended.
//!
//! The attempt is counted by the claim, before any risk. Each phase is committed before it is entered, so what is left of
//! a dead worker says whether the server can have the message: `dot` is written to the row before the dot to the wire.

use std::time::Duration;

use mail::smtp_reply::{ReplyClass, SmtpReply};
use metrics::{counter, histogram};
use sqlx::Row as _;
use uuid::Uuid;

use super::announce;
use super::answered;
use super::credentials;
use super::settle::{Ending, Login, Tally, Verdict, next_state};
use crate::domain::states::{CopyState, Phase, RecipientState, SubmissionState};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, SubmissionId};
use crate::platform::metrics::table;
use crate::queue::job::{self, Job};
use crate::queue::suspension;
use wire::provider::{self, SentCopy};

pub use crate::platform::ahead::SUBMISSION_LEASE as LEASE;
/// With less than this left of the lease the dot is not written any more: the answer could come after its end.
pub const DOT_MARGIN: Duration = Duration::from_secs(10);
/// More attempts than this that end in a worker's death, or two deaths at the same place, and nobody tries again.
const MAX_ATTEMPTS_WITH_DEATHS: i32 = 8;
const MAX_DEATHS_IN_A_PHASE: i64 = 2;
const DIED: &str = "the worker stopped in the middle";

/// The right to hand a submission over, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The submission.
    pub id: SubmissionId,
    /// Its account.
    pub account_id: AccountId,
    /// Number of the attempt; fences every write.
    pub number: i32,
    /// The worker.
    pub worker: Uuid,
}

/// What is to be handed over.
#[derive(Debug)]
pub struct Handover {
    /// The right to do it.
    pub attempt: Attempt,
    /// MAIL FROM.
    pub sender: String,
    /// Recipients still open: position and address.
    pub recipients: Vec<(i32, String)>,
    /// The frozen bytes.
    pub mime: Vec<u8>,
}

/// The answer to a claim.
#[derive(Debug)]
pub enum Claim {
    /// It is ours.
    Ours(Box<Handover>),
    /// Not due, or another worker has it: look again after this.
    Later(Duration),
    /// Nothing is to be done (any more).
    Nothing,
}

/// Whether a phase of the hand-over may be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It is recorded as entered.
    Entered,
    /// The lease was lost, or too little of it is left.
    Lost,
    /// The tenant was suspended meanwhile.
    Held,
}

/// Takes a due submission: one UPDATE, so that only one worker gets it. Commit before anything is sent. Those of a suspended
/// tenant are due later.
pub async fn claim(tx: &mut TenantTx, id: SubmissionId, worker: Uuid) -> Result<Claim, DbError> {
    let tenant = tx.tenant();
    if suspension::is_suspended(tx).await? {
        return Ok(Claim::Later(suspension::HELD_FOR));
    }
    let taken = sqlx::query(
        "UPDATE submissions SET state = 'sending', phase = 'connect', attempt = attempt + 1, lease_owner = $3,
                lease_until = now() + make_interval(secs => $4), failure = NULL, updated_at = now()
         WHERE tenant_id = $1 AND id = $2 AND state = 'queued' AND send_after <= now()
         RETURNING account_id, attempt, envelope_from, mime",
    )
    .bind(tenant)
    .bind(id)
    .bind(worker)
    .bind(LEASE.as_secs_f64())
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = taken else { return why_not(tx, id).await };
    let attempt =
        Attempt { id, account_id: row.try_get("account_id")?, number: row.try_get("attempt")?, worker };
    sqlx::query(
        "INSERT INTO submission_attempts (tenant_id, submission_id, number, worker) VALUES ($1, $2, $3, $4)",
    )
    .bind(tenant)
    .bind(id)
    .bind(attempt.number)
    .bind(worker)
    .execute(tx.conn())
    .await?;
    let recipients: Vec<(i32, String)> = sqlx::query_as(
        "SELECT position, address FROM submission_recipients
         WHERE tenant_id = $1 AND submission_id = $2 AND state IN ('pending', 'deferred') ORDER BY position",
    )
    .bind(tenant)
    .bind(id)
    .fetch_all(tx.conn())
    .await?;
    let handover =
        Handover { attempt, sender: row.try_get("envelope_from")?, recipients, mime: row.try_get("mime")? };
    Ok(Claim::Ours(Box::new(handover)))
}

pub(super) async fn why_not(tx: &mut TenantTx, id: SubmissionId) -> Result<Claim, DbError> {
    let row = sqlx::query(
        "SELECT state, extract(epoch FROM CASE WHEN state = 'queued' THEN send_after ELSE lease_until END - now())::float8 AS wait
         FROM submissions WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(Claim::Nothing) };
    let wait: Option<f64> = row.try_get("wait")?;
    if !matches!(row.try_get("state")?, SubmissionState::Queued | SubmissionState::Sending) {
        return Ok(Claim::Nothing);
    }
    // A moment more than the rest: the next look shall find it due.
    let wait = Duration::try_from_secs_f64(wait.unwrap_or(0.0).max(0.0) + 0.05).unwrap_or(LEASE);
    Ok(Claim::Later(wait))
}

/// Extends the lease. `false`: it was lost; nothing more may be sent.
pub async fn renew(tx: &mut TenantTx, attempt: &Attempt) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE submissions SET lease_until = now() + make_interval(secs => $5)
         WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND lease_owner = $4 AND state = 'sending' AND lease_until > now()",
    )
    .bind(tx.tenant())
    .bind(attempt.id)
    .bind(attempt.number)
    .bind(attempt.worker)
    .bind(LEASE.as_secs_f64())
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Records that `phase` is entered now, and what RCPT said. Commit before entering, and enter
/// only what is [`Mark::Entered`].
pub async fn mark(
    tx: &mut TenantTx,
    attempt: &Attempt,
    phase: Phase,
    recipients: &[(i32, SmtpReply)],
) -> Result<Mark, DbError> {
    let tenant = tx.tenant();
    if suspension::is_suspended(tx).await? {
        return Ok(Mark::Held);
    }
    let done = sqlx::query(
        "UPDATE submissions SET phase = $5
         WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND lease_owner = $4 AND state = 'sending'
           AND lease_until > now() + make_interval(secs => $6)",
    )
    .bind(tenant)
    .bind(attempt.id)
    .bind(attempt.number)
    .bind(attempt.worker)
    .bind(phase)
    .bind(DOT_MARGIN.as_secs_f64())
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 0 {
        return Ok(Mark::Lost);
    }
    sqlx::query("UPDATE submission_attempts SET phase = $4 WHERE tenant_id = $1 AND submission_id = $2 AND number = $3")
        .bind(tenant)
        .bind(attempt.id)
        .bind(attempt.number)
        .bind(phase)
        .execute(tx.conn())
        .await?;
    // Refusals are final words even if the rest ends in doubt; acceptance waits for the dot's answer.
    let told: Vec<(i32, Verdict)> = recipients
        .iter()
        .filter(|(_, r)| r.class() != ReplyClass::Success)
        .map(|(position, reply)| {
            let state = if reply.class() == ReplyClass::Permanent {
                RecipientState::Refused
            } else {
                RecipientState::Deferred
            };
            let text = Some(wire::smtp::reply_text(reply));
            (*position, Verdict { state, code: Some(i32::from(reply.code)), text })
        })
        .collect();
    write_verdicts(tx, attempt.id, &told).await?;
    Ok(Mark::Entered)
}

async fn write_verdicts(tx: &mut TenantTx, id: SubmissionId, told: &[(i32, Verdict)]) -> Result<(), DbError> {
    if told.is_empty() {
        return Ok(());
    }
    let positions: Vec<i32> = told.iter().map(|t| t.0).collect();
    let states: Vec<RecipientState> = told.iter().map(|t| t.1.state).collect();
    let codes: Vec<Option<i32>> = told.iter().map(|t| t.1.code).collect();
    let texts: Vec<Option<&str>> = told.iter().map(|t| t.1.text.as_deref()).collect();
    sqlx::query(
        "UPDATE submission_recipients r SET state = v.state, code = v.code, text = v.text
         FROM unnest($3::int[], $4::text[], $5::int[], $6::text[]) AS v(position, state, code, text)
         WHERE r.tenant_id = $1 AND r.submission_id = $2 AND r.position = v.position AND r.state IN ('pending', 'deferred')",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(positions)
    .bind(states)
    .bind(codes)
    .bind(texts)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// How a submission stands after [`finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// The new state.
    pub state: SubmissionState,
    /// When to try again, if it is queued.
    pub retry_after: Option<Duration>,
}

/// Records how the attempt ended: recipients, state, event, and the jobs that follow. `own_server`: the server is the operator's.
/// `unit` is a random number in `[0, 1)` for the jitter. `None`: the lease was lost, nothing was written.
pub async fn finish(
    tx: &mut TenantTx,
    handover: &Handover,
    ending: &Ending,
    own_server: bool,
    unit: f64,
) -> Result<Option<Finished>, DbError> {
    let attempt = &handover.attempt;
    let tenant = tx.tenant();
    let held = sqlx::query(
        "SELECT now() >= give_up_at AS over, extract(epoch FROM give_up_at - now())::float8 AS left,
                extract(epoch FROM now() - send_after)::float8 AS waited
         FROM submissions WHERE tenant_id = $1 AND id = $2 AND attempt = $3 AND lease_owner = $4 AND state = 'sending' FOR UPDATE",
    )
    .bind(tenant)
    .bind(attempt.id)
    .bind(attempt.number)
    .bind(attempt.worker)
    .fetch_optional(tx.conn())
    .await?;
    let Some(held) = held else { return Ok(None) };
    let told: Vec<(i32, Verdict)> =
        handover.recipients.iter().map(|(p, _)| *p).zip(ending.verdicts.iter().cloned()).collect();
    write_verdicts(tx, attempt.id, &told).await?;
    let wait = match &ending.login {
        Login::Refused { reply, meant } => credentials::refused(tx, attempt, (reply, *meant), unit).await?,
        _ if ending.held => suspension::HELD_FOR,
        other => {
            if *other == Login::Accepted {
                credentials::accepted(tx, attempt.account_id).await?;
            }
            let number = u32::try_from(attempt.number).unwrap_or(1);
            if own_server && ending.server_is_ill() {
                mail::backoff::send_at_home(number, unit)
            } else {
                mail::backoff::send(number, unit)
            }
        }
    };
    let left: f64 = held.try_get("left")?;
    let time_left = !held.try_get::<bool, _>("over")? && wait.as_secs_f64() < left;
    let state = next_state(tally(tx, attempt.id).await?, ending.in_doubt, time_left);
    let retry_after = (state == SubmissionState::Queued).then_some(wait);
    sqlx::query(
        "UPDATE submissions SET state = $3, phase = CASE WHEN $3 = 'unknown' THEN phase ELSE 'done' END,
                send_after = CASE WHEN $3 = 'queued' THEN now() + make_interval(secs => $4) ELSE send_after END,
                queue_id = coalesce($5, queue_id), failure = CASE WHEN $3 = 'sent' THEN NULL ELSE $6 END,
                probes = 0, lease_owner = NULL, lease_until = NULL, updated_at = now()
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(attempt.id)
    .bind(state)
    .bind(wait.as_secs_f64())
    .bind(ending.queue_id.as_deref())
    .bind(ending.trouble())
    .execute(tx.conn())
    .await?;
    end_attempt(tx, attempt.id, attempt.number, ending.code, ending.text.as_deref(), !ending.in_doubt)
        .await?;
    measure(ending, state, held.try_get("waited")?);
    follow_up(tx, attempt.account_id, attempt.id, state, mail::backoff::unknown_search(0)).await?;
    Ok(Some(Finished { state, retry_after }))
}

/// An attempt is over. A commit that fails has it counted once more.
fn measure(ending: &Ending, state: SubmissionState, waited: f64) {
    let class = match ending.code {
        None => "none",
        Some(200..300) => "2xx",
        Some(300..400) => "3xx",
        Some(400..500) => "4xx",
        Some(_) => "5xx",
    };
    counter!(table::ATTEMPTS.name, "state" => state.as_str(), "class" => class).increment(1);
    if state == SubmissionState::Sent {
        histogram!(table::SENT_DELAY.name).record(waited.max(0.0));
    }
}

/// Event and jobs that a new state brings with it. `probe_after` is when to look for a message that went unknown.
pub(super) async fn follow_up(
    tx: &mut TenantTx,
    account: AccountId,
    id: SubmissionId,
    state: SubmissionState,
    probe_after: Option<Duration>,
) -> Result<(), DbError> {
    announce(tx, account, id, state, true);
    if state == SubmissionState::Unknown {
        let wait = probe_after.unwrap_or_default();
        job::enqueue(tx, &Job::ProbeSubmission { submission_id: id }, wait).await?;
    }
    if state == SubmissionState::Sent && answered::answers(tx, id).await? {
        // The job finds it sent and marks what it answers: apart, since that waits for the account's edits.
        job::enqueue(tx, &Job::SendSubmission { submission_id: id }, Duration::ZERO).await?;
    }
    start_sent_copy(tx, id).await
}

/// From the first accepted recipient on there shall be a copy in Sent, whatever becomes of the others.
async fn start_sent_copy(tx: &mut TenantTx, id: SubmissionId) -> Result<(), DbError> {
    let tenant = tx.tenant();
    let row: Option<(String, bool)> = sqlx::query_as(
        "SELECT a.smtp_host, coalesce((SELECT l.labels FROM account_leases l WHERE l.tenant_id = a.tenant_id AND l.account_id = a.id), false)
         FROM submissions s JOIN accounts a ON a.tenant_id = s.tenant_id AND a.id = s.account_id
         WHERE s.tenant_id = $1 AND s.id = $2 AND s.sent_copy = 'none' AND EXISTS (
           SELECT 1 FROM submission_recipients r WHERE r.tenant_id = s.tenant_id AND r.submission_id = s.id
             AND r.state IN ('accepted', 'delivered', 'bounced'))",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    let Some((host, labels)) = row else { return Ok(()) };
    let (state, wait) = match provider::sent_copy(&host, labels) {
        SentCopy::Theirs => (CopyState::Skipped, Duration::ZERO),
        SentCopy::TheirsMostly(wait) => (CopyState::Pending, wait),
        SentCopy::Ours => (CopyState::Pending, Duration::ZERO),
    };
    sqlx::query("UPDATE submissions SET sent_copy = $3 WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id)
        .bind(state)
        .execute(tx.conn())
        .await?;
    if state == CopyState::Pending {
        job::enqueue(tx, &Job::FileSentCopy { submission_id: id }, wait).await?;
    }
    Ok(())
}

pub(super) async fn tally(tx: &mut TenantTx, id: SubmissionId) -> Result<Tally, DbError> {
    let (accepted, open): (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE state IN ('accepted', 'delivered', 'bounced')),
                count(*) FILTER (WHERE state IN ('pending', 'deferred'))
         FROM submission_recipients WHERE tenant_id = $1 AND submission_id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_one(tx.conn())
    .await?;
    Ok(Tally { accepted, open })
}

/// Closes the row of an attempt; `over` says that the phase is `done`, else it stays where the attempt broke.
async fn end_attempt(
    tx: &mut TenantTx,
    id: SubmissionId,
    number: i32,
    code: Option<i32>,
    text: Option<&str>,
    over: bool,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE submission_attempts SET code = $4, text = $5, finished_at = now(),
                phase = CASE WHEN $6 AND phase = 'dot' THEN 'done' ELSE phase END
         WHERE tenant_id = $1 AND submission_id = $2 AND number = $3",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(number)
    .bind(code)
    .bind(text)
    .bind(over)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes a submission back whose worker stopped renewing. Before the dot it is queued again (or given up when workers
/// keep dying on it), from the dot on it is `unknown`. `None`: it is not in such a state. For the scheduler and for a
/// worker that finds it so.
pub async fn release_expired(
    tx: &mut TenantTx,
    id: SubmissionId,
) -> Result<Option<SubmissionState>, DbError> {
    let tenant = tx.tenant();
    let row = sqlx::query(
        "SELECT account_id, attempt, phase, now() >= give_up_at AS over FROM submissions
         WHERE tenant_id = $1 AND id = $2 AND state = 'sending' AND lease_until <= now() FOR UPDATE",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (account, number, phase): (AccountId, i32, Phase) =
        (row.try_get("account_id")?, row.try_get("attempt")?, row.try_get("phase")?);
    end_attempt(tx, id, number, None, Some(DIED), false).await?;
    let deaths: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM submission_attempts WHERE tenant_id = $1 AND submission_id = $2 AND phase = $3 AND text = $4",
    )
    .bind(tenant)
    .bind(id)
    .bind(phase)
    .bind(DIED)
    .fetch_one(tx.conn())
    .await?;
    let poison = deaths >= MAX_DEATHS_IN_A_PHASE || number > MAX_ATTEMPTS_WITH_DEATHS;
    let tally = tally(tx, id).await?;
    let (state, failure) = match phase {
        Phase::Dot | Phase::Done => (SubmissionState::Unknown, DIED),
        _ if poison => {
            (next_state(tally, false, false), "poison: workers stopped on this message again and again")
        }
        _ => (next_state(tally, false, !row.try_get::<bool, _>("over")?), DIED),
    };
    sqlx::query(
        "UPDATE submissions SET state = $3, failure = $4, deaths = deaths + 1, probes = 0, send_after = least(send_after, now()),
                lease_owner = NULL, lease_until = NULL, updated_at = now()
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id)
    .bind(state)
    .bind(failure)
    .execute(tx.conn())
    .await?;
    // The lease has run for a minute since the line broke: the first search is due at once.
    follow_up(tx, account, id, state, Some(Duration::ZERO)).await?;
    if state == SubmissionState::Queued {
        job::enqueue(tx, &Job::SendSubmission { submission_id: id }, Duration::ZERO).await?;
    }
    Ok(Some(state))
}
