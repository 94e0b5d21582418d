//! `GET /api/messages/{id}/attachments/{n}`

use axum::extract::State;
use axum::response::Response;
use emailclient_core::blob;
use emailclient_core::id::MessageId;
use serde::Deserialize;
use utoipa::IntoParams;

use super::content::{Asked, Content, blocking, serve, unchanged_content};
use crate::caller::Caller;
use crate::error::{ApiError, Problem};
use crate::etag::{Conditions, ETag};
use crate::extract::{NoQuery, Path, Query};
use crate::state::AppState;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct Place {
    /// The message.
    #[param(value_type = Uuid)]
    id: MessageId,
    /// The attachment's `index`, from 0.
    #[param(value_type = u32, maximum = 4294967295_u64)]
    n: u32,
}

/// An attachment, decoded.
#[utoipa::path(get, path = "/api/messages/{id}/attachments/{n}", tag = "messages", security(("bearer" = [])), params(Place),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 206), (status = 304),
              (status = 404, body = Problem, content_type = "application/problem+json"),
              (status = 416, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_attachment(
    State(state): State<AppState>,
    caller: Caller,
    Path(place): Path<Place>,
    _none: Query<NoQuery>,
    conditions: Conditions,
    asked: Asked,
) -> Result<Response, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let source = blob::of_message(&mut tx, place.id).await?.ok_or_else(ApiError::not_found)?;
    tx.release();
    let tag = ETag::content(&[source.hash.as_slice(), &place.n.to_be_bytes()].concat());
    let index = usize::try_from(place.n).unwrap_or(usize::MAX);
    let found = blocking(move || mail::mime::attachment(source.readable(), index))
        .await?
        .ok_or_else(ApiError::not_found)?;
    if let Some(response) = unchanged_content(&tag, &conditions) {
        return Ok(response);
    }
    let content = Content {
        bytes: found.bytes,
        content_type: found.content_type,
        disposition: mail::mime::content_disposition(found.filename.as_deref()),
        tag,
    };
    serve(content, &asked)
}
