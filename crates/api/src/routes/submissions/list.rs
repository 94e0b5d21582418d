//! `GET /api/submissions`

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use emailclient_core::domain::mailbox::account_exists;
use emailclient_core::domain::submission::{self, Filter, SubmissionState};
use emailclient_core::platform::id::{AccountId, SubmissionId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::{ObjectBuilder, Type};

use crate::error::{ApiError, Problem};
use crate::extract::Query;
use crate::page::{Limit, Page, Scope};
use crate::permission::{MailRead, May, Unaudited};
use crate::state::AppState;
use emailclient_core::view::submission::SubmissionView;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Submissions of this account only.
    #[param(value_type = Option<uuid::Uuid>)]
    account_id: Option<AccountId>,
    /// Submissions in this state only.
    #[param(schema_with = states)]
    state: Option<SubmissionState>,
    /// Rows of a page, 1 to 200.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

fn states() -> utoipa::openapi::schema::Object {
    let words = SubmissionState::ALL.iter().map(|state| state.as_str());
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
}

/// Submissions, newest first.
#[utoipa::path(get, path = "/api/submissions", tag = "submissions", security(("bearer" = ["mail:read"])), params(ListQuery),
    responses((status = 200, body = Page<SubmissionView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_submissions(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<SubmissionView>>, ApiError> {
    let account = query.account_id.map(|a| a.to_string()).unwrap_or_default();
    let scope = Scope::new(
        &state,
        caller.tenant(),
        "submissions",
        &[&account, query.state.map(SubmissionState::as_str).unwrap_or_default()],
    );
    let after: Option<(DateTime<Utc>, SubmissionId)> = scope.open(query.cursor.as_deref())?;
    let mut tx = caller.tx(&state).await?;
    if let Some(account) = query.account_id
        && !account_exists(&mut tx, account).await?
    {
        return Err(ApiError::not_found());
    }
    let filter = Filter { account_id: query.account_id, state: query.state };
    let rows = submission::list(&mut tx, &filter, after, query.limit.get() + 1).await?;
    tx.release();
    let page = Page::cut(rows, query.limit, |last| scope.seal(&(last.created_at, last.id)))?;
    Ok(Json(page.map(SubmissionView::from)))
}
