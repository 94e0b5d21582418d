//! All routes, one module a domain. The next domain: a module with a `routes()`, and a line in [`all`].

mod health;

use utoipa_axum::router::OpenApiRouter;

use crate::state::AppState;

/// The routes of all domains.
pub fn all() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(health::routes())
}
