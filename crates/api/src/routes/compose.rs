//! Drafts and sending: `POST, GET /api/compose`, `POST /api/compose/draft`, `GET, PUT, DELETE /api/compose/{id}`, its
//! `attachments`, and `POST /api/compose/{id}/send`.
//!
//! `shape` has what a draft looks like in JSON, both ways; `prepare` turns a request into content, replies and forwards
//! included. What becomes of a sent draft is `routes/submissions.rs`. The next verb: a file here and a line below.

mod attach;
mod create;
mod delete;
mod detach;
mod file;
mod get;
mod list;
mod prepare;
mod replace;
mod save;
mod send;
mod shape;

use axum::Extension;
use emailclient_core::domain::draft::attachment::MAX_ATTACHMENTS_BYTES;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::negotiate::Rules;
use crate::state::AppState;

/// Text and HTML of a draft together with the rest of its JSON, in bytes. Larger contents are files.
const MAX_DRAFT_BYTES: usize = 4 * 1024 * 1024;
/// Around the files of an upload: boundaries and part headers.
const MULTIPART_SLACK_BYTES: usize = 64 * 1024;
/// Largest upload, in bytes.
const MAX_UPLOAD_BYTES: usize = MAX_ATTACHMENTS_BYTES as usize + MULTIPART_SLACK_BYTES;

/// The routes of drafts.
pub fn routes() -> OpenApiRouter<AppState> {
    let contents = OpenApiRouter::new()
        .routes(routes!(create::create_draft, list::list_drafts))
        .routes(routes!(save::save_draft))
        .routes(routes!(get::get_draft, replace::replace_draft, delete::delete_draft))
        .layer(Extension(Rules::JSON.limit(MAX_DRAFT_BYTES)));
    let uploads = OpenApiRouter::new()
        .routes(routes!(attach::attach_file))
        .layer(Extension(Rules::UPLOAD.limit(MAX_UPLOAD_BYTES)));
    let files = OpenApiRouter::new()
        .routes(routes!(file::get_file, detach::detach_file))
        .layer(Extension(Rules::ANY));
    OpenApiRouter::new().merge(contents).merge(uploads).merge(files).routes(routes!(send::send_draft))
}
