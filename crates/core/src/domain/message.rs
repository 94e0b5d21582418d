//! Messages as readers see them: one, with its placements, or a page of them.
//!
//! Here: the types and the single read. [`list`] has the pages, [`edit`] the flags and keywords, [`transfer`] what
//! moves, copies and deletes. Not here: rows that a synchronisation writes, bodies (they are read from the bytes in
//! [`crate::domain::blob`]), and search.
//!
//! A message is visible while `gone_at IS NULL`; every read here leaves the others out. To show another column: a
//! field in [`Summary`] (if lists need it) or [`Message`], its name in the column list below, a line in `read`.

pub mod edit;
pub mod list;
mod remove;
pub mod transfer;

pub(crate) use self::remove::remove;
use crate::domain::states::mailbox_role;
use mail::mailbox::Role;
use std::collections::HashMap;

use chrono::{DateTime, Utc};
use mail::address::Address;
use mail::flags::{Flags, Keywords};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use uuid::Uuid;

use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId, MessageId, PlacementId, ThreadId};

/// Columns of [`Summary`], of the table aliased `g`.
pub(crate) const SUMMARY: &str = "g.id, g.account_id, g.thread_id, g.message_id_header, g.subject, g.from_addresses, \
     g.to_addresses, g.cc_addresses, g.date, g.received_at, g.size_bytes, g.has_attachments, g.snippet, \
     g.date_zone_unknown";

/// A message in one mailbox.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Row id.
    pub id: PlacementId,
    /// The mailbox.
    pub mailbox_id: MailboxId,
    /// Last part of its name.
    pub mailbox_name: String,
    /// What the mailbox is for.
    pub role: Option<Role>,
    /// System flags as our user sees them.
    pub flags: Flags,
    /// Keywords as our user sees them.
    pub keywords: Keywords,
    /// INTERNALDATE there.
    pub received_at: DateTime<Utc>,
}

/// What lists show of a message.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Row id.
    pub id: MessageId,
    /// Its account.
    pub account_id: AccountId,
    /// Its conversation.
    pub thread_id: ThreadId,
    /// `Message-ID` without angle brackets.
    pub message_id_header: Option<String>,
    /// Decoded subject.
    pub subject: Option<String>,
    /// `From`.
    pub from: Vec<Address>,
    /// `To`.
    pub to: Vec<Address>,
    /// `Cc`.
    pub cc: Vec<Address>,
    /// `Date`.
    pub date: Option<DateTime<Utc>>,
    /// It has no zone, or one that nobody knows: `date` is the sender's clock read as UTC.
    pub date_zone_unknown: bool,
    /// The earliest INTERNALDATE.
    pub received_at: DateTime<Utc>,
    /// Size of the source.
    pub size_bytes: i64,
    /// Has a file that is not merely shown inside the HTML.
    pub has_attachments: bool,
    /// Beginning of the text.
    pub snippet: String,
    /// Where it is, INBOX first.
    pub placements: Vec<Placement>,
}

/// Flags, keywords and arrival of a message, as one value.
#[derive(Debug, Clone)]
pub struct Status {
    /// System flags.
    pub flags: Flags,
    /// Keywords.
    pub keywords: Keywords,
    /// Arrival.
    pub received_at: DateTime<Utc>,
}

impl Summary {
    /// The status in `mailbox`, or over all placements: flags and keywords of any, the earliest arrival.
    #[must_use]
    pub fn status(&self, mailbox: Option<MailboxId>) -> Status {
        let named: Vec<&Placement> =
            self.placements.iter().filter(|p| Some(p.mailbox_id) == mailbox).collect();
        let chosen = if named.is_empty() { self.placements.iter().collect() } else { named };
        let empty = Status { flags: Flags::NONE, keywords: Keywords::new(), received_at: self.received_at };
        let earliest = chosen.iter().map(|p| p.received_at).min().unwrap_or(self.received_at);
        chosen.iter().fold(Status { received_at: earliest, ..empty }, |all, p| Status {
            flags: all.flags | p.flags,
            keywords: all.keywords.union(&p.keywords),
            received_at: all.received_at,
        })
    }

    /// Reads the columns of [`SUMMARY`]; the placements are still to be filled in.
    pub(crate) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let list = |column: &str| row.try_get::<Json<Vec<Address>>, _>(column).map(|list| list.0);
        Ok(Self {
            id: row.try_get("id")?,
            account_id: row.try_get("account_id")?,
            thread_id: row.try_get("thread_id")?,
            message_id_header: row.try_get("message_id_header")?,
            subject: row.try_get("subject")?,
            from: list("from_addresses")?,
            to: list("to_addresses")?,
            cc: list("cc_addresses")?,
            date: row.try_get("date")?,
            date_zone_unknown: row.try_get("date_zone_unknown")?,
            received_at: row.try_get("received_at")?,
            size_bytes: row.try_get("size_bytes")?,
            has_attachments: row.try_get("has_attachments")?,
            snippet: row.try_get("snippet")?,
            placements: Vec::new(),
        })
    }
}

