//! Our users' edits of messages, and what follows from them for the rows that clients are shown.
//!
//! A message with edits is loaded whole ([`load`]), changed as `mail::sync::edits` says, and recorded whole ([`save`]): the
//! server's placements, the edits, and what is visible, folded anew. The rows are written by their difference, and the
//! events are the difference of what was visible, so each change is told once. There is no other way to write an edit, or a
//! placement of a message that has one; messages without edits have their placements written in bulk by `sync::store`.
//!
//! A transaction that changes edits holds the account's lease row, as [`crate::queue::lease`] says, and saves a message once.
//!
//! - `rows`: which row of `message_mailboxes` carries which placement
//! - `save`: the statements
//! - `ask`: what our users ask for

pub mod ask;
mod rows;
mod save;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use mail::flags::{Flags, Keywords};
use mail::sync::FlagState;
use mail::sync::StoreChange;
use mail::sync::edits::{Change, Edit, Held, Labels, MailboxKey, Message, Scope, State};
use mail::uid::Uid;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

pub use save::save;

use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId, MessageId};

/// Messages of one transaction that folds them: about a third of a second.
pub const PORTION: usize = 500;

/// A message with its edits, as it was loaded and as it is to be.
#[derive(Debug, Clone)]
pub struct Work {
    /// Which.
    pub id: MessageId,
    /// To be changed by the caller, through its own functions.
    pub message: Message,
    /// As it was loaded.
    before: Message,
    rows: Vec<Row>,
    /// Dates of placements of the server's that have no row yet.
    arrivals: Vec<Arrived>,
    /// When the edit of this number was sent.
    sent_at: HashMap<i64, DateTime<Utc>>,
    /// What clients saw before, where that is not what the rows showed when it was loaded.
    told: Option<Vec<(Uuid, FlagState)>>,
}

/// When a message came to a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Which.
    pub mailbox: MailboxId,
    /// Under which UID.
    pub uid: Uid,
    /// INTERNALDATE.
    pub internal_date: DateTime<Utc>,
    /// The same within a sane range.
    pub sort_at: DateTime<Utc>,
    /// The server's mod-sequence; 0 when unknown.
    pub modseq: i64,
}

/// A row of `message_mailboxes`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    id: Uuid,
    mailbox: Uuid,
    /// What the server has there.
    server: Option<ServerPart>,
    /// What clients are shown there.
    shown: Option<FlagState>,
    dates: Dates,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ServerPart {
    generation: i32,
    uid: i64,
    flags: FlagState,
    marked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dates {
    internal: DateTime<Utc>,
    sort: DateTime<Utc>,
    modseq: i64,
}

/// The key of a mailbox for `mail::sync::edits`.
#[must_use]
pub const fn key(mailbox: MailboxId) -> MailboxKey {
    MailboxKey(mailbox.0.as_u128())
}

/// The mailbox with this key.
#[must_use]
pub const fn mailbox(key: MailboxKey) -> MailboxId {
    MailboxId(Uuid::from_u128(key.0))
}

impl Work {
    /// The server has the message here, under a UID that was not known.
    pub fn arrived(&mut self, at: Arrived, flags: FlagState) {
        self.arrivals.push(at);
        let held = Held { row: None, mailbox: key(at.mailbox), uid: Some(at.uid), flags, marked: false };
        self.message.server.push(held);
    }

    /// The placement of this row got a UID of the present generation.
    pub fn found_again(&mut self, row: Uuid, at: Arrived, flags: FlagState) {
        self.arrivals.push(at);
        if let Some(held) = self.message.server.iter_mut().find(|h| h.row == Some(row.as_u128())) {
            held.marked &= flags.flags.contains(Flags::DELETED);
            held.uid = Some(at.uid);
            held.flags = flags;
        }
    }

    /// When the edit at this index was sent, if it was.
    #[must_use]
    pub fn sent_at(&self, edit: usize) -> Option<DateTime<Utc>> {
        self.sent_at.get(&self.message.edits.get(edit)?.id).copied()
    }

    /// Whether anything is to be recorded.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.told.is_some() || self.message != self.before
    }

    /// What clients saw of it when it was loaded.
    fn seen(&self) -> Vec<(Uuid, FlagState)> {
        self.rows.iter().filter_map(|r| Some((r.mailbox, r.shown.clone()?))).collect()
    }
}

/// Which of these messages have edits that wait; all of them are asked about at once.
pub async fn edited(tx: &mut TenantTx, account: AccountId, ids: &[Uuid]) -> Result<Vec<Uuid>, DbError> {
    if ids.is_empty() || !any(tx, account).await? {
        return Ok(Vec::new());
    }
    Ok(sqlx::query_scalar(
        "SELECT m.id FROM unnest($2::uuid[]) AS m(id)
         WHERE EXISTS (SELECT 1 FROM edits e WHERE e.tenant_id = $1 AND e.message_id = m.id)",
    )
    .bind(tx.tenant())
    .bind(ids)
    .fetch_all(tx.conn())
    .await?)
}

