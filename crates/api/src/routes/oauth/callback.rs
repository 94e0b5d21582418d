//! Where a provider sends a person back to: the code becomes tokens, with which the account is connected ([`super::arrival`]). Then
//! the person is sent on.
//!
//! A person sees this address, so what cannot be sent on is a page and no problem document.

use axum::extract::{RawQuery, State};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use emailclient_core::access::tenant;
use emailclient_core::connect::oauth;
use emailclient_core::domain::connect::{self, Fault};
use emailclient_core::domain::oauth::flow::{self, Flow, Proofs};
use emailclient_core::platform::id::{AccountId, ConnectId, TenantId};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY};
use url::Url;
use utoipa::IntoParams;
use wire::secret::Secret;

use super::arrival::{Failure, Wanted, app_of, arrived, oauth_failure};
use super::authorize::redirect_uri;
use crate::error::{ApiError, Problem};
use crate::form;
use crate::headers::Page;
use crate::routes::connect::page_url;
use crate::state::AppState;

/// Nothing is loaded and nothing runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const NOT_REGISTERED: &str = "not-registered";

/// What the provider says (RFC 6749 §4.1.2, RFC 9207). It comes with the browser, so it may be anything.
#[derive(Debug, Default, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CallbackQuery {
    state: Option<String>,
    #[param(value_type = Option<String>)]
    code: Option<Secret>,
    error: Option<String>,
    error_description: Option<String>,
    iss: Option<String>,
}

impl CallbackQuery {
    /// Google adds `scope`, `authuser` and `hd`, Microsoft `session_state`: unlike anywhere else, what is not known is passed over.
    fn read(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in form::pairs(text).unwrap_or_default() {
            let place = match name.as_str() {
                "state" => &mut query.state,
                "error" => &mut query.error,
                "error_description" => &mut query.error_description,
                "iss" => &mut query.iss,
                "code" if query.code.is_none() => {
                    query.code = Some(Secret::new(value));
                    continue;
                }
                _ => continue,
            };
            place.get_or_insert(value);
        }
        query
    }
}

/// Ends what `POST /api/oauth/authorize` began. Providers send people here; they are sent on to the `redirect_url` of the flow
/// with `account_id` and `state`, or with `error`, `error_description` and `state`.
#[utoipa::path(get, path = "/oauth/callback", tag = "oauth", params(CallbackQuery),
    responses((status = 303, description = "on to the flow's redirect_url"), (status = 400, description = "a page: the way back is not known", content((String = "text/html"), (Problem = "application/problem+json")))))]
pub async fn callback(
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let query = CallbackQuery::read(query.as_deref().unwrap_or_default());
    let text = query.state.clone().unwrap_or_default();
    let Some(tenant) = flow::tenant_of(&state.config.jwt_secret, &text) else {
        return Ok(page("This link is not valid. Go back to where you came from and begin again."));
    };
    let mut tx = state.db.tenant(tenant).await?;
    let flow = flow::end(&mut tx, &text, state.clock.now()).await?;
    tx.commit().await?;
    let Some(flow) = flow else {
        return Ok(page(
            "This link was used already, or is too old. Go back to where you came from and begin again.",
        ));
    };
    let proofs = Proofs::of(&state.config.jwt_secret, &text);
    let (account, actor) = (flow.account_id, flow.actor);
    let wanted = Wanted { tenant, app: flow.app_id, account, actor, page: flow.connect_id };
    // A task of its own: a browser that is reloaded hangs up, and the code is good once.
    let (process, told) = (state.clone(), flow.redirect_url.clone());
    let task = tokio::spawn(async move {
        still_registered(&process, tenant, &told).await?;
        connect_account(&process, wanted, (&query, &proofs)).await
    });
    let done = task
        .await
        .unwrap_or_else(|_| Err(Failure::new("unavailable", "Something went wrong here; try again.")));
    if let Err(failure) = &done {
        tracing::info!(%tenant, app_id = %flow.app_id, code = failure.code, "a person came back from a provider without an account");
    }
    // A person who set out from our page is told there what went wrong, and may choose another way.
    if let (Some(id), Err(failure)) = (flow.connect_id, &done) {
        return back_to_page(&state, (tenant, id), failure).await;
    }
    if matches!(&done, Err(failure) if failure.code == NOT_REGISTERED) {
        return Ok(page("The address to go on to is not registered any more."));
    }
    Ok(send_on(&flow, done))
}

