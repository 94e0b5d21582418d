//! What the authority says of itself and of its users, and revocation.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::grants;
use super::issue;
use super::params::{Params, Refusal, authenticate};
use super::server::Shared;

/// OpenID Connect Discovery §3 and RFC 8414 §2.
pub(super) async fn discovery(Extract(shared): Extract<Arc<Shared>>) -> Json<Value> {
    let base = &shared.base;
    Json(json!({
        "issuer": base,
        "authorization_endpoint": format!("{base}/authorize"),
        "token_endpoint": format!("{base}/token"),
        "device_authorization_endpoint": format!("{base}/device"),
        "revocation_endpoint": format!("{base}/revoke"),
        "userinfo_endpoint": format!("{base}/userinfo"),
        "jwks_uri": format!("{base}/jwks"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": grants::TYPES,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [shared.keys.own.algorithm()],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "scopes_supported": ["openid", "email", "offline_access"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat", "nonce", "email", "email_verified"],
    }))
}

/// RFC 7517 §5.
pub(super) async fn keys(Extract(shared): Extract<Arc<Shared>>) -> Json<Value> {
    Json(json!({ "keys": [shared.keys.own.jwk()] }))
}

/// RFC 7009. A token nobody knows is revoked already (§2.2). An access token takes its grant with it, as at Google.
pub(super) async fn revoke(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Refusal> {
    let form = Params::form(&headers, &body)?;
    let mut state = shared.lock();
    let client = authenticate(&state, &headers, &form)?;
    let token = form.need("token")?;
    let of_another = || Refusal::bad("unauthorized_client", "The token is another client's.");
    let grant = state.refresh.get(token).map(|found| found.grant);
    if let Some(number) = grant {
        if state.grant(number).is_none_or(|grant| grant.client != client.id) {
            return Err(of_another());
        }
        state.revoke(number);
    } else if let Some(found) = state.access.get_mut(token) {
        if found.client != client.id {
            return Err(of_another());
        }
        found.revoked = true;
        if let Some(number) = found.grant {
            state.revoke(number);
        }
    }
    Ok(StatusCode::OK)
}

/// OpenID Connect Core §5.3, by a bearer token (RFC 6750 §2.1).
pub(super) async fn user_info(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Response> {
    let refused = |status: StatusCode, error: &str| {
        let challenge = match error {
            "" => "Bearer realm=\"devstack\"".to_owned(),
            error => format!("Bearer realm=\"devstack\", error=\"{error}\""),
        };
        let body = Json(json!({ "error": error }));
        (status, [(header::WWW_AUTHENTICATE, challenge)], body).into_response()
    };
    let value = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let bearer = value.and_then(|v| v.split_once(' ')).filter(|(s, _)| s.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = bearer else { return Err(refused(StatusCode::UNAUTHORIZED, "")) };
    let mut state = shared.lock();
    let now = state.now();
    let found = state.access.get(token.trim()).filter(|access| !access.revoked && access.ends > now);
    let Some(found) = found else { return Err(refused(StatusCode::UNAUTHORIZED, "invalid_token")) };
    let has = |name: &str| found.scope.iter().any(|scope| scope == name);
    let (open, with_email) = (has("openid"), has("email"));
    let Some(email) = found.user.clone().filter(|_| open) else {
        return Err(refused(StatusCode::FORBIDDEN, "insufficient_scope"));
    };
    let failed = |error: anyhow::Error| Refusal::from(error).into_response();
    let user = state.user(&email).map_err(failed)?;
    let user = issue::shown(&mut state, &user).map_err(failed)?;
    let mut claims = json!({ "sub": user.subject });
    if let (Some(claims), true) = (claims.as_object_mut(), with_email) {
        claims.insert("email".into(), user.email.into());
        claims.insert("email_verified".into(), true.into());
    }
    Ok(Json(claims))
}
