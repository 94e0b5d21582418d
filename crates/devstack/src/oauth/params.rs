//! Parameters as clients send them, and refusals as they get them.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::model::Client;
use super::state::State;

/// Of a query or a form.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn parse(text: &[u8]) -> Self {
        Self(url::form_urlencoded::parse(text).into_owned().collect())
    }

    /// Of a form body.
    ///
    /// # Errors
    /// It is of another type (RFC 6749 §3.2).
    pub(super) fn form(headers: &HeaderMap, body: &[u8]) -> Result<Self, Refusal> {
        let of = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let of = of.split(';').next().unwrap_or_default().trim();
        if !of.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(Refusal::bad("invalid_request", "The body is no form."));
        }
        Ok(Self::parse(body))
    }

    /// The first of that name, for what no harm can come of.
    pub(super) fn any(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, v)| n == name && !v.is_empty()).map(|(_, value)| value.as_str())
    }

    /// One without a value counts as left out, and none may come twice (RFC 6749 §3.1).
    pub(super) fn one(&self, name: &str) -> Result<Option<&str>, Refusal> {
        if self.0.iter().filter(|(n, _)| n == name).count() > 1 {
            return Err(Refusal::bad("invalid_request", &format!("Parameter {name} came twice.")));
        }
        Ok(self.any(name))
    }

    pub(super) fn need(&self, name: &str) -> Result<&str, Refusal> {
        let missing = || Refusal::bad("invalid_request", &format!("Missing required parameter: {name}"));
        self.one(name)?.ok_or_else(missing)
    }

    /// The words of `scope` (RFC 6749 §3.3).
    pub(super) fn scope(&self) -> Result<Vec<String>, Refusal> {
        scope(self.one("scope")?.unwrap_or_default())
    }
}

pub(super) fn scope(text: &str) -> Result<Vec<String>, Refusal> {
    let word = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    let mut scope: Vec<String> = Vec::new();
    for part in text.split(' ').filter(|part| !part.is_empty()) {
        if !part.chars().all(word) {
            return Err(Refusal::bad("invalid_scope", "The scope has characters that none has."));
        }
        if !scope.iter().any(|s| s == part) {
            scope.push(part.to_owned());
        }
    }
    Ok(scope)
}

/// RFC 6749 §5.2.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: &'static str,
    pub(super) description: String,
}

impl Refusal {
    pub(super) fn bad(error: &'static str, description: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, description: description.to_owned() }
    }

    pub(super) fn grant(description: &str) -> Self {
        Self::bad("invalid_grant", description)
    }

    fn client(description: &str) -> Self {
        let status = StatusCode::UNAUTHORIZED;
        Self { status, error: "invalid_client", description: description.to_owned() }
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self { status, error: "server_error", description: format!("{error:#}") }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.error, "error_description": self.description }));
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"devstack\""));
        }
        response
    }
}

/// What is written in `Authorization: Basic`, if that is there: id and secret, each form-encoded before (RFC 6749 §2.3.1).
fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let wrong = || Refusal::client("The Authorization field is not that of a client.");
    let (scheme, value) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(wrong)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(wrong());
    }
    let text =
        STANDARD.decode(value.trim()).ok().and_then(|b| String::from_utf8(b).ok()).ok_or_else(wrong)?;
    let (id, secret) = text.split_once(':').ok_or_else(wrong)?;
    let decoded = |text: &str| {
        let pair = format!("v={}", text.replace('&', "%26"));
        url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned())
    };
    Ok(decoded(id).zip(decoded(secret)))
}

/// Who it says it is, without proof: for the list of requests.
pub(super) fn claimed(headers: &HeaderMap, params: &Params) -> Option<String> {
    let basic = basic(headers).ok().flatten().map(|(id, _)| id);
    basic.or_else(|| params.any("client_id").map(str::to_owned))
}

/// The client that this request is of (RFC 6749 §2.3).
///
/// # Errors
/// It does not prove it; or proves it in two ways at once, which none may.
pub(super) fn authenticate(state: &State, headers: &HeaderMap, params: &Params) -> Result<Client, Refusal> {
    let (id, secret) = match basic(headers)? {
        Some((id, secret)) => {
            if params.one("client_secret")?.is_some() {
                return Err(Refusal::bad("invalid_request", "The client authenticates in two ways."));
            }
            if params.one("client_id")?.is_some_and(|other| other != id) {
                return Err(Refusal::client("Two clients in one request."));
            }
            (id, Some(secret))
        }
        None => {
            let id = params.one("client_id")?.ok_or_else(|| Refusal::client("Which client?"))?;
            (id.to_owned(), params.one("client_secret")?.map(str::to_owned))
        }
    };
    let client = state.clients.get(&id).ok_or_else(|| Refusal::client("The OAuth client was not found."))?;
    // An empty password of a public client's Basic is no secret.
    let secret = secret.filter(|secret| !secret.is_empty());
    if client.secret != secret {
        return Err(Refusal::client("The provided client secret is invalid."));
    }
    Ok(client.clone())
}
