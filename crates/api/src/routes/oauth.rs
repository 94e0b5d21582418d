//! OAuth2: `GET, POST /api/oauth/apps`, `GET, PATCH, DELETE /api/oauth/apps/{id}`, `POST /api/oauth/authorize`,
//! `GET /oauth/callback`, where providers send people back to, and `POST /api/oauth/device`, `GET /api/oauth/device/{id}`.

mod apps;
mod arrival;
mod authorize;
mod callback;
mod device;
mod input;
mod view;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;

pub use self::authorize::send;

/// The routes of this domain.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(apps::list_apps, apps::create_app))
        .routes(routes!(apps::get_app, apps::patch_app, apps::delete_app))
        .routes(routes!(authorize::authorize))
        .routes(routes!(callback::callback))
        .routes(routes!(device::begin_device))
        .routes(routes!(device::get_device))
}
