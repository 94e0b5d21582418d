//! Mailboxes as clients see them, and what clients change of them.
//!
//! Here: reading. [`create`] makes one, [`crate::sync::mailbox_change`] renames, moves, subscribes and deletes. Each writes the row as it is
//! meant to become, with a `pending_changes` row for the server. Not here: what a synchronisation learns from LIST.
//! The next property: a column in `COLUMNS`, a field, a line in `read`.

pub mod create;
pub mod meant;

use crate::domain::states::mailbox_role;
use mail::mailbox::NameError;
use mail::mailbox::Role;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId};

/// A mailbox of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// Row id; survives a rename.
    pub id: MailboxId,
    /// Its account.
    pub account_id: AccountId,
    /// Last part of the path.
    pub name: String,
    /// Decoded path with the server's delimiter.
    pub path: String,
    /// The server's delimiter, where it has one.
    pub delimiter: Option<String>,
    /// What it is for.
    pub role: Option<Role>,
    /// Visible placements.
    pub total: i32,
    /// Those without `\Seen`.
    pub unread: i32,
    /// Whether it can hold messages.
    pub selectable: bool,
    /// Whether the user subscribed to it.
    pub subscribed: bool,
    /// Whether its messages are kept here.
    pub synchronised: bool,
}

/// Why a mailbox was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum MailboxError {
    /// The name cannot be one.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is one of that name at that place.
    #[error("a mailbox of this name exists there already")]
    Exists,
    /// The parent is none of this account's mailboxes.
    #[error("there is no such parent mailbox")]
    NoSuchParent,
    /// The parent is the mailbox itself or below it.
    #[error("a mailbox cannot be put below itself")]
    BelowItself,
    /// INBOX stays where it is.
    #[error("INBOX can be neither renamed nor deleted")]
    Inbox,
    /// It has mailboxes below it.
    #[error("the mailbox has others below it; delete those first")]
    HasChildren,
    /// It has mail in it, and that was not to be deleted with it.
    #[error("the mailbox has mail in it; say with_messages=true to have that moved to Trash")]
    NotEmpty,
    /// Our user moved or copied messages out of it, and the server has not done so yet: they would go with it.
    #[error("messages are still on their way out of the mailbox; try again in a moment")]
    MovesWait,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<sqlx::Error> for MailboxError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

impl Mailbox {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            account_id: row.try_get("account_id")?,
            name: row.try_get("name")?,
            path: row.try_get("path")?,
            delimiter: row.try_get("delimiter")?,
            role: mailbox_role(row)?,
            total: row.try_get("total")?,
            unread: row.try_get("unread")?,
            selectable: row.try_get("selectable")?,
            subscribed: row.try_get("subscribed")?,
            synchronised: row.try_get("synchronised")?,
        })
    }
}

/// The last row of a page: INBOX is rank 0, the others follow by path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// 0 for INBOX, else 1.
    pub rank: i32,
    /// The path in lower case, as the database folds it.
    pub path: String,
    /// The row.
    pub id: MailboxId,
}

/// One page.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The mailboxes, INBOX first, then by path.
    pub mailboxes: Vec<Mailbox>,
    /// Where the next page begins, if there is one.
    pub next: Option<Key>,
}

/// A page of the account's mailboxes; `None` when there is no such account.
pub async fn list(
    tx: &mut TenantTx,
    account: AccountId,
    after: Option<&Key>,
    limit: usize,
) -> Result<Option<Page>, DbError> {
    if !account_exists(tx, account).await? {
        return Ok(None);
    }
    let rows = sqlx::query(
        "SELECT * FROM (SELECT id, account_id, name, path, delimiter, role, total, unread, selectable, subscribed, synchronised,
                               CASE WHEN role = 'inbox' THEN 0 ELSE 1 END AS rank, lower(path) AS folded
                        FROM mailboxes WHERE tenant_id = $1 AND account_id = $2) m
         WHERE $3::int IS NULL OR (rank, folded, id) > ($3, $4, $5)
         ORDER BY rank, folded, id LIMIT $6",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(after.map(|k| k.rank))
    .bind(after.map(|k| k.path.as_str()))
    .bind(after.map(|k| k.id))
    .bind(i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX))
    .fetch_all(tx.conn())
    .await?;
    let mailboxes = rows.iter().take(limit).map(Mailbox::read).collect::<Result<_, _>>()?;
    let mut page = Page { mailboxes, next: None };
    if rows.len() > limit
        && let Some(last) = rows.get(limit.saturating_sub(1))
    {
        page.next =
            Some(Key { rank: last.try_get("rank")?, path: last.try_get("folded")?, id: last.try_get("id")? });
    }
    Ok(Some(page))
}

/// One mailbox.
pub async fn get(tx: &mut TenantTx, id: MailboxId) -> Result<Option<Mailbox>, DbError> {
    let row = sqlx::query(
        "SELECT id, account_id, name, path, delimiter, role, total, unread, selectable, subscribed, synchronised
         FROM mailboxes WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.as_ref().map(Mailbox::read).transpose()?)
}

/// Whether the tenant has this account.
pub async fn account_exists(tx: &mut TenantTx, account: AccountId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM accounts WHERE tenant_id = $1 AND id = $2)")
        .bind(tx.tenant())
        .bind(account)
        .fetch_one(tx.conn())
        .await?)
}

/// Adds what the server is to do with a mailbox, an event about it, and the job that pushes it.
pub(crate) async fn remember(
    tx: &mut TenantTx,
    account: AccountId,
    mailbox: Option<MailboxId>,
    kind: &str,
    data: serde_json::Value,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO pending_changes (tenant_id, id, account_id, kind, mailbox_id, data) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(tx.tenant())
    .bind(crate::platform::id::ChangeId::new())
    .bind(account)
    .bind(kind)
    .bind(mailbox)
    .bind(data)
    .execute(tx.conn())
    .await?;
    crate::domain::edits::ask::push(tx, account).await
}
