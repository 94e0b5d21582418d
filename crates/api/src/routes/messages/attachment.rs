//! `GET /api/messages/{id}/attachments/{n}`

use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::blob::{self, Stored};
use emailclient_core::platform::db::TenantTx;
use emailclient_core::platform::id::MessageId;
use mail::mime::{AttachmentPlace, PARSE_VERSION, find_attachment};
use serde::Deserialize;
use utoipa::IntoParams;

use super::content::{Asked, Bytes, Content, blocking, serve, unchanged_content};
use super::source::{Origin, Piecewise, room};
use crate::caller::Caller;
use crate::error::{ApiError, Problem};
use crate::etag::{Conditions, ETag};
use crate::extract::{Path, Query};
use crate::permission::{May, PartRead, Unaudited};
use crate::state::AppState;

/// What is not larger is decoded when it is found; the rest is read a second time, as fast as its reader takes it.
const SMALL_BYTES: usize = 128 * 1024;

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

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PartQuery {
    /// In place of the headers that say who asks: from the address of a picture in `/html`, good for this part and for an hour
    /// at most.
    #[serde(rename = "part_token")]
    #[param(rename = "part_token")]
    _part_token: Option<String>,
}

/// An attachment, decoded.
#[utoipa::path(get, path = "/api/messages/{id}/attachments/{n}", tag = "messages",
    security(("bearer" = ["mail:read"]), ("part_token" = [])), params(Place, PartQuery),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 206), (status = 304),
              (status = 404, body = Problem, content_type = "application/problem+json"),
              (status = 416, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_attachment(
    State(state): State<AppState>,
    caller: May<PartRead, Unaudited>,
    Path(place): Path<Place>,
    _token: Query<PartQuery>,
    conditions: Conditions,
    asked: Asked,
) -> Result<Response, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let stored = blob::find(&mut tx, place.id).await?.ok_or_else(ApiError::not_found)?;
    // Which file has this number depends on how the source is understood.
    let tag = ETag::content(
        &[stored.hash.as_slice(), &place.n.to_be_bytes(), &PARSE_VERSION.to_be_bytes()].concat(),
    );
    let index = usize::try_from(place.n).unwrap_or(usize::MAX);
    let (found, contents) = find(&state, &caller, tx, &stored, index).await?;
    if let Some(response) = unchanged_content(&tag, &conditions) {
        return Ok(response);
    }
    let content = Content {
        length: found.size_bytes,
        bytes: match contents {
            Some(contents) => Bytes::Here(contents),
            None => Bytes::Piecewise(Piecewise {
                origin: Origin::Source(stored),
                encoded: found.range.clone(),
                decoder: Some(found.decoder()),
            }),
        },
        content_type: found.content_type,
        disposition: mail::mime::content_disposition(found.filename.as_deref()),
        tag,
    };
    serve(&state, &caller, content, &asked).await
}

/// Where the attachment lies, and its contents when it had to be looked for and is small.
async fn find(
    state: &AppState,
    caller: &Caller,
    tx: TenantTx,
    stored: &Stored,
    index: usize,
) -> Result<(AttachmentPlace, Option<Vec<u8>>), ApiError> {
    if let Some(known) = state.places.get(&stored.hash, index) {
        tx.release();
        return Ok((known, None));
    }
    let (mut tx, held) = room(state, caller, tx, stored).await?;
    // While this one waited for memory another may have found it.
    if let Some(known) = state.places.get(&stored.hash, index) {
        tx.release();
        return Ok((known, None));
    }
    let source = blob::load(&mut tx, stored.clone()).await?.ok_or_else(ApiError::not_found)?;
    tx.release();
    let look = move || {
        let raw = source.readable();
        let found = find_attachment(raw, index)?;
        let contents = (found.size_bytes <= SMALL_BYTES).then(|| found.contents(raw));
        drop(held);
        Some((found, contents))
    };
    let (found, contents) = blocking(look).await?.ok_or_else(ApiError::not_found)?;
    state.places.put(&stored.hash, index, &found);
    Ok((found, contents))
}
