//! Changing, enabling and removing a webhook.

use axum::extract::State;
use axum::response::Response;
use emailclient_core::events::webhook;
use emailclient_core::platform::id::WebhookId;

use super::input::{WebhookPatch, check, check_accounts, check_host};
use super::view::{WebhookView, etag};
use crate::error::{ApiError, Problem};
use crate::etag::Conditions;
use crate::extract::{Deferred, NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{May, WebhookDelete, WebhookEnable, WebhookUpdate, WebhooksManage};
use crate::reply::Reply;
use crate::state::AppState;

/// Changes the fields that are given. What waits is sent as the webhook is then.
#[utoipa::path(patch, path = "/api/webhooks/{id}", tag = "webhooks", security(("bearer" = ["webhooks:manage"])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "the ETag that was read")), request_body = WebhookPatch,
    responses((status = 200, body = WebhookView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn patch_webhook(
    State(state): State<AppState>,
    caller: May<WebhooksManage, WebhookUpdate>,
    PathId(id): PathId<WebhookId>,
    _none: Query<NoQuery>,
    conditions: Conditions,
    body: Deferred<WebhookPatch>,
) -> Result<Reply, ApiError> {
    let mut look = caller.aside(&state).await?;
    let old = webhook::get(&mut look, id).await?.ok_or_else(ApiError::not_found)?;
    look.release();
    conditions.check_match(&etag(&old))?;
    let new = body.meaning()?.over(old.said());
    let address = check(&new)?;
    if new.url != old.url {
        check_host(&state, &address).await?;
    }
    let mut tx = caller.tx(&state).await?;
    let now =
        webhook::get_for_update(&mut tx, id, state.clock.now()).await?.ok_or_else(ApiError::not_found)?;
    if now.version != old.version {
        return Err(ApiError::precondition_failed("the webhook was changed by someone else meanwhile"));
    }
    if new.account_ids != old.said().account_ids {
        check_accounts(&mut tx, &new).await?;
    }
    let changed =
        webhook::replace(&mut tx, id, &new, state.clock.now()).await?.ok_or_else(ApiError::not_found)?;
    caller.audit(&mut tx, &id.to_string()).await?;
    tx.commit().await?;
    let tag = etag(&changed);
    Ok(Reply::ok(&WebhookView::from(changed))?.etag(&tag))
}

/// Removes a webhook with what is known of its deliveries. Nothing more is sent.
#[utoipa::path(delete, path = "/api/webhooks/{id}", tag = "webhooks", security(("bearer" = ["webhooks:manage"])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "the ETag that was read")),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn delete_webhook(
    State(state): State<AppState>,
    caller: May<WebhooksManage, WebhookDelete>,
    PathId(id): PathId<WebhookId>,
    _none: Query<NoQuery>,
    conditions: Conditions,
) -> Result<Reply, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let found =
        webhook::get_for_update(&mut tx, id, state.clock.now()).await?.ok_or_else(ApiError::not_found)?;
    conditions.check_match(&etag(&found))?;
    webhook::delete(&mut tx, id).await?;
    caller.audit(&mut tx, &id.to_string()).await?;
    tx.commit().await?;
    Ok(Reply::no_content())
}

/// Sends again, at once, from where it was left: for a webhook that is disabled, or that waits for its next try.
#[utoipa::path(post, path = "/api/webhooks/{id}/enable", tag = "webhooks", security(("bearer" = ["webhooks:manage"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = WebhookView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn enable_webhook(
    State(state): State<AppState>,
    caller: May<WebhooksManage, WebhookEnable>,
    PathId(id): PathId<WebhookId>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut tx = key.tx(&state, &caller).await?;
        let enabled =
            webhook::enable(&mut tx, id, state.clock.now()).await?.ok_or_else(ApiError::not_found)?;
        caller.audit(&mut tx, &id.to_string()).await?;
        Ok((tx, Reply::ok(&WebhookView::from(enabled))?))
    })
    .await
}
