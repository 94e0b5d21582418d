//! Drafts: messages being written. Content is one JSON value, files are rows beside it; every change raises the version.
//!
//! Here: the types and the reads and writes of the draft itself. [`attachment`] has the files, [`answer`] what a reply or
//! a forward begins with, [`send`] the freezing into a submission. Not here: what a request may say (the API), and the
//! rules of headers and addresses (`mail::compose`).
//!
//! A new field: in [`Content`] with a `serde(default)`, for rows of before; then where it goes in `send.rs`.

pub mod answer;
pub mod attachment;
pub mod send;
pub mod spool;

use chrono::{DateTime, Utc};
use mail::address::Address;
use mail::compose::{self, ComposeError};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder, Row as _};

pub use self::attachment::{Attachment, NewAttachment};

use crate::domain::event::{self, DraftCreated, DraftDeleted, DraftUpdated};
use crate::domain::states::SubmissionState;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, DraftId, MessageId, SubmissionId, UserId};

/// Longest subject, in bytes: what one line of a header may hold (RFC 5322 §2.1.1).
pub const MAX_SUBJECT_BYTES: usize = 998;

/// A header that the user set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Name.
    pub name: String,
    /// Value, decoded.
    pub value: String,
}

/// What is written so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Content {
    /// From; the account's first identity where it is absent.
    pub from: Option<Address>,
    /// To.
    pub to: Vec<Address>,
    /// Cc.
    pub cc: Vec<Address>,
    /// Bcc.
    pub bcc: Vec<Address>,
    /// Reply-To.
    pub reply_to: Vec<Address>,
    /// Subject.
    pub subject: String,
    /// Plain text.
    pub text: Option<String>,
    /// HTML.
    pub html: Option<String>,
    /// The message it answers.
    pub reply_to_message_id: Option<MessageId>,
    /// The message it answers, to all.
    pub reply_all_to_message_id: Option<MessageId>,
    /// The message it passes on.
    pub forward_message_id: Option<MessageId>,
    /// Further headers.
    pub headers: Vec<Header>,
    /// The client gave the headers as an object, and gets them back so.
    pub headers_as_object: bool,
    /// In-Reply-To, from the message that is answered.
    pub in_reply_to: Vec<String>,
    /// References, from the message that is answered or passed on.
    pub references: Vec<String>,
}

impl Content {
    /// As `mail::compose` takes it, with the From that was chosen and without files.
    #[must_use]
    pub fn to_compose(&self, from: Address) -> compose::Draft {
        compose::Draft {
            from,
            to: self.to.clone(),
            cc: self.cc.clone(),
            bcc: self.bcc.clone(),
            reply_to: self.reply_to.clone(),
            subject: self.subject.clone(),
            text: self.text.clone(),
            html: self.html.clone(),
            in_reply_to: self.in_reply_to.clone(),
            references: self.references.clone(),
            headers: self.headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect(),
            attachments: Vec::new(),
        }
    }

    /// Refuses what could not be sent later, as far as the draft alone tells. Missing recipients are no fault yet.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), ComposeError> {
        // A From that is absent is chosen at send; any valid one stands in for it here.
        let from =
            self.from.clone().unwrap_or_else(|| Address { name: None, address: "x@x.invalid".to_owned() });
        self.to_compose(from).check()
    }
}

/// A draft as its owner sees it.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Row id.
    pub id: DraftId,
    /// The account it is to leave through.
    pub account_id: AccountId,
    /// Grows with every change; the ETag.
    pub version: i64,
    /// What is written.
    pub content: Content,
    /// Its files, in order.
    pub attachments: Vec<Attachment>,
    /// The last submission made of it.
    pub submission_id: Option<SubmissionId>,
    /// The state of that submission.
    pub submission_state: Option<SubmissionState>,
    /// Creation.
    pub created_at: DateTime<Utc>,
    /// Last change.
    pub updated_at: DateTime<Utc>,
}

