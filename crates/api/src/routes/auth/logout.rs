//! The end of a session.

use axum::extract::State;
use emailclient_core::access::session;

use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{LoggedIn, May, SessionLogout};
use crate::reply::Reply;
use crate::state::AppState;

/// Ends the session: its refresh token at once, its access tokens within five seconds everywhere.
#[utoipa::path(post, path = "/auth/logout", tag = "auth", security(("bearer" = [])),
    responses((status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn logout(
    State(state): State<AppState>,
    caller: May<LoggedIn, SessionLogout>,
    Query(NoQuery {}): Query<NoQuery>,
    // Checked, not kept: after the first answer the token is refused anyway.
    _key: IdempotencyKey,
) -> Result<Reply, ApiError> {
    let mut tx = caller.tx(&state).await?;
    session::revoke(&mut tx, caller.session_id, "logout").await?;
    caller.audit(&mut tx, &caller.session_id.to_string()).await?;
    tx.commit().await?;
    state.known.forget_session(caller.session_id);
    Ok(Reply::no_content())
}
