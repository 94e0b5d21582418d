//! Messages: `GET /api/accounts/{id}/messages`, `GET, PATCH, DELETE /api/messages/{id}`, its `raw`, `html`, `text` and
//! `attachments/{n}`, and `POST /api/messages/actions`.
//!
//! `shape` has what a message looks like in JSON, `content` how bytes are handed out. The next verb: a file here and a
//! line below.

mod actions;
mod attachment;
pub(super) mod content;
mod delete;
mod embed;
mod fields;
mod get;
mod html;
mod list;
mod raw;
pub mod shape;
pub(crate) mod source;
mod text;
mod update;

use axum::Extension;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::negotiate::Rules;
use crate::state::AppState;

/// The routes of messages.
pub fn routes() -> OpenApiRouter<AppState> {
    let contents = OpenApiRouter::new()
        .routes(routes!(raw::get_message_raw))
        .routes(routes!(html::get_message_html))
        .routes(routes!(text::get_message_text))
        .routes(routes!(attachment::get_attachment))
        .layer(Extension(Rules::ANY));
    OpenApiRouter::new()
        .routes(routes!(list::list_messages))
        .routes(routes!(get::get_message, update::update_message, delete::delete_message))
        .routes(routes!(actions::act_on_messages))
        .merge(contents)
}
