//! All accounts.

use axum::extract::State;
use emailclient_core::domain::account;
use emailclient_core::platform::id::AccountId;
use serde::Deserialize;
use utoipa::IntoParams;

use super::view::AccountView;
use crate::error::{ApiError, Problem};
use crate::extract::Query;
use crate::page::{Limit, Page, Scope};
use crate::permission::{MailRead, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Option<Limit>,
    cursor: Option<String>,
}

/// The accounts of the tenant, in the order they were connected.
#[utoipa::path(get, path = "/api/accounts", tag = "accounts", security(("bearer" = ["mail:read"])), params(ListQuery),
    responses((status = 200, body = Page<AccountView>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn list(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    Query(query): Query<ListQuery>,
) -> Result<Reply, ApiError> {
    let limit = query.limit.unwrap_or_default();
    let scope = Scope::new(&state, caller.tenant(), "accounts", &[]);
    let after: Option<AccountId> = scope.open(query.cursor.as_deref())?;
    let mut tx = caller.tx(&state).await?;
    let rows = account::list(&mut tx, after, limit.get() + 1).await?;
    tx.release();
    Reply::ok(&Page::cut(rows, limit, |last| scope.seal(&last.id))?.map(AccountView::from))
}
