//! Sending events of the past again.

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use emailclient_core::events::webhook::{self, REPLAY_DAYS, Replay, ReplayError};
use emailclient_core::platform::id::WebhookId;
use serde::Deserialize;
use utoipa::ToSchema;

use super::input::check_types;
use super::view::WebhookView;
use crate::error::{ApiError, FieldError, Problem};
use crate::extract::{Deferred, NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::limits::{self, Limits};
use crate::permission::{May, WebhookReplay, WebhooksManage};
use crate::reply::Reply;
use crate::state::AppState;

/// Which events.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ReplayIn {
    /// From this moment on, at most 30 days ago.
    since: DateTime<Utc>,
    /// Before this moment; left out: now.
    until: Option<DateTime<Utc>>,
    /// Of these kinds; left out or empty: of those that the webhook gets.
    types: Option<Vec<String>>,
}

fn check(body: ReplayIn, now: DateTime<Utc>) -> Result<Replay, ApiError> {
    let replay = Replay {
        since: body.since,
        until: body.until.unwrap_or(now).min(now),
        types: body.types.unwrap_or_default(),
    };
    let mut limits = Limits::default();
    limits.count("/types", replay.types.len(), limits::WEBHOOK_TYPES);
    let mut faults = limits.faults();
    check_types(&replay.types, &mut faults);
    if now - replay.since > TimeDelta::days(REPLAY_DAYS) {
        faults.push(too_old());
    } else if replay.since >= replay.until {
        faults.push(FieldError::new("/until", "invalid", "a moment after since is expected"));
    }
    if faults.is_empty() {
        Ok(replay)
    } else {
        Err(ApiError::validation("see errors for the fields").with_errors(faults))
    }
}

fn too_old() -> FieldError {
    FieldError::new("/since", "too-old", "the log does not reach back so far; it has 30 days at most")
}

/// Sends events of the past again, beside what is new, under the ids they had. They keep their order. One replay at a time.
#[utoipa::path(post, path = "/api/webhooks/{id}/replay", tag = "webhooks", security(("bearer" = ["webhooks:manage"])), params(("id" = Uuid, Path)),
    request_body = ReplayIn,
    responses((status = 202, body = WebhookView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn replay_webhook(
    State(state): State<AppState>,
    caller: May<WebhooksManage, WebhookReplay>,
    PathId(id): PathId<WebhookId>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
    body: Deferred<ReplayIn>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut tx = key.tx(&state, &caller).await?;
        webhook::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
        let now = state.clock.now();
        let replay = check(body.meaning()?, now)?;
        webhook::replay(&mut tx, id, &replay, now).await?;
        caller.audit(&mut tx, &id.to_string()).await?;
        let webhook = webhook::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
        Ok((tx, Reply::accepted(&format!("/api/webhooks/{id}"), &WebhookView::from(webhook))?))
    })
    .await
}

impl From<ReplayError> for ApiError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::NotFound => Self::not_found(),
            ReplayError::Disabled => Self::webhook_disabled("enable it first"),
            ReplayError::Running => Self::replay_running("wait for it to end"),
            ReplayError::TooOld => Self::validation("see errors for the fields").with_errors([too_old()]),
            ReplayError::Db(error) => error.into(),
        }
    }
}
