//! Making a webhook.

use axum::extract::State;
use axum::response::Response;
use emailclient_core::events::webhook::{self, NewWebhook, WebhookError};

use super::input::{WebhookIn, check, check_accounts, check_host};
use super::view::{SecretView, etag};
use crate::error::{ApiError, Problem};
use crate::extract::{Json, NoQuery, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{May, WebhookCreate, WebhooksManage};
use crate::reply::Reply;
use crate::state::AppState;

/// Makes a webhook, which is sent what happens from now on. Its secret is told here and never again.
#[utoipa::path(post, path = "/api/webhooks", tag = "webhooks", security(("bearer" = ["webhooks:manage"])), request_body = WebhookIn,
    responses((status = 201, body = SecretView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn create_webhook(
    State(state): State<AppState>,
    caller: May<WebhooksManage, WebhookCreate>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
    Json(body): Json<WebhookIn>,
) -> Result<Response, ApiError> {
    let new = NewWebhook::from(body);
    key.once(&state, &caller, async {
        let address = check(&new)?;
        check_host(&state, &address).await?;
        let mut tx = key.tx(&state, &caller).await?;
        check_accounts(&mut tx, &new).await?;
        let (made, secret) = webhook::create(&mut tx, &state.keyring, &new).await?;
        caller.audit(&mut tx, &made.id.to_string()).await?;
        let (location, tag) = (format!("/api/webhooks/{}", made.id), etag(&made));
        let view = SecretView::telling(made, &secret);
        Ok((tx, Reply::created(&location, &view)?.etag(&tag).kept_as(&view.hiding())?))
    })
    .await
}

impl From<WebhookError> for ApiError {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::TooMany => Self::invalid_field("", "too-many", &error.to_string()),
            WebhookError::Db(error) => error.into(),
            WebhookError::Seal(error) => error.into(),
        }
    }
}
