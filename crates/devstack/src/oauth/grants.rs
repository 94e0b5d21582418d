//! What a token is given for, one function each.

use anyhow::Context as _;
use axum::http::StatusCode;
use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::issue::{Answer, Holder};
use super::model::Client;
use super::params::{Params, Refusal, scope};
use super::server::Shared;
use super::state::{Code, DeviceAnswer, State};
use super::switches::Rotation;
use super::{keys, token};

/// What Google says of a refresh token that is no longer one.
const GONE: &str = "Token has been expired or revoked.";
/// How far an assertion's times may lie off.
const LEEWAY: i64 = 10;

/// RFC 6749 §4.1.3 with RFC 7636 §4.6.
pub(super) fn code(
    shared: &Shared,
    state: &mut State,
    client: &Client,
    form: &Params,
) -> Result<Answer, Refusal> {
    let (code, verifier) = (form.need("code")?, form.one("code_verifier")?);
    let redirect_uri = form.one("redirect_uri")?;
    let now = state.now();
    let unknown = || Refusal::grant("Malformed auth code.");
    let found = state.codes.get_mut(code).filter(|c| c.request.client == client.id).ok_or_else(unknown)?;
    let (grant, request, again) = (found.grant, found.request.clone(), found.used);
    // Whatever comes of it, it is used up: nobody tries verifiers.
    found.used = true;
    let late = found.ends <= now;
    if again {
        state.revoke(grant);
        return Err(Refusal::grant("The code was used before; what it gave is revoked."));
    }
    if late {
        return Err(Refusal::grant("The code has expired."));
    }
    if redirect_uri != Some(request.redirect_uri.as_str()) {
        return Err(Refusal::grant("redirect_uri is not the one that the code was asked for with."));
    }
    let letter = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let verifier = verifier.ok_or_else(|| Refusal::grant("Missing code verifier."))?;
    let formed = (43..=128).contains(&verifier.len()) && verifier.chars().all(letter);
    if !formed || keys::challenge(verifier) != request.challenge {
        return Err(Refusal::grant("Invalid code verifier."));
    }
    let held = state.grant(grant).filter(|grant| !grant.revoked).ok_or_else(|| Refusal::grant(GONE))?;
    let (email, scope) = (held.user.clone(), held.scope.clone());
    let user = state.user(&email)?;
    // As at Google, `access_type=offline` gives a refresh token once, and again only where the person was asked again.
    let has_one = state.grants_of(&email).any(|g| g.client == client.id && g.lasting && !g.revoked);
    let lasting =
        scope.iter().any(|s| s == "offline_access") || (request.offline && (request.ask_again || !has_one));
    let holder = Holder { client: &client.id, user: Some(&user), grant: Some(grant) };
    let mut answer = Answer::new(shared, state, &holder, &scope)?;
    if lasting {
        answer.refresh(state.new_refresh(grant)?);
    }
    answer.id(shared, state, client, (&user, &scope, request.nonce.as_deref()))?;
    Ok(answer)
}

/// RFC 6749 §6.
pub(super) fn renew(
    shared: &Shared,
    state: &mut State,
    client: &Client,
    form: &Params,
) -> Result<Answer, Refusal> {
    let token = form.need("refresh_token")?;
    let narrower = form.scope()?;
    let now = state.now();
    let gone = || Refusal::grant(GONE);
    let found = state.refresh.get(token).ok_or_else(|| Refusal::grant("Malformed refresh token."))?;
    let number = found.grant;
    let (touched, replaced) = (found.touched, found.replaced);
    let grant = state.grant(number).filter(|g| g.client == client.id && !g.revoked).ok_or_else(gone)?;
    let (email, granted) = (grant.user.clone(), grant.scope.clone());
    if replaced.is_some_and(|at| now >= at + state.switches.refresh_grace) {
        if state.switches.reuse_revokes {
            state.revoke(number);
        }
        return Err(gone());
    }
    if state.switches.refresh_lifetime.is_some_and(|lifetime| touched + lifetime <= now) {
        return Err(gone());
    }
    if !narrower.iter().all(|scope| granted.contains(scope)) {
        return Err(Refusal::bad("invalid_scope", "Some requested scopes were never granted."));
    }
    let scope = if narrower.is_empty() { granted } else { narrower };
    // The switch also narrows what was granted before.
    let scope = state.grantable(&scope);
    let user = state.user(&email)?;
    let holder = Holder { client: &client.id, user: Some(&user), grant: Some(number) };
    let mut answer = Answer::new(shared, state, &holder, &scope)?;
    let rotation = state.switches.rotation;
    if rotation != Rotation::Keep {
        answer.refresh(state.new_refresh(number)?);
    }
    if let Some(found) = state.refresh.get_mut(token) {
        found.touched = now;
        if rotation == Rotation::Replace {
            found.replaced = found.replaced.or(Some(now));
        }
    }
    if let Some(grant) = state.grant_mut(number) {
        grant.renewals += 1;
    }
    answer.id(shared, state, client, (&user, &scope, None))?;
    Ok(answer)
}

