//! Submissions: messages on their way out, frozen when the user said send (RFC 8621 §7).
//!
//! ```text
//! queued → sending → sent | failed | unknown      queued → cancelled      unknown → sent | failed | queued (by a person)
//! ```
//! Here: the types, the freezing ([`create`]) and reading. [`attempt`] has what a worker does (claim, renew, phases,
//! end), [`settle`] the pure decision what an attempt's end means, [`credentials`] what a refused login means for the
//! account, [`person`] what a user may do, [`aftermath`] the Sent copy and the search for a message whose fate is unknown, [`turn`] whose turn it is where a
//! server takes few at once. Not here: SMTP ([`wire::smtp`]) and drafts.
//!
//! Every write of a worker names its attempt and owner, so one that lost its lease writes nothing. To add a state or a
//! phase: the check in the migration, the drawing above, and the arm in `settle.rs` that leads to it.

pub mod aftermath;
pub mod answered;
pub mod attempt;
pub mod credentials;
pub mod person;
pub mod settle;
pub mod turn;

use std::time::Duration;

use chrono::{DateTime, Utc};
use mail::envelope::Envelope;
use serde::Deserialize;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder, Row as _};

pub use self::aftermath::{
    NextProbe, ProbeWork, SentCopy, SentCopyWork, copy_untried, mailboxes, probe_work, record_found,
    record_not_found, sent_copy_work, settle_sent_copy,
};
pub use self::answered::mark_answered;
pub use self::attempt::{
    Attempt, Claim, Finished, Handover, LEASE, Mark, claim, finish, mark, release_expired, renew,
};
pub use self::credentials::retry_unreached;
pub use self::person::{CancelError, Cancelled, ResendError, cancel, resend};
pub use self::settle::Ending;
pub use self::turn::{Due, call_next, due, waiting};

use crate::domain::event::{self, Event};
pub use crate::domain::states::{CopyState, Phase, RecipientState, SubmissionState};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, DraftId, SubmissionId, UserId};
use crate::queue::job::{self, Job};

/// A message to be frozen.
#[derive(Debug)]
pub struct NewSubmission {
    /// The draft it was.
    pub draft_id: DraftId,
    /// The account it leaves through.
    pub account_id: AccountId,
    /// Sender and recipients.
    pub envelope: Envelope,
    /// The bytes of every attempt and of the Sent copy.
    pub mime: Vec<u8>,
    /// Message-ID without angle brackets, as in `mime`.
    pub message_id_header: String,
    /// How long it waits before the first attempt.
    pub wait: Duration,
    /// The very instant that was asked for, where one was: `wait` alone would drift by the clocks' difference.
    pub send_at: Option<DateTime<Utc>>,
    /// Who sent it.
    pub created_by: UserId,
}

/// One recipient and what became of it.
#[derive(Debug, Clone, Deserialize)]
pub struct Recipient {
    /// Address.
    pub address: String,
    /// What became of it.
    pub state: RecipientState,
    /// Last SMTP code.
    pub code: Option<i32>,
    /// The server's words.
    pub text: Option<String>,
}

/// One attempt, for people.
#[derive(Debug, Clone, Deserialize)]
pub struct AttemptRow {
    /// 1 for the first.
    pub number: i32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How far it came.
    pub phase: Phase,
    /// SMTP code that ended it, where one did.
    pub code: Option<i32>,
    /// Why it ended.
    pub text: Option<String>,
}

/// A submission as its owner sees it.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Row id.
    pub id: SubmissionId,
    /// The draft it was, if that is still there.
    pub draft_id: Option<DraftId>,
    /// The account it leaves through.
    pub account_id: AccountId,
    /// State, see the module's head.
    pub state: SubmissionState,
    /// Message-ID without angle brackets.
    pub message_id_header: String,
    /// Not before this.
    pub send_after: DateTime<Utc>,
    /// Its copy in Sent.
    pub sent_copy: CopyState,
    /// The server's own name for the message.
    pub queue_id: Option<String>,
    /// Why it failed or is unknown.
    pub failure: Option<String>,
    /// When it was sent off.
    pub created_at: DateTime<Utc>,
    /// Last change.
    pub updated_at: DateTime<Utc>,
    /// In the order To, Cc, Bcc.
    pub recipients: Vec<Recipient>,
    /// Oldest first.
    pub attempts: Vec<AttemptRow>,
}

