//! `GET /api/threads/{id}`

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use emailclient_core::domain::thread::{self, Key};
use emailclient_core::platform::id::ThreadId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::ThreadView;
use crate::error::{ApiError, Problem};
use crate::extract::{PathId, Query};
use crate::page::{Limit, Scope};
use crate::permission::{MailRead, May, Unaudited};
use crate::state::AppState;
use emailclient_core::view::message::SummaryView;

/// Messages of a page where no limit is given.
const PAGE: usize = 200;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct GetQuery {
    /// Messages of a page, 1 to 200; 200 without it.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Option<Limit>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A conversation with its messages.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ThreadAlone {
    #[serde(flatten)]
    thread: ThreadView,
    /// Oldest first.
    messages: Vec<SummaryView>,
    /// What to send as `cursor` for the next messages.
    next_cursor: Option<String>,
    /// Whether there are more messages.
    has_more: bool,
}

/// One thread with its messages, oldest first.
#[utoipa::path(get, path = "/api/threads/{id}", tag = "threads", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path), GetQuery),
    responses((status = 200, body = ThreadAlone), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn get_thread(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(id): PathId<ThreadId>,
    Query(query): Query<GetQuery>,
) -> Result<Json<ThreadAlone>, ApiError> {
    let scope = Scope::new(&state, caller.tenant(), "thread", &[&id.to_string()]);
    let after = scope.open::<(DateTime<Utc>, Uuid)>(query.cursor.as_deref())?.map(|(at, id)| Key { at, id });
    let mut tx = caller.tx(&state).await?;
    let thread = thread::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    let (messages, next) =
        thread::messages(&mut tx, id, after, query.limit.map_or(PAGE, Limit::rows)).await?;
    tx.release();
    let next_cursor = next.map(|k| scope.seal(&(k.at, k.id))).transpose()?;
    Ok(Json(ThreadAlone {
        thread: thread.into(),
        messages: messages.into_iter().map(|m| SummaryView::new(m, None)).collect(),
        has_more: next_cursor.is_some(),
        next_cursor,
    }))
}
