//! `/token`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::http::HeaderMap;

use super::grants;
use super::issue::Answer;
use super::params::{Params, Refusal, authenticate};
use super::server::Shared;

/// The grant type of RFC 8628.
pub(super) const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// The grant type of RFC 7523.
pub(super) const BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

pub(super) async fn token(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer, Refusal> {
    let form = Params::form(&headers, &body)?;
    let mut state = shared.lock();
    let state = &mut *state;
    let grant_type = form.need("grant_type")?;
    if grant_type == BEARER {
        // The signature says who it is (RFC 7523 §3.1).
        return grants::assertion(&shared, state, &form);
    }
    let client = authenticate(state, &headers, &form)?;
    match grant_type {
        "authorization_code" => grants::code(&shared, state, &client, &form),
        "refresh_token" => grants::renew(&shared, state, &client, &form),
        "client_credentials" => grants::app(&shared, state, &client, &form),
        DEVICE => grants::device(&shared, state, &client, &form),
        other => Err(Refusal::bad("unsupported_grant_type", &format!("Invalid grant_type: {other}"))),
    }
}
