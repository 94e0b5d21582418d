//! Apps that are registered at providers.

use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::oauth::app::{self, App, AppError, Secrets};
use emailclient_core::platform::id::AppId;
use serde::Serialize;
use utoipa::ToSchema;

use super::input::{AppIn, AppPatch};
use super::view::{AppView, etag};
use crate::error::{ApiError, Problem};
use crate::etag::Conditions;
use crate::extract::{Deferred, Json, NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{AccountsManage, May, OAuthAppCreate, OAuthAppDelete, OAuthAppUpdate, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// All apps there are.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OAuthApps)]
pub struct AppsView {
    data: Vec<AppView>,
}

/// The apps of the deployment and those of the tenant, 50 at most.
#[utoipa::path(get, path = "/api/oauth/apps", tag = "oauth", security(("bearer" = ["accounts:manage"])),
    responses((status = 200, body = AppsView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn list_apps(
    State(state): State<AppState>,
    caller: May<AccountsManage, Unaudited>,
    _none: Query<NoQuery>,
) -> Result<Reply, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let own = app::list(&mut tx).await?;
    tx.release();
    let url = state.config.public_url.as_deref();
    let all = state.oauth_apps.list().chain(own);
    Reply::ok(&AppsView { data: all.map(|app| AppView::of(app, url)).collect() })
}

/// Names an app that was registered at a provider. docs/connecting.md says how that is done.
#[utoipa::path(post, path = "/api/oauth/apps", tag = "oauth", security(("bearer" = ["accounts:manage"])), request_body = AppIn,
    responses((status = 201, body = AppView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn create_app(
    State(state): State<AppState>,
    caller: May<AccountsManage, OAuthAppCreate>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
    Json(body): Json<AppIn>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let (said, secrets) = body.given().check(&state).await?;
        let mut tx = key.tx(&state, &caller).await?;
        let made = app::create(&mut tx, &state.keyring, &said, &secrets).await?;
        caller.audit(&mut tx, &made.id.to_string()).await?;
        let (location, tag) = (format!("/api/oauth/apps/{}", made.id), etag(&made));
        let view = AppView::of(made, state.config.public_url.as_deref());
        Ok((tx, Reply::created(&location, &view)?.etag(&tag)))
    })
    .await
}

/// One app.
#[utoipa::path(get, path = "/api/oauth/apps/{id}", tag = "oauth", security(("bearer" = ["accounts:manage"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = AppView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn get_app(
    State(state): State<AppState>,
    caller: May<AccountsManage, Unaudited>,
    PathId(id): PathId<AppId>,
    _none: Query<NoQuery>,
) -> Result<Reply, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let found = app::get(&mut tx, &state.oauth_apps, id).await?.ok_or_else(ApiError::not_found)?;
    tx.release();
    let tag = etag(&found);
    Ok(Reply::ok(&AppView::of(found, state.config.public_url.as_deref()))?.etag(&tag))
}

/// Changes the fields that are given. One of the deployment is not changed here.
#[utoipa::path(patch, path = "/api/oauth/apps/{id}", tag = "oauth", security(("bearer" = ["accounts:manage"])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "the ETag that was read")), request_body = AppPatch,
    responses((status = 200, body = AppView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn patch_app(
    State(state): State<AppState>,
    caller: May<AccountsManage, OAuthAppUpdate>,
    PathId(id): PathId<AppId>,
    _none: Query<NoQuery>,
    conditions: Conditions,
    body: Deferred<AppPatch>,
) -> Result<Reply, ApiError> {
    let mut look = caller.aside(&state).await?;
    let old = app::get(&mut look, &state.oauth_apps, id).await?.ok_or_else(ApiError::not_found)?;
    look.release();
    if old.is_shared {
        return Err(of_deployment());
    }
    conditions.check_match(&etag(&old))?;
    let (said, secrets) = body.meaning()?.over(old.said.clone()).check(&state).await?;
    let mut tx = caller.tx(&state).await?;
    if said.endpoints != old.said.endpoints {
        check_moved(&old, &secrets)?;
        if app::is_used(&mut tx, id).await? {
            return Err(AppError::InUse.into());
        }
    }
    let changed = app::replace(&mut tx, &state.keyring, id, (&said, &secrets)).await?;
    let changed = changed.ok_or_else(ApiError::not_found)?;
    if changed.version != old.version + 1 {
        return Err(ApiError::precondition_failed("the app was changed by someone else meanwhile"));
    }
    caller.audit(&mut tx, &id.to_string()).await?;
    tx.commit().await?;
    let tag = etag(&changed);
    Ok(Reply::ok(&AppView::of(changed, state.config.public_url.as_deref()))?.etag(&tag))
}

/// Removes an app that no account uses any more.
#[utoipa::path(delete, path = "/api/oauth/apps/{id}", tag = "oauth", security(("bearer" = ["accounts:manage"])),
    params(("id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "the ETag that was read")),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn delete_app(
    State(state): State<AppState>,
    caller: May<AccountsManage, OAuthAppDelete>,
    PathId(id): PathId<AppId>,
    _none: Query<NoQuery>,
    conditions: Conditions,
) -> Result<Reply, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let found = app::get(&mut tx, &state.oauth_apps, id).await?.ok_or_else(ApiError::not_found)?;
    if found.is_shared {
        return Err(of_deployment());
    }
    conditions.check_match(&etag(&found))?;
    app::delete(&mut tx, id).await?;
    caller.audit(&mut tx, &id.to_string()).await?;
    tx.commit().await?;
    Ok(Reply::no_content())
}

/// Secrets are shown to other addresses only by who knows them: else whoever may change the app could have them sent anywhere.
fn check_moved(old: &App, secrets: &Secrets) -> Result<(), ApiError> {
    let detail = "with other endpoints the secret is needed again";
    if old.has_client_secret && secrets.client_secret.is_none() {
        return Err(ApiError::invalid_field("/client_secret", "missing", detail));
    }
    if old.has_private_key && secrets.private_key.is_none() {
        return Err(ApiError::invalid_field("/private_key", "missing", detail));
    }
    Ok(())
}

fn of_deployment() -> ApiError {
    ApiError::insufficient_scope("the app is of the deployment: its operator changes it")
}

impl From<AppError> for ApiError {
    fn from(error: AppError) -> Self {
        match error {
            AppError::TooMany => Self::invalid_field("", "too-many", &error.to_string()),
            AppError::InUse => {
                Self::oauth_app_in_use("accounts log in by it: connect them otherwise, or remove them, first")
            }
            AppError::Seal(error) => error.into(),
            AppError::Db(error) => error.into(),
        }
    }
}
