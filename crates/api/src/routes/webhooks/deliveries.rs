//! Events that failed at a webhook, and sending one of them again.

use axum::extract::State;
use axum::response::Response;
use emailclient_core::events::webhook::delivery::{self, DeliveryState};
use emailclient_core::events::webhook::{self, WebhookState};
use emailclient_core::platform::id::WebhookId;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::view::{DeliveryView, delivery_states};
use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, Path, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::page::{Limit, Page, Scope};
use crate::permission::{May, Unaudited, WebhookRetry, WebhooksManage};
use crate::reply::Reply;
use crate::state::AppState;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Deliveries in this state only.
    #[param(schema_with = delivery_states)]
    state: Option<DeliveryState>,
    /// Rows of a page, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Events that failed at least once, newest first: those of the last 7 days, 1,000 at most. What is taken at once is counted only.
#[utoipa::path(get, path = "/api/webhooks/{id}/deliveries", tag = "webhooks", security(("bearer" = ["webhooks:manage"])),
    params(("id" = Uuid, Path), ListQuery),
    responses((status = 200, body = Page<DeliveryView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_deliveries(
    State(state): State<AppState>,
    caller: May<WebhooksManage, Unaudited>,
    PathId(id): PathId<WebhookId>,
    Query(query): Query<ListQuery>,
) -> Result<Reply, ApiError> {
    let word = query.state.map(DeliveryState::as_str).unwrap_or_default();
    let scope = Scope::new(&state, caller.tenant(), "deliveries", &[&id.to_string(), word]);
    let after: Option<Uuid> = scope.open(query.cursor.as_deref())?;
    let mut tx = caller.tx(&state).await?;
    webhook::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    let page = (after, query.limit.get() + 1);
    let rows = delivery::list(&mut tx, id, query.state, page, state.clock.now()).await?;
    tx.release();
    let page = Page::cut(rows, query.limit, |last| scope.seal(&last.id))?;
    Reply::ok(&page.map(|row| DeliveryView::of(caller.tenant(), row)))
}

#[derive(Debug, Deserialize)]
pub(super) struct Place {
    id: WebhookId,
    delivery: Uuid,
}

/// Sends one of them at once, whatever became of it. One that was given up, or taken, goes beside the order of its account.
#[utoipa::path(post, path = "/api/webhooks/{id}/deliveries/{delivery}/retry", tag = "webhooks", security(("bearer" = ["webhooks:manage"])),
    params(("id" = Uuid, Path), ("delivery" = Uuid, Path)),
    responses((status = 202, body = DeliveryView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn retry_delivery(
    State(state): State<AppState>,
    caller: May<WebhooksManage, WebhookRetry>,
    Path(place): Path<Place>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut tx = key.tx(&state, &caller).await?;
        let found = webhook::get(&mut tx, place.id).await?.ok_or_else(ApiError::not_found)?;
        if found.state == WebhookState::Disabled {
            return Err(ApiError::webhook_disabled("enable it first"));
        }
        let now = state.clock.now();
        let asked = delivery::retry(&mut tx, place.id, place.delivery, now).await?;
        let asked = asked.ok_or_else(ApiError::not_found)?;
        caller.audit(&mut tx, &format!("{}/{}", place.id, place.delivery)).await?;
        let location = format!("/api/webhooks/{}/deliveries", place.id);
        Ok((tx, Reply::accepted(&location, &DeliveryView::of(caller.tenant(), asked))?))
    })
    .await
}
