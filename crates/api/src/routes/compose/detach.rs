//! `DELETE /api/compose/{id}/attachments/{attachment_id}`

use axum::extract::State;
use emailclient_core::domain::draft;
use emailclient_core::platform::id::{AttachmentId, DraftId};
use serde::Deserialize;

use super::create::reread;
use super::replace::editable;
use super::shape::tag;
use crate::error::{ApiError, Problem};
use crate::etag::Conditions;
use crate::extract::{NoQuery, Path, Query};
use crate::permission::{MailWrite, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

#[derive(Debug, Deserialize)]
pub(super) struct Place {
    pub(super) id: DraftId,
    pub(super) attachment_id: AttachmentId,
}

/// Removes a file from a draft; the answer carries the draft's new ETag.
#[utoipa::path(delete, path = "/api/compose/{id}/attachments/{attachment_id}", tag = "compose", security(("bearer" = ["mail:write"])),
    params(("id" = Uuid, Path), ("attachment_id" = Uuid, Path), ("If-Match" = Option<String>, Header, description = "the ETag that was read")),
    responses((status = 204), (status = 409, body = Problem, content_type = "application/problem+json"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn detach_file(
    State(state): State<AppState>,
    caller: May<MailWrite, Unaudited>,
    Path(place): Path<Place>,
    _none: Query<NoQuery>,
    conditions: Conditions,
) -> Result<Reply, ApiError> {
    caller.turn(&state, place.id.0).await?;
    let mut tx = caller.tx(&state).await?;
    let current = draft::get_for_update(&mut tx, place.id).await?.ok_or_else(ApiError::not_found)?;
    if !current.attachments.iter().any(|a| a.id == place.attachment_id) {
        return Err(ApiError::not_found());
    }
    conditions.check_match(&tag(&current))?;
    editable(&current)?;
    draft::attachment::remove(&mut tx, place.id, place.attachment_id).await?;
    let stored = reread(&mut tx, place.id).await?;
    tx.commit().await?;
    Ok(Reply::no_content().etag(&tag(&stored)))
}
