//! `GET /api/messages/{id}/html`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::blob;
use emailclient_core::platform::id::MessageId;
use http::header;
use mail::mime::PARSE_VERSION;
use mail::mime::html::{POLICY_VERSION, from_text};
use serde::{Deserialize, Deserializer};
use utoipa::{IntoParams, ToSchema};

use super::content::{Pictures, blocking, readable, set, unchanged};
use super::embed::Signer;
use super::source::in_hand;
use crate::error::{ApiError, Problem};
use crate::etag::{Conditions, ETag};
use crate::extract::{PathId, Query};
use crate::permission::{MailRead, May, Unaudited};
use crate::state::AppState;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HtmlQuery {
    /// `1` lets pictures be loaded from other servers, which tells the sender that the message was read.
    #[serde(default, deserialize_with = "switch")]
    #[param(value_type = Option<String>, pattern = "^(0|1|true|false)$")]
    remote: bool,
    /// `data`: the message's own pictures stand in the HTML. Without it they are addresses of attachments, each with a
    /// `part_token` by which a browser loads it for half an hour. Pictures over 5 MiB, and those beyond 20 MiB in all, stay
    /// addresses.
    #[serde(default)]
    #[param(inline)]
    inline_images: InlineImages,
}

/// How the message's own pictures come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum InlineImages {
    /// As addresses of attachments that a browser can load.
    #[default]
    Link,
    /// In the HTML itself.
    Data,
}

/// `1` or `true`, `0` or `false`.
fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(serde::de::Error::custom("0 or 1 is expected")),
    }
}

/// No script, no form, no frame; styles stand in the elements, and pictures come from the message unless allowed.
fn policy(remote: bool) -> String {
    let images = if remote { "'self' data: https: http:" } else { "'self' data:" };
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; img-src {images}; frame-ancestors 'none'; sandbox"
    )
}

/// A message's HTML, made safe; one without HTML has its text shown as HTML.
#[utoipa::path(get, path = "/api/messages/{id}/html", tag = "messages", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path), HtmlQuery),
    responses((status = 200, body = String, content_type = "text/html"), (status = 304),
              (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_message_html(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(id): PathId<MessageId>,
    Query(query): Query<HtmlQuery>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let stored = blob::find(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    let signer = Signer::new(&state, &caller);
    let (whose, asked) = (signer.whose, query.inline_images);
    // The addresses in it are the session's own, for a while.
    let kind = format!(
        "html {POLICY_VERSION} {PARSE_VERSION} {id} {} {asked:?} {} {}",
        query.remote, whose.session, whose.until
    );
    let tag = ETag::content(&[stored.hash.as_slice(), kind.as_bytes()].concat());
    if let Some(mut response) = unchanged(&tag, &conditions) {
        set(&mut response, header::CONTENT_SECURITY_POLICY, &policy(query.remote));
        return Ok(response);
    }
    let found = in_hand(&state, &caller, tx, stored).await?.ok_or_else(ApiError::not_found)?;
    let pictures = match asked {
        InlineImages::Link => Pictures::Signed(signer),
        InlineImages::Data => Pictures::Embedded(signer),
    };
    let read = move || {
        let read = readable(id, found.source.readable(), query.remote, &pictures);
        read.html.map_or_else(|| from_text(read.body.text.as_deref().unwrap_or_default()), |safe| safe.html)
    };
    let mut response = Response::new(Body::from(blocking(read).await?));
    set(&mut response, header::CONTENT_TYPE, "text/html; charset=utf-8");
    set(&mut response, header::CONTENT_SECURITY_POLICY, &policy(query.remote));
    set(&mut response, header::ETAG, tag.as_str());
    Ok(response)
}