/// A message alone.
#[derive(Debug, Clone)]
pub struct Message {
    /// What lists show.
    pub summary: Summary,
    /// `Bcc`.
    pub bcc: Vec<Address>,
    /// `Reply-To`.
    pub reply_to: Vec<Address>,
    /// `In-Reply-To` without angle brackets.
    pub in_reply_to: Vec<String>,
    /// `References` without angle brackets.
    pub references: Vec<String>,
    /// The attachments as they were found when the message was stored: `{index, filename, content_type, size_bytes, inline, content_id}`.
    pub attachments: Vec<Value>,
    /// The source could not be understood in full.
    pub degraded: bool,
    /// SHA-256 of the source; its bytes are in [`crate::domain::blob`].
    pub blob_hash: Vec<u8>,
}

/// A visible message with its placements.
///
/// # Errors
/// Only those of the database; nothing found is `None`.
pub async fn get(tx: &mut TenantTx, id: MessageId) -> Result<Option<Message>, DbError> {
    let row = sqlx::query(
        "SELECT g.id, g.account_id, g.thread_id, g.message_id_header, g.subject, g.from_addresses, g.to_addresses,
                g.cc_addresses, g.date, g.received_at, g.size_bytes, g.has_attachments, g.snippet, g.date_zone_unknown, g.bcc_addresses,
                g.reply_to_addresses, g.in_reply_to, g.refs, g.attachments, g.degraded, g.blob_hash
         FROM messages g WHERE g.tenant_id = $1 AND g.id = $2 AND g.gone_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let list = |column: &str| row.try_get::<Json<Vec<Address>>, _>(column).map(|list| list.0);
    let mut message = Message {
        summary: Summary::read(&row)?,
        bcc: list("bcc_addresses")?,
        reply_to: list("reply_to_addresses")?,
        in_reply_to: row.try_get("in_reply_to")?,
        references: row.try_get("refs")?,
        attachments: row.try_get::<Json<Vec<Value>>, _>("attachments")?.0,
        degraded: row.try_get("degraded")?,
        blob_hash: row.try_get("blob_hash")?,
    };
    fill_placements(tx, std::slice::from_mut(&mut message.summary)).await?;
    Ok(Some(message))
}

/// As [`get`], with the account's lease row locked first: nobody changes the message until this transaction ends, so that
/// what was compared with it still holds when it is written.
///
/// # Errors
/// Only those of the database; nothing found is `None`.
pub async fn get_for_update(tx: &mut TenantTx, id: MessageId) -> Result<Option<Message>, DbError> {
    crate::domain::edits::ask::lock(tx, &[id]).await?;
    get(tx, id).await
}

/// The messages of `ids` that are visible, in the order of `ids`, each with its placements. Two statements.
pub async fn by_ids(tx: &mut TenantTx, ids: &[MessageId]) -> Result<Vec<Summary>, DbError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let raw: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query(
        "SELECT g.id, g.account_id, g.thread_id, g.message_id_header, g.subject, g.from_addresses, g.to_addresses,
                g.cc_addresses, g.date, g.received_at, g.size_bytes, g.has_attachments, g.snippet, g.date_zone_unknown
         FROM unnest($2::uuid[]) AS w(id)
         CROSS JOIN LATERAL (SELECT * FROM messages m WHERE m.tenant_id = $1 AND m.id = w.id AND m.gone_at IS NULL OFFSET 0) g",
    )
    .bind(tx.tenant())
    .bind(&raw)
    .fetch_all(tx.conn())
    .await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        let summary = Summary::read(row)?;
        found.insert(summary.id, summary);
    }
    let mut ordered: Vec<Summary> = ids.iter().filter_map(|id| found.remove(id)).collect();
    fill_placements(tx, &mut ordered).await?;
    Ok(ordered)
}

/// Whether a visible message with this id exists.
pub async fn exists(tx: &mut TenantTx, id: MessageId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM messages WHERE tenant_id = $1 AND id = $2 AND gone_at IS NULL)",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_one(tx.conn())
    .await?)
}

/// The account of a visible message.
pub async fn account_of(tx: &mut TenantTx, id: MessageId) -> Result<Option<AccountId>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT account_id FROM messages WHERE tenant_id = $1 AND id = $2 AND gone_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?)
}

