//! `GET /api/accounts/{id}/mailboxes`

use axum::Json;
use axum::extract::State;
use emailclient_core::domain::mailbox::{self, Key};
use emailclient_core::platform::id::AccountId;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::error::{ApiError, Problem};
use crate::extract::{PathId, Query};
use crate::page::{Limit, Page, Scope};
use crate::permission::{MailRead, May, Unaudited};
use crate::state::AppState;
use emailclient_core::view::mailbox::MailboxView;

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

/// The mailboxes of an account, INBOX first, then by path.
#[utoipa::path(get, path = "/api/accounts/{id}/mailboxes", tag = "mailboxes", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path), ListQuery),
    responses((status = 200, body = Page<MailboxView>), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list_mailboxes(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(account): PathId<AccountId>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<MailboxView>>, ApiError> {
    let scope = Scope::new(&state, caller.tenant(), "mailboxes", &[&account.to_string()]);
    let after = scope.open::<(i32, String, Uuid)>(query.cursor.as_deref())?;
    let after = after.map(|(rank, path, id)| Key { rank, path, id: id.into() });
    let mut tx = caller.tx(&state).await?;
    let page = mailbox::list(&mut tx, account, after.as_ref(), query.limit.rows())
        .await?
        .ok_or_else(ApiError::not_found)?;
    tx.release();
    let next_cursor = page.next.as_ref().map(|k| scope.seal(&(k.rank, &k.path, k.id.0))).transpose()?;
    let data = page.mailboxes.into_iter().map(MailboxView::from).collect();
    Ok(Json(Page { data, has_more: next_cursor.is_some(), next_cursor }))
}
