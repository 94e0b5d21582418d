//! Pages of messages of one account, by keyset.
//!
//! Two statements a page, the rows and their placements. [`scope`] asks whether the account and what the filter names
//! exist: before the page where a role stands for the mailbox, after it where it has no rows.
//! With a mailbox the rows come from its placements, so that the order and the counts are those of the mailbox. A new
//! filter: a field in [`Filter`], a condition in `conditions` for both cases.

use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder, Row as _};

use super::{SUMMARY, Summary, fill_placements};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId, MessageId, ThreadId};

/// Orders of a list; ties are broken by id, in the same direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sort {
    /// Newest arrival first.
    #[default]
    ReceivedDesc,
    /// Oldest arrival first.
    ReceivedAsc,
    /// Newest `Date` first.
    DateDesc,
    /// Oldest `Date` first.
    DateAsc,
}

impl Sort {
    /// From the parameter's text: `-received_at`, `received_at`, `-date` or `date`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "-received_at" => Self::ReceivedDesc,
            "received_at" => Self::ReceivedAsc,
            "-date" => Self::DateDesc,
            "date" => Self::DateAsc,
            _ => return None,
        })
    }

    const fn descending(self) -> bool {
        matches!(self, Self::ReceivedDesc | Self::DateDesc)
    }

    const fn by_date(self) -> bool {
        matches!(self, Self::DateDesc | Self::DateAsc)
    }
}

/// Which messages of the account are listed.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those of one mailbox.
    pub mailbox: Option<MailboxId>,
    /// Without (or with) `\Seen`.
    pub unread: Option<bool>,
    /// With (or without) `\Flagged`.
    pub starred: Option<bool>,
    /// With (or without) attachments.
    pub has_attachments: Option<bool>,
    /// Those of one thread.
    pub thread: Option<ThreadId>,
}

/// The last row of a page: where the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its sort key.
    pub at: DateTime<Utc>,
    /// Its id.
    pub id: MessageId,
}

/// One page.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The messages, in order.
    pub messages: Vec<Summary>,
    /// Where the next page begins, if there is one.
    pub next: Option<Key>,
}

/// What the names in a request stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The account, the mailbox or the thread does not exist.
    NotFound,
    /// The account has no mailbox of that role, so the list is empty.
    Empty,
    /// All of the account, or one of its mailboxes.
    Of(Option<MailboxId>),
}

/// Looks up the account, the mailbox (by id or by role) and the thread of a request, in one statement.
pub async fn scope(
    tx: &mut TenantTx,
    account: AccountId,
    mailbox: Option<MailboxId>,
    role: Option<&str>,
    thread: Option<ThreadId>,
) -> Result<Scope, DbError> {
    let row = sqlx::query(
        "SELECT EXISTS (SELECT 1 FROM accounts WHERE tenant_id = $1 AND id = $2)
            AND ($3::uuid IS NULL OR EXISTS (SELECT 1 FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND id = $3))
            AND ($5::uuid IS NULL OR EXISTS (SELECT 1 FROM threads WHERE tenant_id = $1 AND account_id = $2 AND id = $5)) AS known,
            (SELECT id FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND role = $4 ORDER BY id LIMIT 1) AS by_role",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(mailbox)
    .bind(role)
    .bind(thread)
    .fetch_one(tx.conn())
    .await?;
    let by_role: Option<MailboxId> = row.try_get("by_role")?;
    Ok(match (row.try_get("known")?, role) {
        (false, _) => Scope::NotFound,
        (true, None) => Scope::Of(mailbox),
        (true, Some(_)) => by_role.map_or(Scope::Empty, |id| Scope::Of(Some(id))),
    })
}

/// A page of at most `limit` messages behind `after`. Two statements.
pub async fn page(
    tx: &mut TenantTx,
    account: AccountId,
    filter: &Filter,
    sort: Sort,
    after: Option<Key>,
    limit: usize,
) -> Result<Page, DbError> {
    let key = match (sort.by_date(), filter.mailbox.is_some()) {
        (true, true) => "p.date_sort_at",
        (true, false) => "g.date_sort_at",
        (false, true) => "p.sort_at",
        (false, false) => "g.sort_at",
    };
    // The tie-breaker must be the column of the index that is walked.
    let id = if filter.mailbox.is_some() { "p.message_id" } else { "g.id" };
    let mut sql = QueryBuilder::<Postgres>::new(format!("SELECT {SUMMARY}, {key} AS key_at FROM "));
    conditions(&mut sql, tx, account, filter);
    let (compare, direction) = if sort.descending() { ("<", "DESC") } else { (">", "ASC") };
    if let Some(after) = after {
        sql.push(format!(" AND ({key}, {id}) {compare} ("))
            .push_bind(after.at)
            .push(", ")
            .push_bind(after.id)
            .push(")");
    }
    sql.push(format!(" ORDER BY {key} {direction}, {id} {direction} LIMIT "));
    sql.push_bind(i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX));
    let rows = sql.build().fetch_all(tx.conn()).await?;
    let mut page = Page::default();
    for row in rows.iter().take(limit) {
        page.messages.push(Summary::read(row)?);
    }
    if rows.len() > limit
        && let Some(last) = rows.get(limit.saturating_sub(1))
    {
        page.next = Some(Key { at: last.try_get("key_at")?, id: last.try_get("id")? });
    }
    fill_placements(tx, &mut page.messages).await?;
    Ok(page)
}

fn conditions(sql: &mut QueryBuilder<Postgres>, tx: &TenantTx, account: AccountId, filter: &Filter) {
    let not = |wanted: bool| if wanted { "" } else { "NOT " };
    if let Some(mailbox) = filter.mailbox {
        sql.push("message_mailboxes p JOIN messages g ON g.tenant_id = p.tenant_id AND g.id = p.message_id WHERE p.tenant_id = ");
        // Without the account: the planner would take it and the mailbox for independent, expect a handful of rows, and
        // sort the mailbox for each page.
        sql.push_bind(tx.tenant()).push(" AND p.mailbox_id = ").push_bind(mailbox);
        // g.gone_at follows the placements, so it need not be asked for.
        sql.push(" AND p.hidden_at IS NULL");
        if let Some(unread) = filter.unread {
            sql.push(if unread { " AND p.flags & 1 = 0" } else { " AND p.flags & 1 = 1" });
        }
        if let Some(starred) = filter.starred {
            sql.push(if starred { " AND p.flags & 4 = 4" } else { " AND p.flags & 4 = 0" });
        }
    } else {
        sql.push("messages g WHERE g.tenant_id = ").push_bind(tx.tenant());
        sql.push(" AND g.account_id = ").push_bind(account).push(" AND g.gone_at IS NULL");
        let any = |bit: i16| {
            format!(
                "EXISTS (SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = g.tenant_id AND p.message_id = g.id AND p.hidden_at IS NULL AND p.flags & {bit} <> 0)"
            )
        };
        if let Some(unread) = filter.unread {
            sql.push(format!(" AND {}{}", not(!unread), any(1)));
        }
        if let Some(starred) = filter.starred {
            sql.push(format!(" AND {}{}", not(starred), any(4)));
        }
    }
    if let Some(has) = filter.has_attachments {
        sql.push(format!(" AND {}g.has_attachments", not(has)));
    }
    if let Some(thread) = filter.thread {
        sql.push(" AND g.thread_id = ").push_bind(thread);
    }
}
