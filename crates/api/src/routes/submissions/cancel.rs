//! `POST /api/submissions/{id}/cancel`

use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::submission::{self, CancelError};
use emailclient_core::platform::id::SubmissionId;

use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{MailSend, May, SubmissionCancel};
use crate::reply::Reply;
use crate::state::AppState;
use emailclient_core::view::submission::SubmissionView;

/// Takes a queued message back; gives up one whose fate is unknown.
#[utoipa::path(post, path = "/api/submissions/{id}/cancel", tag = "submissions", security(("bearer" = ["mail:send"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = SubmissionView), (status = 409, body = Problem, content_type = "application/problem+json"),
              (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn cancel_submission(
    State(state): State<AppState>,
    caller: May<MailSend, SubmissionCancel>,
    PathId(id): PathId<SubmissionId>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut tx = key.tx(&state, &caller).await?;
        submission::cancel(&mut tx, id).await.map_err(refusal)?;
        caller.audit(&mut tx, &id.to_string()).await?;
        let now = submission::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
        Ok((tx, Reply::ok(&SubmissionView::from(now))?))
    })
    .await
}

fn refusal(error: CancelError) -> ApiError {
    match error {
        CancelError::NotFound => ApiError::not_found(),
        CancelError::TooLate(_) => ApiError::already_sending(error.to_string()),
        CancelError::Db(error) => error.into(),
    }
}
