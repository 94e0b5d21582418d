//! `POST /api/compose/draft`

use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::draft;
use emailclient_core::platform::id::DraftId;

use super::create::store;
use super::prepare::{Absent, complete};
use super::replace::write;
use super::shape::{DraftView, Given, SavedDraft, tag};
use crate::caller::Caller;
use crate::error::{ApiError, Problem};
use crate::etag::Conditions;
use crate::extract::{JsonNul, NoQuery, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{MailWrite, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// Saves a draft: makes one, or with `id` changes the fields that are given.
#[utoipa::path(post, path = "/api/compose/draft", tag = "compose", security(("bearer" = ["mail:write"])), params(("If-Match" = Option<String>, Header, description = "the ETag that was read")), request_body = SavedDraft,
    responses((status = 200, body = DraftView), (status = 201, body = DraftView),
              (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn save_draft(
    State(state): State<AppState>,
    caller: May<MailWrite, Unaudited>,
    _none: Query<NoQuery>,
    conditions: Conditions,
    key: IdempotencyKey,
    JsonNul(body): JsonNul<SavedDraft>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let (id, given) = (body.id, body.into_given());
        if let Some(id) = id {
            return update(&state, &caller, &conditions, &key, (id, given)).await;
        }
        let prepared = complete(&state, &caller, given, None, Absent::Cleared).await?;
        let mut tx = key.tx(&state, &caller).await?;
        let reply = store(&mut tx, &caller, &prepared).await?;
        Ok((tx, reply))
    })
    .await
}

async fn update(
    state: &AppState,
    caller: &Caller,
    conditions: &Conditions,
    key: &IdempotencyKey,
    (id, given): (DraftId, Given),
) -> Result<(emailclient_core::platform::db::TenantTx, Reply), ApiError> {
    let unknown = || ApiError::unknown_reference("/id");
    let mut look = caller.aside(state).await?;
    let before = draft::get(&mut look, id).await?.ok_or_else(unknown)?;
    look.release();
    conditions.check_match(&tag(&before))?;
    let prepared = complete(state, caller, given, Some(&before), Absent::Kept).await?;
    let mut tx = key.tx(state, caller).await?;
    let current = draft::get_for_update(&mut tx, id).await?.ok_or_else(unknown)?;
    conditions.check_match(&tag(&current))?;
    let stored = write(&mut tx, &current, &prepared).await?;
    let etag = tag(&stored);
    Ok((tx, Reply::ok(&DraftView::from(stored))?.etag(&etag)))
}
