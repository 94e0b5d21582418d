//! `DELETE /api/jobs/{id}`

use axum::extract::State;
use emailclient_core::domain::operation;
use emailclient_core::platform::id::OperationId;
use http::StatusCode;

use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::permission::{JobCancel, MailWrite, May};
use crate::state::AppState;

/// Ends long work before its time. What was done stays done; work that is over stays as it is.
#[utoipa::path(delete, path = "/api/jobs/{id}", tag = "jobs", security(("bearer" = ["mail:write"])), params(("id" = Uuid, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn cancel_job(
    State(state): State<AppState>,
    caller: May<MailWrite, JobCancel>,
    PathId(id): PathId<OperationId>,
    _none: Query<NoQuery>,
) -> Result<StatusCode, ApiError> {
    let mut tx = caller.tx(&state).await?;
    operation::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    if operation::cancel(&mut tx, id).await? {
        caller.audit(&mut tx, &id.to_string()).await?;
    } else {
        tx.nothing_to_audit();
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
