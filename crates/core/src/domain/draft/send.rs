//! From draft to submission: the one transaction that freezes a message.

use std::time::Duration;

use chrono::{DateTime, Utc};
use mail::compose::{self, ComposeError};
use mail::envelope::{Envelope, EnvelopeError};

use super::{attachment, get_for_update};
use crate::domain::event::{self, DraftUpdated};
use crate::domain::identity;
use crate::domain::submission;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{DraftId, SubmissionId, UserId, new_uuid};

/// Recipients of one message; more is a mailing, which providers punish.
pub const MAX_RECIPIENTS: usize = 500;

/// What the sender decided.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// How long it waits in the queue, where it can be undone.
    pub wait: Duration,
    /// The instant it waits for, where the sender named one; told back as it was given.
    pub send_at: Option<DateTime<Utc>>,
    /// The Date of the message.
    pub date: DateTime<Utc>,
    /// Who sent it.
    pub sender: UserId,
    /// Largest message, in bytes.
    pub max_bytes: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A new submission.
    Frozen(SubmissionId),
    /// It was sent before; this is the submission there is.
    SentBefore(SubmissionId),
}

/// Why a draft was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendDraftError {
    /// There is none of this id.
    #[error("no such draft")]
    NotFound,
    /// Its From is not an identity of the account.
    #[error("the sender is not an identity of the account")]
    SenderNotAllowed,
    /// It cannot become a message.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// Nobody, or too many, to send to.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Larger than this service sends.
    #[error("the message is too large")]
    TooLarge,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Freezes bytes and recipients and queues them. The draft's row is held, so two calls at once make one submission.
pub async fn send(tx: &mut TenantTx, id: DraftId, order: &Order) -> Result<Outcome, SendDraftError> {
    let draft = get_for_update(tx, id).await?.ok_or(SendDraftError::NotFound)?;
    if let Some(before) = draft.submission_id.filter(|_| !draft.is_open()) {
        return Ok(Outcome::SentBefore(before));
    }
    let identities = identity::list(tx, draft.account_id).await?.ok_or(SendDraftError::NotFound)?;
    let from =
        identity::choose(&identities, draft.content.from.as_ref()).ok_or(SendDraftError::SenderNotAllowed)?;
    let content = &draft.content;
    let recipients = content.to.iter().chain(&content.cc).chain(&content.bcc);
    let mut message = content.to_compose(from);
    message.check()?;
    let envelope = Envelope::new(&message.from.address, recipients, MAX_RECIPIENTS)?;
    message.attachments = attachment::contents(tx, id).await?;
    let message_id_header = new_message_id(&message.from.domain());
    let mime = compose::build(&message, &message_id_header, order.date, &boundary_seed())?;
    drop(message);
    if mime.len() > order.max_bytes {
        return Err(SendDraftError::TooLarge);
    }
    let new = submission::NewSubmission {
        draft_id: id,
        account_id: draft.account_id,
        envelope,
        mime,
        message_id_header,
        wait: order.wait,
        send_at: order.send_at,
        created_by: order.sender,
    };
    let submission = submission::create(tx, &new).await?;
    sqlx::query(
        "UPDATE drafts SET submission_id = $3, version = version + 1, updated_at = clock_timestamp() WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(submission)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    event::tell(tx, draft.account_id, DraftUpdated { id });
    Ok(Outcome::Frozen(submission))
}

/// Unique and silent about who and where, but for the sender's domain, which From tells anyway.
fn new_message_id(domain: &str) -> String {
    // A domain in another script would make every header 8-bit; the id needs no truth, only uniqueness.
    let domain = if domain.is_ascii() && compose::is_id(domain) { domain } else { "mail.invalid" };
    format!("{}@{domain}", new_uuid().simple())
}

/// 148 random bits, so that no text can have been written to hold the boundary.
fn boundary_seed() -> Vec<u8> {
    [new_uuid().into_bytes(), new_uuid().into_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_are_unique_and_fit_between_brackets() {
        let ids = [
            new_message_id("a.example"),
            new_message_id("a.example"),
            new_message_id("例子.广告"),
            new_message_id(""),
        ];
        assert!(ids.iter().all(|id| compose::is_id(id) && id.is_ascii()));
        assert_ne!(ids[0], ids[1]);
        assert!(ids[0].ends_with("@a.example") && ids[2].ends_with("@mail.invalid"));
    }
}
