//! One sender for each endpoint: a lease with an epoch, as accounts have, judged by the database's time. What an endpoint waits for
//! is judged by the clock of the process.
//!
//! Whatever the holder notes begins with a statement that checks the lease, so one that was stopped and continued notes nothing once
//! another has taken over. It then sent some events that another sends again, under the same ids.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{FromRow as _, Postgres, QueryBuilder, Row as _};
use uuid::Uuid;

use super::WebhookState;
use super::delivery::{self, Note};
use super::secret::Stored;
use crate::access::audit::{self, Action};
use crate::domain::event::{self, WebhookDisabled};
use crate::events::envelope::Include;
use crate::platform::db::{DbError, SystemTx, TenantTx};
use crate::platform::id::{AccountId, TenantId, WebhookId};

/// Seconds by which a lease may end later than any can: beyond, the database's clock was set back, and it counts for nothing.
const SLACK: f64 = 5.0;

/// An endpoint that has something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Due {
    /// Of which tenant.
    pub tenant: TenantId,
    /// Which.
    pub webhook: WebhookId,
    /// It failed last.
    pub failing: bool,
}

/// Endpoints that have something to do and that nobody sends to, those that are well first: of each tenant at most so many.
/// `tenants`: of these only, and only for what is on disk already.
///
/// # Errors
/// Those of the database.
pub async fn due(
    tx: &mut SystemTx,
    tenants: Option<&[TenantId]>,
    (each, limit): (usize, usize),
    (now, ttl): (DateTime<Utc>, Duration),
) -> Result<Vec<Due>, DbError> {
    let end = if tenants.is_some() { "s.durable" } else { "s.position" };
    let mut sql = QueryBuilder::<Postgres>::new(
        "SELECT tenant, webhook, failing FROM (
           SELECT w.tenant_id AS tenant, w.id AS webhook, w.failures > 0 AS failing,
             row_number() OVER (PARTITION BY w.tenant_id ORDER BY w.failures > 0, w.wake_at NULLS FIRST, w.id) AS n
           FROM webhooks w JOIN tenants t ON t.id = w.tenant_id LEFT JOIN tenant_streams s ON s.tenant_id = w.tenant_id
           WHERE w.state <> 'disabled' AND t.suspended_at IS NULL
             AND (w.owner IS NULL OR w.lease_until IS NULL OR w.lease_until <= clock_timestamp()
               OR w.lease_until > clock_timestamp() + make_interval(secs => ",
    );
    sql.push_bind(ttl.as_secs_f64() + SLACK);
    sql.push(")) AND (w.next_try_at IS NULL OR w.next_try_at <= ").push_bind(now);
    sql.push(format!(") AND ({end} > w.seen OR w.wake_at <= ")).push_bind(now).push(")");
    if let Some(tenants) = tenants {
        let ids: Vec<Uuid> = tenants.iter().map(|t| t.0).collect();
        sql.push(" AND w.tenant_id = ANY (").push_bind(ids).push(")");
    }
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    sql.push(") d WHERE n <= ").push_bind(count(each));
    sql.push(" ORDER BY failing, n LIMIT ").push_bind(count(limit));
    Ok(sql.build_query_as().fetch_all(tx.conn()).await?)
}

/// The right to send to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Of which tenant.
    pub tenant: TenantId,
    /// Which.
    pub webhook: WebhookId,
    /// The process that holds it.
    pub owner: Uuid,
    /// Grows with every taking.
    pub epoch: i64,
    /// How long it holds without a renewal.
    pub ttl: Duration,
}

/// How an endpoint has stood since its last success.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Standing {
    /// How it stands.
    pub state: WebhookState,
    /// The word of its last failure.
    pub cause: Option<String>,
    /// Failures one after the other.
    pub failures: i32,
    /// Since the first of them.
    pub failing_since: Option<DateTime<Utc>>,
    /// Nothing is sent before that.
    pub next_try_at: Option<DateTime<Utc>>,
    /// When an event was taken last.
    pub last_success_at: Option<DateTime<Utc>>,
}

/// Events that are sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaying {
    /// Everything up to here is settled.
    pub position: i64,
    /// The last of them.
    pub until: i64,
    /// Of these kinds only.
    pub types: Option<Vec<String>>,
    /// What is settled beyond the place.
    pub settled: Vec<i64>,
}

/// An endpoint whose lease is held, as it was taken.
#[derive(Debug, Clone)]
pub struct Held {
    /// The right.
    pub lease: Lease,
    /// Where to.
    pub url: String,
    /// Kinds of events.
    pub types: Option<Vec<String>>,
    /// Events of these accounts.
    pub account_ids: Option<Vec<AccountId>>,
    /// How much goes with an event.
    pub include: Include,
    /// Old mail, too.
    pub backfill: bool,
    /// What signs.
    pub secrets: Stored,
    /// How it stands.
    pub standing: Standing,
    /// Everything up to here is settled.
    pub position: i64,
    /// What is settled beyond that.
    pub settled: Vec<i64>,
    /// What is sent again.
    pub replaying: Option<Replaying>,
}

