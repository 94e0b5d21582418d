//! After the hand-over: the copy in Sent, and the search for a message whose fate is unknown.

use std::time::Duration;

use sqlx::Row as _;

use super::attempt::{follow_up, tally};
use super::settle::next_state;
use crate::domain::states::{CopyState, SubmissionState};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, SubmissionId};
use crate::platform::metrics::table;
use crate::queue::job::{self, Job};

/// A failed APPEND is repeated this often, 30 s to an hour apart; then the copy is `failed` and the message still sent.
const MAX_COPY_ATTEMPTS: i32 = 12;

/// A copy that is to be filed.
#[derive(Debug)]
pub struct SentCopyWork {
    /// The account.
    pub account_id: AccountId,
    /// Message-ID without angle brackets.
    pub message_id_header: String,
    /// The frozen bytes.
    pub mime: Vec<u8>,
    /// All who got the message; who is in none of its fields got a blind copy.
    pub recipients: Vec<String>,
    /// True when our own copy of the mailbox shows it in Sent already.
    pub seen_in_sent: bool,
}

/// The copy that is due for `id`; counts the attempt. `None`: there is none to be filed (any more), or a worker died over it
/// too often.
pub async fn sent_copy_work(tx: &mut TenantTx, id: SubmissionId) -> Result<Option<SentCopyWork>, DbError> {
    let row = sqlx::query(
        "UPDATE submissions s SET sent_copy_attempts = sent_copy_attempts + 1,
           sent_copy = CASE WHEN sent_copy_attempts < $3 THEN sent_copy ELSE 'failed' END
         WHERE tenant_id = $1 AND id = $2 AND sent_copy = 'pending'
         RETURNING sent_copy = 'pending' AS due, account_id, message_id_header, mime, ARRAY (
           SELECT address FROM submission_recipients r WHERE r.tenant_id = $1 AND r.submission_id = $2 ORDER BY position) AS recipients, EXISTS (
           SELECT 1 FROM messages g JOIN message_mailboxes p ON p.tenant_id = g.tenant_id AND p.message_id = g.id AND p.hidden_at IS NULL
           JOIN mailboxes m ON m.tenant_id = p.tenant_id AND m.id = p.mailbox_id AND m.role = 'sent'
           WHERE g.tenant_id = $1 AND g.account_id = s.account_id AND g.message_id_header = s.message_id_header) AS seen",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(MAX_COPY_ATTEMPTS)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    if !row.try_get::<bool, _>("due")? {
        tracing::warn!(submission = %id, "submission {id}: no copy was filed, it was tried {MAX_COPY_ATTEMPTS} times");
        return Ok(None);
    }
    Ok(Some(SentCopyWork {
        account_id: row.try_get("account_id")?,
        message_id_header: row.try_get("message_id_header")?,
        mime: row.try_get("mime")?,
        recipients: row.try_get("recipients")?,
        seen_in_sent: row.try_get("seen")?,
    }))
}

/// Takes the attempt back that [`sent_copy_work`] counted: nothing was tried, since others have all connections of the account.
pub async fn copy_untried(tx: &mut TenantTx, id: SubmissionId) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE submissions SET sent_copy_attempts = greatest(sent_copy_attempts - 1, 0)
         WHERE tenant_id = $1 AND id = $2 AND sent_copy = 'pending'",
    )
    .bind(tx.tenant())
    .bind(id)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// How the filing went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SentCopy {
    /// It is there.
    Done,
    /// It cannot be filed: the account has no mailbox for it, or the server refuses for good.
    Impossible,
    /// Not this time.
    TryAgain,
}

