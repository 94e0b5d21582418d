//! Sending a person to a provider.

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use emailclient_core::access::tenant;
use emailclient_core::domain::account;
use emailclient_core::domain::oauth::app::{self, App};
use emailclient_core::domain::oauth::flow::{self, Flow, Proofs};
use emailclient_core::platform::db::TenantTx;
use emailclient_core::platform::id::{AccountId, AppId};
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;

use crate::error::{ApiError, Problem};
use crate::extract::{Json, NoQuery, Query};
use crate::idempotency::IdempotencyKey;
use crate::limits::{self, Limits};
use crate::permission::{AccountsManage, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// Whom to send where.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct AuthorizeIn {
    #[schema(value_type = uuid::Uuid)]
    app_id: AppId,
    /// Whom the provider should expect; a hint. The address comes from the provider.
    email: Option<String>,
    /// The account that is renewed; left out, a new one is connected.
    #[schema(value_type = Option<uuid::Uuid>)]
    account_id: Option<AccountId>,
    /// One of the tenant's `redirect_urls`: where the person is sent in the end.
    redirect_url: String,
    /// Given back to `redirect_url` as it is.
    state: Option<String>,
}

/// Where the person goes.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Authorization)]
pub struct AuthorizationView {
    /// Send the person's browser there.
    pub authorize_url: String,
    expires_at: DateTime<Utc>,
}

/// Where providers send people back to.
pub fn redirect_uri(public_url: &str) -> String {
    format!("{public_url}/oauth/callback")
}

fn public_url(state: &AppState) -> Result<&str, ApiError> {
    state.config.public_url.as_deref().ok_or_else(|| {
        ApiError::not_configured("PUBLIC_URL is not set: providers could send nobody back here")
    })
}

/// Keeps a flow and says where its person goes. `None`: the app does not say where its provider is.
///
/// # Errors
/// 409 `not-configured`, and when the database refuses.
pub async fn send(
    state: &AppState,
    tx: &mut TenantTx,
    app: &App,
    flow: &Flow,
) -> Result<Option<AuthorizationView>, ApiError> {
    let public_url = public_url(state)?;
    let Some(terms) = app.said.terms() else { return Ok(None) };
    let Ok(mut url) = Url::parse(&terms.endpoints.authorization_endpoint) else { return Ok(None) };
    let (secret, now) = (&state.config.jwt_secret, state.clock.now());
    let text = flow::begin(tx, secret, flow, now).await?;
    let proofs = Proofs::of(secret, &text);
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &app.said.client_id)
        .append_pair("redirect_uri", &redirect_uri(public_url))
        .append_pair("scope", &terms.scopes)
        .append_pair("state", &text)
        .append_pair("nonce", &proofs.nonce)
        .append_pair("code_challenge", &proofs.challenge())
        .append_pair("code_challenge_method", "S256")
        .extend_pairs(terms.extra)
        .extend_pairs(flow.email.iter().map(|email| ("login_hint", email)));
    Ok(Some(AuthorizationView { authorize_url: url.into(), expires_at: now + flow::LIFETIME }))
}

/// Begins to connect an account by OAuth2, or to renew one: the authorization code grant with PKCE. The person comes back to
/// `redirect_url` with `account_id` and `state`, or with `error`, `error_description` and `state`.
#[utoipa::path(post, path = "/api/oauth/authorize", tag = "oauth", security(("bearer" = ["accounts:manage"])), request_body = AuthorizeIn,
    responses((status = 200, body = AuthorizationView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn authorize(
    State(state): State<AppState>,
    caller: May<AccountsManage, Unaudited>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
    Json(body): Json<AuthorizeIn>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        public_url(&state)?;
        let mut limits = Limits::default();
        limits.text("/email", body.email.as_deref().unwrap_or_default(), limits::EMAIL_BYTES);
        limits.text("/state", body.state.as_deref().unwrap_or_default(), limits::OAUTH_STATE_BYTES);
        let faults = limits.faults();
        if !faults.is_empty() {
            return Err(ApiError::validation("see errors for the fields").with_errors(faults));
        }
        let mut tx = key.tx(&state, &caller).await?;
        let app = app::get(&mut tx, &state.oauth_apps, body.app_id).await?;
        let app = app.ok_or_else(|| ApiError::unknown_reference("/app_id"))?;
        if let Some(id) = body.account_id {
            let account = account::get(&mut tx, id).await?;
            account.ok_or_else(|| ApiError::unknown_reference("/account_id"))?;
        }
        // Compared whole: what merely begins alike may be somebody else's (RFC 9700 §2.1).
        if !tenant::redirect_urls(&mut tx).await?.contains(&body.redirect_url) {
            let detail = "is none of the tenant's redirect_urls (PATCH /api/tenant)";
            return Err(ApiError::invalid_field("/redirect_url", "not-registered", detail));
        }
        let flow = Flow {
            app_id: body.app_id,
            account_id: body.account_id,
            email: body.email,
            redirect_url: body.redirect_url,
            client_state: body.state,
            actor: caller.user.id,
            connect_id: None,
        };
        let view = send(&state, &mut tx, &app, &flow).await?;
        let view = view.ok_or_else(|| ApiError::unknown_reference("/app_id"))?;
        Ok((tx, Reply::ok(&view)?))
    })
    .await
}
