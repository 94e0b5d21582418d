//! A submission with its recipients and attempts.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::submission::{AttemptRow, Recipient, Submission};
use crate::platform::id::{AccountId, DraftId, SubmissionId};

/// A recipient of a submission.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SubmissionRecipient)]
pub struct RecipientView {
    /// Address.
    pub address: String,
    /// `pending`, `accepted`, `deferred`, `refused`, `delivered` or `bounced`.
    pub state: &'static str,
    /// Last SMTP code.
    pub code: Option<i32>,
    /// The server's words.
    pub text: Option<String>,
}

impl From<Recipient> for RecipientView {
    fn from(r: Recipient) -> Self {
        Self { address: r.address, state: r.state.as_str(), code: r.code, text: r.text }
    }
}

/// An attempt to hand the message over.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SubmissionAttempt)]
pub struct AttemptView {
    /// 1 for the first.
    pub number: i32,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How far it came: `connect`, `envelope`, `data`, `dot` or `done`.
    pub phase: &'static str,
    /// SMTP code that ended it.
    pub code: Option<i32>,
    /// Why it ended.
    pub text: Option<String>,
}

impl From<AttemptRow> for AttemptView {
    fn from(a: AttemptRow) -> Self {
        Self {
            number: a.number,
            started_at: a.started_at,
            phase: a.phase.as_str(),
            code: a.code,
            text: a.text,
        }
    }
}

/// A message on its way out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Submission)]
pub struct SubmissionView {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub id: SubmissionId,
    /// The draft it was.
    #[schema(value_type = Option<Uuid>)]
    pub draft_id: Option<DraftId>,
    /// The account it leaves through.
    #[schema(value_type = Uuid)]
    pub account_id: AccountId,
    /// `queued`, `sending`, `sent`, `failed`, `unknown` or `cancelled`.
    pub state: &'static str,
    /// Message-ID without angle brackets.
    pub message_id_header: String,
    /// Not sent before this.
    pub send_after: DateTime<Utc>,
    /// Recipients in the order To, Cc, Bcc.
    pub recipients: Vec<RecipientView>,
    /// Attempts so far, oldest first.
    pub attempts: Vec<AttemptView>,
    /// The copy in Sent: `none`, `pending`, `done`, `skipped` (the provider files it) or `failed`.
    pub sent_copy: &'static str,
    /// The server's own name for the message.
    pub queue_id: Option<String>,
    /// Why it failed, waits or is unknown.
    pub failure: Option<String>,
    /// When it was sent off.
    pub created_at: DateTime<Utc>,
    /// Last change.
    pub updated_at: DateTime<Utc>,
}

impl From<Submission> for SubmissionView {
    fn from(s: Submission) -> Self {
        Self {
            id: s.id,
            draft_id: s.draft_id,
            account_id: s.account_id,
            state: s.state.as_str(),
            message_id_header: s.message_id_header,
            send_after: s.send_after,
            recipients: s.recipients.into_iter().map(RecipientView::from).collect(),
            attempts: s.attempts.into_iter().map(AttemptView::from).collect(),
            sent_copy: s.sent_copy.as_str(),
            queue_id: s.queue_id,
            failure: s.failure,
            created_at: s.created_at,
            updated_at: s.updated_at,
        }
    }
}
