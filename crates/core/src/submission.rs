//! Submissions: messages on their way out, frozen when the user said send (RFC 8621 §7).
//!
//! ```text
//! queued → sending → sent | failed | unknown      queued → cancelled      unknown → sent | failed | queued (by a person)
//! ```
//! Here: the types, the freezing ([`create`]) and reading. [`attempt`] has what a worker does (claim, renew, phases,
//! end), [`settle`] the pure decision what an attempt's end means, [`person`] what a user may do, [`aftermath`] the Sent
//! copy and the search for a message whose fate is unknown. Not here: SMTP ([`crate::smtp`]) and drafts.
//!
//! Every write of a worker names its attempt and owner, so one that lost its lease writes nothing. To add a state or a
//! phase: the check in the migration, the drawing above, and the arm in `settle.rs` that leads to it.

pub mod aftermath;
pub mod attempt;
pub mod person;
pub mod settle;

use std::time::Duration;

use chrono::{DateTime, Utc};
use mail::envelope::Envelope;
use serde_json::json;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

pub use self::aftermath::{
    NextProbe, ProbeWork, SentCopy, SentCopyWork, mailboxes, probe_work, record_found, record_not_found,
    sent_copy_work, settle_sent_copy,
};
pub use self::attempt::{
    Attempt, Claim, Finished, Handover, LEASE, claim, finish, mark, release_expired, renew,
};
pub use self::person::{CancelError, Cancelled, ResendError, cancel, resend};
pub use self::settle::Ending;

use crate::db::{DbError, TenantTx};
use crate::event::{self, NewEvent};
use crate::id::{AccountId, DraftId, SubmissionId, UserId};
use crate::job::{self, Job, priority};

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
#[derive(Debug, Clone)]
pub struct Recipient {
    /// Address.
    pub address: String,
    /// `pending`, `accepted`, `deferred`, `refused`, `delivered` or `bounced`.
    pub state: String,
    /// Last SMTP code.
    pub code: Option<i32>,
    /// The server's words.
    pub text: Option<String>,
}

/// One attempt, for people.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    /// 1 for the first.
    pub number: i32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How far it came.
    pub phase: String,
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
    pub state: String,
    /// Message-ID without angle brackets.
    pub message_id_header: String,
    /// Not before this.
    pub send_after: DateTime<Utc>,
    /// `none`, `pending`, `done`, `skipped` or `failed`.
    pub sent_copy: String,
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

const COLUMNS: &str = "s.id, s.draft_id, s.account_id, s.state, s.message_id_header, s.send_after, s.sent_copy, \
     s.queue_id, s.failure, s.created_at, s.updated_at";

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
            recipients: Vec::new(),
            attempts: Vec::new(),
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
    announce(tx, new.account_id, id, "submission.queued", "queued").await?;
    job::enqueue(tx, &Job::SendSubmission { submission_id: id }, new.wait, priority::SEND).await?;
    Ok(id)
}

/// Records a change of state in the event log.
async fn announce(
    tx: &mut TenantTx,
    account: AccountId,
    id: SubmissionId,
    kind: &'static str,
    state: &str,
) -> Result<(), DbError> {
    let event = NewEvent {
        kind,
        object_id: id.0,
        data: json!({ "submission_id": id, "account_id": account, "state": state }),
    };
    event::record(tx, Some(account), &[event]).await
}

/// One submission with its recipients and attempts. `None`: there is none of this id in the tenant.
pub async fn get(tx: &mut TenantTx, id: SubmissionId) -> Result<Option<Submission>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM submissions s WHERE s.tenant_id = $1 AND s.id = $2");
    let row =
        sqlx::query(sqlx::AssertSqlSafe(sql)).bind(tx.tenant()).bind(id).fetch_optional(tx.conn()).await?;
    let Some(row) = row else { return Ok(None) };
    let mut found = vec![Submission::read(&row)?];
    fill(tx, &mut found).await?;
    Ok(found.pop())
}

/// What a list of submissions is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// One account.
    pub account_id: Option<AccountId>,
    /// One state.
    pub state: Option<String>,
}

/// Up to `limit` submissions, newest first, after the position of the last one seen.
pub async fn list(
    tx: &mut TenantTx,
    filter: &Filter,
    after: Option<(DateTime<Utc>, SubmissionId)>,
    limit: i64,
) -> Result<Vec<Submission>, DbError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM submissions s WHERE s.tenant_id = $1
           AND ($2::uuid IS NULL OR s.account_id = $2) AND ($3::text IS NULL OR s.state = $3)
           AND ($4::timestamptz IS NULL OR (s.created_at, s.id) < ($4, $5))
         ORDER BY s.created_at DESC, s.id DESC LIMIT $6"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(tx.tenant())
        .bind(filter.account_id)
        .bind(filter.state.as_deref())
        .bind(after.map(|a| a.0))
        .bind(after.map(|a| a.1))
        .bind(limit)
        .fetch_all(tx.conn())
        .await?;
    let mut found = rows.iter().map(Submission::read).collect::<Result<Vec<_>, _>>()?;
    fill(tx, &mut found).await?;
    Ok(found)
}

/// Adds recipients and attempts, in two statements whatever the number of submissions.
async fn fill(tx: &mut TenantTx, list: &mut [Submission]) -> Result<(), DbError> {
    let ids: Vec<uuid::Uuid> = list.iter().map(|s| s.id.0).collect();
    let tenant = tx.tenant();
    let recipients = sqlx::query(
        "SELECT submission_id, address, state, code, text FROM submission_recipients
         WHERE tenant_id = $1 AND submission_id = ANY ($2) ORDER BY submission_id, position",
    )
    .bind(tenant)
    .bind(&ids)
    .fetch_all(tx.conn())
    .await?;
    let attempts = sqlx::query(
        "SELECT submission_id, number, started_at, phase, code, text FROM submission_attempts
         WHERE tenant_id = $1 AND submission_id = ANY ($2) ORDER BY submission_id, number",
    )
    .bind(tenant)
    .bind(&ids)
    .fetch_all(tx.conn())
    .await?;
    let mut places: std::collections::HashMap<SubmissionId, &mut Submission> =
        list.iter_mut().map(|s| (s.id, s)).collect();
    for row in &recipients {
        let recipient = Recipient {
            address: row.try_get("address")?,
            state: row.try_get("state")?,
            code: row.try_get("code")?,
            text: row.try_get("text")?,
        };
        if let Some(s) = places.get_mut(&row.try_get("submission_id")?) {
            s.recipients.push(recipient);
        }
    }
    for row in &attempts {
        let attempt = AttemptRow {
            number: row.try_get("number")?,
            started_at: row.try_get("started_at")?,
            phase: row.try_get("phase")?,
            code: row.try_get("code")?,
            text: row.try_get("text")?,
        };
        if let Some(s) = places.get_mut(&row.try_get("submission_id")?) {
            s.attempts.push(attempt);
        }
    }
    Ok(())
}
