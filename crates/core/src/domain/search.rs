//! Search over the messages of a tenant: the parsed query, asked of the index first and then of the rows.
//!
//! `compile` turns the tree into one SQL condition; [`index`] fills the index; [`snippet`] marks the words found. Where a
//! query has words that every match must hold, candidates come from `search_messages`, which uses the index although
//! row-level security would forbid it and returns nothing but ids; the whole condition is then checked on those ids
//! under row-level security. Any other query is one statement over the messages themselves.
//!
//! A new operator: in `mail::query`, then an arm in `compile`.

mod compile;
pub mod index;
pub mod snippet;

use chrono::{DateTime, Utc};
use mail::query::{Query, necessary_tsquery};
use sqlx::{Postgres, QueryBuilder, Row as _};
use uuid::Uuid;

use crate::domain::message::{self, Summary};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MessageId};
use compile::{Names, condition};

/// The function returns no more at once, whatever it is asked for.
const CANDIDATES_MAX: usize = 2_000;
/// Candidates looked at for one page; a condition that none of so many fulfils would keep a client waiting for
/// seconds. The page that ends there is short and says that there is more.
const CANDIDATES_PER_PAGE: usize = 200_000;

/// A query and where it looks.
#[derive(Debug, Clone)]
pub struct Search {
    /// What was asked for.
    pub query: Query,
    /// One account, or all of the tenant.
    pub account: Option<AccountId>,
}

/// The last row of a page: where the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its sort key.
    pub at: DateTime<Utc>,
    /// Its id.
    pub id: MessageId,
}

/// One page of hits.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The messages, newest first.
    pub messages: Vec<Summary>,
    /// Sources of those that are small enough to look for a snippet in.
    pub sources: Vec<(MessageId, Vec<u8>)>,
    /// Where the next page begins, if there is one.
    pub next: Option<Key>,
}

/// Bytes of sources read for the snippets of one page.
const SOURCES_MAX_BYTES: i64 = 12 * 1024 * 1024;

/// A page of at most `limit` hits behind `after`, newest first.
///
/// # Errors
/// Only those of the database: a query that parsed can always be asked.
pub async fn page(
    tx: &mut TenantTx,
    search: &Search,
    after: Option<Key>,
    limit: usize,
) -> Result<Page, DbError> {
    let (hits, next) = hits(tx, search, after, limit).await?;
    let ids: Vec<MessageId> = hits.iter().map(|h| h.id).collect();
    let messages = message::by_ids(tx, &ids).await?;
    let per_source = SOURCES_MAX_BYTES / i64::try_from(limit.max(1)).unwrap_or(i64::MAX);
    let sources = if snippet::is_worth_reading(&search.query) && !ids.is_empty() {
        crate::domain::blob::of_messages(tx, &ids, per_source).await?
    } else {
        Vec::new()
    };
    Ok(Page { messages, sources, next })
}

/// The ids of all hits, newest first, and whether there are more than `max`.
pub async fn ids(tx: &mut TenantTx, search: &Search, max: usize) -> Result<(Vec<MessageId>, bool), DbError> {
    let (mut found, mut after) = (Vec::new(), None);
    while found.len() < max {
        let (page, next) = hits(tx, search, after, (max - found.len()).min(CANDIDATES_MAX)).await?;
        found.extend(page.iter().map(|h| h.id));
        after = next;
        if after.is_none() {
            return Ok((found, false));
        }
    }
    Ok((found, true))
}

/// At most `limit` hits behind `after`, and where the next begin if there may be more.
async fn hits(
    tx: &mut TenantTx,
    search: &Search,
    after: Option<Key>,
    limit: usize,
) -> Result<(Vec<Key>, Option<Key>), DbError> {
    let names = Names::resolve(tx, &search.query).await?;
    let words = necessary_tsquery(&search.query);
    match words {
        Some(words) => by_words(tx, search, &names, &words, (after, limit)).await,
        None => by_rows(tx, search, &names, after, limit).await,
    }
}

