//! Reading webhooks.

use axum::extract::State;
use emailclient_core::events::webhook;
use emailclient_core::platform::id::WebhookId;
use serde::Deserialize;
use utoipa::IntoParams;

use super::view::{WebhookView, etag};
use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::page::{Limit, Page, Scope};
use crate::permission::{May, Unaudited, WebhooksManage};
use crate::reply::Reply;
use crate::state::AppState;

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Option<Limit>,
    cursor: Option<String>,
}

/// The webhooks of the tenant, in the order they were made.
#[utoipa::path(get, path = "/api/webhooks", tag = "webhooks", security(("bearer" = ["webhooks:manage"])), params(ListQuery),
    responses((status = 200, body = Page<WebhookView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn list_webhooks(
    State(state): State<AppState>,
    caller: May<WebhooksManage, Unaudited>,
    Query(query): Query<ListQuery>,
) -> Result<Reply, ApiError> {
    let limit = query.limit.unwrap_or_default();
    let scope = Scope::new(&state, caller.tenant(), "webhooks", &[]);
    let after: Option<WebhookId> = scope.open(query.cursor.as_deref())?;
    let mut tx = caller.tx(&state).await?;
    let rows = webhook::page(&mut tx, after, limit.get() + 1).await?;
    tx.release();
    Reply::ok(&Page::cut(rows, limit, |last| scope.seal(&last.id))?.map(WebhookView::from))
}

/// One webhook, with its state, and the tag over what a client can write.
#[utoipa::path(get, path = "/api/webhooks/{id}", tag = "webhooks", security(("bearer" = ["webhooks:manage"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = WebhookView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn get_webhook(
    State(state): State<AppState>,
    caller: May<WebhooksManage, Unaudited>,
    PathId(id): PathId<WebhookId>,
    _none: Query<NoQuery>,
) -> Result<Reply, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let found = webhook::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    tx.release();
    let tag = etag(&found);
    Ok(Reply::ok(&WebhookView::from(found))?.etag(&tag))
}
