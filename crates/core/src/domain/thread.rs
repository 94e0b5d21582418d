//! Conversations: lists and one alone, computed from the visible messages.
//!
//! A thread without a visible message is in no list. Which message belongs to which thread is decided when it is
//! stored, not here.

use chrono::{DateTime, Utc};
use mail::address::Address;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder, Row as _};
use uuid::Uuid;

use crate::domain::message::{self, SUMMARY, Summary};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MessageId, ThreadId};

/// People shown of a thread.
const PARTICIPANTS_MAX: usize = 50;

/// A conversation as lists show it.
#[derive(Debug, Clone)]
pub struct Thread {
    /// Row id.
    pub id: ThreadId,
    /// Its account.
    pub account_id: AccountId,
    /// Subject of its oldest visible message.
    pub subject: Option<String>,
    /// Who wrote in it, newest first, each once, 50 at most.
    pub participants: Vec<Address>,
    /// Visible messages.
    pub message_count: i64,
    /// Those that are unread in every mailbox.
    pub unread_count: i64,
    /// Arrival of the newest, within a sane range.
    pub last_message_at: DateTime<Utc>,
    /// Beginning of the newest's text.
    pub snippet: String,
}

/// The last row of a page: where the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its sort key.
    pub at: DateTime<Utc>,
    /// Its id.
    pub id: Uuid,
}

/// One page of threads.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The threads, the one with the newest message first.
    pub threads: Vec<Thread>,
    /// Where the next page begins, if there is one.
    pub next: Option<Key>,
}

/// Gathers what is shown of the threads in `picked` (columns of `threads`, and `key_at`).
const SHOW: &str = "
    SELECT t.id, t.account_id, t.key_at, f.subject, l.snippet, c.message_count, c.unread_count, c.last_at, w.participants
    FROM picked t
    CROSS JOIN LATERAL (
      SELECT count(*) AS message_count, max(g.sort_at) AS last_at,
             count(*) FILTER (WHERE NOT EXISTS (SELECT 1 FROM message_mailboxes p WHERE p.tenant_id = g.tenant_id
               AND p.message_id = g.id AND p.hidden_at IS NULL AND p.flags & 1 = 1)) AS unread_count
      FROM messages g WHERE g.tenant_id = t.tenant_id AND g.thread_id = t.id AND g.gone_at IS NULL) c
    CROSS JOIN LATERAL (
      SELECT g.subject FROM messages g WHERE g.tenant_id = t.tenant_id AND g.thread_id = t.id AND g.gone_at IS NULL
      ORDER BY g.sort_at, g.id LIMIT 1) f
    CROSS JOIN LATERAL (
      SELECT g.snippet FROM messages g WHERE g.tenant_id = t.tenant_id AND g.thread_id = t.id AND g.gone_at IS NULL
      ORDER BY g.sort_at DESC, g.id DESC LIMIT 1) l
    CROSS JOIN LATERAL (
      SELECT coalesce(jsonb_agg(r.from_addresses), '[]') AS participants FROM (
        SELECT g.from_addresses FROM messages g WHERE g.tenant_id = t.tenant_id AND g.thread_id = t.id AND g.gone_at IS NULL
        ORDER BY g.sort_at DESC, g.id DESC LIMIT 200) r) w
    ORDER BY t.key_at DESC, t.id DESC";

impl Thread {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            account_id: row.try_get("account_id")?,
            subject: row.try_get("subject")?,
            participants: people(row.try_get::<Json<Vec<Vec<Address>>>, _>("participants")?.0),
            message_count: row.try_get("message_count")?,
            unread_count: row.try_get("unread_count")?,
            last_message_at: row.try_get("last_at")?,
            snippet: row.try_get("snippet")?,
        })
    }
}

fn people(lists: Vec<Vec<Address>>) -> Vec<Address> {
    let mut seen = std::collections::HashSet::new();
    let mut people = Vec::new();
    for person in lists.into_iter().flatten() {
        if people.len() < PARTICIPANTS_MAX && seen.insert(person.address.to_lowercase()) {
            people.push(person);
        }
    }
    people
}

