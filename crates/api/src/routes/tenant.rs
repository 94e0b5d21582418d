//! What a tenant says of itself: `GET, PATCH /api/tenant`.

use axum::extract::State;
use emailclient_core::access::tenant;
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::error::{ApiError, FieldError, Problem};
use crate::extract::{Json, NoQuery, Query};
use crate::limits::{self, Limits};
use crate::permission::{May, TenantManage, TenantUpdate, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// The routes of this domain.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get_tenant, patch_tenant))
}

/// The tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
struct TenantView {
    id: Uuid,
    slug: String,
    name: String,
    /// Where people may be sent after they connected an account.
    redirect_urls: Vec<String>,
}

/// Some fields of the tenant; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
struct TenantPatch {
    /// Compared whole. HTTPS, or HTTP for a loopback address.
    redirect_urls: Option<Vec<String>>,
}

/// The tenant, as its owners see it.
#[utoipa::path(get, path = "/api/tenant", tag = "tenant", security(("bearer" = ["tenant:manage"])),
    responses((status = 200, body = TenantView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
async fn get_tenant(
    State(state): State<AppState>,
    caller: May<TenantManage, Unaudited>,
    _none: Query<NoQuery>,
) -> Result<Reply, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let view = TenantView {
        id: caller.tenant().0,
        slug: caller.tenant_slug.clone(),
        name: tenant::name(&mut tx).await?.unwrap_or_default(),
        redirect_urls: tenant::redirect_urls(&mut tx).await?,
    };
    tx.release();
    Reply::ok(&view)
}

/// Changes the fields that are given.
#[utoipa::path(patch, path = "/api/tenant", tag = "tenant", security(("bearer" = ["tenant:manage"])), request_body = TenantPatch,
    responses((status = 200, body = TenantView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
async fn patch_tenant(
    State(state): State<AppState>,
    caller: May<TenantManage, TenantUpdate>,
    _none: Query<NoQuery>,
    Json(body): Json<TenantPatch>,
) -> Result<Reply, ApiError> {
    let mut tx = caller.tx(&state).await?;
    if let Some(urls) = &body.redirect_urls {
        check(urls)?;
        tenant::set_redirect_urls(&mut tx, urls).await?;
    }
    let view = TenantView {
        id: caller.tenant().0,
        slug: caller.tenant_slug.clone(),
        name: tenant::name(&mut tx).await?.unwrap_or_default(),
        redirect_urls: tenant::redirect_urls(&mut tx).await?,
    };
    caller.audit(&mut tx, &caller.tenant_slug).await?;
    tx.commit().await?;
    Reply::ok(&view)
}

fn check(urls: &[String]) -> Result<(), ApiError> {
    let mut limits = Limits::default();
    limits.count("/redirect_urls", urls.len(), limits::REDIRECT_URLS);
    let mut faults = limits.faults();
    for (n, text) in urls.iter().enumerate().take(limits::REDIRECT_URLS) {
        if let Some(detail) = fault(text) {
            faults.push(FieldError::new(format!("/redirect_urls/{n}"), "invalid", detail));
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(ApiError::validation("see errors for the fields").with_errors(faults))
    }
}

/// What is wrong with an address that a person may be sent to (RFC 9700 §4.1, RFC 8252 §7.3).
fn fault(text: &str) -> Option<&'static str> {
    let Ok(url) = Url::parse(text) else {
        return Some("an address like https://app.example.com/connected is expected");
    };
    let is_loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    if text.len() > limits::WEBHOOK_URL_BYTES || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Some("too long, or with blanks")
    } else if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback) {
        Some("https is expected; http is for a loopback address")
    } else if url.fragment().is_some() {
        Some("without a fragment (#)")
    } else if !url.username().is_empty() || url.password().is_some() {
        Some("without user name and password")
    } else {
        None
    }
}
