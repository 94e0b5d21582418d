//! `GET /api/compose/{id}`

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use emailclient_core::domain::draft;
use emailclient_core::platform::id::DraftId;
use http::{StatusCode, header};

use super::shape::{DraftView, tag};
use crate::error::{ApiError, Problem};
use crate::etag::Conditions;
use crate::extract::{NoQuery, PathId, Query};
use crate::permission::{MailRead, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// One draft.
#[utoipa::path(get, path = "/api/compose/{id}", tag = "compose", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = DraftView), (status = 304), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_draft(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(id): PathId<DraftId>,
    _none: Query<NoQuery>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let draft = draft::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    tx.commit().await?;
    let etag = tag(&draft);
    if conditions.is_current(&etag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag.as_str().to_owned())]).into_response());
    }
    Ok(Reply::ok(&DraftView::from(draft))?.etag(&etag).into_response())
}
