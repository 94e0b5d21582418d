//! `GET /api/accounts/{id}/threads`

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use emailclient_core::domain::thread::{self, Key};
use emailclient_core::platform::id::AccountId;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::ThreadView;
use crate::error::{ApiError, Problem};
use crate::extract::{PathId, Query};
use crate::page::{Limit, Page, Scope};
use crate::permission::{MailRead, May, Unaudited};
use crate::state::AppState;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Rows of a page, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The threads of an account, the one with the newest message first.
#[utoipa::path(get, path = "/api/accounts/{id}/threads", tag = "threads", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path), ListQuery),
    responses((status = 200, body = Page<ThreadView>), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_threads(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(account): PathId<AccountId>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<ThreadView>>, ApiError> {
    let scope = Scope::new(&state, caller.tenant(), "threads", &[&account.to_string()]);
    let after = scope.open::<(DateTime<Utc>, Uuid)>(query.cursor.as_deref())?.map(|(at, id)| Key { at, id });
    let mut tx = caller.tx(&state).await?;
    let page =
        thread::list(&mut tx, account, after, query.limit.rows()).await?.ok_or_else(ApiError::not_found)?;
    tx.release();
    let next_cursor = page.next.map(|k| scope.seal(&(k.at, k.id))).transpose()?;
    let data = page.threads.into_iter().map(ThreadView::from).collect();
    Ok(Json(Page { data, has_more: next_cursor.is_some(), next_cursor }))
}
