//! Events as they happen: `GET /api/events`, a stream of server-sent events, and `POST /api/events/ticket` for browsers.

mod stream;
mod ticket;

use axum::Extension;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::negotiate::Rules;
use crate::state::AppState;

/// The routes of events.
pub fn routes() -> OpenApiRouter<AppState> {
    let stream = OpenApiRouter::new().routes(routes!(stream::follow_events)).layer(Extension(Rules::ANY));
    OpenApiRouter::new().routes(routes!(ticket::issue_ticket)).merge(stream)
}
