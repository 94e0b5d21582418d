//! Rounds of synchronisation: asking for one, watching it.

mod run;
mod start;
mod status;

use chrono::{DateTime, Utc};
use emailclient_core::domain::account;
use emailclient_core::platform::db::TenantTx;
use emailclient_core::platform::id::AccountId;
use emailclient_core::sync::run::Run;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::error::ApiError;
use crate::state::AppState;

/// The routes of this domain.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(start::start))
        .routes(routes!(status::status))
        .routes(routes!(run::run))
}

/// Refuses to ask for a round that would not come: of an account that is not there, or paused.
///
/// # Errors
/// 404, 409 `account-paused`.
pub async fn require_active(tx: &mut TenantTx, account: AccountId) -> Result<(), ApiError> {
    match account::paused(tx, account).await? {
        None => Err(ApiError::not_found()),
        Some(true) => Err(ApiError::account_paused("resume it first: POST /api/accounts/{id}/resume")),
        Some(false) => Ok(()),
    }
}

/// One round.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunView {
    /// Its id.
    id: Uuid,
    /// Its account.
    account_id: Uuid,
    /// `queued`, `running`, `done` or `failed`.
    state: &'static str,
    /// When it began.
    started_at: Option<DateTime<Utc>>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
}

impl From<Run> for RunView {
    fn from(run: Run) -> Self {
        Self {
            id: run.id.0,
            account_id: run.account_id.0,
            state: run.state.as_str(),
            started_at: run.started_at,
            finished_at: run.finished_at,
        }
    }
}