/// Takes the lease of an endpoint if nobody holds it. `None`: somebody does, the endpoint is disabled, its tenant suspended, or
/// there is none.
///
/// # Errors
/// Those of the database.
pub async fn acquire(
    tx: &mut TenantTx,
    webhook: WebhookId,
    owner: Uuid,
    ttl: Duration,
) -> Result<Option<Held>, DbError> {
    let tenant = tx.tenant();
    let row = sqlx::query(
        "UPDATE webhooks w SET owner = $3, epoch = epoch + 1, lease_until = clock_timestamp() + make_interval(secs => $4)
         WHERE tenant_id = $1 AND id = $2 AND state <> 'disabled'
           AND (owner IS NULL OR lease_until IS NULL OR lease_until <= clock_timestamp()
             OR lease_until > clock_timestamp() + make_interval(secs => $4) + make_interval(secs => $5))
           AND EXISTS (SELECT 1 FROM tenants t WHERE t.id = $1 AND t.suspended_at IS NULL)
         RETURNING epoch, url, types, account_ids, include, backfill, secret, secret_key, previous_secret, previous_secret_key,
           previous_until, state, cause, failures, failing_since, next_try_at, last_success_at, position, settled,
           replay_position, replay_until, replay_types, replay_settled",
    )
    .bind(tenant)
    .bind(webhook)
    .bind(owner)
    .bind(ttl.as_secs_f64())
    .bind(SLACK)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let ends: Option<(i64, i64)> =
        row.try_get::<Option<i64>, _>("replay_position")?.zip(row.try_get::<Option<i64>, _>("replay_until")?);
    let replaying = match ends {
        Some((position, until)) => Some(Replaying {
            position,
            until,
            types: row.try_get("replay_types")?,
            settled: row.try_get("replay_settled")?,
        }),
        None => None,
    };
    let columns = (
        row.try_get("secret")?,
        row.try_get("secret_key")?,
        row.try_get("previous_secret")?,
        row.try_get("previous_secret_key")?,
        row.try_get("previous_until")?,
    );
    Ok(Some(Held {
        lease: Lease { tenant, webhook, owner, epoch: row.try_get("epoch")?, ttl },
        url: row.try_get("url")?,
        types: row.try_get("types")?,
        account_ids: row.try_get("account_ids")?,
        include: row.try_get("include")?,
        backfill: row.try_get("backfill")?,
        secrets: Stored::of((tenant, webhook), columns),
        standing: Standing::from_row(&row)?,
        position: row.try_get("position")?,
        settled: row.try_get("settled")?,
        replaying,
    }))
}

/// What the holder of a lease has done since it noted last, and where everything stands.
#[derive(Debug, Clone)]
pub struct Progress {
    /// How the endpoint stands.
    pub standing: Standing,
    /// As in [`Held`].
    pub position: i64,
    /// As in [`Held`].
    pub settled: Vec<i64>,
    /// What is sent again: its place, and what is settled beyond.
    pub replaying: Option<(i64, Vec<i64>)>,
    /// Events that were taken.
    pub delivered: i64,
    /// Events that were given up.
    pub failed: i64,
    /// What failed.
    pub notes: Vec<Note>,
    /// The endpoint was disabled just now: the reason.
    pub disabled: Option<&'static str>,
    /// The lease is given up: up to where the log has nothing to do, and when something is to be done without news.
    pub release: Option<(i64, Option<DateTime<Utc>>)>,
}

/// Notes `progress` and renews the lease, or gives it up. `false`: it was lost, and nothing is noted.
///
/// # Errors
/// Those of the database.
pub async fn note(
    tx: &mut TenantTx,
    lease: &Lease,
    progress: &Progress,
    now: DateTime<Utc>,
) -> Result<bool, DbError> {
    let standing = &progress.standing;
    let (replay_position, replay_settled) = progress.replaying.clone().unzip();
    let done = sqlx::query(
        "UPDATE webhooks w SET state = $5, cause = $6, failures = $7, failing_since = $8, next_try_at = $9, last_success_at = $10,
           position = $11, settled = $12, replay_position = $13, replay_settled = coalesce($14::bigint[], '{}'),
           replay_until = CASE WHEN $13::bigint IS NOT NULL THEN replay_until END, delivered = delivered + $15, failed = failed + $16,
           owner = CASE WHEN $17 THEN NULL ELSE owner END, seen = CASE WHEN $17 THEN $18 ELSE seen END,
           wake_at = CASE WHEN $17 THEN $19 ELSE wake_at END,
           previous_secret = CASE WHEN previous_until > $21 THEN previous_secret END,
           previous_secret_key = CASE WHEN previous_until > $21 THEN previous_secret_key END,
           lease_until = CASE WHEN NOT $17 THEN clock_timestamp() + make_interval(secs => $20) END
         WHERE tenant_id = $1 AND id = $2 AND owner = $3 AND epoch = $4 AND lease_until > clock_timestamp()
           AND EXISTS (SELECT 1 FROM tenants t WHERE t.id = $1 AND t.suspended_at IS NULL)",
    )
    .bind(lease.tenant)
    .bind(lease.webhook)
    .bind(lease.owner)
    .bind(lease.epoch)
    .bind(standing.state)
    .bind(&standing.cause)
    .bind(standing.failures)
    .bind(standing.failing_since)
    .bind(standing.next_try_at)
    .bind(standing.last_success_at)
    .bind(progress.position)
    .bind(&progress.settled)
    .bind(replay_position)
    .bind(replay_settled)
    .bind(progress.delivered)
    .bind(progress.failed)
    .bind(progress.release.is_some())
    .bind(progress.release.map(|(seen, _)| seen))
    .bind(progress.release.and_then(|(_, wake)| wake))
    .bind(lease.ttl.as_secs_f64())
    .bind(now)
    .execute(tx.conn())
    .await?;
    if done.rows_affected() == 0 {
        return Ok(false);
    }
    delivery::note(tx, lease.webhook, &progress.notes, now).await?;
    if let Some(reason) = progress.disabled {
        event::tell_tenant(tx, WebhookDisabled { id: lease.webhook, reason });
        let target = lease.webhook.to_string();
        audit::record(tx, &audit::Entry::here("service:webhooks", Action::WebhookDisable, &target)).await?;
    }
    Ok(true)
}
