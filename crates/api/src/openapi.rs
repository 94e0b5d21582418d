//! The description of the API (OpenAPI 3.1), made from the handlers, and the explorer that shows it.

mod complete;

use std::fmt::Write as _;

use axum::response::Html;
use emailclient_core::platform::config::Config;
use serde_json::Value;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

/// What is not said at a handler: title, security scheme, the shape of refusals.
#[derive(OpenApi)]
#[openapi(
    info(title = "Email client API", description = "Mail accounts, their mailboxes and messages, search and sending."),
    modifiers(&Bearer),
    components(schemas(crate::error::Problem, crate::error::FieldError, crate::error::Upstream))
)]
pub struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        api.components.get_or_insert_default().add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The whole description: what the handlers say, and what is the same around all of them.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn whole(handlers: &utoipa::openapi::OpenApi, config: &Config) -> anyhow::Result<Value> {
    let described = serde_json::to_value(handlers)?;
    Ok(complete::complete(described, &config.tenant_id_header, config.default_tenant_id.is_none()))
}

/// What the explorer's page may load: its own files, and styles it writes into the page.
pub const EXPLORER_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// What the `type` of every problem document leads to: one line for each code.
pub async fn problems() -> Html<String> {
    let mut page =
        String::from("<!doctype html><html lang=\"en\"><title>Problems</title><h1>Problems</h1><dl>");
    for (status, code, title) in crate::error::ApiError::catalogue() {
        // Our own words only: nothing here needs escaping. Writing to a String cannot fail.
        let _ = write!(page, "<dt id=\"{code}\"><code>{code}</code> ({status})</dt><dd>{title}</dd>");
    }
    page.push_str("</dl></html>");
    Html(page)
}
