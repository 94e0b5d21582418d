//! `DELETE /api/compose/{id}`

use axum::extract::State;
use emailclient_core::domain::draft;
use emailclient_core::platform::id::DraftId;

use super::shape::tag;
use crate::error::{ApiError, Problem};
use crate::etag::Conditions;
use crate::extract::{NoQuery, PathId, Query};
use crate::permission::{MailWrite, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// Throws a draft away; one that waits to be sent is cancelled first. A submission made of it stays.
#[utoipa::path(delete, path = "/api/compose/{id}", tag = "compose", security(("bearer" = ["mail:write"])),
    params(("id" = Uuid, Path), ("If-Match" = String, Header, description = "the ETag that was read")),
    responses((status = 204), (status = 409, body = Problem, content_type = "application/problem+json"), (status = 428, body = Problem, content_type = "application/problem+json"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete_draft(
    State(state): State<AppState>,
    caller: May<MailWrite, Unaudited>,
    PathId(id): PathId<DraftId>,
    _none: Query<NoQuery>,
    conditions: Conditions,
) -> Result<Reply, ApiError> {
    caller.turn(&state, id.0).await?;
    let mut tx = caller.tx(&state).await?;
    let current = draft::get_for_update(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    conditions.require_match(&tag(&current))?;
    if current.waits() {
        return Err(ApiError::already_sending("the draft waits to be sent; cancel its submission first"));
    }
    draft::delete(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Reply::no_content())
}
