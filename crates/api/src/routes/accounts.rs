//! Connected mail accounts.
//!
//! `input` is what a client may say and how it is judged, `trial` tries servers over the network (before any
//! transaction), `view` is what comes back.

mod create;
mod delete;
mod diagnose;
pub mod discover;
mod get;
pub mod input;
mod keep;
mod list;
mod patch;
mod pause;
mod replace;
mod resync;
mod tokens;
pub mod trial;
pub mod tries;
mod verify;
mod view;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;

pub use self::view::CauseView;

/// The routes of this domain.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list::list, create::create))
        .routes(routes!(verify::verify))
        .routes(routes!(discover::discover))
        .routes(routes!(diagnose::diagnose))
        .routes(routes!(pause::pause))
        .routes(routes!(pause::resume))
        .routes(routes!(resync::resync_account))
        .routes(routes!(get::get, replace::replace, patch::patch, delete::delete))
}
