//! Whose mailbox was granted: by the ID token (OpenID Connect Core §3.1.3.7), else by the provider's userinfo. Never by what came
//! with the browser.

use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};

use super::{GrantError, endpoint, way};
use crate::connect::Process;
use crate::domain::oauth::app::Usable;
use crate::domain::oauth::provider::Provider;
use wire::oauth::{self as wire_oauth, TokenError, Tokens};
use wire::secret::Secret;

/// A provider's clock may differ by this many seconds.
const LEEWAY: i64 = 300;
/// Algorithms with a public key; a shared one or none at all prove nothing.
const SIGNED_BY: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
    Algorithm::PS512,
];

/// Why it is not known whose mailbox it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The ID token is not to be believed, for this reason.
    #[error("the provider's ID token cannot be trusted: {0}")]
    Untrusted(&'static str),
    /// Nobody tells an address.
    #[error("the provider tells no mail address")]
    Unknown,
    /// The provider could not be asked.
    #[error(transparent)]
    Provider(#[from] GrantError),
}

/// The address of the person who consented. `nonce`: of the flow; a device has none.
///
/// # Errors
/// [`IdentityError`].
pub async fn of(
    process: &Process,
    app: &Usable,
    tokens: &Tokens,
    nonce: Option<&str>,
) -> Result<String, IdentityError> {
    let mut claims = Map::new();
    if let (Some(token), Some(url)) = (&tokens.id_token, &app.terms.endpoints.jwks_uri) {
        let keys = wire_oauth::document(&way(process), &endpoint(url)?, None).await.map_err(asked)?;
        claims = verified(token, keys, app, nonce, process.clock.now())?;
        if let Some(address) = address(app.said.provider, &claims) {
            return Ok(address);
        }
    }
    let Some(url) = &app.terms.endpoints.userinfo_endpoint else { return Err(IdentityError::Unknown) };
    let info =
        wire_oauth::document(&way(process), &endpoint(url)?, Some(&tokens.access)).await.map_err(asked)?;
    // OpenID Connect Core §5.3.2: of another person, it says nothing of this one.
    if claims.get("sub").is_some_and(|sub| Some(sub) != info.get("sub")) {
        return Err(IdentityError::Untrusted("userinfo is of somebody else"));
    }
    address(app.said.provider, &info).ok_or(IdentityError::Unknown)
}

fn asked(error: TokenError) -> IdentityError {
    IdentityError::Provider(GrantError::Later { wait: std::time::Duration::ZERO, error: Some(error) })
}

/// The claims of an ID token that the provider signed for us, for this flow and now.
fn verified(
    token: &Secret,
    keys: Map<String, Value>,
    app: &Usable,
    nonce: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Map<String, Value>, IdentityError> {
    use IdentityError::Untrusted;
    let header = jsonwebtoken::decode_header(token.expose()).map_err(|_| Untrusted("it is none"))?;
    if !SIGNED_BY.contains(&header.alg) {
        return Err(Untrusted("its algorithm proves nothing"));
    }
    // A key of another kind than we know spoils no other.
    let keys = keys.get("keys").and_then(Value::as_array).into_iter().flatten();
    let keys: Vec<Jwk> = keys.filter_map(|key| serde_json::from_value(key.clone()).ok()).collect();
    let keys = JwkSet { keys };
    let key = match &header.kid {
        Some(kid) => keys.find(kid),
        None => keys.keys.first().filter(|_| keys.keys.len() == 1),
    };
    let key = key.ok_or(Untrusted("its key is none of the provider's"))?;
    let key = DecodingKey::from_jwk(key).map_err(|_| Untrusted("its key cannot be used"))?;
    let mut rules = Validation::new(header.alg);
    rules.set_audience(&[&app.said.client_id]);
    rules.set_required_spec_claims(&["exp", "aud"]);
    // Times are judged below by our own clock.
    rules.validate_exp = false;
    rules.validate_nbf = false;
    let claims = jsonwebtoken::decode::<Map<String, Value>>(token.expose(), &key, &rules);
    let claims = claims.map_err(|_| Untrusted("its signature or its audience is not right"))?.claims;
    let time = |name: &str| claims.get(name).and_then(Value::as_f64).map(|time| time as i64);
    let now = now.timestamp();
    if time("exp").is_none_or(|exp| exp.saturating_add(LEEWAY) < now) {
        return Err(Untrusted("it has expired"));
    }
    if ["nbf", "iat"].into_iter().filter_map(time).any(|begin| begin > now.saturating_add(LEEWAY)) {
        return Err(Untrusted("it is of the future"));
    }
    if nonce.is_some() && claims.get("nonce").and_then(Value::as_str) != nonce {
        return Err(Untrusted("it is of another flow"));
    }
    if !is_issuer(app, &claims) {
        return Err(Untrusted("somebody else issued it"));
    }
    // Several may read it: it must have been asked for by us (§3.1.3.7, 5).
    if claims.get("azp").is_some_and(|azp| azp.as_str() != Some(&app.said.client_id)) {
        return Err(Untrusted("another app asked for it"));
    }
    Ok(claims)
}

fn is_issuer(app: &Usable, claims: &Map<String, Value>) -> bool {
    let Some(expected) = &app.terms.endpoints.issuer else { return true };
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    // Microsoft's has the directory of the person in it.
    let expected = expected.replace("{tid}", text("tid").unwrap_or("-"));
    let given = text("iss").unwrap_or_default();
    // Google has left the scheme out.
    given == expected
        || app.said.provider == Provider::Google && expected.strip_prefix("https://") == Some(given)
}

/// The mail address in claims. One that the provider has not verified says nothing; Microsoft verifies none and tells the login,
/// which is the user name at its mail servers.
fn address(provider: Provider, claims: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::trim);
    let names: &[&str] = match provider {
        Provider::Microsoft => &["preferred_username", "upn", "email"],
        Provider::Google | Provider::Yahoo | Provider::Custom => &["email"],
    };
    let unverified = matches!(claims.get("email_verified"), Some(Value::Bool(false)))
        || text("email_verified") == Some("false");
    if unverified && provider != Provider::Microsoft {
        return None;
    }
    let valid = |address: &&str| mail::address::validate(address).is_ok();
    names.iter().filter_map(|name| text(name)).find(valid).map(str::to_owned)
}
