//! Events that failed at least once: what clients see of them, and what whoever sends notes of each attempt.
//!
//! Attempts are kept for a week, the last thousand events of an endpoint. What is taken at once is counted and leaves no row.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, WebhookId};
use crate::platform::words::words;

/// How long attempts are kept.
const KEPT: TimeDelta = TimeDelta::days(7);
/// Events of an endpoint of which attempts are kept.
const MOST: i64 = 1000;
/// Attempts of one event that are kept.
const ATTEMPTS: i64 = 20;
/// Events that wait, taken up at once.
const WAITING: i64 = 5000;

words! {
    /// How an event stands that failed at least once.
    pub enum DeliveryState {
        /// It is tried again.
        Waiting = "waiting",
        /// It was given up.
        Failed = "failed",
        /// It was taken in the end.
        Delivered = "delivered",
    }
}

/// An event that failed at least once.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Delivery {
    /// Its id.
    pub id: Uuid,
    /// The event's place in the log.
    pub position: i64,
    /// It was sent by a replay.
    pub replay: bool,
    /// The event's account.
    pub account_id: Option<AccountId>,
    /// The event's kind.
    pub kind: String,
    /// When the event happened.
    pub event_at: DateTime<Utc>,
    /// How it stands.
    pub state: DeliveryState,
    /// When it is tried again, where that is its own matter and not its endpoint's.
    pub next_try_at: Option<DateTime<Utc>>,
    /// The last attempts: `at`, `status`, `error`, `duration_ms`.
    pub attempts: Value,
    /// When one was noted last.
    pub updated_at: DateTime<Utc>,
}

/// What failed at an endpoint, newest first, after the delivery `after`.
///
/// # Errors
/// Those of the database.
pub async fn list(
    tx: &mut TenantTx,
    webhook: WebhookId,
    state: Option<DeliveryState>,
    (after, limit): (Option<Uuid>, i64),
    now: DateTime<Utc>,
) -> Result<Vec<Delivery>, DbError> {
    let states: Vec<DeliveryState> = state.map_or_else(|| DeliveryState::ALL.to_vec(), |state| vec![state]);
    Ok(sqlx::query_as(
        "SELECT id, position, replay, account_id, kind, event_at, state, next_try_at, attempts, updated_at FROM webhook_deliveries
         WHERE tenant_id = $1 AND webhook_id = $2 AND id < $3 AND state = ANY ($4) AND (state = 'waiting' OR updated_at > $5)
         ORDER BY id DESC LIMIT $6",
    )
    .bind(tx.tenant())
    .bind(webhook)
    .bind(after.unwrap_or(Uuid::max()))
    .bind(states)
    .bind(now - KEPT)
    .bind(limit)
    .fetch_all(tx.conn())
    .await?)
}

/// Has an event sent at once, whatever became of it. `None`: there is no such delivery at this endpoint.
///
/// # Errors
/// Those of the database.
pub async fn retry(
    tx: &mut TenantTx,
    webhook: WebhookId,
    id: Uuid,
    now: DateTime<Utc>,
) -> Result<Option<Delivery>, DbError> {
    // Whoever sends locks the webhook first, then its deliveries.
    super::take(tx, webhook, now).await?;
    // What waits in the order of the log keeps its place there.
    let found = sqlx::query_as(
        "UPDATE webhook_deliveries SET asked = asked OR state <> 'waiting', state = 'waiting', tries = 0, next_try_at = $4
         WHERE tenant_id = $1 AND webhook_id = $2 AND id = $3
         RETURNING id, position, replay, account_id, kind, event_at, state, next_try_at, attempts, updated_at",
    )
    .bind(tx.tenant())
    .bind(webhook)
    .bind(id)
    .bind(now)
    .fetch_optional(tx.conn())
    .await?;
    if found.is_some() {
        sqlx::query("UPDATE webhooks SET next_try_at = NULL WHERE tenant_id = $1 AND id = $2")
            .bind(tx.tenant())
            .bind(webhook)
            .execute(tx.conn())
            .await?;
    }
    Ok(found)
}

