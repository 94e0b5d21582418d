//! Cross-origin requests (Fetch §3.2): exact origins from `CORS_ORIGINS` may read our answers, others learn nothing.
//!
//! Our own layer and not tower-http's (0.7.1), which answers OPTIONS of every origin itself: a foreign one would be told
//! methods and headers, and a plain OPTIONS would no longer be the 405 that it is without CORS. A header that browsers
//! shall hand to scripts, or take from them, is added to the lists below.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::state::AppState;

const METHODS: &str = "GET, POST, PUT, PATCH, DELETE";
/// Beside the tenant header, whose name is a setting.
const ASKED: &str = "Authorization, Content-Type, Accept, Idempotency-Key, If-Match, If-None-Match, If-Range, Range, \
     X-Request-Id, Traceparent, Tracestate";
const SHOWN: &str = "ETag, Location, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id, Idempotency-Replayed, Allow, \
     Content-Disposition, Content-Range, Accept-Ranges, WWW-Authenticate";
/// How long a browser need not ask again, in seconds.
const MAX_AGE: &str = "600";

/// Who may read answers, and what they may send.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Arc<[HeaderValue]>,
    headers: HeaderValue,
}

impl Cors {
    /// As the settings say; `None` when they name no origin: then nothing is different from a service without CORS.
    pub fn new(state: &AppState) -> Option<Self> {
        let origins: Vec<HeaderValue> =
            state.config.cors_origins.iter().filter_map(|o| o.parse().ok()).collect();
        let headers = format!("{ASKED}, {}", state.config.tenant_id_header);
        let headers = HeaderValue::from_str(&headers).unwrap_or(HeaderValue::from_static(ASKED));
        (!origins.is_empty()).then(|| Self { origins: origins.into(), headers })
    }

    fn admitted(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.origins.contains(origin).then(|| origin.clone())
    }
}

/// Answers the preflights of admitted origins, and marks every other answer to them as theirs to read. No credentials:
/// tokens travel in a header, never in a cookie.
pub async fn layer(State(cors): State<Cors>, request: Request, next: Next) -> Response {
    let origin = cors.admitted(request.headers());
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response =
        if origin.is_some() && preflight { preflight_answer(&cors) } else { next.run(request).await };
    let headers = response.headers_mut();
    // A shared cache must not hand one origin's answer to another; so also where there was no origin at all.
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if !preflight {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(SHOWN));
        }
    }
    response
}

fn preflight_answer(cors: &Cors) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, cors.headers.clone());
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    response
}
