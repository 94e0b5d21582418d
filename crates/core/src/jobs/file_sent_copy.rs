//! Files the copy of a sent message in the account's Sent mailbox, `\Seen`: the same bytes, with a Bcc field where there were
//! blind copies, of which the bytes that left say nothing.
//!
//! The mailbox is searched for the Message-ID first, each time: a server may file copies itself, and a line that broke
//! after APPEND leaves open whether it was done. A failure is repeated alone; the message is sent whatever happens here.

use std::time::Duration;

use mail::flags::{Flags, Keywords};
use mail::mailbox::Role;
use wire::imap::ImapError;

use super::probe_submission::{holds, in_use};
use super::{JobError, enqueue_lost};
use crate::connect::ConnectError;
use crate::connect::imap as connect;
use crate::domain::mailbox::create;
use crate::domain::submission::{self, SentCopy, SentCopyWork};
use crate::platform::db::{Db, DbError, SystemTx};
use crate::platform::id::{SubmissionId, TenantId};
use crate::queue::job::{Declaration, Job, Sweep, priority};
use crate::sync::driver::SyncContext;

/// The rows of `submissions` count the attempts and decide when to give up.
pub const DECLARATION: Declaration = Declaration {
    kind: "file_sent_copy",
    attempts: 1000,
    priority: priority::SEND,
    sweep: Sweep::Every(Duration::from_secs(5), |db, _| Box::pin(sweep(db))),
};

/// Its dedupe key.
#[must_use]
pub fn key(submission_id: SubmissionId) -> String {
    submission_id.to_string()
}

/// Files the copy if one is due.
///
/// # Errors
/// `retry_after` when it is to be tried again.
pub async fn run(env: &SyncContext, tenant: TenantId, submission_id: SubmissionId) -> Result<(), JobError> {
    let mut tx = env.db.tenant(tenant).await?;
    let Some(work) = submission::sent_copy_work(&mut tx, submission_id).await? else {
        // It may have been given up just now.
        return Ok(tx.commit().await?);
    };
    let sent = submission::mailboxes(&mut tx, work.account_id, &["sent"]).await?;
    tx.commit().await?;
    let (outcome, cause) = match file(env, tenant, &work, sent.first()).await {
        Ok(()) => (SentCopy::Done, None),
        Err(error) => match error.downcast_ref::<ConnectError<ImapError>>() {
            Some(ConnectError::InUse) => {
                let mut tx = env.db.tenant(tenant).await?;
                submission::copy_untried(&mut tx, submission_id).await?;
                tx.commit().await?;
                return Err(in_use(env));
            }
            tried => (outcome_of(tried), Some(error)),
        },
    };
    let mut tx = env.db.tenant(tenant).await?;
    let again = submission::settle_sent_copy(&mut tx, submission_id, outcome).await?;
    tx.commit().await?;
    match (again, cause) {
        (Some(wait), cause) => {
            Err(JobError::retry_after(wait, cause.unwrap_or_else(|| anyhow::anyhow!("not filed yet"))))
        }
        (None, Some(cause)) => {
            tracing::warn!(submission = %submission_id, cause = format!("{cause:#}"), "submission {submission_id}: no copy was filed");
            Ok(())
        }
        (None, None) => Ok(()),
    }
}

async fn file(
    env: &SyncContext,
    tenant: TenantId,
    work: &SentCopyWork,
    sent: Option<&Vec<u8>>,
) -> anyhow::Result<()> {
    if work.seen_in_sent {
        return Ok(());
    }
    let Some(sent) = sent else {
        // Made by the push that this asks for; the next try finds it.
        let mut tx = env.db.tenant(tenant).await?;
        create::ensure_role(&mut tx, work.account_id, Role::Sent).await?;
        tx.commit().await?;
        anyhow::bail!("the account has no Sent mailbox yet");
    };
    anyhow::ensure!(env.config.imap_enabled, "IMAP is switched off");
    Ok(append(env, tenant, work, sent).await?)
}

async fn append(
    env: &SyncContext,
    tenant: TenantId,
    work: &SentCopyWork,
    sent: &[u8],
) -> Result<(), ConnectError<ImapError>> {
    let mut visit = connect::visit(env, (tenant, work.account_id)).await?;
    if !holds(&mut visit.session, sent, &work.message_id_header).await? {
        let date = env.clock.now().fixed_offset();
        let flags = (Flags::SEEN, &Keywords::new());
        let copy = mail::compose::with_bcc(&work.mime, &work.recipients);
        visit.session.append(sent, flags, Some(date), copy.into()).await?;
    }
    visit.end().await;
    Ok(())
}

/// A server that says no to this message will say so again; all else may pass.
fn outcome_of(error: Option<&ConnectError<ImapError>>) -> SentCopy {
    match error {
        Some(ConnectError::Server(ImapError::Refused { code, .. }))
            if code.as_deref() != Some("OVERQUOTA") =>
        {
            SentCopy::Impossible
        }
        _ => SentCopy::TryAgain,
    }
}

/// Gives a job to what lost its own.
///
/// # Errors
/// When the database refuses.
pub async fn sweep(db: &Db) -> Result<(), DbError> {
    let lost = lost(&mut db.system().await?).await?;
    enqueue_lost(db, lost, |submission_id| Job::FileSentCopy { submission_id }).await
}

/// Submissions whose copy in Sent is due and has no live job. After a day without a try that got anywhere nobody looks any more.
pub async fn lost(tx: &mut SystemTx) -> Result<Vec<(TenantId, SubmissionId)>, DbError> {
    Ok(sqlx::query_as(
        "SELECT s.tenant_id, s.id FROM submissions s
         WHERE s.sent_copy = 'pending' AND s.updated_at BETWEEN now() - interval '1 day' AND now() - interval '30 seconds'
           AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = s.tenant_id AND j.kind = 'file_sent_copy'
                           AND j.dedupe_key = s.id::text AND j.state IN ('ready','running'))
         LIMIT 500",
    )
    .fetch_all(tx.conn())
    .await?)
}
