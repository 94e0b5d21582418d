//! Looks for a message whose fate is unknown: in our own rows, then in Sent, All Mail and INBOX on the server. Found
//! there, it was sent; otherwise the next search is due, or the user has to decide. Never sends anything.

use std::time::Duration;

use emailclient_core::domain::submission::{self, NextProbe};
use emailclient_core::platform::id::{AccountId, SubmissionId, TenantId};
use emailclient_core::sync::driver::{self, SyncError};
use wire::imap::{ImapError, Session};

use crate::environment::Environment;
use crate::error::JobError;

/// A search that could not be made does not count as one; this is when it is made again.
const SERVER_AWAY: Duration = Duration::from_secs(60);
/// Where a server or a rule may have filed it.
const WHERE: [&str; 3] = ["sent", "all", "inbox"];

/// Searches once.
///
/// # Errors
/// `retry_after` while further searches are due.
pub async fn run(env: &Environment, tenant: TenantId, submission_id: SubmissionId) -> Result<(), JobError> {
    let mut tx = env.db.tenant(tenant).await?;
    let Some(work) = submission::probe_work(&mut tx, submission_id).await? else { return Ok(()) };
    let mailboxes = submission::mailboxes(&mut tx, work.account_id, &WHERE).await?;
    tx.commit().await?;
    let found = work.seen || {
        let searched = search(env, tenant, work.account_id, &mailboxes, &work.message_id_header).await;
        searched.map_err(|error| JobError::retry_after(SERVER_AWAY, error))?
    };
    let mut tx = env.db.tenant(tenant).await?;
    if found {
        let state = submission::record_found(&mut tx, submission_id).await?;
        tx.commit().await?;
        tracing::info!(submission = %submission_id, state, "submission {submission_id}: found in the mailbox");
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
    env: &Environment,
    tenant: TenantId,
    account: AccountId,
    mailboxes: &[Vec<u8>],
    message_id: &str,
) -> anyhow::Result<bool> {
    if mailboxes.is_empty() {
        return Ok(false);
    }
    let mut session = open(env, tenant, account).await?;
    for mailbox in mailboxes {
        if holds(&mut session, mailbox, message_id).await? {
            session.logout().await;
            return Ok(true);
        }
    }
    session.logout().await;
    Ok(false)
}

/// Logs in to the account's IMAP server.
pub(super) async fn open(env: &Environment, tenant: TenantId, account: AccountId) -> anyhow::Result<Session> {
    anyhow::ensure!(env.config.imap_enabled, "IMAP is switched off");
    driver::open(env, tenant, account).await.map_err(|error| match error {
        // What it was decides whether it is tried again.
        SyncError::Imap(error) => error.into(),
        error => error.into(),
    })
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
