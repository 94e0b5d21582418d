//! What is said to an authorization server: token requests of every grant (RFC 6749 §4 to §6, RFC 7523, RFC 8628), revocation
//! (RFC 7009), and documents (RFC 7517, OpenID Connect Core §5.3).
//!
//! One form and one reader serve all grants: providers differ in fields, not in the way. Everything goes out through
//! [`Poster`], so redirects are not followed and an answer is bounded. What was sent and is secret is struck out of whatever
//! the other side says.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method};
use mail::address::clean_text;
use serde_json::{Map, Value};
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::dial::Outbound;
use crate::post::{Address, Poster, Whole};
use crate::secret::Secret;
use crate::tls::TlsConfig;
use crate::trouble::Trouble;

/// The longest token that is kept: what mail servers take.
pub const TOKEN_BYTES: usize = 16 << 10;
/// An answer to a token request has some kilobytes; a set of keys may have tens.
const ANSWER_BYTES: usize = 256 << 10;
/// Of what the other side says in words.
const WORDS_BYTES: usize = 300;
/// Of the names of what was granted.
const SCOPE_BYTES: usize = 4 << 10;
/// A token whose end nobody told lives at least so long (RFC 6749 §5.1 leaves it open).
const LIFE: Duration = Duration::from_secs(3_600);
/// A longer life is a slip, or a way never to be asked again.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// The way out to authorization servers.
#[derive(Clone, Debug)]
pub struct Way {
    /// The guarded way out.
    pub outbound: Arc<Outbound>,
    /// How TLS is made.
    pub tls: TlsConfig,
    /// For a whole answer.
    pub patience: Duration,
}

/// How a client proves who it is at the token endpoint (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// In the form, as Google, Microsoft and Yahoo take it.
    Post,
    /// In the header field `Authorization`.
    Basic,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Client {
    /// As the provider knows it.
    pub id: String,
    /// None: a public client.
    pub secret: Option<Secret>,
    /// How the secret is shown.
    pub auth: ClientAuth,
}

impl Client {
    /// Its secret as it is, and in the forms in which it is sent: a server may repeat any of them.
    fn shown(&self) -> Vec<Secret> {
        let Some(secret) = &self.secret else { return Vec::new() };
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let form = encoded(secret.expose());
        let pair = Zeroizing::new(format!("{}:{form}", encoded(&self.id)));
        vec![secret.clone(), Secret::new(STANDARD.encode(pair.as_bytes())), Secret::new(form)]
    }
}

/// What a token request says of its grant; `grant_type` and the client are added.
#[derive(Clone, Debug)]
pub enum Grant {
    /// A code from the browser (RFC 6749 §4.1.3, RFC 7636 §4.5).
    Code {
        /// The code.
        code: Secret,
        /// Where the browser was sent, the same as before.
        redirect_uri: String,
        /// The verifier of the challenge.
        verifier: Secret,
    },
    /// A refresh token (RFC 6749 §6).
    Refresh(Secret),
    /// The client itself (RFC 6749 §4.4).
    Client {
        /// What for.
        scope: String,
    },
    /// A device that a person permits elsewhere (RFC 8628 §3.4).
    Device(Secret),
    /// A signed assertion (RFC 7523 §2.1).
    Assertion(Secret),
}

/// Tokens that were given.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// For mail servers.
    pub access: Secret,
    /// A new refresh token; none: the one there is stays.
    pub refresh: Option<Secret>,
    /// How long the access token lives.
    pub expires_in: Duration,
    /// What was granted, where it differs from what was asked for.
    pub scope: Option<String>,
    /// Who it was (OpenID Connect Core §2), not verified yet.
    pub id_token: Option<Secret>,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The server said why in its own terms (RFC 6749 §5.2, RFC 8628 §3.5).
    #[error("the authorization server refused: {error} {description}")]
    Refused {
        /// For example `invalid_grant`.
        error: String,
        /// Its words, may be empty.
        description: String,
    },
    /// It asks for patience.
    #[error("the authorization server asks for patience")]
    Busy {
        /// So long.
        after: Option<Duration>,
    },
    /// It answered with this status and nothing that could be read.
    #[error("the authorization server answered {0}")]
    Status(u16),
    /// Its answer has no token.
    #[error("the authorization server's answer could not be understood: {0}")]
    Nonsense(&'static str),
    /// There was no answer.
    #[error("the authorization server gave no answer: {}", .0.code())]
    NoAnswer(Trouble),
}

impl TokenError {
    /// A person has to consent again: the grant was withdrawn, has expired or was used up, or the provider wants to see them
    /// (OpenID Connect Core §3.1.2.6, which Microsoft says at the token endpoint).
    #[must_use]
    pub fn needs_consent(&self) -> bool {
        let words = ["invalid_grant", "interaction_required", "consent_required", "login_required"];
        matches!(self, Self::Refused { error, .. } if words.contains(&error.as_str()))
    }

