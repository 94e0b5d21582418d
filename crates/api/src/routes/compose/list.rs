//! `GET /api/compose`

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use emailclient_core::domain::draft;
use emailclient_core::domain::mailbox::account_exists;
use emailclient_core::platform::id::{AccountId, DraftId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::shape::DraftView;
use crate::error::{ApiError, Problem};
use crate::extract::Query;
use crate::page::{Limit, Page, Scope};
use crate::permission::{MailRead, May, Unaudited};
use crate::state::AppState;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Drafts of this account only.
    #[param(value_type = Option<uuid::Uuid>)]
    account_id: Option<AccountId>,
    /// Rows of a page, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Drafts that were not sent, latest change first.
#[utoipa::path(get, path = "/api/compose", tag = "compose", security(("bearer" = ["mail:read"])), params(ListQuery),
    responses((status = 200, body = Page<DraftView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_drafts(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<DraftView>>, ApiError> {
    let account = query.account_id.map(|a| a.to_string()).unwrap_or_default();
    let scope = Scope::new(&state, caller.tenant(), "drafts", &[&account]);
    let after: Option<(DateTime<Utc>, DraftId)> = scope.open(query.cursor.as_deref())?;
    let mut tx = caller.tx(&state).await?;
    if let Some(account) = query.account_id
        && !account_exists(&mut tx, account).await?
    {
        return Err(ApiError::not_found());
    }
    let rows = draft::list(&mut tx, query.account_id, after, query.limit.get() + 1).await?;
    tx.commit().await?;
    let page = Page::cut(rows, query.limit, |last| scope.seal(&(last.updated_at, last.id)))?;
    Ok(Json(page.map(DraftView::from)))
}
