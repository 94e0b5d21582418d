//! Threads: `GET /api/accounts/{id}/threads`, `GET /api/threads/{id}`.
//!
//! The next verb: a file here and a line below.

mod get;
mod list;

use chrono::{DateTime, Utc};
use emailclient_core::domain::thread::Thread;
use emailclient_core::platform::id::{AccountId, ThreadId};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;
use emailclient_core::view::message::{AddressView, people};

/// The routes of threads.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list::list_threads)).routes(routes!(get::get_thread))
}

/// A conversation.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Thread)]
pub struct ThreadView {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub id: ThreadId,
    /// Its account.
    #[schema(value_type = Uuid)]
    pub account_id: AccountId,
    /// Subject of its oldest message.
    pub subject: Option<String>,
    /// Who wrote in it, newest first.
    pub participants: Vec<AddressView>,
    /// Its messages.
    pub message_count: i64,
    /// Those that are unread.
    pub unread_count: i64,
    /// Arrival of the newest.
    pub last_message_at: DateTime<Utc>,
    /// Beginning of the newest's text.
    pub snippet: String,
}

impl From<Thread> for ThreadView {
    fn from(t: Thread) -> Self {
        Self {
            id: t.id,
            account_id: t.account_id,
            subject: t.subject,
            participants: people(t.participants),
            message_count: t.message_count,
            unread_count: t.unread_count,
            last_message_at: t.last_message_at,
            snippet: t.snippet,
        }
    }
}
