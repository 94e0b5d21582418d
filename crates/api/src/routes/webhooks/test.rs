//! Trying an endpoint.

use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use emailclient_core::events::webhook::outcome::{self, Verdict};
use emailclient_core::events::webhook::{self, secret, send};
use emailclient_core::platform::id::WebhookId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{May, WebhookTest, WebhooksManage};
use crate::reply::Reply;
use crate::state::AppState;

/// What an endpoint made of a test.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookTest)]
pub struct TestView {
    /// The `webhook-id` that was sent.
    event_id: String,
    /// Whether it was taken.
    delivered: bool,
    /// The status of the answer.
    status: Option<u16>,
    /// What went wrong.
    error: Option<String>,
    duration_ms: u64,
}

/// Sends an event `webhook.test` at once, whatever the state of the webhook, and tells what came of it. It changes no state.
#[utoipa::path(post, path = "/api/webhooks/{id}/test", tag = "webhooks", security(("bearer" = ["webhooks:manage"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = TestView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn test_webhook(
    State(state): State<AppState>,
    caller: May<WebhooksManage, WebhookTest>,
    PathId(id): PathId<WebhookId>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        // One at a time for each endpoint.
        caller.turn(&state, id.0).await?;
        let mut look = caller.aside(&state).await?;
        let found = webhook::get(&mut look, id).await?.ok_or_else(ApiError::not_found)?;
        let secrets = secret::stored(&mut look, id).await?.open(&state.keyring, state.clock.now())?;
        look.release();
        let poster = send::poster(&state, &found.url).map_err(ApiError::internal)?;
        caller.context.tried_elsewhere();
        let (now, started) = (state.clock.now(), Instant::now());
        let event = send::test_event(id, now);
        let answer = poster.post(&send::head(&event, &secrets, now), &event.body).await;
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let delivered = outcome::judge(&answer, now) == Verdict::Taken;
        let view = TestView {
            event_id: event.id,
            delivered,
            status: answer.as_ref().ok().map(|a| a.status),
            error: (!delivered).then(|| outcome::word(&answer)),
            duration_ms,
        };
        let mut tx = key.tx(&state, &caller).await?;
        tx.wait_for_rows().await?;
        caller.audit(&mut tx, &id.to_string()).await?;
        Ok((tx, Reply::ok(&view)?))
    })
    .await
}
