//! `GET /api/messages/{id}/raw`

use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::blob;
use emailclient_core::platform::id::MessageId;

use super::content::{Asked, Bytes, Content, serve, unchanged_content};
use super::source::{Origin, Piecewise};
use crate::error::{ApiError, Problem};
use crate::etag::{Conditions, ETag};
use crate::extract::{NoQuery, PathId, Query};
use crate::permission::{MailRead, May, Unaudited};
use crate::state::AppState;

/// The source of a message, byte for byte as its server gave it.
#[utoipa::path(get, path = "/api/messages/{id}/raw", tag = "messages", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "message/rfc822"), (status = 206), (status = 304),
              (status = 404, body = Problem, content_type = "application/problem+json"),
              (status = 416, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_message_raw(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(id): PathId<MessageId>,
    _none: Query<NoQuery>,
    conditions: Conditions,
    asked: Asked,
) -> Result<Response, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let stored = blob::find(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    tx.release();
    let tag = ETag::content(&stored.hash);
    if let Some(response) = unchanged_content(&tag, &conditions) {
        return Ok(response);
    }
    let length = stored.size;
    let content = Content {
        bytes: Bytes::Piecewise(Piecewise {
            origin: Origin::Source(stored),
            encoded: 0..length,
            decoder: None,
        }),
        length,
        content_type: "message/rfc822".to_owned(),
        disposition: format!("attachment; filename=\"{id}.eml\""),
        tag,
    };
    serve(&state, &caller, content, &asked).await
}
