//! Connecting an account from a device without a browser (RFC 8628).

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use emailclient_core::connect::oauth::{self, Waiting};
use emailclient_core::domain::account;
use emailclient_core::domain::oauth::app;
use emailclient_core::domain::oauth::device::{self, Device};
use emailclient_core::platform::id::{AccountId, AppId, DeviceId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use wire::trouble::Trouble;

use super::arrival::{Failure, Wanted, app_of, arrived, oauth_failure};
use crate::error::{ApiError, Problem};
use crate::extract::{Json, NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{AccountsManage, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// For what.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct DeviceIn {
    #[schema(value_type = uuid::Uuid)]
    app_id: AppId,
    /// The account that is renewed; left out, a new one is connected.
    #[schema(value_type = Option<uuid::Uuid>)]
    account_id: Option<AccountId>,
}

/// What a person is to do elsewhere, and what came of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeviceAuthorization)]
pub struct DeviceView {
    id: Uuid,
    /// `pending`, `connected` or `failed`.
    state: &'static str,
    /// Shown to the person, who enters it at `verification_uri`.
    user_code: String,
    verification_uri: String,
    /// The same with the code in it, for a QR code.
    verification_uri_complete: Option<String>,
    expires_at: DateTime<Utc>,
    /// Seconds between two looks here; more often, nothing new is told.
    interval: u64,
    /// Of `connected`.
    account_id: Option<Uuid>,
    /// Of `failed`: as `error` in docs/connecting.md.
    error: Option<String>,
    /// The same for people.
    error_description: Option<String>,
}

impl DeviceView {
    fn of(id: DeviceId, device: Device, now: DateTime<Utc>) -> Self {
        let expired = || ("expired".to_owned(), "Nobody decided in time.".to_owned());
        let over = device.connected.is_none() && device.expires_at <= now;
        let failed = device.failed.or_else(|| over.then(expired));
        let state = match (&device.connected, &failed) {
            (Some(_), _) => "connected",
            (None, Some(_)) => "failed",
            (None, None) => "pending",
        };
        let (error, error_description) = failed.unzip();
        Self {
            id: id.0,
            state,
            user_code: device.user_code,
            verification_uri: device.verification_uri,
            verification_uri_complete: device.verification_uri_complete,
            expires_at: device.expires_at,
            interval: device.interval.as_secs(),
            account_id: device.connected.map(|id| id.0),
            error,
            error_description,
        }
    }
}

/// Begins to connect an account, or to renew one, from a device without a browser: show the person `user_code` and
/// `verification_uri`, and look at `GET /api/oauth/device/{id}` every `interval` seconds.
#[utoipa::path(post, path = "/api/oauth/device", tag = "oauth", security(("bearer" = ["accounts:manage"])), request_body = DeviceIn,
    responses((status = 201, body = DeviceView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn begin_device(
    State(state): State<AppState>,
    caller: May<AccountsManage, Unaudited>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
    Json(body): Json<DeviceIn>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut look = caller.aside(&state).await?;
        let app = app::open(&mut look, &state.oauth_apps, &state.keyring, body.app_id).await?;
        let app = app.ok_or_else(|| ApiError::unknown_reference("/app_id"))?;
        if let Some(id) = body.account_id {
            account::get(&mut look, id).await?.ok_or_else(|| ApiError::unknown_reference("/account_id"))?;
        }
        look.release();
        if app.terms.endpoints.device_authorization_endpoint.is_none() {
            let detail = "the provider has no such way, or not for mail";
            return Err(ApiError::invalid_field("/app_id", "not-allowed", detail));
        }
        let code = oauth::device_code(&state, &app)
            .await
            .map_err(|error| ApiError::trouble(error.trouble().unwrap_or(Trouble::NoToken), error.words()))?;
        let mut tx = key.tx(&state, &caller).await?;
        let of = (body.app_id, body.account_id, caller.user.id);
        let now = state.clock.now();
        let id = device::begin(&mut tx, &state.keyring, of, (&code, now)).await?;
        let made = device::get(&mut tx, &state.keyring, id).await?.ok_or_else(ApiError::not_found)?;
        Ok((tx, Reply::created(&format!("/api/oauth/device/{id}"), &DeviceView::of(id, made, now))?))
    })
    .await
}

/// How it stands. Asks the provider, when it may be asked again.
#[utoipa::path(get, path = "/api/oauth/device/{id}", tag = "oauth", security(("bearer" = ["accounts:manage"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = DeviceView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn get_device(
    State(state): State<AppState>,
    caller: May<AccountsManage, Unaudited>,
    PathId(id): PathId<DeviceId>,
    _none: Query<NoQuery>,
) -> Result<Reply, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let found = device::get(&mut tx, &state.keyring, id).await?.ok_or_else(ApiError::not_found)?;
    let asks = device::may_ask(&mut tx, id, state.clock.now()).await?;
    tx.commit().await?;
    let found = if asks {
        let wanted = Wanted {
            tenant: caller.tenant(),
            app: found.app,
            account: found.account,
            actor: found.actor,
            page: None,
        };
        caller.context.tried_elsewhere();
        // A task of its own: who asks may go away, and the code is good once.
        let task = tokio::spawn(look(state.clone(), wanted, id, found));
        task.await.map_err(ApiError::internal)??
    } else {
        found
    };
    Reply::ok(&DeviceView::of(id, found, state.clock.now()))
}

/// Asks the provider once, and keeps what it said.
async fn look(state: AppState, wanted: Wanted, id: DeviceId, found: Device) -> Result<Device, ApiError> {
    let state = &state;
    let mut came = false;
    let outcome: Result<Result<AccountId, bool>, Failure> = async {
        let app = app_of(state, wanted).await?;
        let gone = || Failure::new("expired", "The code cannot be used any more.");
        let code = found.code.as_ref().ok_or_else(gone)?;
        match oauth::device_token(state, &app, code).await {
            Ok(tokens) => {
                came = true;
                arrived(state, wanted, &app, (&tokens, None)).await.map(Ok)
            }
            Err(Waiting::Still { slower }) => Ok(Err(slower)),
            Err(Waiting::Denied) => Err(Failure::new("access-denied", "The consent was not given.")),
            Err(Waiting::Expired) => Err(Failure::new("expired", "Nobody decided in time.")),
            Err(Waiting::Failed(error)) => Err(oauth_failure(&error)),
        }
    }
    .await;
    let mut tx = state.db.tenant(wanted.tenant).await?;
    match &outcome {
        Ok(Ok(account)) => device::end(&mut tx, id, Ok(*account)).await?,
        Ok(Err(slower)) => device::waits(&mut tx, id, *slower, state.clock.now()).await?,
        // It may answer better the next time.
        Err(failure) if failure.code == "provider-unavailable" && !came => {
            device::waits(&mut tx, id, false, state.clock.now()).await?
        }
        Err(failure) => device::end(&mut tx, id, Err((failure.code, &failure.text))).await?,
    }
    let now = device::get(&mut tx, &state.keyring, id).await?.ok_or_else(ApiError::not_found)?;
    tx.commit().await?;
    Ok(now)
}
