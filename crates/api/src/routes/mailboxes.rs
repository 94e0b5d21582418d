//! Mailboxes: `GET, POST /api/accounts/{id}/mailboxes`, `PATCH, DELETE /api/mailboxes/{id}`, `POST …/{id}/resync`.
//!
//! A change is visible at once and brought to the mail server by a job. The next verb: a file here and a line below.

mod create;
mod delete;
mod list;
mod resync;
mod update;

use emailclient_core::domain::mailbox::MailboxError;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::ApiError;
use crate::state::AppState;

/// The routes of mailboxes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list::list_mailboxes, create::create_mailbox))
        .routes(routes!(update::update_mailbox, delete::delete_mailbox))
        .routes(routes!(resync::resync_mailbox))
}

/// What a refusal of the core means to a client.
fn refusal(error: MailboxError) -> ApiError {
    let text = error.to_string();
    match error {
        MailboxError::Name(_) => ApiError::invalid_field("/name", "invalid", &text),
        MailboxError::Exists => ApiError::invalid_field("/name", "exists", &text),
        MailboxError::NoSuchParent => ApiError::unknown_reference("/parent_id"),
        MailboxError::BelowItself => ApiError::invalid_field("/parent_id", "below-itself", &text),
        // No field is at fault: the pointer is that of the whole.
        MailboxError::Inbox => ApiError::invalid_field("", "inbox", &text),
        MailboxError::HasChildren => ApiError::invalid_field("", "has-children", &text),
        MailboxError::NotEmpty => ApiError::mailbox_not_empty(text),
        MailboxError::MovesWait => ApiError::invalid_field("", "moves-wait", &text),
        MailboxError::Db(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_no_field_is_to_blame_for_points_at_the_whole() {
        for (error, code) in [(MailboxError::Inbox, "inbox"), (MailboxError::HasChildren, "has-children")] {
            let refused = refusal(error);
            let fault = &refused.problem().errors[0];
            assert_eq!(
                (refused.code(), fault.pointer.as_str(), fault.code.as_str()),
                ("validation-error", "", code)
            );
        }
    }
}