/// Records how the filing went, and asks for a round that shows the copy. Returns when to try again.
pub async fn settle_sent_copy(
    tx: &mut TenantTx,
    id: SubmissionId,
    outcome: SentCopy,
) -> Result<Option<Duration>, DbError> {
    let state = match outcome {
        SentCopy::Done => CopyState::Done,
        SentCopy::Impossible => {
            metrics::counter!(table::SENT_COPIES_FAILED.name).increment(1);
            CopyState::Failed
        }
        SentCopy::TryAgain => CopyState::Pending,
    };
    let row = sqlx::query(
        "UPDATE submissions SET sent_copy = CASE WHEN $3 = 'pending' AND sent_copy_attempts >= $4 THEN 'failed' ELSE $3 END, updated_at = now()
         WHERE tenant_id = $1 AND id = $2 AND sent_copy = 'pending' RETURNING account_id, sent_copy, sent_copy_attempts",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(state)
    .bind(MAX_COPY_ATTEMPTS)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (account_id, now): (AccountId, CopyState) = (row.try_get("account_id")?, row.try_get("sent_copy")?);
    match now {
        CopyState::Done => {
            job::enqueue(tx, &Job::SyncAccount { account_id }, Duration::ZERO).await?;
            Ok(None)
        }
        CopyState::Pending => {
            let attempts: i32 = row.try_get("sent_copy_attempts")?;
            let seconds = 30.0 * 2f64.powi(attempts.saturating_sub(1).clamp(0, 7));
            Ok(Some(Duration::from_secs_f64(seconds.min(3600.0))))
        }
        _ => Ok(None),
    }
}

/// What a search needs.
#[derive(Debug)]
pub struct ProbeWork {
    /// The account.
    pub account_id: AccountId,
    /// Message-ID without angle brackets.
    pub message_id_header: String,
    /// True when our own copy of the account has the message already.
    pub seen: bool,
}

/// The search that is due for `id`; `None`: its fate is not unknown (any more).
pub async fn probe_work(tx: &mut TenantTx, id: SubmissionId) -> Result<Option<ProbeWork>, DbError> {
    let row = sqlx::query(
        "SELECT account_id, message_id_header, EXISTS (
           SELECT 1 FROM messages g WHERE g.tenant_id = $1 AND g.account_id = s.account_id AND g.gone_at IS NULL
             AND g.message_id_header = s.message_id_header AND EXISTS (
               SELECT 1 FROM message_mailboxes p JOIN mailboxes m ON m.tenant_id = p.tenant_id AND m.id = p.mailbox_id
               WHERE p.tenant_id = g.tenant_id AND p.message_id = g.id AND p.hidden_at IS NULL
                 AND m.role IS DISTINCT FROM 'drafts')) AS seen
         FROM submissions s WHERE tenant_id = $1 AND id = $2 AND state = 'unknown'",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(ProbeWork {
        account_id: row.try_get("account_id")?,
        message_id_header: row.try_get("message_id_header")?,
        seen: row.try_get("seen")?,
    }))
}

/// The message was found in the mailbox, so the server took it: whoever was in that envelope is served. Recipients that
/// were deferred before the dot were told no, so they alone are tried again.
pub async fn record_found(tx: &mut TenantTx, id: SubmissionId) -> Result<Option<SubmissionState>, DbError> {
    let tenant = tx.tenant();
    let row = sqlx::query(
        "SELECT account_id, now() < give_up_at AS time_left FROM submissions
         WHERE tenant_id = $1 AND id = $2 AND state = 'unknown' FOR UPDATE",
    )
    .bind(tenant)
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    sqlx::query(
        "UPDATE submission_recipients SET state = 'accepted', code = NULL, text = 'found in the mailbox'
         WHERE tenant_id = $1 AND submission_id = $2 AND state = 'pending'",
    )
    .bind(tenant)
    .bind(id)
    .execute(tx.conn())
    .await?;
    let state = next_state(tally(tx, id).await?, false, row.try_get("time_left")?);
    sqlx::query(
        "UPDATE submissions SET state = $3, phase = 'done', failure = NULL, send_after = CASE WHEN $3 = 'queued' THEN now() ELSE send_after END,
                updated_at = now() WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id)
    .bind(state)
    .execute(tx.conn())
    .await?;
    follow_up(tx, row.try_get("account_id")?, id, state, None).await?;
    if state == SubmissionState::Queued {
        job::enqueue(tx, &Job::SendSubmission { submission_id: id }, Duration::ZERO).await?;
    }
    Ok(Some(state))
}

/// The mailboxes of an account with one of `roles`, as the server names them, in the order of `roles`.
pub async fn mailboxes(
    tx: &mut TenantTx,
    account: AccountId,
    roles: &[&str],
) -> Result<Vec<Vec<u8>>, DbError> {
    let names = sqlx::query_scalar(
        "SELECT wire_name FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND role = ANY ($3) AND selectable
         ORDER BY array_position($3, role), id",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(roles)
    .fetch_all(tx.conn())
    .await?;
    Ok(names)
}

/// What follows a search that found nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextProbe {
    /// Look again after this.
    After(Duration),
    /// The user has to decide.
    Never,
}

/// Counts a search that found nothing and says when the next one is due.
pub async fn record_not_found(tx: &mut TenantTx, id: SubmissionId) -> Result<NextProbe, DbError> {
    let done: Option<i32> = sqlx::query_scalar(
        "UPDATE submissions SET probes = probes + 1, updated_at = now()
         WHERE tenant_id = $1 AND id = $2 AND state = 'unknown' RETURNING probes",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    Ok(done.and_then(|n| u32::try_from(n).ok()).map_or(NextProbe::Never, next_probe))
}

/// The table counts from the break; between two searches lies the difference.
fn next_probe(done: u32) -> NextProbe {
    let before = mail::backoff::unknown_search(done.saturating_sub(1)).unwrap_or_default();
    mail::backoff::unknown_search(done)
        .map_or(NextProbe::Never, |at| NextProbe::After(at.saturating_sub(before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_are_spaced_as_counted_from_the_break() {
        let waits: Vec<_> = (1..5).map(next_probe).collect();
        let after = |minutes: u64| NextProbe::After(Duration::from_secs(minutes * 60));
        assert_eq!(waits, [after(4), after(10), after(45), NextProbe::Never]);
    }
}
