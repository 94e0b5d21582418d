//! From the page to a provider. A link and no form: browsers hold the way on from a form to the page's `form-action`, and no page
//! knows where a provider sends a person on the way.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use emailclient_core::domain::connect;
use emailclient_core::domain::oauth::flow::Flow;
use emailclient_core::platform::id::AppId;
use http::HeaderMap;

use super::known;
use super::look::Look;
use super::person::{self, Closed, Person};
use crate::context::Context;
use crate::error::{ApiError, Problem};
use crate::routes::oauth;
use crate::state::AppState;

/// Sends a person from the page to a provider, by one of the tenant's apps. They come back to `/oauth/callback`, and from there to the
/// session's `redirect_url`, or to the page with what went wrong.
#[utoipa::path(get, path = "/connect/{token}/consent/{app_id}", tag = "connect",
    params(("token" = String, Path, description = "of `url` of the session"), ("app_id" = Uuid, Path, description = "as it stands in the page")),
    responses((status = 303, description = "on to the provider, or back to the page"),
    (status = 403, description = "accounts cannot be connected any more", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 404, description = "no such link", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 410, description = "the link was used, or is too old", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 429, description = "too many requests", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = 503, description = "not at the moment", content((String = "text/html"), (Problem = "application/problem+json"))),
    (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn consent(
    State(state): State<AppState>,
    context: Context,
    headers: HeaderMap,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Response {
    let (token, app) = path.map(|Path(both)| both).unwrap_or_default();
    let person = match person::open(&state, context, &headers, &token).await {
        Ok(person) => person,
        Err(closed) => return closed.answer(),
    };
    match begin(&state, &person, &app).await {
        Ok(Some(url)) => Look::go(&url),
        // The app was removed while the page was open.
        Ok(None) => Look::go(&person.look.path),
        Err(error) => Closed::of(person.look, &error).answer(),
    }
}

async fn begin(state: &AppState, person: &Person, app: &str) -> Result<Option<String>, ApiError> {
    let Ok(id) = app.parse::<AppId>() else { return Ok(None) };
    let mut tx = person.caller.tx(state).await?;
    let apps = known::apps(&mut tx, state).await?;
    let Some(app) = apps.into_iter().find(|app| app.id == id) else { return Ok(None) };
    let session = &person.session;
    let flow = Flow {
        app_id: id,
        account_id: session.account_id,
        email: session.email.clone(),
        redirect_url: session.redirect_url.clone(),
        client_state: session.client_state.clone(),
        actor: session.actor,
        connect_id: Some(session.id),
    };
    connect::came_back(&mut tx, session.id, None).await?;
    let Some(sent) = oauth::send(state, &mut tx, &app, &flow).await? else { return Ok(None) };
    tx.commit().await?;
    Ok(Some(sent.authorize_url))
}