/// With recipients and attempts in the same statement, so that they are of the same moment as the state: a worker may
/// commit between two statements, and the answer would show one of before and the other of after.
const SELECT: &str = "SELECT s.id, s.draft_id, s.account_id, s.state, s.message_id_header, s.send_after, s.sent_copy, \
     s.queue_id, s.failure, s.created_at, s.updated_at, \
     (SELECT coalesce(jsonb_agg(jsonb_build_object('address', r.address, 'state', r.state, 'code', r.code, 'text', r.text) \
        ORDER BY r.position), '[]') \
      FROM submission_recipients r WHERE r.tenant_id = s.tenant_id AND r.submission_id = s.id) AS recipients, \
     (SELECT coalesce(jsonb_agg(jsonb_build_object('number', a.number, 'started_at', a.started_at, 'phase', a.phase, \
        'code', a.code, 'text', a.text) ORDER BY a.number), '[]') \
      FROM submission_attempts a WHERE a.tenant_id = s.tenant_id AND a.submission_id = s.id) AS attempts \
     FROM submissions s WHERE s.tenant_id = ";

impl Submission {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            draft_id: row.try_get("draft_id")?,
            account_id: row.try_get("account_id")?,
            state: row.try_get("state")?,
            message_id_header: row.try_get("message_id_header")?,
            send_after: row.try_get("send_after")?,
            sent_copy: row.try_get("sent_copy")?,
            queue_id: row.try_get("queue_id")?,
            failure: row.try_get("failure")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            recipients: row.try_get::<Json<_>, _>("recipients")?.0,
            attempts: row.try_get::<Json<_>, _>("attempts")?.0,
        })
    }
}

/// Freezes a message: submission, recipients, event and job in the caller's transaction.
pub async fn create(tx: &mut TenantTx, new: &NewSubmission) -> Result<SubmissionId, DbError> {
    let id = SubmissionId::new();
    let tenant = tx.tenant();
    let give_up = new.wait + mail::backoff::SEND_GIVE_UP_AFTER;
    sqlx::query(
        "INSERT INTO submissions (tenant_id, id, draft_id, account_id, state, message_id_header, envelope_from, mime, send_after, give_up_at, created_by)
         VALUES ($1, $2, $3, $4, 'queued', $5, $6, $7, COALESCE($11, now() + make_interval(secs => $8)), now() + make_interval(secs => $9), $10)",
    )
    .bind(tenant)
    .bind(id)
    .bind(new.draft_id)
    .bind(new.account_id)
    .bind(&new.message_id_header)
    .bind(&new.envelope.sender)
    .bind(&new.mime)
    .bind(new.wait.as_secs_f64())
    .bind(give_up.as_secs_f64())
    .bind(new.created_by)
    .bind(new.send_at)
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "INSERT INTO submission_recipients (tenant_id, submission_id, position, address)
         SELECT $1, $2, (n - 1)::int, a FROM unnest($3::text[]) WITH ORDINALITY AS r(a, n)",
    )
    .bind(tenant)
    .bind(id)
    .bind(&new.envelope.recipients)
    .execute(tx.conn())
    .await?;
    announce(tx, new.account_id, id, SubmissionState::Queued, false);
    job::enqueue(tx, &Job::SendSubmission { submission_id: id }, new.wait).await?;
    Ok(id)
}

/// Records a new state in the event log; `again`: it had another one before.
fn announce(tx: &mut TenantTx, account: AccountId, id: SubmissionId, state: SubmissionState, again: bool) {
    event::record(tx, account, Event::of_submission(id, state, again).as_slice());
}

/// One submission with its recipients and attempts. `None`: there is none of this id in the tenant.
pub async fn get(tx: &mut TenantTx, id: SubmissionId) -> Result<Option<Submission>, DbError> {
    let mut sql = QueryBuilder::<Postgres>::new(SELECT);
    sql.push_bind(tx.tenant()).push(" AND s.id = ").push_bind(id);
    let row = sql.build().fetch_optional(tx.conn()).await?;
    Ok(row.as_ref().map(Submission::read).transpose()?)
}

/// What a list of submissions is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// One account.
    pub account_id: Option<AccountId>,
    /// One state.
    pub state: Option<SubmissionState>,
}

/// Up to `limit` submissions, newest first, after the position of the last one seen.
pub async fn list(
    tx: &mut TenantTx,
    filter: &Filter,
    after: Option<(DateTime<Utc>, SubmissionId)>,
    limit: i64,
) -> Result<Vec<Submission>, DbError> {
    let mut sql = QueryBuilder::<Postgres>::new(SELECT);
    sql.push_bind(tx.tenant());
    // Only what is asked for stands in the statement: a plan for `$2 IS NULL OR …` reads the list from its top.
    if let Some(account) = filter.account_id {
        sql.push(" AND s.account_id = ").push_bind(account);
    }
    if let Some(state) = filter.state {
        sql.push(" AND s.state = ").push_bind(state);
    }
    if let Some((at, id)) = after {
        sql.push(" AND (s.created_at, s.id) < (").push_bind(at).push(", ").push_bind(id).push(")");
    }
    sql.push(" ORDER BY s.created_at DESC, s.id DESC LIMIT ").push_bind(limit);
    let rows = sql.build().fetch_all(tx.conn()).await?;
    Ok(rows.iter().map(Submission::read).collect::<Result<_, _>>()?)
}
