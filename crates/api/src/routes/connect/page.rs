//! The page itself.

use axum::extract::{RawQuery, Request, State};
use axum::response::Response;
use http::HeaderMap;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::act::{self, Act};
use super::form::Form;
use super::look::Look;
use super::person::{self, Closed, Token};
use crate::context::Context;
use crate::error::Problem;
use crate::form;
use crate::state::AppState;

/// What a link of the page asks for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "for the description: what a browser sends besides is passed over")]
pub struct PageQuery {
    /// `address`, `password` or `servers`.
    step: Option<String>,
}

/// What the page's own forms send.
#[derive(Debug, Deserialize, ToSchema)]
#[expect(dead_code, reason = "for the description: what is missing is told on the page")]
pub struct PageForm {
    /// What only this page's forms have.
    form: String,
    /// `address`, `password`, `servers` or `cancel`.
    r#do: String,
    email: Option<String>,
    username: Option<String>,
    password: Option<String>,
    imap_host: Option<String>,
    imap_port: Option<String>,
    imap_security: Option<String>,
    smtp_host: Option<String>,
    smtp_port: Option<String>,
    smtp_security: Option<String>,
    smtp_username: Option<String>,
    smtp_password: Option<String>,
}

/// The page for a person: the step that is due. In English or German, without scripts.
#[utoipa::path(get, path = "/connect/{token}", tag = "connect", params(("token" = String, Path, description = "of `url` of the session"), PageQuery),
    responses((status = 200, description = "the step that is due", content((String = "text/html"))),
    (status = 403, description = "accounts cannot be connected any more", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 404, description = "no such link", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 410, description = "the link was used, or is too old", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 429, description = "too many requests", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 503, description = "not at the moment", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn get_page(
    State(state): State<AppState>,
    context: Context,
    headers: HeaderMap,
    path: Token,
    RawQuery(query): RawQuery,
) -> Response {
    let token = person::token(path);
    let person = match person::open(&state, context, &headers, &token).await {
        Ok(person) => person,
        Err(closed) => return closed.answer(),
    };
    let pairs = form::pairs(query.as_deref().unwrap_or_default()).unwrap_or_default();
    let step = pairs.iter().find(|(name, _)| name == "step").map(|(_, value)| value.as_str());
    act::show(&state, &person, step).await.unwrap_or_else(|error| closed(&person.look, &error))
}

fn closed(look: &Look, error: &crate::error::ApiError) -> Response {
    Closed::of(look.clone(), error).answer()
}

/// A form of the page. A step that was done leads to the next one, the last one to the session's `redirect_url`.
#[utoipa::path(post, path = "/connect/{token}", tag = "connect", params(("token" = String, Path, description = "of `url` of the session")),
    request_body(content = PageForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 303, description = "on to the next step, or to the session's redirect_url"),
    (status = 403, description = "the form is not the page's own, or accounts cannot be connected any more", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 404, description = "no such link", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 409, description = "the mailbox is another one, or connected otherwise", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 410, description = "the link was used, or is too old", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 422, description = "the step, with what went wrong", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 429, description = "too many attempts", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 503, description = "not at the moment", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn post_page(
    State(state): State<AppState>,
    context: Context,
    headers: HeaderMap,
    path: Token,
    request: Request,
) -> Response {
    let token = person::token(path);
    let opened = person::open(&state, context, &headers, &token).await;
    let form = match Form::read(request).await {
        Ok(form) => form,
        Err(error) => return act::unreadable(opened, &error),
    };
    let person = match opened {
        Ok(person) => person,
        // Sent twice: the second one arrives where the first did.
        Err(closed) => match closed.already().filter(|_| form.is_of(&state, &token, &headers)) {
            Some(way_on) => return Look::go(way_on),
            None => return closed.answer(),
        },
    };
    if !form.is_of(&state, &token, &headers) {
        return Closed::form(person.look).answer();
    }
    match Act::of(&form) {
        Some(wanted) => act::act(&state, &person, (wanted, &form)).await,
        None => Closed::form(person.look).answer(),
    }
}
