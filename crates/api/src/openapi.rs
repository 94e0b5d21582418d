//! The description of the API (OpenAPI 3.1), made from the handlers, and the explorer that shows it.

mod complete;

use std::fmt::Write as _;

use axum::response::Html;
use emailclient_core::domain::event::EventKind;
use emailclient_core::events::envelope::{self, Envelope};
use emailclient_core::platform::config::Config;
use serde_json::{Map, Value, json};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::part_token;

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
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
        let part = ApiKey::Query(ApiKeyValue::with_description(
            part_token::PARAMETER,
            "Stands in the addresses of pictures in `/html`, for one part of one message and an hour at most.",
        ));
        components.add_security_scheme(part_token::PARAMETER, SecurityScheme::ApiKey(part));
    }
}

/// The whole description: what the handlers say, and what is the same around all of them.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn whole(handlers: &utoipa::openapi::OpenApi, config: &Config) -> anyhow::Result<Value> {
    let mut described = serde_json::to_value(handlers)?;
    if let Some(api) = described.as_object_mut() {
        api.insert("webhooks".to_owned(), webhooks());
    }
    Ok(complete::complete(described, &config.tenant_id_header, config.default_tenant_id.is_none()))
}

/// What is sent to webhooks: an operation for each kind of event, with an example.
fn webhooks() -> Value {
    let headers = [
        ("webhook-id", "The id of the event: the same in every try."),
        (
            "webhook-timestamp",
            "Of this try, in seconds since 1970. One older than five minutes is to be refused.",
        ),
        (
            "webhook-signature",
            "`v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`; several with blanks between.",
        ),
    ];
    let parameters: Vec<Value> = headers
        .iter()
        .map(|(name, text)| {
            json!({ "name": name, "in": "header", "required": true, "description": text, "schema": { "type": "string" } })
        })
        .collect();
    let mut all = Map::new();
    for kind in EventKind::ALL {
        let Envelope { kind: word, timestamp, mut data, account_id, .. } = envelope::example(*kind);
        if let (Value::Object(data), Some(account)) = (&mut data, account_id) {
            data.insert("account_id".to_owned(), json!(account));
        }
        let body = json!({ "type": word, "timestamp": timestamp, "data": data });
        let schema = json!({
            "type": "object",
            "required": ["type", "timestamp", "data"],
            "properties": {
                "type": { "type": "string", "const": word },
                "timestamp": { "type": "string", "format": "date-time" },
                "data": { "type": "object" }
            }
        });
        let operation = json!({
            "summary": format!("An event `{word}` (Standard Webhooks 1.0.0)"),
            "tags": ["events"],
            "parameters": parameters,
            "requestBody": { "required": true, "content": { "application/json": { "schema": schema, "example": body } } },
            "responses": { "2XX": { "description": "It was taken. Anything else is tried again." } }
        });
        all.insert(word, json!({ "post": operation }));
    }
    Value::Object(all)
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
