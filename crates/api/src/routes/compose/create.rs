//! `POST /api/compose`

use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::draft::attachment::AttachError;
use emailclient_core::domain::draft::{self, Draft, NewAttachment};
use emailclient_core::platform::db::TenantTx;
use emailclient_core::platform::id::DraftId;

use super::prepare::{Absent, Prepared, complete};
use super::shape::{DraftView, NewDraft, tag};
use crate::caller::Caller;
use crate::error::{ApiError, Problem};
use crate::extract::{JsonNul, NoQuery, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{MailWrite, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// Begins a draft; a reply or a forward with the id of a message.
#[utoipa::path(post, path = "/api/compose", tag = "compose", security(("bearer" = ["mail:write"])), request_body = NewDraft,
    responses((status = 201, body = DraftView), (status = 403, body = Problem, content_type = "application/problem+json"),
              (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create_draft(
    State(state): State<AppState>,
    caller: May<MailWrite, Unaudited>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
    JsonNul(body): JsonNul<NewDraft>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let prepared = complete(&state, &caller, body.into_given(), None, Absent::Cleared).await?;
        let mut tx = key.tx(&state, &caller).await?;
        let reply = store(&mut tx, &caller, &prepared).await?;
        Ok((tx, reply))
    })
    .await
}

/// Stores a new draft and answers 201.
pub(super) async fn store(
    tx: &mut TenantTx,
    caller: &Caller,
    prepared: &Prepared,
) -> Result<Reply, ApiError> {
    let id = draft::create(tx, prepared.account_id, &prepared.content, caller.principal.user).await?;
    let id = id.ok_or_else(|| ApiError::unknown_reference("/account_id"))?;
    carry_over(tx, id, &prepared.files).await?;
    let stored = reread(tx, id).await?;
    let (location, etag) = (format!("/api/compose/{id}"), tag(&stored));
    Ok(Reply::created(&location, &DraftView::from(stored))?.etag(&etag))
}

/// Adds files that came with a forward.
pub(super) async fn carry_over(
    tx: &mut TenantTx,
    id: DraftId,
    files: &[NewAttachment],
) -> Result<(), ApiError> {
    draft::attachment::add(tx, id, files).await.map_err(attach_refusal)?;
    Ok(())
}

pub(super) async fn reread(tx: &mut TenantTx, id: DraftId) -> Result<Draft, ApiError> {
    draft::get(tx, id).await?.ok_or_else(ApiError::not_found)
}

/// What a refused file means to a client.
pub(super) fn attach_refusal(error: AttachError) -> ApiError {
    match error {
        AttachError::TooLarge => ApiError::payload_too_large(format!(
            "the files of a draft may have {} bytes together",
            draft::attachment::MAX_ATTACHMENTS_BYTES
        )),
        AttachError::TooMany => ApiError::payload_too_large(format!(
            "a draft may have {} files",
            draft::attachment::MAX_ATTACHMENTS
        )),
        AttachError::Lost => ApiError::unavailable("a part of the upload was lost; send it again"),
        AttachError::Db(error) => error.into(),
    }
}
