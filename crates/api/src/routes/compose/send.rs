//! `POST /api/compose/{id}/send`

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use emailclient_core::domain::draft;
use emailclient_core::domain::draft::send::{MAX_RECIPIENTS, Order, Outcome, SendDraftError, send};
use emailclient_core::domain::submission;
use emailclient_core::platform::id::DraftId;
use http::header;
use mail::envelope::EnvelopeError;
use serde::Deserialize;
use utoipa::ToSchema;

use super::prepare::in_hand;
use super::shape::refusal;
use crate::error::{ApiError, FieldError, Problem};
use crate::extract::{Deferred, NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{DraftSend, MailSend, May};
use crate::reply::Reply;
use crate::state::AppState;
use emailclient_core::view::submission::SubmissionView;

const MAX_UNDO_SECONDS: u64 = 120;
/// Nothing is kept waiting longer: passwords, certificates and intentions do not last.
const MAX_SCHEDULE_DAYS: i64 = 366;

/// When to send.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct SendOrder {
    /// Not before this instant (RFC 3339 with a zone).
    #[schema(format = DateTime)]
    send_at: Option<String>,
    /// Wait this long, 0 to 120, so that it can be cancelled; ignored with `send_at`.
    #[schema(maximum = 120)]
    undo_seconds: Option<u64>,
}

impl SendOrder {
    /// How long to wait from `now`, and the instant that was named, if one was.
    fn wait(&self, now: DateTime<Utc>) -> Result<(Duration, Option<DateTime<Utc>>), ApiError> {
        let Some(text) = &self.send_at else {
            let undo = self.undo_seconds.unwrap_or(0);
            if undo > MAX_UNDO_SECONDS {
                return Err(ApiError::invalid_field("/undo_seconds", "invalid", "0 to 120 is expected"));
            }
            return Ok((Duration::from_secs(undo), None));
        };
        let refused = |detail: &str| {
            ApiError::invalid_send_at(detail).with_errors([FieldError::new(
                "/send_at",
                "invalid-send-at",
                detail,
            )])
        };
        let at = DateTime::parse_from_rfc3339(text)
            .map_err(|_| refused("an RFC 3339 instant with a zone is expected"))?
            .to_utc();
        let wait = at - now;
        if wait.num_days() > MAX_SCHEDULE_DAYS {
            return Err(refused("this is too far in the future"));
        }
        let wait = wait.to_std().map_err(|_| refused("this instant is past"))?;
        Ok((wait, Some(at)))
    }
}

/// Sends a draft. Sending it again answers with the submission there is, unless that was cancelled or failed.
#[utoipa::path(post, path = "/api/compose/{id}/send", tag = "compose", security(("bearer" = ["mail:send"])), params(("id" = Uuid, Path)),
    request_body = SendOrder,
    responses((status = 202, body = SubmissionView), (status = 200, body = SubmissionView, description = "it was sent before"),
              (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn send_draft(
    State(state): State<AppState>,
    caller: May<MailSend, DraftSend>,
    PathId(id): PathId<DraftId>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
    order: Option<Deferred<SendOrder>>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        caller.turn(&state, id.0).await?;
        let mut tx = key.tx(&state, &caller).await?;
        let draft = draft::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
        let files: i64 = draft.attachments.iter().map(|a| a.size_bytes).sum();
        in_hand(&state, &caller, usize::try_from(files).unwrap_or_default())?;
        let order = order.map(Deferred::meaning).transpose()?.unwrap_or_default();
        let date = state.clock.now();
        let (wait, send_at) = order.wait(date)?;
        let max_bytes = state.config.message_max_bytes;
        let order = Order { wait, send_at, date, sender: caller.principal.user, max_bytes };
        let outcome = send(&mut tx, id, &order).await.map_err(|e| send_refusal(e, &draft))?;
        let (submission_id, fresh) = match outcome {
            Outcome::Frozen(id) => (id, true),
            Outcome::SentBefore(id) => (id, false),
        };
        let submission = submission::get(&mut tx, submission_id).await?.ok_or_else(ApiError::not_found)?;
        let (location, view) =
            (format!("/api/submissions/{submission_id}"), SubmissionView::from(submission));
        if !fresh {
            tx.nothing_to_audit();
            return Ok((tx, Reply::ok(&view)?.header(header::LOCATION, &location)));
        }
        caller.audit(&mut tx, &submission_id.to_string()).await?;
        Ok((tx, Reply::accepted(&location, &view)?))
    })
    .await
}

fn send_refusal(error: SendDraftError, draft: &draft::Draft) -> ApiError {
    match error {
        SendDraftError::NotFound => ApiError::not_found(),
        SendDraftError::SenderNotAllowed => {
            ApiError::sender_not_allowed("from must be an identity of the account")
        }
        SendDraftError::Compose(error) => {
            refusal(&error, &draft.content.headers, draft.content.headers_as_object)
        }
        SendDraftError::Envelope(EnvelopeError::NoRecipients) => {
            ApiError::no_recipients("name somebody in to, cc or bcc")
        }
        SendDraftError::Envelope(EnvelopeError::TooManyRecipients) => {
            ApiError::too_many_recipients(format!("a message may have {MAX_RECIPIENTS} recipients"))
        }
        SendDraftError::Envelope(EnvelopeError::Address(error)) => {
            ApiError::invalid_address(error.to_string())
        }
        SendDraftError::TooLarge => {
            ApiError::payload_too_large("the message is larger than this service sends")
        }
        SendDraftError::Db(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(send_at: Option<&str>, undo_seconds: Option<u64>) -> SendOrder {
        SendOrder { send_at: send_at.map(str::to_owned), undo_seconds }
    }

    #[test]
    fn the_time_to_send_is_in_the_future_and_has_a_zone() {
        let now = DateTime::parse_from_rfc3339("2026-11-21T12:00:00Z").unwrap().to_utc();
        let wait = |o: SendOrder| o.wait(now).map(|(wait, _)| wait.as_secs());
        assert_eq!(wait(order(None, None)).unwrap(), 0);
        assert_eq!(wait(order(None, Some(120))).unwrap(), 120);
        assert_eq!(wait(order(Some("2026-11-21T14:00:00+01:00"), Some(5))).unwrap(), 3600);
        assert_eq!(wait(order(Some("2026-11-21T14:00:00+01:00"), Some(121))).unwrap(), 3600, "it is ignored");
        assert_eq!(wait(order(None, Some(121))).unwrap_err().code(), "validation-error");
        for bad in ["2026-11-21T11:59:59Z", "2026-11-21T14:00:00", "tomorrow", "", "2036-01-01T00:00:00Z"] {
            assert_eq!(wait(order(Some(bad), None)).unwrap_err().code(), "invalid-send-at", "{bad}");
        }
    }
}
