//! The page on which a person connects a mailbox: `POST /api/connect/sessions` sends one there, `GET, POST /connect/{token}` is the
//! page, `GET /connect/{token}/consent/{app_id}` the way from it to a provider, `GET /connect/logo/{key}` the tenant's logo.
//!
//! It works without scripts: each step is a form, what was found out is kept in the session (`core::domain::connect`), and no address
//! and no password ever stands in a URL. A refused step is the answer to its form, with what went wrong at its head; one that was done
//! is a redirect, so that a page that is loaded again shows where the person is.
//!
//! `person` lets one in, `show` chooses the step, `act` does what a form asks for, `store` saves the account, `look` is how it all
//! looks, `words` what it says. The next step: a template, its struct in `look`, its arm in `show` and in `act`.

mod act;
mod begin;
mod colour;
mod consent;
mod form;
mod known;
mod logo;
mod look;
mod page;
mod person;
mod refused;
mod show;
mod store;
mod words;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;

pub use self::colour::Colour;
pub use self::logo::fetch as fetch_logo;
pub use self::person::page_url;

/// The routes of this domain.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(begin::begin))
        .routes(routes!(page::get_page, page::post_page))
        .routes(routes!(consent::consent))
        .routes(routes!(logo::logo))
}
