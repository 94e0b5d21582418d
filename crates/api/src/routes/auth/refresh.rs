//! A new pair of tokens for a refresh token.

use axum::extract::{FromRequestParts, State};
use emailclient_core::access::audit::{self, Action, Entry};
use emailclient_core::access::session::{self, Refreshed};
use emailclient_core::access::tenant;
use emailclient_core::access::token::{SESSION_LIFETIME, new_refresh, read_refresh};
use http::request::Parts;
use serde::Deserialize;
use utoipa::ToSchema;
use wire::secret::Secret;

use super::{LoginView, TenantView, guard};
use crate::context::Context;
use crate::error::{ApiError, Problem};
use crate::extract::{Json, NoQuery, Query};
use crate::limits::{self, Limits};
use crate::negotiate::Rules;
use crate::reply::Reply;
use crate::state::AppState;

/// A stranger may send a token and its quotes.
pub(super) const RULES: Rules = Rules::JSON.limit(1024);

/// The limit, judged before the body is read.
#[derive(Debug)]
pub struct Spared;

impl FromRequestParts<AppState> for Spared {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        guard::limit_refresh(state, &Context::of(parts)).await?;
        Ok(Self)
    }
}

/// The token of the last log-in or refresh.
#[derive(Debug, Deserialize, ToSchema)]
pub struct Refresh {
    #[schema(value_type = String)]
    refresh_token: Secret,
}

/// Exchanges a refresh token; each is good once, and a second use ends the session.
#[utoipa::path(post, path = "/auth/refresh", tag = "auth", request_body = Refresh,
    responses((status = 200, body = LoginView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn refresh(
    State(state): State<AppState>,
    context: Context,
    _spared: Spared,
    Query(NoQuery {}): Query<NoQuery>,
    Json(body): Json<Refresh>,
) -> Result<Reply, ApiError> {
    let mut limits = Limits::default();
    limits.text("/refresh_token", body.refresh_token.expose(), limits::REFRESH_TOKEN_BYTES);
    limits.end()?;
    let (tenant_id, old) = read_refresh(body.refresh_token.expose()).ok_or_else(ApiError::invalid_token)?;
    let mut system = state.db.system().await?;
    let found = tenant::find(&mut system, &tenant_id.to_string()).await?;
    system.commit().await?;
    let key = found.ok_or_else(ApiError::invalid_token)?;
    let (token, new) = new_refresh(tenant_id);
    let now = state.clock.now();
    let mut tx = state.db.tenant(tenant_id).await?;
    match session::refresh(&mut tx, &old, &new, now, now + SESSION_LIFETIME).await? {
        Refreshed::Refused => Err(ApiError::invalid_token()),
        Refreshed::Reused { session, user } => {
            let (actor, target) = (format!("user:{user}"), session.to_string());
            let address = context.address().map(|a| a.to_string());
            let entry = Entry {
                actor: &actor,
                action: Action::SessionRefresh,
                target: Some(&target),
                address: address.as_deref(),
                result: "reused",
                request_id: Some(context.request_id()),
                times: 1,
            };
            audit::record(&mut tx, &entry).await?;
            tx.commit().await?;
            state.known.forget_session(session);
            Err(ApiError::invalid_token())
        }
        // Told to whoever has a good token, which stays good: nothing of this is committed.
        Refreshed::User { .. } if key.suspended => {
            Err(ApiError::tenant_suspended("the operator suspended this tenant"))
        }
        Refreshed::User { session, user } => {
            let name = tenant::name(&mut tx).await?.unwrap_or_default();
            tx.commit().await?;
            let tenant = TenantView { id: tenant_id.0, slug: key.slug, name };
            Reply::ok(&LoginView::new(&state, &user, tenant, session, &token)?)
        }
    }
}
