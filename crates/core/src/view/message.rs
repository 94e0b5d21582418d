//! A message as lists show it.

use chrono::{DateTime, Utc};
use mail::address::Address;
use mail::flags::Flags;
use mail::mailbox::Role;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::message::{Placement, Summary};
use crate::platform::id::{AccountId, MailboxId, MessageId, ThreadId};

/// A person: an address with an optional name.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Address)]
pub struct AddressView {
    /// Display name.
    pub name: Option<String>,
    /// `local@domain`; `null` where a sender gave only a name (`root`, `MAILER-DAEMON`).
    pub address: Option<String>,
}

impl From<Address> for AddressView {
    fn from(a: Address) -> Self {
        Self { address: a.has_address().then_some(a.address), name: a.name }
    }
}

/// Addresses as clients see them.
#[must_use]
pub fn people(list: Vec<Address>) -> Vec<AddressView> {
    list.into_iter().map(AddressView::from).collect()
}

/// A mailbox that a message is in, with its flags there.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = MessageMailbox)]
pub struct PlacementView {
    /// The mailbox.
    #[schema(value_type = Uuid)]
    pub id: MailboxId,
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Option<&'static str>,
    /// System flags there.
    #[schema(value_type = Vec<String>)]
    pub flags: Vec<&'static str>,
    /// Keywords there.
    pub keywords: Vec<String>,
    /// INTERNALDATE there.
    pub received_at: DateTime<Utc>,
}

impl From<Placement> for PlacementView {
    fn from(p: Placement) -> Self {
        Self {
            id: p.mailbox_id,
            name: p.mailbox_name,
            role: p.role.map(Role::as_str),
            flags: p.flags.names(),
            keywords: p.keywords.into(),
            received_at: p.received_at,
        }
    }
}

/// A message in a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = MessageSummary)]
pub struct SummaryView {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub id: MessageId,
    /// Its account.
    #[schema(value_type = Uuid)]
    pub account_id: AccountId,
    /// Its conversation.
    #[schema(value_type = Uuid)]
    pub thread_id: ThreadId,
    /// Where it is.
    pub mailboxes: Vec<PlacementView>,
    /// `Message-ID` without angle brackets.
    pub message_id_header: Option<String>,
    /// Decoded subject.
    pub subject: Option<String>,
    /// `From`.
    pub from: Vec<AddressView>,
    /// `To`.
    pub to: Vec<AddressView>,
    /// `Cc`.
    pub cc: Vec<AddressView>,
    /// `Date`.
    pub date: Option<DateTime<Utc>>,
    /// `date` is the sender's clock taken as UTC, because no zone was given or none that is known.
    pub date_zone_unknown: bool,
    /// INTERNALDATE in the listed mailbox, else the earliest.
    pub received_at: DateTime<Utc>,
    /// Size of the source in bytes.
    pub size_bytes: i64,
    /// System flags: of the listed mailbox, else of any.
    #[schema(value_type = Vec<String>)]
    pub flags: Vec<&'static str>,
    /// Keywords, likewise.
    pub keywords: Vec<String>,
    /// Without `\Seen`.
    pub unread: bool,
    /// With `\Flagged`.
    pub starred: bool,
    /// With `\Answered`.
    pub answered: bool,
    /// With `\Draft`.
    pub draft: bool,
    /// Has a file beside what its HTML shows.
    pub has_attachments: bool,
    /// Beginning of the text; in search results escaped HTML with `<mark>`.
    pub snippet: String,
}

/// Names of the fields of [`SummaryView`], for `fields=`.
pub const SUMMARY_FIELDS: [&str; 21] = [
    "id",
    "account_id",
    "thread_id",
    "mailboxes",
    "message_id_header",
    "subject",
    "from",
    "to",
    "cc",
    "date",
    "date_zone_unknown",
    "received_at",
    "size_bytes",
    "flags",
    "keywords",
    "unread",
    "starred",
    "answered",
    "draft",
    "has_attachments",
    "snippet",
];

impl SummaryView {
    /// A message as the list of `mailbox` shows it, or of no mailbox in particular.
    #[must_use]
    pub fn new(message: Summary, mailbox: Option<MailboxId>) -> Self {
        let status = message.status(mailbox);
        Self {
            id: message.id,
            account_id: message.account_id,
            thread_id: message.thread_id,
            mailboxes: message.placements.into_iter().map(PlacementView::from).collect(),
            message_id_header: message.message_id_header,
            subject: message.subject,
            from: people(message.from),
            to: people(message.to),
            cc: people(message.cc),
            date: message.date,
            date_zone_unknown: message.date_zone_unknown,
            received_at: status.received_at,
            size_bytes: message.size_bytes,
            flags: status.flags.names(),
            keywords: status.keywords.into(),
            unread: !status.flags.contains(Flags::SEEN),
            starred: status.flags.contains(Flags::FLAGGED),
            answered: status.flags.contains(Flags::ANSWERED),
            draft: status.flags.contains(Flags::DRAFT),
            has_attachments: message.has_attachments,
            snippet: message.snippet,
        }
    }
}