/// RFC 6749 §4.4. Never with a refresh token (§4.4.3).
pub(super) fn app(
    shared: &Shared,
    state: &mut State,
    client: &Client,
    form: &Params,
) -> Result<Answer, Refusal> {
    if client.secret.is_none() {
        return Err(Refusal::bad("unauthorized_client", "A public client cannot ask for itself."));
    }
    let asked = form.scope()?;
    let scope = state.grantable(&asked);
    let user = client.mailbox.as_deref().map(|email| state.user(email)).transpose()?;
    let holder = Holder { client: &client.id, user: user.as_ref(), grant: None };
    Ok(Answer::new(shared, state, &holder, &scope)?)
}

/// RFC 8628 §3.4 and §3.5.
pub(super) fn device(
    shared: &Shared,
    state: &mut State,
    client: &Client,
    form: &Params,
) -> Result<Answer, Refusal> {
    let code = form.need("device_code")?;
    let now = state.now();
    let found = state.devices.get_mut(code).filter(|device| device.client == client.id);
    let device = found.ok_or_else(|| Refusal::grant("Malformed device code."))?;
    if device.ends <= now {
        return Err(Refusal::bad("expired_token", "The device code has expired."));
    }
    let soon = device.polled.is_some_and(|polled| now < polled + device.interval);
    device.polled = Some(now);
    let user = match device.answer.clone() {
        DeviceAnswer::Denied => return Err(Refusal::bad("access_denied", "The person said no.")),
        DeviceAnswer::Spent => return Err(Refusal::grant("The device code was used before.")),
        _ if soon => {
            device.interval += TimeDelta::seconds(5);
            return Err(Refusal::bad("slow_down", "Ask less often."));
        }
        DeviceAnswer::Waiting => {
            return Err(Refusal::bad("authorization_pending", "The person has not answered yet."));
        }
        DeviceAnswer::Allowed(user) => user,
    };
    device.answer = DeviceAnswer::Spent;
    let asked = device.scope.clone();
    let scope = state.grantable(&asked);
    let grant = state.add_grant(&client.id, &user, scope.clone());
    let user = state.user(&user)?;
    let holder = Holder { client: &client.id, user: Some(&user), grant: Some(grant) };
    let mut answer = Answer::new(shared, state, &holder, &scope)?;
    // There is no `access_type` here: a device keeps what it was given.
    answer.refresh(state.new_refresh(grant)?);
    answer.id(shared, state, client, (&user, &scope, None))?;
    Ok(answer)
}

#[derive(Deserialize)]
struct Assertion {
    iss: String,
    sub: Option<String>,
    scope: Option<String>,
    iat: i64,
    exp: i64,
    nbf: Option<i64>,
    jti: Option<String>,
}

