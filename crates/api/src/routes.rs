//! All routes, one module a domain. The next domain: a module with a `routes()`, and a line in [`all`].

mod accounts;
mod audit;
mod auth;
mod changes;
mod compose;
mod connect;
mod events;
mod health;
mod jobs;
mod mailboxes;
pub(crate) mod messages;
mod oauth;
mod search;
mod submissions;
mod sync;
mod tenant;
mod threads;
mod webhooks;

use utoipa_axum::router::OpenApiRouter;

use crate::state::AppState;

/// The routes of all domains.
pub fn all() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .merge(health::routes())
        .merge(auth::routes())
        .merge(accounts::routes())
        .merge(sync::routes())
        .merge(mailboxes::routes())
        .merge(messages::routes())
        .merge(threads::routes())
        .merge(search::routes())
        .merge(compose::routes())
        .merge(submissions::routes())
        .merge(jobs::routes())
        .merge(changes::routes())
        .merge(events::routes())
        .merge(audit::routes())
        .merge(webhooks::routes())
        .merge(oauth::routes())
        .merge(connect::routes())
        .merge(tenant::routes())
}