    /// Whether the same may succeed later, with nothing changed by anybody here.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Refused { error, .. } => {
                matches!(error.as_str(), "temporarily_unavailable" | "server_error" | "slow_down")
            }
            Self::Busy { .. } | Self::Nonsense(_) => true,
            Self::Status(status) => *status >= 500 || matches!(status, 408 | 425),
            Self::NoAnswer(trouble) => !trouble.lasts(),
        }
    }
}

impl Grant {
    fn fields(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Code { code, redirect_uri, verifier } => vec![
                ("grant_type", "authorization_code"),
                ("code", code.expose()),
                ("redirect_uri", redirect_uri),
                ("code_verifier", verifier.expose()),
            ],
            Self::Refresh(token) => {
                vec![("grant_type", "refresh_token"), ("refresh_token", token.expose())]
            }
            Self::Client { scope } => vec![("grant_type", "client_credentials"), ("scope", scope)],
            Self::Device(code) => vec![
                ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
                ("device_code", code.expose()),
            ],
            Self::Assertion(assertion) => vec![
                ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                ("assertion", assertion.expose()),
            ],
        }
    }

    fn secrets(&self) -> Vec<&Secret> {
        match self {
            Self::Code { code, verifier, .. } => vec![code, verifier],
            Self::Refresh(secret) | Self::Device(secret) | Self::Assertion(secret) => vec![secret],
            Self::Client { .. } => vec![],
        }
    }
}

/// Asks for tokens at a token endpoint.
///
/// # Errors
/// [`TokenError`].
pub async fn token(
    way: &Way,
    endpoint: &Address,
    client: &Client,
    grant: &Grant,
) -> Result<Tokens, TokenError> {
    let mut secrets = grant.secrets();
    let shown = client.shown();
    secrets.extend(&shown);
    let answer = post(way, endpoint, client, &grant.fields()).await?;
    let fields = object(&answer, &secrets)?;
    tokens(&fields)
}

/// What a device shows to a person (RFC 8628 §3.2).
#[derive(Clone, Debug)]
pub struct DeviceCode {
    /// What the device asks with.
    pub device_code: Secret,
    /// What the person enters.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same with the code in it.
    pub verification_uri_complete: Option<String>,
    /// How long both are good.
    pub expires_in: Duration,
    /// Between two questions.
    pub interval: Duration,
}

/// Begins the grant of a device.
///
/// # Errors
/// [`TokenError`].
pub async fn device_code(
    way: &Way,
    endpoint: &Address,
    client: &Client,
    scope: &str,
) -> Result<DeviceCode, TokenError> {
    let shown = client.shown();
    let secrets: Vec<&Secret> = shown.iter().collect();
    let answer = post(way, endpoint, client, &[("scope", scope)]).await?;
    let fields = object(&answer, &secrets)?;
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(|t| clean(t, &[]));
    // Google writes verification_url.
    let uri = text("verification_uri").or_else(|| text("verification_url"));
    // A client makes a link of it.
    let uri = uri.filter(|uri| Address::parse(uri).is_ok());
    let (Some(code), Some(user_code), Some(verification_uri)) =
        (secret(&fields, "device_code"), text("user_code"), uri)
    else {
        return Err(TokenError::Nonsense("no device code"));
    };
    Ok(DeviceCode {
        device_code: code,
        user_code,
        verification_uri,
        verification_uri_complete: text("verification_uri_complete")
            .filter(|uri| Address::parse(uri).is_ok()),
        expires_in: seconds(&fields, "expires_in").unwrap_or(Duration::from_secs(600)).min(LIFE),
        interval: seconds(&fields, "interval").unwrap_or(Duration::from_secs(5)).min(Duration::from_secs(60)),
    })
}

/// Has the server forget a grant (RFC 7009). A token that it does not know is as good as revoked.
///
/// # Errors
/// [`TokenError`].
pub async fn revoke(
    way: &Way,
    endpoint: &Address,
    client: &Client,
    token: &Secret,
) -> Result<(), TokenError> {
    let mut secrets = vec![token];
    let shown = client.shown();
    secrets.extend(&shown);
    let fields = [("token", token.expose()), ("token_type_hint", "refresh_token")];
    let answer = post(way, endpoint, client, &fields).await?;
    match object(&answer, &secrets) {
        _ if (200..300).contains(&answer.status) => Ok(()),
        // Google's way of saying that it does not know the token.
        Err(TokenError::Refused { error, .. })
            if matches!(error.as_str(), "invalid_token" | "invalid_grant") =>
        {
            Ok(())
        }
        other => other.map(drop),
    }
}

/// A JSON document, asked for with a token where it needs one.
///
/// # Errors
/// [`TokenError`].
pub async fn document(
    way: &Way,
    address: &Address,
    token: Option<&Secret>,
) -> Result<Map<String, Value>, TokenError> {
    let mut headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
    if let Some(token) = token {
        let value = Zeroizing::new(format!("Bearer {}", token.expose()));
        headers.insert(AUTHORIZATION, sensitive(&value)?);
    }
    let answer = ask(way, address, Method::GET, &headers, &Bytes::new()).await?;
    object(&answer, &token.into_iter().collect::<Vec<_>>())
}

