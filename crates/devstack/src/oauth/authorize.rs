//! `/authorize`: a person says who it is and what a client may.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{RawQuery, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use url::Url;

use super::page::{self, Consent};
use super::params::{Params, Refusal};
use super::server::Shared;
use super::state::{Request, State};
use super::{grants, keys};

/// Why there is no form.
enum Wrong {
    /// Nobody is sent to an address that is not proved to be the client's (RFC 6749 §4.1.2.1).
    Told(String),
    Returned(Box<Response>),
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        match self {
            Self::Told(what) => page::wrong(&what),
            Self::Returned(response) => *response,
        }
    }
}

pub(super) async fn show(
    Extract(shared): Extract<Arc<Shared>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Response> {
    let query = Params::parse(query.unwrap_or_default().as_bytes());
    let mut state = shared.lock();
    let request = read(&shared, &state, &query).map_err(IntoResponse::into_response)?;
    let ticket = keys::random(16).map_err(|error| Refusal::from(error).into_response())?;
    let page = form(&request, &ticket, request.login_hint.as_deref().unwrap_or_default(), None);
    state.pages.insert(ticket, request);
    Ok(page)
}

fn form(request: &Request, ticket: &str, user: &str, fault: Option<&str>) -> Response {
    let (client, scope) = (request.client.as_str(), request.scope.as_slice());
    Consent { action: "/authorize", hidden: ("ticket", ticket), client, scope, user, fault }.into_response()
}

fn read(shared: &Shared, state: &State, query: &Params) -> Result<Request, Wrong> {
    let told = |what: &str| Wrong::Told(what.to_owned());
    let client = query.need("client_id").map_err(|e| Wrong::Told(e.description))?;
    let client = state.clients.get(client).ok_or_else(|| told("The OAuth client was not found."))?;
    let redirect_uri = query.need("redirect_uri").map_err(|e| Wrong::Told(e.description))?;
    if !client.redirect_uris.iter().any(|uri| uri == redirect_uri) {
        return Err(told("redirect_uri is none of the client's."));
    }
    // From here on the client is told. A state that came twice is not sent back.
    let sent = query.one("state").ok().flatten();
    let back = |refusal: Refusal| Wrong::Returned(Box::new(refused(shared, redirect_uri, sent, &refusal)));
    let bad = |error, description: &str| back(Refusal::bad(error, description));
    query.one("state").map_err(back)?;
    match query.need("response_type").map_err(back)? {
        "code" => {}
        other => return Err(bad("unsupported_response_type", &format!("response_type {other}"))),
    }
    let challenge = query.need("code_challenge").map_err(back)?;
    // Without a method, RFC 7636 §4.3 means plain.
    if query.one("code_challenge_method").map_err(back)? != Some("S256") {
        return Err(bad("invalid_request", "code_challenge_method must be S256."));
    }
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if challenge.len() != 43 || !challenge.chars().all(letter) {
        return Err(bad("invalid_request", "code_challenge is no SHA-256 in base64url."));
    }
    let scope = query.scope().map_err(back)?;
    if scope.is_empty() {
        return Err(bad("invalid_scope", "Missing required parameter: scope"));
    }
    let prompt = query.one("prompt").map_err(back)?.unwrap_or_default();
    if prompt.split(' ').any(|word| word == "none") {
        // Nobody is ever signed in here before the form.
        return Err(bad("login_required", "Nobody is signed in."));
    }
    let offline = match query.one("access_type").map_err(back)? {
        None | Some("online") => false,
        Some("offline") => true,
        Some(other) => return Err(bad("invalid_request", &format!("access_type {other}"))),
    };
    Ok(Request {
        client: client.id.clone(),
        redirect_uri: redirect_uri.to_owned(),
        scope,
        state: sent.map(str::to_owned),
        nonce: query.one("nonce").map_err(back)?.map(str::to_owned),
        challenge: challenge.to_owned(),
        login_hint: query.one("login_hint").map_err(back)?.map(str::to_owned),
        offline,
        ask_again: prompt.split(' ').any(|word| word == "consent"),
    })
}

pub(super) async fn answer(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    let posted = Params::form(&headers, &body).map_err(|e| page::wrong(&e.description))?;
    let mut state = shared.lock();
    let ticket = posted.any("ticket").unwrap_or_default();
    let gone = || page::wrong("This page was answered before; begin again.");
    let request = state.pages.get(ticket).cloned().ok_or_else(gone)?;
    if posted.any("answer") != Some("allow") {
        state.pages.remove(ticket);
        let denied = Refusal::bad("access_denied", "The person said no.");
        return Ok(refused(&shared, &request.redirect_uri, request.state.as_deref(), &denied));
    }
    let user = posted.any("user").unwrap_or_default();
    if !page::is_address(user) {
        return Ok(form(&request, ticket, user, Some("This is no address.")));
    }
    state.pages.remove(ticket);
    let (to, sent) = (request.redirect_uri.clone(), request.state.clone());
    let code = grants::new_code(&mut state, request, &user.to_lowercase())
        .map_err(|error| Refusal::from(error).into_response())?;
    Ok(redirect(&shared, &to, sent.as_deref(), &[("code", &code)]))
}

fn refused(shared: &Shared, to: &str, sent: Option<&str>, refusal: &Refusal) -> Response {
    redirect(shared, to, sent, &[("error", refusal.error), ("error_description", &refusal.description)])
}

/// Sends the browser back, with the issuer (RFC 9207). 303, so that the form is not posted again there.
fn redirect(shared: &Shared, to: &str, sent: Option<&str>, with: &[(&str, &str)]) -> Response {
    let Ok(mut url) = Url::parse(to) else { return page::wrong("redirect_uri is no address.") };
    url.query_pairs_mut()
        .extend_pairs(with)
        .extend_pairs(sent.map(|state| ("state", state)))
        .append_pair("iss", &shared.base);
    let headers = [(header::LOCATION, url.as_str()), (header::CACHE_CONTROL, "no-store")];
    (StatusCode::SEE_OTHER, headers).into_response()
}
