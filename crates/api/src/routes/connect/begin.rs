//! Sending a person to the page.

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use emailclient_core::access::tenant;
use emailclient_core::domain::account;
use emailclient_core::domain::connect::{self, Sent};
use emailclient_core::platform::id::AccountId;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::person::page_url;
use crate::error::{ApiError, FieldError, Problem};
use crate::extract::{Json, NoQuery, Query};
use crate::idempotency::IdempotencyKey;
use crate::limits::{self, Limits};
use crate::permission::{AccountsManage, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// Who is sent, and where to in the end.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct ConnectSessionIn {
    /// One of the tenant's `redirect_urls`: where the person is sent in the end.
    redirect_url: String,
    /// What stands in the form for a beginning.
    email: Option<String>,
    /// The account that is renewed; left out, a new one is connected.
    #[schema(value_type = Option<uuid::Uuid>)]
    account_id: Option<AccountId>,
    /// Given back to `redirect_url` as it is.
    state: Option<String>,
    /// The person's language, such as `de` or `en-GB`; left out, their browser's. There are English and German.
    locale: Option<String>,
}

/// Where the person goes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConnectSession)]
pub struct ConnectSessionView {
    /// Send the person's browser there. It is told once: a repetition under the same `Idempotency-Key` has `null`.
    url: Option<String>,
    /// Until when they may take.
    expires_at: DateTime<Utc>,
}

fn check(body: &ConnectSessionIn) -> Result<(), ApiError> {
    let mut limits = Limits::default();
    let email = body.email.as_deref().unwrap_or_default();
    let locale = body.locale.as_deref().unwrap_or_default();
    limits.text("/email", email, limits::EMAIL_BYTES);
    limits.text("/state", body.state.as_deref().unwrap_or_default(), limits::OAUTH_STATE_BYTES);
    limits.text("/locale", locale, limits::LOCALE_BYTES);
    let mut faults = limits.faults();
    if email.chars().any(char::is_control) {
        faults.push(FieldError::new("/email", "invalid", "without line breaks"));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if body.locale.is_some() && (locale.is_empty() || !locale.bytes().all(plain)) {
        faults.push(FieldError::new("/locale", "invalid", "a language tag like de or en-GB is expected"));
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(ApiError::validation("see errors for the fields").with_errors(faults))
    }
}

/// Begins to connect a mailbox on a page of ours, or to renew one. The person comes back to `redirect_url` with `account_id` and
/// `state`, or with `error` and `state`.
#[utoipa::path(post, path = "/api/connect/sessions", tag = "connect", security(("bearer" = ["accounts:manage"])), request_body = ConnectSessionIn,
    responses((status = 201, body = ConnectSessionView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn begin(
    State(state): State<AppState>,
    caller: May<AccountsManage, Unaudited>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
    Json(body): Json<ConnectSessionIn>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let public_url = state.config.public_url.as_deref().ok_or_else(|| {
            ApiError::not_configured("PUBLIC_URL is not set: there is no address to send a person to")
        })?;
        check(&body)?;
        let mut tx = key.tx(&state, &caller).await?;
        let mut email = body.email.map(|email| email.trim().to_owned()).filter(|email| !email.is_empty());
        if let Some(id) = body.account_id {
            let account = account::get(&mut tx, id).await?;
            let account = account.ok_or_else(|| ApiError::unknown_reference("/account_id"))?;
            email = Some(account.email);
        }
        // Compared whole: what merely begins alike may be somebody else's (RFC 9700 §2.1).
        if !tenant::redirect_urls(&mut tx).await?.contains(&body.redirect_url) {
            let detail = "is none of the tenant's redirect_urls (PATCH /api/tenant)";
            return Err(ApiError::invalid_field("/redirect_url", "not-registered", detail));
        }
        let sent = Sent {
            redirect_url: body.redirect_url,
            email,
            account_id: body.account_id,
            client_state: body.state,
            locale: body.locale,
            actor: caller.user.id,
        };
        let now = state.clock.now();
        let (token, expires_at) = connect::begin(&mut tx, &state.config.jwt_secret, &sent, now).await?;
        let view = ConnectSessionView { url: Some(page_url(public_url, &token)), expires_at };
        let hidden = ConnectSessionView { url: None, expires_at };
        Ok((tx, Reply::json(StatusCode::CREATED, &view)?.kept_as(&hidden)?))
    })
    .await
}