/// Nothing of it stands in the address: the page knows.
async fn back_to_page(
    state: &AppState,
    (tenant, id): (TenantId, ConnectId),
    failure: &Failure,
) -> Result<Response, ApiError> {
    let Some(public_url) = state.config.public_url.as_deref() else {
        return Ok(page("Go back to where you came from and begin again."));
    };
    let fault = Fault { code: failure.code.to_owned(), text: failure.text.clone() };
    let mut tx = state.db.tenant(tenant).await?;
    connect::came_back(&mut tx, id, Some(&fault)).await?;
    tx.commit().await?;
    let token = connect::token_of(&state.config.jwt_secret, tenant, id);
    let mut response = Redirect::to(&page_url(public_url, &token)).into_response();
    seal(&mut response);
    Ok(response)
}

fn send_on(flow: &Flow, done: Result<AccountId, Failure>) -> Response {
    let Ok(mut url) = Url::parse(&flow.redirect_url) else {
        return page("The address to go on to cannot be used.");
    };
    {
        let mut pairs = url.query_pairs_mut();
        match done {
            Ok(id) => pairs.append_pair("account_id", &id.to_string()),
            Err(failure) => {
                pairs.append_pair("error", failure.code).append_pair("error_description", &failure.text)
            }
        };
        if let Some(state) = &flow.client_state {
            pairs.append_pair("state", state);
        }
    }
    let mut response = Redirect::to(url.as_str()).into_response();
    seal(&mut response);
    response
}

/// A page that says why the person can be sent nowhere.
fn page(text: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Not connected</title><style>body{{font:1.1rem/1.5 system-ui;max-width:32rem;margin:20vh auto;padding:0 1rem;\
         color-scheme:light dark}}</style><main><h1>Not connected</h1><p>{text}</p></main>"
    );
    let mut response = (StatusCode::BAD_REQUEST, Html(html)).into_response();
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response.extensions_mut().insert(Page);
    seal(&mut response);
    response
}

/// The code stood in the address: nobody keeps it or hears of it.
fn seal(response: &mut Response) {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// Whether people may still be sent there.
async fn still_registered(state: &AppState, tenant: TenantId, url: &str) -> Result<(), Failure> {
    let mut tx = state.db.tenant(tenant).await?;
    let registered = tenant::redirect_urls(&mut tx).await?.iter().any(|known| known == url);
    tx.release();
    if registered {
        Ok(())
    } else {
        Err(Failure::new(NOT_REGISTERED, "The address is not registered any more."))
    }
}

async fn connect_account(
    state: &AppState,
    wanted: Wanted,
    (query, proofs): (&CallbackQuery, &Proofs),
) -> Result<AccountId, Failure> {
    let app = app_of(state, wanted).await?;
    if let Some(error) = &query.error {
        return Err(declined(error, query.error_description.as_deref()));
    }
    // RFC 9207: an answer of another server would carry its code to this one.
    if let (Some(given), Some(known)) = (&query.iss, &app.terms.endpoints.issuer)
        && given != known
        && !known.contains('{')
    {
        return Err(Failure::new(
            "issuer-mismatch",
            "Another provider answered than the one that was asked.",
        ));
    }
    let code = query.code.as_ref().ok_or_else(|| Failure::new("no-code", "The provider gave no code."))?;
    let unset = || Failure::new("unavailable", "The service does not know its own address any more.");
    let public_url = state.config.public_url.as_deref().ok_or_else(unset)?;
    let tokens = oauth::exchange(state, &app, (code, &proofs.verifier), &redirect_uri(public_url)).await;
    let tokens = tokens.map_err(|error| oauth_failure(&error))?;
    arrived(state, wanted, &app, (&tokens, Some(&proofs.nonce))).await
}

fn declined(error: &str, description: Option<&str>) -> Failure {
    let words = mail::address::clean_text(description.unwrap_or_default(), 300);
    match error {
        "access_denied" => Failure::new("access-denied", "The consent was not given."),
        "consent_required" | "interaction_required" | "login_required" => {
            Failure::new("access-denied", words)
        }
        "temporarily_unavailable" | "server_error" => {
            Failure::new("provider-unavailable", "The provider cannot answer now; try again later.")
        }
        _ => Failure::new("provider-refused", words),
    }
}
