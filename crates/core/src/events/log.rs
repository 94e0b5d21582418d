//! Reading the log: in order of position, without gaps, up to what is on disk.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use crate::domain::event::EventKind;
use crate::platform::db::{Db, DbError, SystemTx, TenantTx};
use crate::platform::id::{AccountId, TenantId, ThreadId};

/// Where the log of a tenant begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Stream {
    /// Position of the last event.
    pub position: i64,
    /// Of the last that is on disk: readers stop there.
    pub durable: i64,
    /// Of the first that was not cut off.
    pub oldest: i64,
}

impl Stream {
    /// A log without an event.
    pub const EMPTY: Self = Self { position: 0, durable: 0, oldest: 1 };

    /// Whether all events after this position are still there.
    #[must_use]
    pub const fn reaches_back_to(&self, after: i64) -> bool {
        after >= self.oldest - 1
    }
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Entry {
    /// Its place.
    pub position: i64,
    /// Its kind, as written: a later release may have kinds that this one does not know.
    pub kind: String,
    /// Whose.
    pub account_id: Option<AccountId>,
    /// What it happened to.
    pub object_id: Option<Uuid>,
    /// The conversation of a message after it.
    pub thread_id: Option<ThreadId>,
    /// With it that conversation came into sight, or went out of it.
    pub thread_shown: Option<bool>,
    /// Old mail that was read for the first time.
    pub backfill: bool,
    /// Its payload.
    pub data: Value,
    /// When it got its position.
    pub created_at: DateTime<Utc>,
}

/// Which events somebody wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of these accounts; `None`: of all, and those of the tenant.
    pub accounts: Option<BTreeSet<AccountId>>,
    /// Of these kinds; `None`: of all.
    pub kinds: Option<BTreeSet<EventKind>>,
    /// Old mail that is read for the first time, too.
    pub backfill: bool,
}

impl Filter {
    /// Whether it lets this one through.
    #[must_use]
    pub fn wants(&self, entry: &Entry) -> bool {
        let account = |wanted: &BTreeSet<AccountId>| entry.account_id.is_some_and(|a| wanted.contains(&a));
        let kind = |wanted: &BTreeSet<EventKind>| {
            EventKind::from_word(&entry.kind).is_some_and(|kind| wanted.contains(&kind))
        };
        (self.backfill || !entry.backfill)
            && self.accounts.as_ref().is_none_or(account)
            && self.kinds.as_ref().is_none_or(kind)
    }
}

/// Where the tenant's log stands.
///
/// # Errors
/// Those of the database.
pub async fn stream(tx: &mut TenantTx) -> Result<Stream, DbError> {
    let found = sqlx::query_as("SELECT position, durable, oldest FROM tenant_streams WHERE tenant_id = $1")
        .bind(tx.tenant())
        .fetch_optional(tx.conn())
        .await?;
    Ok(found.unwrap_or(Stream::EMPTY))
}

/// Where the logs of these tenants stand, of those that have one.
///
/// # Errors
/// Those of the database.
pub async fn streams(tx: &mut SystemTx, tenants: &[TenantId]) -> Result<Vec<(TenantId, Stream)>, DbError> {
    let ids: Vec<Uuid> = tenants.iter().map(|t| t.0).collect();
    let rows: Vec<(TenantId, i64, i64, i64)> = sqlx::query_as(
        "SELECT tenant_id, position, durable, oldest FROM tenant_streams WHERE tenant_id = ANY ($1)",
    )
    .bind(ids)
    .fetch_all(tx.conn())
    .await?;
    let stream = |(tenant, position, durable, oldest)| (tenant, Stream { position, durable, oldest });
    Ok(rows.into_iter().map(stream).collect())
}

/// Waits until everything that is committed is on disk, and lets readers see it. Where the log stands then.
///
/// Commits that do not wait for the disk write events, too; one that does covers all before it. Nobody need wait for a writer
/// to make one.
///
/// # Errors
/// Those of the database.
pub async fn make_durable(db: &Db, tenant: TenantId) -> Result<Stream, DbError> {
    let mut tx = db.tenant(tenant).await?;
    let stream = stream(&mut tx).await?;
    if stream.durable >= stream.position {
        tx.release();
        return Ok(stream);
    }
    let stream = sqlx::query_as(
        "UPDATE tenant_streams SET durable = position WHERE tenant_id = $1 RETURNING position, durable, oldest",
    )
    .bind(tenant)
    .fetch_one(tx.conn())
    .await?;
    tx.commit().await?;
    Ok(stream)
}

/// Up to `limit` events after the position `after`, not beyond `until`, that `filter` lets through; in order.
///
/// # Errors
/// Those of the database.
pub async fn read(
    tx: &mut TenantTx,
    (after, until): (i64, i64),
    filter: &Filter,
    limit: usize,
) -> Result<Vec<Entry>, DbError> {
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT position, kind, account_id, object_id, thread_id, thread_shown, backfill, data, created_at
         FROM events WHERE tenant_id = ",
    );
    sql.push_bind(tx.tenant());
    sql.push(" AND position > ").push_bind(after).push(" AND position <= ").push_bind(until);
    conditions(&mut sql, filter);
    sql.push(" ORDER BY position LIMIT ").push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
    Ok(sql.build_query_as().fetch_all(tx.conn()).await?)
}

/// The position after which the last `count` events stand that `filter` lets through, up to `until`.
///
/// # Errors
/// Those of the database.
pub async fn before_last(tx: &mut TenantTx, until: i64, filter: &Filter, count: i64) -> Result<i64, DbError> {
    if count == 0 {
        return Ok(until);
    }
    let mut sql = QueryBuilder::<Postgres>::new("SELECT position - 1 FROM events WHERE tenant_id = ");
    sql.push_bind(tx.tenant()).push(" AND position <= ").push_bind(until);
    conditions(&mut sql, filter);
    sql.push(" ORDER BY position DESC LIMIT ").push_bind(count);
    let positions: Vec<i64> = sql.build_query_scalar().fetch_all(tx.conn()).await?;
    Ok(positions.last().copied().unwrap_or(until))
}

fn conditions(sql: &mut QueryBuilder<Postgres>, filter: &Filter) {
    if let Some(accounts) = &filter.accounts {
        let ids: Vec<Uuid> = accounts.iter().map(|a| a.0).collect();
        match ids.as_slice() {
            // Of one account the index has them in order.
            [one] => sql.push(" AND account_id = ").push_bind(*one),
            _ => sql.push(" AND account_id = ANY (").push_bind(ids).push(")"),
        };
    }
    if let Some(kinds) = &filter.kinds {
        let words: Vec<&str> = kinds.iter().map(|k| k.as_str()).collect();
        sql.push(" AND kind = ANY (").push_bind(words).push(")");
    }
    if !filter.backfill {
        sql.push(" AND NOT backfill");
    }
}

/// Position of the last event that got its position before `at`; 0 where there is none.
///
/// # Errors
/// Those of the database.
pub async fn position_at(tx: &mut TenantTx, at: DateTime<Utc>) -> Result<i64, DbError> {
    // Positions are in the order of time, so the place is found by halving the log.
    let Stream { position, oldest, .. } = stream(tx).await?;
    let (mut low, mut high) = (oldest - 1, position);
    while low < high {
        let middle = low + (high - low + 1) / 2;
        let before: Option<bool> =
            sqlx::query_scalar("SELECT created_at < $3 FROM events WHERE tenant_id = $1 AND position = $2")
                .bind(tx.tenant())
                .bind(middle)
                .bind(at)
                .fetch_optional(tx.conn())
                .await?;
        if before == Some(true) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    Ok(low)
}
