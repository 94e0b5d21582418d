//! Looks for a message whose fate is unknown: in our own rows, then in Sent, All Mail and INBOX on the server. Found
//! there, it was sent; otherwise the next search is due, or the user has to decide. Never sends anything.

use std::time::Duration;

use wire::imap::{ImapError, Session};

use super::{JobError, enqueue_lost};
use crate::connect::ConnectError;
use crate::connect::imap as connect;
use crate::domain::submission::{self, NextProbe, SubmissionState};
use crate::platform::db::{Db, DbError, SystemTx};
use crate::platform::id::{AccountId, SubmissionId, TenantId};
use crate::queue::job::{Declaration, Job, Sweep, priority};
use crate::sync::driver::SyncContext;

/// The rows of `submissions` count the attempts and decide when to give up.
pub const DECLARATION: Declaration = Declaration {
    kind: "probe_submission",
    attempts: 1000,
    priority: priority::SEND,
    sweep: Sweep::Every(Duration::from_secs(5), |db, _| Box::pin(sweep(db))),
};

/// Its dedupe key.
#[must_use]
pub fn key(submission_id: SubmissionId) -> String {
    submission_id.to_string()
}

/// A search that could not be made does not count as one; this is when it is made again.
const SERVER_AWAY: Duration = Duration::from_secs(60);
/// Where a server or a rule may have filed it.
const WHERE: [&str; 3] = ["sent", "all", "inbox"];

/// Searches once.
///
/// # Errors
/// `retry_after` while further searches are due.
pub async fn run(env: &SyncContext, tenant: TenantId, submission_id: SubmissionId) -> Result<(), JobError> {
    let mut tx = env.db.tenant(tenant).await?;
    let Some(work) = submission::probe_work(&mut tx, submission_id).await? else { return Ok(()) };
    let mailboxes = submission::mailboxes(&mut tx, work.account_id, &WHERE).await?;
    tx.commit().await?;
    let found = work.seen || {
        if !env.config.imap_enabled && !mailboxes.is_empty() {
            return Err(JobError::retry_after(SERVER_AWAY, anyhow::anyhow!("IMAP is switched off")));
        }
        match search(env, (tenant, work.account_id), &mailboxes, &work.message_id_header).await {
            Ok(found) => found,
            Err(ConnectError::InUse) => return Err(in_use(env)),
            Err(error) => return Err(JobError::retry_after(SERVER_AWAY, error)),
        }
    };
    let mut tx = env.db.tenant(tenant).await?;
    if found {
        let state = submission::record_found(&mut tx, submission_id).await?;
        tx.commit().await?;
        tracing::info!(submission = %submission_id, state = state.map(SubmissionState::as_str), "submission {submission_id}: found in the mailbox");
        return Ok(());
    }
    let next = submission::record_not_found(&mut tx, submission_id).await?;
    tx.commit().await?;
    match next {
        NextProbe::After(wait) => Err(JobError::retry_after(wait, anyhow::anyhow!("not found yet"))),
        NextProbe::Never => {
            tracing::warn!(submission = %submission_id, "submission {submission_id}: stays unknown, its owner has to decide");
            Ok(())
        }
    }
}

async fn search(
    env: &SyncContext,
    of: (TenantId, AccountId),
    mailboxes: &[Vec<u8>],
    message_id: &str,
) -> Result<bool, ConnectError<ImapError>> {
    if mailboxes.is_empty() {
        return Ok(false);
    }
    let mut visit = connect::visit(env, of).await?;
    for mailbox in mailboxes {
        if holds(&mut visit.session, mailbox, message_id).await? {
            visit.end().await;
            return Ok(true);
        }
    }
    visit.end().await;
    Ok(false)
}

/// Others of the account have all its connections: the job comes back in two to six seconds, so that not all come together,
/// and this was no try.
pub(super) fn in_use(env: &SyncContext) -> JobError {
    let wait = Duration::from_secs(2) + Duration::from_secs(4).mul_f64(env.clock.unit());
    JobError::postpone(wait, ConnectError::<ImapError>::InUse)
}

/// Whether a mailbox holds a message of this Message-ID. One that does not exist holds none.
pub(super) async fn holds(
    session: &mut Session,
    mailbox: &[u8],
    message_id: &str,
) -> Result<bool, ImapError> {
    match session.select(mailbox, None, true).await {
        Err(ImapError::NoSuchMailbox(_)) => return Ok(false),
        other => other.map(drop)?,
    }
    Ok(!session.uid_search_header(message_id).await?.is_empty())
}

/// Gives a job to what lost its own.
///
/// # Errors
/// When the database refuses.
pub async fn sweep(db: &Db) -> Result<(), DbError> {
    let lost = lost(&mut db.system().await?).await?;
    enqueue_lost(db, lost, |submission_id| Job::ProbeSubmission { submission_id }).await
}

/// Submissions of unknown fate that are to be searched for once more and have no live job; for a day, as long as the server
/// cannot be searched.
pub async fn lost(tx: &mut SystemTx) -> Result<Vec<(TenantId, SubmissionId)>, DbError> {
    let searches = (0..).take_while(|done| mail::backoff::unknown_search(*done).is_some()).count();
    Ok(sqlx::query_as(
        "SELECT s.tenant_id, s.id FROM submissions s
         WHERE s.state = 'unknown' AND s.probes < $1
           AND s.updated_at BETWEEN now() - interval '1 day' AND now() - interval '30 seconds'
           AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = s.tenant_id AND j.kind = 'probe_submission'
                           AND j.dedupe_key = s.id::text AND j.state IN ('ready','running'))
         LIMIT 500",
    )
    .bind(i32::try_from(searches).unwrap_or(i32::MAX))
    .fetch_all(tx.conn())
    .await?)
}