impl Draft {
    /// True while it may be edited: never sent, or what was sent was cancelled or failed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        is_open(self.submission_state)
    }

    /// Whether its message has yet to leave.
    #[must_use]
    pub fn waits(&self) -> bool {
        waits(self.submission_state)
    }

    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let content: Json<Content> = row.try_get("content")?;
        Ok(Self {
            id: row.try_get("id")?,
            account_id: row.try_get("account_id")?,
            version: row.try_get("version")?,
            content: content.0,
            attachments: Vec::new(),
            submission_id: row.try_get("submission_id")?,
            submission_state: row.try_get("submission_state")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

fn waits(submission_state: Option<SubmissionState>) -> bool {
    matches!(submission_state, Some(SubmissionState::Queued | SubmissionState::Sending))
}

fn is_open(submission_state: Option<SubmissionState>) -> bool {
    matches!(submission_state, None | Some(SubmissionState::Cancelled | SubmissionState::Failed))
}

const COLUMNS: &str = "d.id, d.account_id, d.version, d.content, d.submission_id, s.state AS submission_state, d.created_at, d.updated_at";
const OF_DRAFT: &str =
    "drafts d LEFT JOIN submissions s ON s.tenant_id = d.tenant_id AND s.id = d.submission_id";
/// The two sources of the list, with their conditions: asked for as one with OR, they were found by reading past everything
/// that was ever sent.
const LISTED: [(&str, &str); 2] = [
    (OF_DRAFT, "d.submission_id IS NULL"),
    (
        "submissions s JOIN drafts d ON d.tenant_id = s.tenant_id AND d.submission_id = s.id",
        "s.state = 'cancelled'",
    ),
];

/// Saves a new draft. `None`: the tenant has no such account.
pub async fn create(
    tx: &mut TenantTx,
    account: AccountId,
    content: &Content,
    created_by: UserId,
) -> Result<Option<DraftId>, DbError> {
    let id = DraftId::new();
    let done = sqlx::query(
        "INSERT INTO drafts (tenant_id, id, account_id, content, created_by)
         SELECT a.tenant_id, $2, a.id, $4, $5 FROM accounts a WHERE a.tenant_id = $1 AND a.id = $3",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(account)
    .bind(Json(content))
    .bind(created_by)
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 0 {
        return Ok(None);
    }
    event::tell(tx, account, DraftCreated { id });
    Ok(Some(id))
}

/// One draft. `None`: there is none of this id in the tenant.
pub async fn get(tx: &mut TenantTx, id: DraftId) -> Result<Option<Draft>, DbError> {
    read_one(tx, id).await
}

/// As [`get`], and holds the draft against other changes until this transaction ends.
pub async fn get_for_update(tx: &mut TenantTx, id: DraftId) -> Result<Option<Draft>, DbError> {
    // In a statement of its own: one that waited for the lock reads the draft anew, but not what was joined to it, and a
    // draft that was sent meanwhile would look unsent.
    sqlx::query("SELECT 1 FROM drafts WHERE tenant_id = $1 AND id = $2 FOR UPDATE")
        .bind(tx.tenant())
        .bind(id)
        .execute(tx.conn())
        .await?;
    read_one(tx, id).await
}

async fn read_one(tx: &mut TenantTx, id: DraftId) -> Result<Option<Draft>, DbError> {
    let sql = format!("SELECT {COLUMNS} FROM {OF_DRAFT} WHERE d.tenant_id = $1 AND d.id = $2");
    let row =
        sqlx::query(sqlx::AssertSqlSafe(sql)).bind(tx.tenant()).bind(id).fetch_optional(tx.conn()).await?;
    let Some(row) = row else { return Ok(None) };
    let mut draft = Draft::read(&row)?;
    let mut files = attachment::of_drafts(tx, &[id]).await?;
    draft.attachments = files.remove(&id).unwrap_or_default();
    Ok(Some(draft))
}

/// Up to `limit` drafts that were not sent (or whose sending was undone), latest change first, after the position of the
/// last one seen.
pub async fn list(
    tx: &mut TenantTx,
    account: Option<AccountId>,
    after: Option<(DateTime<Utc>, DraftId)>,
    limit: i64,
) -> Result<Vec<Draft>, DbError> {
    let mut sql = QueryBuilder::<Postgres>::new("SELECT * FROM (");
    for (n, (source, condition)) in LISTED.into_iter().enumerate() {
        let union = if n > 0 { " UNION ALL " } else { "" };
        sql.push(format!("{union}(SELECT {COLUMNS} FROM {source} WHERE {condition} AND d.tenant_id = "));
        sql.push_bind(tx.tenant());
        if let Some(account) = account {
            // No index gives both the account and the order: by that of the account all of its drafts would be read and sorted.
            sql.push(" AND d.account_id IS NOT DISTINCT FROM ").push_bind(account);
        }
        if let Some((at, id)) = after {
            sql.push(" AND (d.updated_at, d.id) < (").push_bind(at).push(", ").push_bind(id).push(")");
        }
        sql.push(" ORDER BY d.updated_at DESC, d.id DESC LIMIT ").push_bind(limit).push(")");
    }
    sql.push(") d ORDER BY updated_at DESC, id DESC LIMIT ").push_bind(limit);
    let rows = sql.build().fetch_all(tx.conn()).await?;
    let mut drafts = rows.iter().map(Draft::read).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<DraftId> = drafts.iter().map(|d| d.id).collect();
    let mut files = attachment::of_drafts(tx, &ids).await?;
    for draft in &mut drafts {
        draft.attachments = files.remove(&draft.id).unwrap_or_default();
    }
    Ok(drafts)
}

/// Replaces account and content of a draft that the caller holds by [`get_for_update`]. `false`: there is no such account.
pub async fn replace(
    tx: &mut TenantTx,
    id: DraftId,
    account: AccountId,
    content: &Content,
) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE drafts SET account_id = $3, content = $4, version = version + 1, updated_at = clock_timestamp()
         WHERE tenant_id = $1 AND id = $2 AND EXISTS (SELECT 1 FROM accounts a WHERE a.tenant_id = $1 AND a.id = $3)",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(account)
    .bind(Json(content))
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 1 {
        event::tell(tx, account, DraftUpdated { id });
    }
    Ok(done.rows_affected() == 1)
}

/// Deletes a draft and its files; a submission made of it stays. `false`: there was none.
pub async fn delete(tx: &mut TenantTx, id: DraftId) -> Result<bool, DbError> {
    let account: Option<AccountId> =
        sqlx::query_scalar("DELETE FROM drafts WHERE tenant_id = $1 AND id = $2 RETURNING account_id")
            .bind(tx.tenant())
            .bind(id)
            .fetch_optional(tx.conn())
            .await?;
    if let Some(account) = account {
        event::tell(tx, account, DraftDeleted { id });
    }
    Ok(account.is_some())
}

/// Counts a change of the draft's files as one of the draft.
async fn touch(tx: &mut TenantTx, id: DraftId) -> Result<(), DbError> {
    let account: Option<AccountId> = sqlx::query_scalar(
        "UPDATE drafts SET version = version + 1, updated_at = clock_timestamp() WHERE tenant_id = $1 AND id = $2
         RETURNING account_id",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    if let Some(account) = account {
        event::tell(tx, account, DraftUpdated { id });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_of_before_a_new_field_still_reads() {
        let content: Content = serde_json::from_str(r#"{"subject":"x"}"#).unwrap();
        assert_eq!(content, Content { subject: "x".to_owned(), ..Content::default() });
    }

    #[test]
    fn a_draft_without_from_and_recipients_is_good_and_one_with_a_line_break_is_not() {
        assert!(Content::default().check().is_ok());
        let bad = Content { subject: "a\r\nBcc: x@y".to_owned(), ..Content::default() };
        assert!(matches!(bad.check(), Err(ComposeError::InvalidHeader { .. })));
    }

    #[test]
    fn what_was_sent_is_closed_until_it_failed_or_was_undone() {
        for (state, open) in [
            (None, true),
            (Some(SubmissionState::Cancelled), true),
            (Some(SubmissionState::Failed), true),
            (Some(SubmissionState::Queued), false),
            (Some(SubmissionState::Unknown), false),
        ] {
            assert_eq!(is_open(state), open, "{state:?}");
        }
    }
}
