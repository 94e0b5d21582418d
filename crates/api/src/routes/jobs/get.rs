//! `GET /api/jobs/{id}`

use axum::Json;
use axum::extract::State;
use emailclient_core::domain::operation;
use emailclient_core::platform::id::OperationId;

use super::JobView;
use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::permission::{MailRead, May, Unaudited};
use crate::state::AppState;

/// How far long work is.
#[utoipa::path(get, path = "/api/jobs/{id}", tag = "jobs", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = JobView), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_job(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(id): PathId<OperationId>,
    _none: Query<NoQuery>,
) -> Result<Json<JobView>, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let found = operation::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    tx.commit().await?;
    Ok(Json(found.into()))
}