/// Those of `ids` that are visible, in no order.
pub async fn visible(tx: &mut TenantTx, ids: &[MessageId]) -> Result<Vec<MessageId>, DbError> {
    let raw: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    Ok(sqlx::query_scalar(
        "SELECT id FROM messages WHERE tenant_id = $1 AND id = ANY ($2) AND gone_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(&raw)
    .fetch_all(tx.conn())
    .await?)
}

/// Those of `ids` that are visible in this mailbox, in no order.
pub async fn visible_in(
    tx: &mut TenantTx,
    ids: &[MessageId],
    mailbox: MailboxId,
) -> Result<Vec<MessageId>, DbError> {
    let raw: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    Ok(sqlx::query_scalar(
        "SELECT DISTINCT message_id FROM message_mailboxes
         WHERE tenant_id = $1 AND message_id = ANY ($2) AND mailbox_id = $3 AND hidden_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(&raw)
    .bind(mailbox)
    .fetch_all(tx.conn())
    .await?)
}

/// Gives each message its visible placements, in one statement for all of them.
///
/// Looked up one by one: for a list of ids the planner walked all placements of the tenant as long as it had no statistics,
/// which a new deployment lacks for its first minutes; and of mailboxes, few as they are, it never has any.
pub(crate) async fn fill_placements(tx: &mut TenantTx, messages: &mut [Summary]) -> Result<(), DbError> {
    if messages.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = messages.iter().map(|m| m.id.0).collect();
    let rows = sqlx::query(
        "SELECT p.message_id, p.id, p.mailbox_id, p.flags, p.keywords, p.internal_date, b.name, b.role
         FROM unnest($2::uuid[]) AS w(id)
         CROSS JOIN LATERAL (SELECT * FROM message_mailboxes l
           WHERE l.tenant_id = $1 AND l.message_id = w.id AND l.hidden_at IS NULL OFFSET 0) p
         CROSS JOIN LATERAL (SELECT * FROM mailboxes m WHERE m.tenant_id = $1 AND m.id = p.mailbox_id OFFSET 0) b
         ORDER BY b.role = 'inbox' DESC NULLS LAST, b.path, p.id",
    )
    .bind(tx.tenant())
    .bind(&ids)
    .fetch_all(tx.conn())
    .await?;
    let mut by_message: HashMap<MessageId, Vec<Placement>> = HashMap::with_capacity(messages.len());
    for row in &rows {
        let placement = Placement {
            id: row.try_get("id")?,
            mailbox_id: row.try_get("mailbox_id")?,
            mailbox_name: row.try_get("name")?,
            role: mailbox_role(row)?,
            flags: Flags::from_bits(row.try_get("flags")?),
            keywords: Keywords::from_wire(row.try_get::<Vec<String>, _>("keywords")?),
            received_at: row.try_get("internal_date")?,
        };
        by_message.entry(row.try_get("message_id")?).or_default().push(placement);
    }
    for message in messages {
        message.placements = by_message.remove(&message.id).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(mailbox: MailboxId, flags: Flags, keyword: &str, seconds: i64) -> Placement {
        Placement {
            id: PlacementId::new(),
            mailbox_id: mailbox,
            mailbox_name: "x".into(),
            role: None,
            flags,
            keywords: Keywords::from_wire([keyword]),
            received_at: DateTime::from_timestamp(seconds, 0).unwrap(),
        }
    }

    #[test]
    fn the_top_of_a_message_shows_the_listed_mailbox_or_the_union_of_all() {
        let (inbox, work) = (MailboxId::new(), MailboxId::new());
        let message = Summary {
            id: MessageId::new(),
            account_id: AccountId::new(),
            thread_id: ThreadId::new(),
            message_id_header: None,
            subject: None,
            from: vec![],
            to: vec![],
            cc: vec![],
            date: None,
            date_zone_unknown: false,
            received_at: DateTime::from_timestamp(9, 0).unwrap(),
            size_bytes: 1,
            has_attachments: false,
            snippet: String::new(),
            placements: vec![placed(inbox, Flags::SEEN, "a", 7), placed(work, Flags::FLAGGED, "b", 3)],
        };
        let all = message.status(None);
        assert_eq!(all.flags, Flags::SEEN | Flags::FLAGGED);
        assert_eq!(all.keywords.as_slice(), ["a", "b"]);
        assert_eq!(all.received_at.timestamp(), 3);
        let one = message.status(Some(inbox));
        assert_eq!((one.flags, one.received_at.timestamp()), (Flags::SEEN, 7));
        assert_eq!(one.keywords.as_slice(), ["a"]);
    }
}
