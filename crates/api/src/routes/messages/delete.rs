//! `DELETE /api/messages/{id}`

use axum::extract::State;
use emailclient_core::domain::message;
use emailclient_core::domain::message::transfer;
use emailclient_core::platform::id::MessageId;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;

use super::shape::etag;
use super::update::refusal;
use crate::error::{ApiError, Problem};
use crate::etag::Conditions;
use crate::extract::{PathId, Query};
use crate::permission::{MailWrite, May, MessageExpunge};
use crate::state::AppState;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// Expunges the message wherever it is, instead of moving it to Trash.
    permanent: Option<bool>,
}

/// Moves a message to Trash; from Trash, or with `permanent=true`, it is gone for good.
#[utoipa::path(delete, path = "/api/messages/{id}", tag = "messages", security(("bearer" = ["mail:write"])), params(("id" = Uuid, Path), DeleteQuery, ("If-Match" = Option<String>, Header, description = "the ETag that was read")),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json"),
              (status = 412, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn delete_message(
    State(state): State<AppState>,
    caller: May<MailWrite, MessageExpunge>,
    PathId(id): PathId<MessageId>,
    Query(query): Query<DeleteQuery>,
    conditions: Conditions,
) -> Result<StatusCode, ApiError> {
    caller.turn_at_message(&state, id).await?;
    let mut tx = caller.tx(&state).await?;
    let message = message::get_for_update(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    conditions.check_match(&etag(&message))?;
    let deleted = transfer::delete(&mut tx, &[id], None, query.permanent.unwrap_or(false)).await;
    deleted.map_err(|e| refusal(e, ""))?;
    if message::exists(&mut tx, id).await? {
        tx.nothing_to_audit();
    } else {
        caller.audit(&mut tx, &id.to_string()).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
