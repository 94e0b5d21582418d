//! `GET /api/compose/{id}/attachments/{attachment_id}`

use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::draft::attachment;

use super::detach::Place;
use crate::error::{ApiError, Problem};
use crate::etag::{Conditions, ETag};
use crate::extract::{NoQuery, Path, Query};
use crate::permission::{MailRead, May, Unaudited};
use crate::routes::messages::content::{Asked, Bytes, Content, serve, unchanged_content};
use crate::routes::messages::source::{Origin, Piecewise};
use crate::state::AppState;

/// A file of a draft, as it was uploaded.
#[utoipa::path(get, path = "/api/compose/{id}/attachments/{attachment_id}", tag = "compose", security(("bearer" = ["mail:read"])),
    params(("id" = Uuid, Path), ("attachment_id" = Uuid, Path)),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 206), (status = 304),
              (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_file(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    Path(place): Path<Place>,
    _none: Query<NoQuery>,
    conditions: Conditions,
    asked: Asked,
) -> Result<Response, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let found = attachment::find(&mut tx, place.id, place.attachment_id).await?;
    tx.release();
    let file = found.ok_or_else(ApiError::not_found)?;
    // Contents never change under their id.
    let tag = ETag::version(file.id, 0);
    if let Some(response) = unchanged_content(&tag, &conditions) {
        return Ok(response);
    }
    let disposition = mail::mime::content_disposition(Some(&file.filename));
    let length = usize::try_from(file.size_bytes).unwrap_or_default();
    let bytes =
        Bytes::Piecewise(Piecewise { origin: Origin::File(file.id), encoded: 0..length, decoder: None });
    let content = Content { bytes, length, content_type: file.content_type, disposition, tag };
    serve(&state, &caller, content, &asked).await
}
