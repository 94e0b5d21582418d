//! Logging in and out.

mod guard;
mod login;
mod logout;
mod me;
mod refresh;

use axum::Extension;
use emailclient_core::access::token::{ACCESS_LIFETIME, TokenError};
use emailclient_core::access::user::User;
use emailclient_core::platform::id::{SessionId, TenantId};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use wire::secret::Secret;

use crate::error::ApiError;
use crate::state::AppState;

/// The routes of this domain.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(login::login))
        .merge(OpenApiRouter::new().routes(routes!(refresh::refresh)).layer(Extension(refresh::RULES)))
        .routes(routes!(logout::logout))
        .routes(routes!(me::me))
}

/// A user, as its tenant sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserView {
    /// Its id.
    id: Uuid,
    /// The log-in name.
    email: String,
    /// The display name.
    name: String,
    /// `owner`, `admin`, `member` or `viewer`.
    role: &'static str,
}

impl UserView {
    fn new(user: &User) -> Self {
        Self { id: user.id.0, email: user.email.clone(), name: user.name.clone(), role: user.role.as_str() }
    }
}

/// A tenant, as its users see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantView {
    /// Its id.
    id: Uuid,
    /// Its name in headers.
    slug: String,
    /// Its name for people.
    name: String,
}

/// What a log-in gives.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoginView {
    /// For `Authorization: Bearer`.
    access_token: String,
    /// Always `Bearer`.
    token_type: &'static str,
    /// Seconds until the access token ends.
    expires_in: i64,
    /// Good once, for the next pair.
    refresh_token: String,
    /// Who logged in.
    user: UserView,
    /// Where.
    tenant: TenantView,
}

impl LoginView {
    fn new(
        state: &AppState,
        user: &User,
        tenant: TenantView,
        session: SessionId,
        refresh: &Secret,
    ) -> Result<Self, ApiError> {
        let token = state.tokens.sign(user.id, TenantId(tenant.id), session, state.clock.now());
        Ok(Self {
            access_token: token.map_err(|e: TokenError| ApiError::internal(e))?,
            token_type: "Bearer",
            expires_in: ACCESS_LIFETIME.num_seconds(),
            refresh_token: refresh.expose().to_owned(),
            user: UserView::new(user),
            tenant,
        })
    }
}
