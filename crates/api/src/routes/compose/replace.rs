//! `PUT /api/compose/{id}`

use axum::extract::State;
use emailclient_core::domain::draft::{self, Draft};
use emailclient_core::platform::db::TenantTx;
use emailclient_core::platform::id::DraftId;

use super::create::{carry_over, reread};
use super::prepare::{Absent, Prepared, complete};
use super::shape::{DraftView, ReplacedDraft, tag};
use crate::error::{ApiError, Problem};
use crate::etag::Conditions;
use crate::extract::{Deferred, NoQuery, PathId, Query};
use crate::permission::{MailWrite, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// Replaces what is written in a draft; its files stay.
#[utoipa::path(put, path = "/api/compose/{id}", tag = "compose", security(("bearer" = ["mail:write"])),
    params(("id" = Uuid, Path), ("If-Match" = String, Header, description = "the ETag that was read")), request_body = ReplacedDraft,
    responses((status = 200, body = DraftView), (status = 409, body = Problem, content_type = "application/problem+json"), (status = 428, body = Problem, content_type = "application/problem+json"), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn replace_draft(
    State(state): State<AppState>,
    caller: May<MailWrite, Unaudited>,
    PathId(id): PathId<DraftId>,
    _none: Query<NoQuery>,
    conditions: Conditions,
    body: Deferred<ReplacedDraft, true>,
) -> Result<Reply, ApiError> {
    let mut look = caller.aside(&state).await?;
    let before = draft::get(&mut look, id).await?.ok_or_else(ApiError::not_found)?;
    look.release();
    conditions.require_match(&tag(&before))?;
    let prepared =
        complete(&state, &caller, body.meaning()?.into_given(), Some(&before), Absent::Cleared).await?;
    caller.turn(&state, id.0).await?;
    let mut tx = caller.tx(&state).await?;
    let current = draft::get_for_update(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    conditions.require_match(&tag(&current))?;
    let stored = write(&mut tx, &current, &prepared).await?;
    tx.commit().await?;
    let etag = tag(&stored);
    Ok(Reply::ok(&DraftView::from(stored))?.etag(&etag))
}

/// Writes the new content of a draft that is held.
pub(super) async fn write(
    tx: &mut TenantTx,
    current: &Draft,
    prepared: &Prepared,
) -> Result<Draft, ApiError> {
    editable(current)?;
    if !draft::replace(tx, current.id, prepared.account_id, &prepared.content).await? {
        return Err(ApiError::unknown_reference("/account_id"));
    }
    carry_over(tx, current.id, &prepared.files).await?;
    reread(tx, current.id).await
}

/// Refuses changes of what is on its way or has arrived.
pub(super) fn editable(draft: &Draft) -> Result<(), ApiError> {
    if draft.is_open() {
        return Ok(());
    }
    Err(ApiError::already_sending("the draft was sent; cancel its submission to change it"))
}