/// An event that waits for its next try.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Waiting {
    /// Its place in the log.
    pub position: i64,
    /// By a replay.
    pub replay: bool,
    /// Beside the log and its order.
    pub asked: bool,
    /// How often it was refused for itself.
    pub tries: i32,
    /// When it may be tried.
    pub next_try_at: Option<DateTime<Utc>>,
    /// The event's account.
    pub account_id: Option<AccountId>,
    /// The event's kind.
    pub kind: String,
    /// When the event happened.
    pub event_at: DateTime<Utc>,
}

/// What waits at an endpoint, the oldest events first.
///
/// # Errors
/// Those of the database.
pub async fn waiting(tx: &mut TenantTx, webhook: WebhookId) -> Result<Vec<Waiting>, DbError> {
    Ok(sqlx::query_as(
        "SELECT position, replay, asked, tries, next_try_at, account_id, kind, event_at FROM webhook_deliveries
         WHERE tenant_id = $1 AND webhook_id = $2 AND state = 'waiting' ORDER BY position LIMIT $3",
    )
    .bind(tx.tenant())
    .bind(webhook)
    .bind(WAITING)
    .fetch_all(tx.conn())
    .await?)
}

/// An attempt, and what became of its event by it.
#[derive(Debug, Clone)]
pub struct Note {
    /// The event's place in the log.
    pub position: i64,
    /// By a replay.
    pub replay: bool,
    /// The event's account.
    pub account: Option<AccountId>,
    /// The event's kind.
    pub kind: String,
    /// When the event happened.
    pub event_at: DateTime<Utc>,
    /// What became of it.
    pub state: DeliveryState,
    /// How often it was refused for itself.
    pub tries: i32,
    /// When it may be tried again.
    pub next_try_at: Option<DateTime<Utc>>,
    /// When the attempt began.
    pub at: DateTime<Utc>,
    /// The status of the answer.
    pub status: Option<u16>,
    /// What went wrong.
    pub error: Option<String>,
    /// How long it took.
    pub duration_ms: u64,
}

/// Adds attempts, and forgets what was kept long enough.
///
/// # Errors
/// Those of the database.
pub(super) async fn note(
    tx: &mut TenantTx,
    webhook: WebhookId,
    notes: &[Note],
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    for note in notes {
        let attempt = json!([{
            "at": note.at, "status": note.status, "error": note.error, "duration_ms": note.duration_ms,
        }]);
        sqlx::query(
            "INSERT INTO webhook_deliveries AS d (tenant_id, id, webhook_id, position, replay, account_id, kind, event_at, state,
               tries, next_try_at, attempts, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             ON CONFLICT (tenant_id, webhook_id, replay, position) DO UPDATE SET state = excluded.state, tries = excluded.tries,
               next_try_at = excluded.next_try_at, updated_at = excluded.updated_at, asked = d.asked AND excluded.state = 'waiting',
               attempts = (SELECT jsonb_agg(e.one ORDER BY e.n) FROM jsonb_array_elements(d.attempts || excluded.attempts)
                 WITH ORDINALITY e(one, n) WHERE e.n > jsonb_array_length(d.attempts) + 1 - $14)",
        )
        .bind(tx.tenant())
        .bind(crate::platform::id::new_uuid())
        .bind(webhook)
        .bind(note.position)
        .bind(note.replay)
        .bind(note.account)
        .bind(&note.kind)
        .bind(note.event_at)
        .bind(note.state)
        .bind(note.tries)
        .bind(note.next_try_at)
        .bind(attempt)
        .bind(now)
        .bind(ATTEMPTS)
        .execute(tx.conn())
        .await?;
    }
    if notes.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM webhook_deliveries WHERE tenant_id = $1 AND webhook_id = $2 AND state <> 'waiting'
         AND (updated_at <= $3 OR id < (SELECT o.id FROM webhook_deliveries o WHERE o.tenant_id = $1 AND o.webhook_id = $2
                                        ORDER BY o.id DESC OFFSET $4 LIMIT 1))",
    )
    .bind(tx.tenant())
    .bind(webhook)
    .bind(now - KEPT)
    .bind(MOST - 1)
    .execute(tx.conn())
    .await?;
    Ok(())
}
