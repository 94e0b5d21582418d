//! Webhooks: `GET, POST /api/webhooks`, `GET, PATCH, DELETE /api/webhooks/{id}`, and under it `test`, `enable`, `secret/rotate`,
//! `replay`, `deliveries` and their `retry`.
//!
//! Events are sent by the worker; `test` alone is sent from here. The next verb: a file here and a line below.

mod change;
mod create;
mod deliveries;
mod input;
mod list;
mod replay;
mod secret;
mod test;
mod view;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;

/// The routes of webhooks.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list::list_webhooks, create::create_webhook))
        .routes(routes!(list::get_webhook, change::patch_webhook, change::delete_webhook))
        .routes(routes!(change::enable_webhook))
        .routes(routes!(secret::rotate_webhook_secret))
        .routes(routes!(test::test_webhook))
        .routes(routes!(replay::replay_webhook))
        .routes(routes!(deliveries::list_deliveries))
        .routes(routes!(deliveries::retry_delivery))
}