/// Whether any edit of the account waits.
pub async fn any(tx: &mut TenantTx, account: AccountId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM edits WHERE tenant_id = $1 AND account_id = $2)")
        .bind(tx.tenant())
        .bind(account)
        .fetch_one(tx.conn())
        .await?)
}

/// These messages of one account, in the order of their ids; those that do not exist are left out. A message without
/// edits and placements is loaded too.
pub async fn load(tx: &mut TenantTx, account: AccountId, ids: &[Uuid]) -> Result<Vec<Work>, DbError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let (all_mail, labels) = store_of(tx, account).await?;
    let message = Message { all_mail, labels, ..Message::default() };
    let mut works: Vec<Work> = sorted
        .iter()
        .map(|id| Work {
            id: MessageId(*id),
            message: message.clone(),
            before: message.clone(),
            rows: Vec::new(),
            arrivals: Vec::new(),
            sent_at: HashMap::new(),
            told: None,
        })
        .collect();
    load_rows(tx, &sorted, &mut works).await?;
    load_edits(tx, &sorted, &mut works).await?;
    for work in &mut works {
        work.before = work.message.clone();
    }
    Ok(works)
}

/// What is particular in the account's store.
async fn store_of(tx: &mut TenantTx, account: AccountId) -> Result<(Option<MailboxKey>, Labels), DbError> {
    let rows: Vec<(Uuid, String, bool)> = sqlx::query_as(
        "SELECT b.id, b.role, coalesce((SELECT l.labels FROM account_leases l WHERE l.tenant_id = $1 AND l.account_id = $2), false)
         FROM mailboxes b WHERE b.tenant_id = $1 AND b.account_id = $2 AND b.role IN ('all', 'trash', 'junk') ORDER BY b.id",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_all(tx.conn())
    .await?;
    let of =
        |all: bool| rows.iter().filter(move |r| (r.1 == "all") == all).map(|r| MailboxKey(r.0.as_u128()));
    let are = rows.iter().any(|r| r.2);
    Ok((of(true).next(), Labels { are, bins: if are { of(false).collect() } else { Vec::new() } }))
}

/// Loads `works` again after their rows were changed by other means: what clients saw stays what it was at first.
///
/// # Errors
/// Those of the database.
pub async fn load_again(tx: &mut TenantTx, account: AccountId, works: &[Work]) -> Result<Vec<Work>, DbError> {
    let ids: Vec<Uuid> = works.iter().map(|w| w.id.0).collect();
    let mut again = load(tx, account, &ids).await?;
    for (work, first) in again.iter_mut().zip(works) {
        work.told = Some(first.seen());
    }
    Ok(again)
}

/// Hands each row to the message it is of.
fn hand_out(
    works: &mut [Work],
    rows: &[PgRow],
    take: impl Fn(&mut Work, &PgRow) -> Result<(), sqlx::Error>,
) -> Result<(), sqlx::Error> {
    for row in rows {
        let id: Uuid = row.try_get("message_id")?;
        let at = works.binary_search_by_key(&id, |w| w.id.0).ok();
        if let Some(work) = at.and_then(|at| works.get_mut(at)) {
            take(work, row)?;
        }
    }
    Ok(())
}

async fn load_rows(tx: &mut TenantTx, ids: &[Uuid], works: &mut [Work]) -> Result<(), DbError> {
    // Looked up one by one: without statistics a list of ids has the whole table read.
    let rows = sqlx::query(
        "SELECT p.id, p.message_id, p.mailbox_id, p.generation, p.uid, p.flags, p.keywords, p.base_flags, p.base_keywords,
           p.hidden_at IS NULL AS visible, p.marked, p.internal_date, p.sort_at, p.modseq, b.generation AS present
         FROM unnest($2::uuid[]) AS m(id)
         CROSS JOIN LATERAL (SELECT * FROM message_mailboxes l WHERE l.tenant_id = $1 AND l.message_id = m.id OFFSET 0) p
         CROSS JOIN LATERAL (SELECT generation FROM mailboxes x WHERE x.tenant_id = $1 AND x.id = p.mailbox_id OFFSET 0) b
         ORDER BY p.id",
    )
    .bind(tx.tenant())
    .bind(ids)
    .fetch_all(tx.conn())
    .await?;
    Ok(hand_out(works, &rows, take_row)?)
}

fn take_row(work: &mut Work, row: &PgRow) -> Result<(), sqlx::Error> {
    let read = read_row(row)?;
    let present: i32 = row.try_get("present")?;
    if let Some(server) = &read.server {
        let uid = (server.generation == present).then(|| Uid::try_from(server.uid).ok()).flatten();
        work.message.server.push(Held {
            row: Some(read.id.as_u128()),
            mailbox: MailboxKey(read.mailbox.as_u128()),
            uid,
            flags: server.flags.clone(),
            marked: server.marked,
        });
    }
    work.rows.push(read);
    Ok(())
}

fn read_row(row: &PgRow) -> Result<Row, sqlx::Error> {
    let state = |flags: &str, keywords: &str| -> Result<FlagState, sqlx::Error> {
        Ok(FlagState {
            flags: Flags::from_bits(row.try_get(flags)?),
            keywords: Keywords::from(row.try_get::<Vec<String>, _>(keywords)?),
        })
    };
    let server = match row.try_get::<Option<i64>, _>("uid")? {
        Some(uid) => Some(ServerPart {
            generation: row.try_get("generation")?,
            uid,
            flags: state("base_flags", "base_keywords")?,
            marked: row.try_get("marked")?,
        }),
        None => None,
    };
    let visible: bool = row.try_get("visible")?;
    Ok(Row {
        id: row.try_get("id")?,
        mailbox: row.try_get("mailbox_id")?,
        server,
        shown: if visible { Some(state("flags", "keywords")?) } else { None },
        dates: Dates {
            internal: row.try_get("internal_date")?,
            sort: row.try_get("sort_at")?,
            modseq: row.try_get("modseq")?,
        },
    })
}

async fn load_edits(tx: &mut TenantTx, ids: &[Uuid], works: &mut [Work]) -> Result<(), DbError> {
    let rows = sqlx::query(
        "SELECT e.id, e.message_id, e.kind, e.mailbox_id, e.target_mailbox_id, e.flags_add, e.flags_remove, e.keywords_add,
           e.keywords_remove, e.state, e.done_in, e.sent_from, e.sent_at, e.carried_flags, e.carried_keywords
         FROM unnest($2::uuid[]) AS m(id)
         CROSS JOIN LATERAL (SELECT * FROM edits l WHERE l.tenant_id = $1 AND l.message_id = m.id OFFSET 0) e
         ORDER BY e.id",
    )
    .bind(tx.tenant())
    .bind(ids)
    .fetch_all(tx.conn())
    .await?;
    Ok(hand_out(works, &rows, take_edit)?)
}

fn take_edit(work: &mut Work, row: &PgRow) -> Result<(), sqlx::Error> {
    let edit = read_edit(row)?;
    if let Some(at) = row.try_get::<Option<DateTime<Utc>>, _>("sent_at")? {
        work.sent_at.insert(edit.id, at);
    }
    work.message.edits.push(edit);
    Ok(())
}

fn unknown(column: &str, value: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: format!("unknown value {value:?}").into() }
}

