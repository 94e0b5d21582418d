//! `POST /api/events/ticket`

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use emailclient_core::access::ticket::{self, Bearer};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{MailRead, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// A ticket for one stream of events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventTicket)]
struct TicketView {
    /// What to send as `ticket`.
    ticket: String,
    /// Until when.
    expires_at: DateTime<Utc>,
}

/// A ticket that opens one stream of events within a minute, for programs that can set no header: `GET /api/events?ticket=`.
#[utoipa::path(post, path = "/api/events/ticket", tag = "events", security(("bearer" = ["mail:read"])),
    responses((status = 201, body = TicketView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn issue_ticket(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    Query(NoQuery {}): Query<NoQuery>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut tx = key.tx(&state, &caller).await?;
        let now = state.clock.now();
        let (user_id, session_id, token_expires) = (caller.user.id, caller.session_id, caller.token_expires);
        let bearer = Bearer { user_id, session_id, token_expires };
        let ticket = ticket::issue(&mut tx, &state.config.jwt_secret, bearer, now).await?;
        let view = TicketView { ticket, expires_at: now + ticket::LIFETIME };
        Ok((tx, Reply::created("/api/events", &view)?))
    })
    .await
}
