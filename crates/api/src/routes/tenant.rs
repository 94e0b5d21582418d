//! What a tenant says of itself: `GET, PATCH /api/tenant`.

use axum::extract::State;
use emailclient_core::access::tenant;
use emailclient_core::access::tenant::branding::{self, Branding};
use emailclient_core::platform::db::TenantTx;
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::caller::Caller;
use crate::error::{ApiError, FieldError, Problem};
use crate::extract::{Json, NoQuery, Query};
use crate::limits::{self, Limits};
use crate::permission::{May, TenantManage, TenantUpdate, Unaudited};
use crate::reply::Reply;
use crate::routes::connect::{self, Colour};
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
    /// What people see on the page on which they connect an account; `null`: the tenant's name, and colours of ours.
    branding: Option<BrandingView>,
}

/// What people see of the tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Branding)]
struct BrandingView {
    name: String,
    /// Where the logo was fetched from when it was set. It is shown from here.
    logo_url: Option<String>,
    /// `#rrggbb`.
    colour: Option<String>,
}

/// What people shall see of the tenant: what is left out is not shown any more.
#[derive(Debug, Deserialize, ToSchema)]
struct BrandingIn {
    /// The name people know.
    name: String,
    /// A PNG, JPEG, GIF or WebP picture over HTTPS. It is fetched now, and shown from here.
    logo_url: Option<String>,
    /// Of buttons and links: `#rrggbb` or `#rgb`. Where texts could not be read in it, it is made darker or lighter.
    colour: Option<String>,
}

/// Some fields of the tenant; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
struct TenantPatch {
    /// Compared whole. HTTPS, or HTTP for a loopback address.
    redirect_urls: Option<Vec<String>>,
    /// Replaced as a whole.
    branding: Option<BrandingIn>,
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
    let view = view(&mut tx, &caller).await?;
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
    let mut faults = body.redirect_urls.as_deref().map(url_faults).unwrap_or_default();
    faults.extend(body.branding.iter().flat_map(brand_faults));
    if !faults.is_empty() {
        return Err(ApiError::validation("see errors for the fields").with_errors(faults));
    }
    let logo = match body.branding.as_ref().and_then(|brand| brand.logo_url.as_deref()) {
        Some(url) => {
            caller.context.tried_elsewhere();
            Some(connect::fetch_logo(&state, url).await?)
        }
        None => None,
    };
    let mut tx = caller.tx(&state).await?;
    if logo.is_some() {
        tx.wait_for_rows().await?;
    }
    if let Some(urls) = &body.redirect_urls {
        tenant::set_redirect_urls(&mut tx, urls).await?;
    }
    if let Some(brand) = body.branding {
        let brand = Branding {
            name: brand.name.trim().to_owned(),
            colour: brand.colour.as_deref().and_then(Colour::parse).map(Colour::text),
            logo_url: brand.logo_url,
            logo_hash: None,
        };
        branding::set(&mut tx, &brand, logo.as_ref()).await?;
    }
    let view = view(&mut tx, &caller).await?;
    caller.audit(&mut tx, &caller.tenant_slug).await?;
    tx.commit().await?;
    Reply::ok(&view)
}

async fn view(tx: &mut TenantTx, caller: &Caller) -> Result<TenantView, ApiError> {
    let brand = branding::get(tx).await?;
    let brand = brand.map(|b| BrandingView { name: b.name, logo_url: b.logo_url, colour: b.colour });
    Ok(TenantView {
        id: caller.tenant().0,
        slug: caller.tenant_slug.clone(),
        name: tenant::name(tx).await?.unwrap_or_default(),
        redirect_urls: tenant::redirect_urls(tx).await?,
        branding: brand,
    })
}

fn url_faults(urls: &[String]) -> Vec<FieldError> {
    let mut limits = Limits::default();
    limits.count("/redirect_urls", urls.len(), limits::REDIRECT_URLS);
    let mut faults = limits.faults();
    for (n, text) in urls.iter().enumerate().take(limits::REDIRECT_URLS) {
        if let Some(detail) = fault(text) {
            faults.push(FieldError::new(format!("/redirect_urls/{n}"), "invalid", detail));
        }
    }
    faults
}

/// What is wrong with a branding, as far as no server has to be asked.
fn brand_faults(brand: &BrandingIn) -> Vec<FieldError> {
    let mut limits = Limits::default();
    limits.text("/branding/name", &brand.name, limits::NAME_BYTES);
    let url = brand.logo_url.as_deref().unwrap_or_default();
    limits.text("/branding/logo_url", url, limits::WEBHOOK_URL_BYTES);
    let mut faults = limits.faults();
    if brand.name.trim().is_empty() {
        faults.push(FieldError::new("/branding/name", "empty", "the name that people know is needed"));
    } else if brand.name.chars().any(char::is_control) {
        faults.push(FieldError::new("/branding/name", "invalid", "without line breaks"));
    }
    if brand.colour.as_deref().is_some_and(|text| Colour::parse(text).is_none()) {
        let detail = "a colour like #1a5fc4 is expected";
        faults.push(FieldError::new("/branding/colour", "invalid", detail));
    }
    faults
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
