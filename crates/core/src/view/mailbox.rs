//! A mailbox.

use mail::mailbox::Role;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::mailbox::Mailbox;
use crate::platform::id::{AccountId, MailboxId};

/// A mailbox of an account.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Mailbox)]
pub struct MailboxView {
    /// Its id; survives a rename.
    #[schema(value_type = Uuid)]
    pub id: MailboxId,
    /// Its account.
    #[schema(value_type = Uuid)]
    pub account_id: AccountId,
    /// Last part of the path.
    pub name: String,
    /// Decoded path.
    pub path: String,
    /// What stands between the parts of the path.
    pub delimiter: Option<String>,
    /// `inbox`, `sent`, `drafts`, `junk`, `trash`, `archive`, `all` or nothing.
    pub role: Option<&'static str>,
    /// Messages in it that are kept here.
    pub total: i32,
    /// Those that are unread.
    pub unread: i32,
    /// Whether it can hold messages.
    pub selectable: bool,
    /// Whether it is subscribed to.
    pub subscribed: bool,
    /// Whether its messages are kept here (`sync` of the account).
    pub synchronised: bool,
}

impl From<Mailbox> for MailboxView {
    fn from(m: Mailbox) -> Self {
        Self {
            id: m.id,
            account_id: m.account_id,
            name: m.name,
            path: m.path,
            delimiter: m.delimiter,
            role: m.role.map(Role::as_str),
            total: m.total,
            unread: m.unread,
            selectable: m.selectable,
            subscribed: m.subscribed,
            synchronised: m.synchronised,
        }
    }
}