/// RFC 7523 §2.1 as Google's service accounts use it: the scope is a claim, and `sub` is who is acted for.
pub(super) fn assertion(shared: &Shared, state: &mut State, form: &Params) -> Result<Answer, Refusal> {
    let assertion = read(shared, state, form.need("assertion")?)?;
    let now = state.now().timestamp();
    let short = assertion.exp > assertion.iat && assertion.exp - assertion.iat <= 3600 + LEEWAY;
    let begun = assertion.iat.max(assertion.nbf.unwrap_or(i64::MIN)) <= now + LEEWAY;
    if !short || !begun || assertion.exp <= now - LEEWAY {
        return Err(Refusal::grant(
            "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.",
        ));
    }
    if assertion.jti.is_some_and(|id| !state.assertions.insert(format!("{} {id}", assertion.iss))) {
        return Err(Refusal::grant("Invalid JWT: it was used before."));
    }
    let asked = match &assertion.scope {
        Some(text) => scope(text)?,
        None => form.scope()?,
    };
    if asked.is_empty() {
        return Err(Refusal::bad("invalid_scope", "Missing required parameter: scope"));
    }
    let domains = &state.robots.get(&assertion.iss).context("it was there a moment ago")?.domains;
    let user = match assertion.sub.filter(|sub| *sub != assertion.iss) {
        Some(sub) => {
            let domain = sub.rsplit_once('@').map(|(_, domain)| domain.to_lowercase());
            if !domain.is_some_and(|domain| domains.contains(&domain)) {
                let status = StatusCode::UNAUTHORIZED;
                let description =
                    "Client is unauthorized to retrieve access tokens using this method, or client \
                                   not authorized for any of the scopes requested."
                        .to_owned();
                return Err(Refusal { status, error: "unauthorized_client", description });
            }
            Some(state.user(&sub)?)
        }
        None => None,
    };
    let scope = state.grantable(&asked);
    let holder = Holder { client: &assertion.iss, user: user.as_ref(), grant: None };
    Ok(Answer::new(shared, state, &holder, &scope)?)
}

/// Who signed it, and that it was for us. Its times are judged by our own clock.
fn read(shared: &Shared, state: &State, text: &str) -> Result<Assertion, Refusal> {
    let invalid = |_| Refusal::grant("Invalid JWT Signature.");
    let header = jsonwebtoken::decode_header(text).map_err(invalid)?;
    let unproved: Assertion =
        jsonwebtoken::dangerous::insecure_decode(text).map_err(|_| Refusal::grant("Invalid JWT."))?.claims;
    let robot = state.robots.get(&unproved.iss);
    let robot = robot.ok_or_else(|| Refusal::grant("Invalid grant: account not found"))?;
    if header.kid.is_some_and(|id| id != robot.key_id) {
        return Err(Refusal::grant("Invalid JWT: no such key."));
    }
    let key = DecodingKey::from_rsa_components(&robot.modulus, &robot.exponent).map_err(invalid)?;
    let mut rules = Validation::new(Algorithm::RS256);
    rules.set_audience(&[format!("{}/token", shared.base), shared.base.clone()]);
    rules.set_required_spec_claims(&["exp", "iss", "aud"]);
    rules.validate_exp = false;
    jsonwebtoken::decode::<Assertion>(text, &key, &rules).map(|data| data.claims).map_err(|error| match error
        .kind()
    {
        jsonwebtoken::errors::ErrorKind::InvalidAudience => {
            Refusal::grant("Invalid JWT: Failed audience check.")
        }
        _ => Refusal::grant("Invalid JWT Signature."),
    })
}

/// A code for what was allowed.
pub(super) fn new_code(
    state: &mut State,
    request: super::state::Request,
    user: &str,
) -> anyhow::Result<String> {
    // With a slash, as Google's have.
    let code = format!("4/{}", keys::random(32)?);
    let scope = state.grantable(&request.scope);
    let grant = state.add_grant(&request.client, user, scope);
    let ends = state.now() + state.switches.code_lifetime;
    state.note(super::model::Kind::Code, &code, Some(user));
    state.codes.insert(code.clone(), Code { request, grant, ends, used: false });
    Ok(code)
}

/// All that `/token` takes.
pub(super) const TYPES: [&str; 5] =
    ["authorization_code", "refresh_token", "client_credentials", token::DEVICE, token::BEARER];
