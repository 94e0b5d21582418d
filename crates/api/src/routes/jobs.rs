//! Jobs, long work that a client follows: `GET, DELETE /api/jobs/{id}`.
//!
//! They come into being by `POST /api/messages/actions`. In the core a job is an [`Operation`]. The next verb: a file
//! here and a line below.

mod cancel;
mod get;

use chrono::{DateTime, Utc};
use emailclient_core::domain::operation::Operation;
use emailclient_core::platform::id::OperationId;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;

/// The routes of jobs.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(get::get_job, cancel::cancel_job))
}

/// How far a job is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobProgress)]
pub struct ProgressView {
    /// Messages that are behind it.
    pub done: i32,
    /// Messages it began with.
    pub total: i32,
}

/// Long work.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub id: OperationId,
    /// What is done: the name of the action.
    pub kind: String,
    /// `queued`, `running`, `done`, `failed` or `cancelled`.
    pub state: &'static str,
    /// How far it is.
    pub progress: ProgressView,
    /// Messages that were changed so far: those of `progress.done` that still existed.
    pub updated: i32,
    /// Why it failed. What was done before that stays.
    pub error: Option<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended, however it ended. A week later it is forgotten.
    pub finished_at: Option<DateTime<Utc>>,
}

impl From<Operation> for JobView {
    fn from(o: Operation) -> Self {
        Self {
            id: o.id,
            kind: o.kind,
            state: o.state.as_str(),
            progress: ProgressView { done: o.done, total: o.total },
            updated: o.updated,
            error: o.error,
            created_at: o.created_at,
            started_at: o.started_at,
            finished_at: o.finished_at,
        }
    }
}
