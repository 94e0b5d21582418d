//! Files the copy of a sent message in the account's Sent mailbox, the same bytes, `\Seen`.
//!
//! The mailbox is searched for the Message-ID first, each time: a server may file copies itself, and a line that broke
//! after APPEND leaves open whether it was done. A failure is repeated alone; the message is sent whatever happens here.

use emailclient_core::domain::mailbox::create;
use emailclient_core::domain::submission::{self, SentCopy, SentCopyWork};
use emailclient_core::platform::id::{SubmissionId, TenantId};
use mail::flags::{Flags, Keywords};
use wire::imap::ImapError;

use super::probe_submission::{holds, open};
use crate::environment::Environment;
use crate::error::JobError;

/// Files the copy if one is due.
///
/// # Errors
/// `retry_after` when it is to be tried again.
pub async fn run(env: &Environment, tenant: TenantId, submission_id: SubmissionId) -> Result<(), JobError> {
    let mut tx = env.db.tenant(tenant).await?;
    let Some(work) = submission::sent_copy_work(&mut tx, submission_id).await? else {
        // It may have been given up just now.
        return Ok(tx.commit().await?);
    };
    let sent = submission::mailboxes(&mut tx, work.account_id, &["sent"]).await?;
    tx.commit().await?;
    let (outcome, cause) = match file(env, tenant, &work, sent.first()).await {
        Ok(()) => (SentCopy::Done, None),
        Err(error) => (outcome_of(&error), Some(error)),
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
    env: &Environment,
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
        create::ensure_role(&mut tx, work.account_id, "sent").await?;
        tx.commit().await?;
        anyhow::bail!("the account has no Sent mailbox yet");
    };
    let mut session = open(env, tenant, work.account_id).await?;
    if !holds(&mut session, sent, &work.message_id_header).await? {
        let date = env.clock.now().fixed_offset();
        let flags = (Flags::SEEN, &Keywords::new());
        session.append(sent, flags, Some(date), work.mime.clone().into()).await?;
    }
    session.logout().await;
    Ok(())
}

/// A server that says no to this message will say so again; all else may pass.
fn outcome_of(error: &anyhow::Error) -> SentCopy {
    match error.downcast_ref::<ImapError>() {
        Some(ImapError::Refused { code, .. }) if code.as_deref() != Some("OVERQUOTA") => SentCopy::Impossible,
        _ => SentCopy::TryAgain,
    }
}
