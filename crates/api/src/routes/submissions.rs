//! Submissions: `GET /api/submissions`, `GET /api/submissions/{id}`, its `cancel` and `resend`.
//!
//! They come into being by `POST /api/compose/{id}/send`. The next verb: a file here and a line below.

mod cancel;
mod get;
mod list;
mod resend;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;

/// The routes of submissions.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list::list_submissions))
        .routes(routes!(get::get_submission))
        .routes(routes!(cancel::cancel_submission))
        .routes(routes!(resend::resend_submission))
}
