//! The edge around every route: request id, span, problem documents, and the headers that every answer has.

use std::net::{IpAddr, SocketAddr};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use emailclient_core::platform::id::new_uuid;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use ipnet::IpNet;
use tracing::Instrument as _;

use crate::context::Context;
use crate::error::{ApiError, Pending};
use crate::extract::body::Patience;
use crate::host;
use crate::state::AppState;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// Address of the other end of the connection, put into the extensions of each request by the server.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Wraps one request.
pub async fn edge(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let peer = request.extensions().get::<Peer>().map(|p| p.0.ip());
    let address = client_address(request.headers(), peer, &state.config.trusted_proxies);
    let path = request.uri().path().to_owned();
    let quiet = path.starts_with("/health");
    let context = Context::new(id, address, path);
    let span = tracing::info_span!(
        "request",
        request_id = context.request_id(),
        trace_id = trace_id(request.headers()),
        method = %request.method(),
        path = %context.path_for_logs(),
        tenant = tracing::field::Empty,
        user = tracing::field::Empty,
    );
    request.extensions_mut().insert(context.clone());
    request.extensions_mut().insert(state.lines.clone());
    request.extensions_mut().insert(Patience(state.config.api_body_timeout));
    let started = std::time::Instant::now();
    let response = async {
        let answer = match host::check(request.version(), request.headers()) {
            Ok(()) => next.run(request).await,
            Err(refused) => refused.into_response(),
        };
        let response = finish(&context, answer);
        let (status, ms) = (response.status().as_u16(), started.elapsed().as_millis());
        if quiet {
            tracing::debug!(status, ms, "answered");
        } else {
            tracing::info!(status, ms, "answered");
        }
        response
    };
    response.instrument(span).await
}

fn finish(context: &Context, response: Response) -> Response {
    let mut response = as_problem(context, response);
    let etag = response.headers().contains_key(header::ETAG);
    let headers = response.headers_mut();
    // An answer that is given again has the id of the first time.
    if let Ok(id) = HeaderValue::from_str(context.request_id()) {
        headers.entry(REQUEST_ID).or_insert(id);
    }
    if let Some((policy, left)) = context.rate_headers()
        && let (Ok(policy), Ok(left)) = (policy.parse(), left.parse())
    {
        headers.insert(POLICY, policy);
        headers.insert(STATE, left);
    }
    let mut default = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    default(header::CACHE_CONTROL, if etag { "private, no-cache" } else { "no-store" });
    default(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    default(header::REFERRER_POLICY, "no-referrer");
    default(header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'");
    response
}

/// A refusal that a person sees in a browser: it stays the page that it is.
#[derive(Debug, Clone, Copy)]
pub struct Page;

/// Gives every refusal its document: ours get id and path, the framework's get a document at all.
fn as_problem(context: &Context, mut response: Response) -> Response {
    let status = response.status();
    let refused = status.is_client_error() || status.is_server_error();
    let health = context.path() == "/health" || context.path().starts_with("/health/");
    if let Some(Pending(mut problem)) = response.extensions_mut().remove::<Pending>() {
        context.request_id().clone_into(&mut problem.request_id);
        context.path().clone_into(&mut problem.instance);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.body_mut() = Body::from(body);
        return response;
    }
    let written =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|t| t == "application/problem+json");
    let page = response.extensions().get::<Page>().is_some();
    if !refused || written || page || (health && status == StatusCode::SERVICE_UNAVAILABLE) {
        return response;
    }
    let mut made = as_problem(context, ApiError::from_status(status).into_response());
    // The layers below had their say: Allow, Retry-After, what other origins may read.
    let mut kept = std::mem::take(response.headers_mut());
    for about_the_body in [
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::TRANSFER_ENCODING,
        header::ETAG,
    ] {
        kept.remove(about_the_body);
    }
    made.headers_mut().extend(kept);
    made
}

/// A client's id is kept when it is short and plain, so that it can stand in logs.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |t: &&str| {
        (1..=128).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    let sent = headers.get(REQUEST_ID).and_then(|v| v.to_str().ok()).filter(plain);
    sent.map_or_else(|| new_uuid().to_string(), str::to_owned)
}

/// The trace id of a `traceparent` header (W3C Trace Context §3.2), if there is one.
fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let id = text.split('-').nth(1)?;
    let valid = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) && id.bytes().any(|b| b != b'0');
    valid.then_some(id)
}

/// The rightmost address of `X-Forwarded-For` that is not a trusted proxy's, if the peer is one; else the peer.
fn client_address(headers: &HeaderMap, peer: Option<IpAddr>, trusted: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |ip: IpAddr| trusted.iter().any(|t| t.contains(&ip));
    let peer = peer.map(|p| p.to_canonical())?;
    if !is_trusted(peer) {
        return Some(peer);
    }
    let hops: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .collect();
    let mut client = peer;
    for hop in hops.iter().rev() {
        // What stands left of something unreadable was not written by a proxy of ours.
        let Ok(ip) = hop.parse::<IpAddr>() else { break };
        client = ip.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    Some(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-forwarded-for"),
            HeaderValue::from_static("6.6.6.6, 203.0.113.9, 10.0.0.2"),
        )]);
        let ip = |t: &str| Some(t.parse::<IpAddr>().unwrap());
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        assert_eq!(client_address(&headers, ip("10.0.0.1"), &trusted), ip("203.0.113.9"));
        assert_eq!(client_address(&headers, ip("8.8.8.8"), &trusted), ip("8.8.8.8"));
        assert_eq!(client_address(&HeaderMap::new(), ip("::ffff:10.0.0.1"), &trusted), ip("10.0.0.1"));
    }

    #[test]
    fn only_plain_request_ids_are_taken_over() {
        let with = |v: &'static str| HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(v))]);
        assert_eq!(request_id(&with("abc-1.2:3_4")), "abc-1.2:3_4");
        for bad in ["a b", "", "x\"y", "{}"] {
            assert_ne!(request_id(&with(bad)), bad);
        }
    }
}
