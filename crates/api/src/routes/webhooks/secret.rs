//! Another secret for a webhook.

use axum::extract::State;
use axum::response::Response;
use emailclient_core::events::webhook;
use emailclient_core::platform::id::WebhookId;

use super::view::SecretView;
use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{May, WebhookRotate, WebhooksManage};
use crate::reply::Reply;
use crate::state::AppState;

/// Makes another secret, which is told here and never again. For 24 hours the one before signs beside it.
#[utoipa::path(post, path = "/api/webhooks/{id}/secret/rotate", tag = "webhooks", security(("bearer" = ["webhooks:manage"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = SecretView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn rotate_webhook_secret(
    State(state): State<AppState>,
    caller: May<WebhooksManage, WebhookRotate>,
    PathId(id): PathId<WebhookId>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut tx = key.tx(&state, &caller).await?;
        let rotated = webhook::rotate(&mut tx, &state.keyring, id, state.clock.now()).await?;
        let (webhook, secret) = rotated.ok_or_else(ApiError::not_found)?;
        caller.audit(&mut tx, &id.to_string()).await?;
        let view = SecretView::telling(webhook, &secret);
        Ok((tx, Reply::ok(&view)?.kept_as(&view.hiding())?))
    })
    .await
}
