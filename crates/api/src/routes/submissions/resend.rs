//! `POST /api/submissions/{id}/resend`

use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::submission::{self, ResendError};
use emailclient_core::platform::id::SubmissionId;

use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{MailSend, May, SubmissionResend};
use crate::reply::Reply;
use crate::state::AppState;
use emailclient_core::view::submission::SubmissionView;

/// Sends the same bytes again to whom they did not reach: after `unknown`, `failed` or `cancelled`.
#[utoipa::path(post, path = "/api/submissions/{id}/resend", tag = "submissions", security(("bearer" = ["mail:send"])), params(("id" = Uuid, Path)),
    responses((status = 202, body = SubmissionView), (status = 409, body = Problem, content_type = "application/problem+json"),
              (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn resend_submission(
    State(state): State<AppState>,
    caller: May<MailSend, SubmissionResend>,
    PathId(id): PathId<SubmissionId>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut tx = key.tx(&state, &caller).await?;
        submission::resend(&mut tx, id).await.map_err(refusal)?;
        caller.audit(&mut tx, &id.to_string()).await?;
        let now = submission::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
        Ok((tx, Reply::accepted(&format!("/api/submissions/{id}"), &SubmissionView::from(now))?))
    })
    .await
}

fn refusal(error: ResendError) -> ApiError {
    match error {
        ResendError::NotFound => ApiError::not_found(),
        ResendError::NotStuck(_) | ResendError::SentSince(_) | ResendError::NobodyLeft => {
            ApiError::already_sending(error.to_string())
        }
        ResendError::Db(error) => error.into(),
    }
}
