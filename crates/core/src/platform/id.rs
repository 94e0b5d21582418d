//! Identifiers: newtypes over UUIDv7, so that one kind cannot be passed for another and new rows land together in an index.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A new time-ordered UUID (RFC 9562 §5.7); the one place that makes them.
#[expect(clippy::disallowed_methods, reason = "this is the one home of new ids")]
#[must_use]
pub fn new_uuid() -> Uuid {
    Uuid::now_v7()
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub Uuid);
        impl $name {
            /// A new id, later than all made before on this machine.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "a default that differs each time would surprise")]
            pub fn new() -> Self {
                Self(new_uuid())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(s).map(Self)
            }
        }
        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    )*};
}

ids! {
    /// The customer: owns users, accounts and everything below them.
    TenantId,
    /// A person who logs in.
    UserId,
    /// A login session; its refresh tokens form one family.
    SessionId,
    /// A connected mail account.
    AccountId,
    /// One mailbox of an account.
    MailboxId,
    /// One message of an account (our row; the header is `message_id_header`).
    MessageId,
    /// One message in one mailbox under one UID.
    PlacementId,
    /// A conversation.
    ThreadId,
    /// A message being written.
    DraftId,
    /// A file attached to a draft.
    AttachmentId,
    /// One attempt to send, with a life of its own (RFC 8621 §7).
    SubmissionId,
    /// An address that events are sent to.
    WebhookId,
    /// An app that is registered at an OAuth2 provider.
    AppId,
    /// What was granted to an app.
    GrantId,
    /// A person on the page on which mailboxes are connected.
    ConnectId,
    /// A device whose person decides elsewhere.
    DeviceId,
    /// One round of synchronisation.
    RunId,
    /// A row of the job table.
    JobId,
    /// Long work that a client follows (a job, as the API calls it).
    OperationId,
    /// A change of ours that a mail server has not confirmed.
    ChangeId,
}
