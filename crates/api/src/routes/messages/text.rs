//! `GET /api/messages/{id}/text`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::blob;
use emailclient_core::platform::id::MessageId;
use http::header;
use mail::mime::PARSE_VERSION;

use super::content::{SANDBOX, blocking, set, unchanged};
use super::source::in_hand;
use crate::error::{ApiError, Problem};
use crate::etag::{Conditions, ETag};
use crate::extract::{NoQuery, PathId, Query};
use crate::permission::{MailRead, May, Unaudited};
use crate::state::AppState;

/// A message's text; one without a text part has that of its HTML.
#[utoipa::path(get, path = "/api/messages/{id}/text", tag = "messages", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 304),
              (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_message_text(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(id): PathId<MessageId>,
    _none: Query<NoQuery>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let stored = blob::find(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    let tag = ETag::content(&[stored.hash.as_slice(), format!("text {PARSE_VERSION}").as_bytes()].concat());
    if let Some(mut response) = unchanged(&tag, &conditions) {
        set(&mut response, header::CONTENT_SECURITY_POLICY, SANDBOX);
        return Ok(response);
    }
    let found = in_hand(&state, &caller, tx, stored).await?.ok_or_else(ApiError::not_found)?;
    let text = blocking(move || text_of(found.source.readable())).await?;
    let mut response = Response::new(Body::from(text));
    set(&mut response, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    set(&mut response, header::CONTENT_SECURITY_POLICY, SANDBOX);
    set(&mut response, header::ETAG, tag.as_str());
    Ok(response)
}

fn text_of(raw: &[u8]) -> String {
    let body = mail::mime::body(raw);
    match (body.text, body.html) {
        (Some(text), Some(html)) if text.trim().is_empty() => html.to_text(),
        (Some(text), _) => text,
        (None, Some(html)) => html.to_text(),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::text_of;

    #[test]
    fn a_message_of_html_alone_has_a_text_too() {
        let html = text_of(b"Content-Type: text/html\r\n\r\n<p>One</p><p>Two</p>");
        assert!(html.contains("One") && html.contains("Two") && !html.contains('<'), "{html}");
        assert_eq!(text_of(b"Subject: x\r\n\r\nplain").trim(), "plain");
    }
}
