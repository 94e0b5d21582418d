//! A message in JSON: in lists and alone. Absent values are `null`, never left out.

use chrono::{DateTime, Utc};
use emailclient_core::domain::message::{Message, Placement, Summary};
use emailclient_core::platform::id::{AccountId, MailboxId, MessageId, ThreadId};
use mail::address::Address;
use mail::flags::Flags;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::etag::ETag;

/// A person: an address with an optional name.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Address)]
pub struct AddressView {
    /// Display name.
    pub name: Option<String>,
    /// `local@domain`.
    pub address: String,
}

impl From<Address> for AddressView {
    fn from(a: Address) -> Self {
        Self { name: a.name, address: a.address }
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
    pub role: Option<String>,
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
            role: p.role,
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
pub const SUMMARY_FIELDS: [&str; 20] = [
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

/// A header field as it came, unfolded and decoded.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = HeaderField)]
pub struct HeaderView {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// An attachment in a message.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = MessageAttachment)]
pub struct AttachmentView {
    /// From 0; the last part of its address.
    pub index: u64,
    /// A file name that is safe to save under.
    pub filename: Option<String>,
    /// Media type.
    pub content_type: String,
    /// Decoded size in bytes.
    pub size_bytes: u64,
    /// Meant to be shown within the text.
    pub inline: bool,
    /// Content-ID without angle brackets.
    pub content_id: Option<String>,
}

impl AttachmentView {
    /// From what was stored with the message.
    fn stored(value: &Value) -> Self {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| value.get(name).and_then(Value::as_u64).unwrap_or_default();
        Self {
            index: number("index"),
            filename: text("filename"),
            content_type: text("content_type").unwrap_or_else(|| "application/octet-stream".to_owned()),
            size_bytes: number("size_bytes"),
            inline: value.get("inline").and_then(Value::as_bool).unwrap_or_default(),
            content_id: text("content_id"),
        }
    }
}

/// A message alone.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Message)]
pub struct MessageView {
    /// What lists show.
    #[serde(flatten)]
    pub summary: SummaryView,
    /// `Bcc`.
    pub bcc: Vec<AddressView>,
    /// `Reply-To`.
    pub reply_to: Vec<AddressView>,
    /// `In-Reply-To` without angle brackets.
    pub in_reply_to: Vec<String>,
    /// `References` without angle brackets.
    pub references: Vec<String>,
    /// The text part, if the message has one and `body` asks for it.
    pub text: Option<String>,
    /// The HTML part made safe, if the message has one and `body` asks for it.
    pub html: Option<String>,
    /// `text` or `html` were cut to `max_body_bytes`.
    pub truncated: bool,
    /// The source is beyond the limits; only its headers were read.
    pub degraded: bool,
    /// Files.
    pub attachments: Vec<AttachmentView>,
    /// Header fields, if `fields` asks for them.
    pub headers: Option<Vec<HeaderView>>,
}

/// Names of the fields that [`MessageView`] has beside those of lists.
pub const ALONE_FIELDS: [&str; 10] = [
    "bcc",
    "reply_to",
    "in_reply_to",
    "references",
    "text",
    "html",
    "truncated",
    "degraded",
    "attachments",
    "headers",
];

impl MessageView {
    /// A message without its bodies and headers.
    #[must_use]
    pub fn new(message: Message) -> Self {
        Self {
            attachments: message.attachments.iter().map(AttachmentView::stored).collect(),
            summary: SummaryView::new(message.summary, None),
            bcc: people(message.bcc),
            reply_to: people(message.reply_to),
            in_reply_to: message.in_reply_to,
            references: message.references,
            text: None,
            html: None,
            truncated: false,
            degraded: message.degraded,
            headers: None,
        }
    }
}

/// The tag of a message: its bytes never change, so it covers where it is, its flags, its thread, and the rules by which
/// its HTML is made safe.
#[must_use]
pub fn etag(message: &Message) -> ETag {
    let places = message.summary.placements.iter().fold(String::new(), |all, p| {
        let role = p.role.as_deref().unwrap_or_default();
        let keywords = p.keywords.as_slice().join(" ");
        format!("{all}|{} {} {:?} {role} {} {keywords}", p.id, p.mailbox_id, p.mailbox_name, p.flags.bits())
    });
    let thread = message.summary.thread_id;
    let policy = mail::mime::html::POLICY_VERSION;
    ETag::content(format!("{} {thread} {policy}{places}", message.summary.id).as_bytes())
}