async fn post(
    way: &Way,
    endpoint: &Address,
    client: &Client,
    fields: &[(&str, &str)],
) -> Result<Whole, TokenError> {
    let mut headers = HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("application/json")),
        (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
    ]);
    let mut fields = fields.to_vec();
    match (&client.secret, client.auth) {
        (Some(secret), ClientAuth::Basic) => {
            // RFC 6749 §2.3.1: both are encoded as in a form first.
            let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = Zeroizing::new(format!("{}:{}", encode(&client.id), encode(secret.expose())));
            let value = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
            headers.insert(AUTHORIZATION, sensitive(&value)?);
        }
        (Some(secret), ClientAuth::Post) => {
            fields.extend([("client_id", client.id.as_str()), ("client_secret", secret.expose())]);
        }
        (None, _) => fields.push(("client_id", &client.id)),
    }
    let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    ask(way, endpoint, Method::POST, &headers, &Bytes::from(form)).await
}

fn sensitive(value: &str) -> Result<HeaderValue, TokenError> {
    let mut value =
        HeaderValue::from_str(value).map_err(|_| TokenError::Nonsense("a token with control characters"))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn ask(
    way: &Way,
    address: &Address,
    method: Method,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Whole, TokenError> {
    let poster = Poster::new(Arc::clone(&way.outbound), way.tls.clone(), address.clone(), way.patience);
    let answer = poster.ask_once(method, headers, body, ANSWER_BYTES).await;
    answer.map_err(|error| TokenError::NoAnswer(error.0))
}

/// The object that a good answer is, or why it is none.
fn object(answer: &Whole, secrets: &[&Secret]) -> Result<Map<String, Value>, TokenError> {
    let read = serde_json::from_slice::<Value>(&answer.body).ok();
    let fields = match read {
        Some(Value::Object(fields)) => Some(fields),
        _ => None,
    };
    if matches!(answer.status, 429 | 503) {
        let after = answer.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
        return Err(TokenError::Busy { after: after.map(Duration::from_secs) });
    }
    let error = fields.as_ref().and_then(|fields| fields.get("error")).filter(|error| !error.is_null());
    if let (Some(error), Some(fields)) = (error, &fields) {
        // Facebook and others wrap it: {"error": {"type": …, "message": …}}.
        let word = error.as_str().or_else(|| error.get("type").or_else(|| error.get("status"))?.as_str());
        let words = fields.get("error_description").or_else(|| error.get("message")).and_then(Value::as_str);
        return Err(TokenError::Refused {
            error: clean(word.unwrap_or("error"), secrets),
            description: clean(words.unwrap_or_default(), secrets),
        });
    }
    match fields {
        Some(fields) if (200..300).contains(&answer.status) => Ok(fields),
        None if (200..300).contains(&answer.status) => Err(TokenError::Nonsense("no JSON object")),
        _ => Err(TokenError::Status(answer.status)),
    }
}

/// Reads RFC 6749 §5.1. `expires_in` may be a string, which Microsoft has written, and `token_type` is of any case.
fn tokens(fields: &Map<String, Value>) -> Result<Tokens, TokenError> {
    let access = secret(fields, "access_token").ok_or(TokenError::Nonsense("no access token"))?;
    let kind = fields.get("token_type").and_then(Value::as_str);
    if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(TokenError::Nonsense("the token is no bearer token"));
    }
    Ok(Tokens {
        access,
        refresh: secret(fields, "refresh_token"),
        expires_in: seconds(fields, "expires_in").unwrap_or(LIFE).min(LONGEST_LIFE),
        scope: fields.get("scope").and_then(Value::as_str).map(|scope| clean_text(scope, SCOPE_BYTES)),
        id_token: secret(fields, "id_token"),
    })
}

/// One that could stand in a header field and a SASL message.
fn secret(fields: &Map<String, Value>, name: &str) -> Option<Secret> {
    let text = fields.get(name)?.as_str()?;
    let good = !text.is_empty() && text.len() <= TOKEN_BYTES && text.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| Secret::new(text))
}

fn seconds(fields: &Map<String, Value>, name: &str) -> Option<Duration> {
    let value = fields.get(name)?;
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    (number.is_finite() && number >= 0.0)
        .then(|| Duration::from_secs_f64(number.min(LONGEST_LIFE.as_secs_f64())))
}

/// What the other side says, for people: without secrets, control characters and length.
fn clean(text: &str, secrets: &[&Secret]) -> String {
    let struck = secrets.iter().fold(text.to_owned(), |text, secret| secret.strike_out(&text));
    clean_text(&struck, WORDS_BYTES)
}

#[cfg(test)]
mod tests;
