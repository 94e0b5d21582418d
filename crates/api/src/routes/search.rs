//! `GET /api/sync/search`: messages of all accounts of the tenant, in the syntax of `mail::query`.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use emailclient_core::domain::mailbox::account_exists;
use emailclient_core::domain::search::{self, Key, Search, snippet};
use emailclient_core::platform::id::AccountId;
use mail::query::{Query as MailQuery, Zone};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::error::{ApiError, FieldError, Problem};
use crate::extract::{self, Query};
use crate::page::{Limit, Scope};
use crate::permission::{MailRead, May, Unaudited};
use crate::state::AppState;
use emailclient_core::view::message::SummaryView;

/// The route of the search.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(search_messages))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct SearchQuery {
    /// What to look for.
    #[param(min_length = 1, max_length = 2000)]
    query: String,
    /// Only in this account.
    #[param(value_type = Option<Uuid>)]
    account_id: Option<AccountId>,
    /// Where days begin and end: an IANA name such as `Europe/Berlin`, or an offset such as `+02:00`; UTC without it.
    tz: Option<String>,
    /// Rows of a page, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Messages that were found, newest first; `snippet` is escaped HTML with the words found in `<mark>`.
#[derive(Debug, Serialize, ToSchema)]
struct Found {
    /// The messages.
    data: Vec<SummaryView>,
    /// The query as it was understood.
    #[schema(value_type = Object)]
    parsed_query: Value,
    /// What to send as `cursor` for the next page.
    next_cursor: Option<String>,
    /// Whether there may be more.
    has_more: bool,
}

/// Parses a query; relative ages count from `now`.
///
/// # Errors
/// 400 `invalid-query` with the column, 400 `invalid-parameter` for a zone that is none.
pub(super) fn parse(text: &str, now: DateTime<Utc>, tz: Option<&str>) -> Result<MailQuery, ApiError> {
    let zone = tz.map_or(Some(Zone::UTC), Zone::parse).ok_or_else(|| {
        let detail = "tz: an IANA name like Europe/Berlin or an offset like +02:00 is expected";
        ApiError::invalid_parameter(detail).with_errors([FieldError::new("/tz", "invalid", detail)])
    })?;
    MailQuery::parse(text, now, zone)
        .map_err(|e| ApiError::invalid_query(e.to_string()).with_column(e.column))
}

/// Searches the messages of the tenant.
#[utoipa::path(get, path = "/api/sync/search", tag = "sync", security(("bearer" = ["mail:read"])), params(SearchQuery),
    responses((status = 200, body = Found), (status = 400, body = Problem, content_type = "application/problem+json"),
              (status = 404, body = Problem, content_type = "application/problem+json")))]
async fn search_messages(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    Query(asked): extract::Query<SearchQuery>,
) -> Result<Json<Found>, ApiError> {
    let query = parse(&asked.query, state.clock.now(), asked.tz.as_deref())?;
    let account = asked.account_id.map(|id| id.to_string()).unwrap_or_default();
    let filter = [asked.query.as_str(), &account, asked.tz.as_deref().unwrap_or_default()];
    let scope = Scope::new(&state, caller.tenant(), "search", &filter);
    let after = scope.open::<(DateTime<Utc>, Uuid)>(asked.cursor.as_deref())?;
    let after = after.map(|(at, id)| Key { at, id: id.into() });
    let mut tx = caller.tx(&state).await?;
    if let Some(account) = asked.account_id
        && !account_exists(&mut tx, account).await?
    {
        return Err(ApiError::not_found());
    }
    let search = Search { query, account: asked.account_id };
    let mut page = search::page(&mut tx, &search, after, asked.limit.rows()).await?;
    tx.release();
    let snippets = snippet::of_page(&mut page, &search.query).await;
    let next_cursor = page.next.map(|k| scope.seal(&(k.at, k.id.0))).transpose()?;
    let with_snippet = |(message, snippet)| SummaryView { snippet, ..SummaryView::new(message, None) };
    Ok(Json(Found {
        data: page.messages.into_iter().zip(snippets).map(with_snippet).collect(),
        parsed_query: search.query.to_value(),
        has_more: next_cursor.is_some(),
        next_cursor,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_in_the_query_names_its_column() {
        let now = DateTime::UNIX_EPOCH;
        let error = parse("a (b", now, None).unwrap_err();
        assert_eq!((error.code(), error.problem().column), ("invalid-query", Some(3)));
        assert_eq!(parse("", now, None).unwrap_err().code(), "invalid-query");
        assert_eq!(parse("a", now, Some("x")).unwrap_err().code(), "invalid-parameter");
    }
}
