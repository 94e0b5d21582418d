//! `GET /api/submissions/{id}`

use axum::Json;
use axum::extract::State;
use emailclient_core::domain::submission;
use emailclient_core::platform::id::SubmissionId;

use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::permission::{MailRead, May, Unaudited};
use crate::state::AppState;
use emailclient_core::view::submission::SubmissionView;

/// One submission.
#[utoipa::path(get, path = "/api/submissions/{id}", tag = "submissions", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = SubmissionView), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_submission(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(id): PathId<SubmissionId>,
    _none: Query<NoQuery>,
) -> Result<Json<SubmissionView>, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let found = submission::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    tx.release();
    Ok(Json(found.into()))
}