/// A page of the account's threads; `None` when there is no such account. Two statements.
pub async fn list(
    tx: &mut TenantTx,
    account: AccountId,
    after: Option<Key>,
    limit: usize,
) -> Result<Option<Page>, DbError> {
    if !crate::domain::mailbox::account_exists(tx, account).await? {
        return Ok(None);
    }
    let mut sql = QueryBuilder::<Postgres>::new(
        "WITH picked AS (
           SELECT t.tenant_id, t.id, t.account_id, t.last_message_at AS key_at FROM threads t WHERE t.tenant_id = ",
    );
    sql.push_bind(tx.tenant()).push(" AND t.account_id = ").push_bind(account);
    // Left out of the first page: a plan for `$3 IS NULL OR …` reads every page from the top of the list.
    if let Some(after) = after {
        sql.push(" AND (t.last_message_at, t.id) < (")
            .push_bind(after.at)
            .push(", ")
            .push_bind(after.id)
            .push(")");
    }
    sql.push(
        " AND EXISTS (SELECT 1 FROM messages g WHERE g.tenant_id = t.tenant_id AND g.thread_id = t.id AND g.gone_at IS NULL)
           ORDER BY t.last_message_at DESC, t.id DESC LIMIT ",
    );
    sql.push_bind(i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX)).push(")").push(SHOW);
    let rows = sql.build().fetch_all(tx.conn()).await?;
    let threads = rows.iter().take(limit).map(Thread::read).collect::<Result<_, _>>()?;
    let mut page = Page { threads, next: None };
    if rows.len() > limit
        && let Some(last) = rows.get(limit.saturating_sub(1))
    {
        page.next = Some(Key { at: last.try_get("key_at")?, id: last.try_get("id")? });
    }
    Ok(Some(page))
}

/// One thread that has a visible message.
pub async fn get(tx: &mut TenantTx, id: ThreadId) -> Result<Option<Thread>, DbError> {
    let sql = format!(
        "WITH picked AS (
           SELECT t.tenant_id, t.id, t.account_id, t.last_message_at AS key_at FROM threads t
           WHERE t.tenant_id = $1 AND t.id = $2){SHOW}"
    );
    let row =
        sqlx::query(sqlx::AssertSqlSafe(sql)).bind(tx.tenant()).bind(id).fetch_optional(tx.conn()).await?;
    Ok(row.as_ref().map(Thread::read).transpose()?)
}

/// A page of a thread's messages, oldest first, and where the next begins. Two statements.
pub async fn messages(
    tx: &mut TenantTx,
    id: ThreadId,
    after: Option<Key>,
    limit: usize,
) -> Result<(Vec<Summary>, Option<Key>), DbError> {
    let mut sql = QueryBuilder::<Postgres>::new(format!(
        "SELECT {SUMMARY}, g.sort_at FROM messages g WHERE g.tenant_id = "
    ));
    sql.push_bind(tx.tenant()).push(" AND g.thread_id = ").push_bind(id).push(" AND g.gone_at IS NULL");
    if let Some(after) = after {
        sql.push(" AND (g.sort_at, g.id) > (").push_bind(after.at).push(", ").push_bind(after.id).push(")");
    }
    sql.push(" ORDER BY g.sort_at, g.id LIMIT ");
    sql.push_bind(i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX));
    let rows = sql.build().fetch_all(tx.conn()).await?;
    let mut found: Vec<Summary> = rows.iter().take(limit).map(Summary::read).collect::<Result<_, _>>()?;
    let mut next = None;
    if rows.len() > limit
        && let Some(last) = rows.get(limit.saturating_sub(1))
    {
        next = Some(Key { at: last.try_get("sort_at")?, id: last.try_get::<MessageId, _>("id")?.0 });
    }
    message::fill_placements(tx, &mut found).await?;
    Ok((found, next))
}

/// Sets `last_message_at` of the threads of these messages to their newest visible one, after messages went or came.
pub(crate) async fn refresh(tx: &mut TenantTx, messages: &[Uuid]) -> Result<(), DbError> {
    let threads: Vec<Uuid> =
        sqlx::query_scalar("SELECT DISTINCT thread_id FROM messages WHERE tenant_id = $1 AND id = ANY ($2)")
            .bind(tx.tenant())
            .bind(messages)
            .fetch_all(tx.conn())
            .await?;
    // One look into the index for each thread. As a join with a GROUP BY the planner, on statistics of an account that
    // has just been filled, went over all messages for each message: 15 s for one of 600 (PostgreSQL 15, 2026-11-21).
    sqlx::query(
        "UPDATE threads t SET last_message_at = n.at
         FROM unnest($2::uuid[]) AS u(id) CROSS JOIN LATERAL (
           SELECT g.sort_at AS at FROM messages g
           WHERE g.tenant_id = $1 AND g.thread_id = u.id AND g.gone_at IS NULL ORDER BY g.sort_at DESC LIMIT 1) n
         WHERE t.tenant_id = $1 AND t.id = u.id AND t.last_message_at <> n.at",
    )
    .bind(tx.tenant())
    .bind(&threads)
    .execute(tx.conn())
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_listed_once_whatever_the_case_of_the_address() {
        let person = |name: &str, address: &str| Address { name: Some(name.into()), address: address.into() };
        let shown = people(vec![
            vec![person("Ann", "ann@a.example")],
            vec![person("A.", "ANN@a.example"), person("Bo", "bo@a.example")],
        ]);
        let names: Vec<_> = shown.iter().filter_map(|p| p.name.as_deref()).collect();
        assert_eq!(names, ["Ann", "Bo"]);
    }
}
