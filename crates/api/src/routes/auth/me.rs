//! Who the caller is.

use axum::extract::State;
use chrono::{DateTime, Utc};
use emailclient_core::access::tenant;
use serde::Serialize;
use utoipa::ToSchema;

use super::{TenantView, UserView};
use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, Query};
use crate::permission::{LoggedIn, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// The caller.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    user: UserView,
    tenant: TenantView,
    /// What the token may be used for; `*` is everything.
    scopes: Vec<String>,
    /// When the access token ends.
    expires_at: Option<DateTime<Utc>>,
}

/// Who the token stands for.
#[utoipa::path(get, path = "/auth/me", tag = "auth", security(("bearer" = [])),
    responses((status = 200, body = Me), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn me(
    State(state): State<AppState>,
    caller: May<LoggedIn, Unaudited>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Reply, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let name = tenant::name(&mut tx).await?.unwrap_or_default();
    tx.release();
    Reply::ok(&Me {
        user: UserView::new(&caller.user),
        tenant: TenantView { id: caller.tenant().0, slug: caller.tenant_slug.clone(), name },
        scopes: caller.principal.scopes.iter().map(|scope| scope.to_string()).collect(),
        expires_at: DateTime::from_timestamp(caller.token_expires, 0),
    })
}