fn read_edit(row: &PgRow) -> Result<Edit, sqlx::Error> {
    let mailbox = |column: &str| -> Result<Option<MailboxKey>, sqlx::Error> {
        Ok(row.try_get::<Option<Uuid>, _>(column)?.map(|id| MailboxKey(id.as_u128())))
    };
    let words = |column: &str| -> Result<Keywords, sqlx::Error> {
        Ok(Keywords::from(row.try_get::<Vec<String>, _>(column)?))
    };
    let flags = |column: &str| -> Result<Flags, sqlx::Error> { Ok(Flags::from_bits(row.try_get(column)?)) };
    let at = mailbox("mailbox_id")?;
    let scope = at.map_or(Scope::All, Scope::In);
    let missing = |column: &str| unknown(column, "NULL");
    let target = || mailbox("target_mailbox_id")?.ok_or_else(|| missing("target_mailbox_id"));
    let change = match row.try_get::<&str, _>("kind")? {
        "flags" => Change::Flags {
            change: StoreChange {
                add: flags("flags_add")?,
                remove: flags("flags_remove")?,
                add_keywords: words("keywords_add")?,
                remove_keywords: words("keywords_remove")?,
            },
            scope,
        },
        "copy" => Change::Copy { from: at.ok_or_else(|| missing("mailbox_id"))?, to: target()? },
        "move" => Change::Move { from: scope, to: target()? },
        "remove" => Change::Remove { from: scope },
        other => return Err(unknown("kind", other)),
    };
    let state = match row.try_get::<&str, _>("state")? {
        "open" => State::Open,
        "sent" => State::Sent,
        "in_doubt" => State::InDoubt,
        "copied" => State::Copied,
        "done_unseen" => State::DoneUnseen,
        other => return Err(unknown("state", other)),
    };
    let done_in: Vec<Uuid> = row.try_get("done_in")?;
    Ok(Edit {
        id: row.try_get("id")?,
        change,
        state,
        done_in: done_in.into_iter().map(|id| MailboxKey(id.as_u128())).collect(),
        sent_from: mailbox("sent_from")?,
        carried: FlagState { flags: flags("carried_flags")?, keywords: words("carried_keywords")? },
    })
}
