//! One round.

use axum::extract::State;
use emailclient_core::platform::id::RunId;
use emailclient_core::sync::run;

use super::RunView;
use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::permission::{MailRead, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// How a round stands; readable for a day after its end.
#[utoipa::path(get, path = "/api/sync/runs/{id}", tag = "sync", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = RunView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn run(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(id): PathId<RunId>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Reply, ApiError> {
    let mut tx = caller.tx(&state).await?;
    let run = run::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    tx.release();
    Reply::ok(&RunView::from(run))
}
