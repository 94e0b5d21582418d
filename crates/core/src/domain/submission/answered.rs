//! What a sent message does to the one it answers or passes on: `\\Answered`, or the keyword `$Forwarded` (RFC 5550 §2.8).

use mail::flags::Flags;
use sqlx::Row as _;
use uuid::Uuid;

use crate::domain::message::edit::{self, FlagEdit};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{MessageId, SubmissionId};

/// Whether there is a message to be marked once this submission is sent.
pub(super) async fn answers(tx: &mut TenantTx, id: SubmissionId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM submissions s JOIN drafts d ON d.tenant_id = s.tenant_id AND d.id = s.draft_id
           WHERE s.tenant_id = $1 AND s.id = $2
             AND d.content ?| ARRAY['forward_message_id', 'reply_to_message_id', 'reply_all_to_message_id'])",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_one(tx.conn())
    .await?)
}

/// Marks the message that a sent submission answers or passes on. A transaction of its own: it waits for the account's turn,
/// and that a message was sent must be written down whatever happens here. Again is harmless.
pub async fn mark_answered(tx: &mut TenantTx, id: SubmissionId) -> Result<(), DbError> {
    let row = sqlx::query(
        "SELECT (d.content->>'forward_message_id')::uuid AS forwarded,
                coalesce(d.content->>'reply_to_message_id', d.content->>'reply_all_to_message_id')::uuid AS answered
         FROM submissions s JOIN drafts d ON d.tenant_id = s.tenant_id AND d.id = s.draft_id
         WHERE s.tenant_id = $1 AND s.id = $2 AND s.state = 'sent'",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(()) };
    let (forwarded, answered): (Option<Uuid>, Option<Uuid>) =
        (row.try_get("forwarded")?, row.try_get("answered")?);
    let (message, edit) = match (answered, forwarded) {
        (Some(message), _) => (message, FlagEdit { add: Flags::ANSWERED, ..FlagEdit::default() }),
        (None, Some(message)) => {
            (message, FlagEdit { keywords_add: vec!["$Forwarded".to_owned()], ..FlagEdit::default() })
        }
        (None, None) => return Ok(()),
    };
    edit::flags(tx, &[MessageId(message)], None, &edit).await.map(drop)
}