/// Walks the candidates of the index in growing batches until the page is full.
async fn by_words(
    tx: &mut TenantTx,
    search: &Search,
    names: &Names,
    words: &str,
    (after, limit): (Option<Key>, usize),
) -> Result<(Vec<Key>, Option<Key>), DbError> {
    let bounds = compile::bounds(&search.query);
    let accounts = names.accounts_scope(search, tx.reach());
    let (mut found, mut seen, mut last) = (Vec::new(), 0, after);
    let mut batch = limit.saturating_mul(2).clamp(100, CANDIDATES_MAX);
    loop {
        let mut sql = QueryBuilder::<Postgres>::new(
            "WITH c AS MATERIALIZED (SELECT message_id, sort_at FROM search_messages(",
        );
        sql.push_bind(words.to_owned()).push("::tsquery, ").push_bind(accounts.clone()).push("::uuid[], ");
        // The function's lower end is exclusive, so an upper bound of the query can stand in for a cursor.
        let start = last.map_or((bounds.before, Uuid::nil()), |k| (Some(k.at), k.id.0));
        sql.push_bind(start.0).push(", ").push_bind(start.1).push(", ").push_bind(bounds.since).push(", ");
        sql.push_bind(i32::try_from(batch).unwrap_or(i32::MAX));
        sql.push(")) SELECT c.message_id, c.sort_at, coalesce(g.gone_at IS NULL AND ");
        condition(&mut sql, search, names);
        sql.push(", false) AS hit FROM c LEFT JOIN messages g ON g.tenant_id = ").push_bind(tx.tenant());
        sql.push(" AND g.id = c.message_id LEFT JOIN message_search s ON s.tenant_id = g.tenant_id AND s.message_id = g.id");
        sql.push(" ORDER BY c.sort_at DESC, c.message_id DESC");
        let rows = sql.build().fetch_all(tx.conn()).await?;
        for row in &rows {
            let key = Key { at: row.try_get("sort_at")?, id: row.try_get("message_id")? };
            if row.try_get("hit")? {
                if found.len() == limit {
                    let next = found.last().copied();
                    return Ok((found, next));
                }
                found.push(key);
            }
            last = Some(key);
        }
        if rows.len() < batch {
            return Ok((found, None));
        }
        seen += rows.len();
        if seen >= CANDIDATES_PER_PAGE {
            return Ok((found, last));
        }
        batch = CANDIDATES_MAX;
    }
}

async fn by_rows(
    tx: &mut TenantTx,
    search: &Search,
    names: &Names,
    after: Option<Key>,
    limit: usize,
) -> Result<(Vec<Key>, Option<Key>), DbError> {
    let bounds = compile::bounds(&search.query);
    let mut sql = QueryBuilder::<Postgres>::new("SELECT g.id, g.sort_at FROM messages g");
    if compile::has_words(&search.query) {
        sql.push(" LEFT JOIN message_search s ON s.tenant_id = g.tenant_id AND s.message_id = g.id");
    }
    sql.push(" WHERE g.tenant_id = ").push_bind(tx.tenant()).push(" AND g.gone_at IS NULL");
    match names.accounts_scope(search, tx.reach()).as_deref() {
        // Equality lets the index give the order; a list would be sorted.
        Some([one]) => sql.push(" AND g.account_id = ").push_bind(*one),
        Some(many) => sql.push(" AND g.account_id = ANY (").push_bind(many.to_vec()).push(")"),
        None => &mut sql,
    };
    if let Some(after) = after {
        sql.push(" AND (g.sort_at, g.id) < (").push_bind(after.at).push(", ").push_bind(after.id).push(")");
    }
    if let Some(before) = bounds.before {
        sql.push(" AND g.sort_at < ").push_bind(before);
    }
    if let Some(since) = bounds.since {
        sql.push(" AND g.sort_at >= ").push_bind(since);
    }
    sql.push(" AND ");
    condition(&mut sql, search, names);
    sql.push(" ORDER BY g.sort_at DESC, g.id DESC LIMIT ");
    sql.push_bind(i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX));
    let rows = sql.build().fetch_all(tx.conn()).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows.iter().take(limit) {
        found.push(Key { at: row.try_get("sort_at")?, id: row.try_get("id")? });
    }
    let next = found.last().copied().filter(|_| rows.len() > limit);
    Ok((found, next))
}
