//! A message alone, in JSON; what lists show of one is in [`emailclient_core::view`]. Absent values are `null`, never left out.

use emailclient_core::domain::message::Message;
use emailclient_core::view::message::{AddressView, SummaryView, people};
use mail::mailbox::Role;
use mail::mime::AttachmentMeta;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::etag::ETag;

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
    /// Media type; of a text with its charset, of a calendar with its method.
    pub content_type: String,
    /// Decoded size in bytes.
    pub size_bytes: u64,
    /// Meant to be shown within the text.
    pub inline: bool,
    /// Content-ID without angle brackets.
    pub content_id: Option<String>,
    /// What a calendar is sent for: `REQUEST`, `REPLY`, `CANCEL` and the like.
    pub method: Option<String>,
}

impl From<&AttachmentMeta> for AttachmentView {
    fn from(meta: &AttachmentMeta) -> Self {
        let AttachmentMeta { index, filename, content_type, size_bytes, inline, content_id, method } =
            meta.clone();
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        Self { index, filename, content_type, size_bytes, inline, content_id, method }
    }
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
            method: text("method"),
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
    /// `text` or `html` were cut: to `max_body_bytes`, or the HTML was beyond what can be made safe and its text too long.
    pub truncated: bool,
    /// The source is beyond a limit: what came before it was read.
    pub degraded: bool,
    /// Which limit, in words. `null` without `text`, `html` and `headers`, for which the source is read.
    pub degraded_reason: Option<String>,
    /// Files.
    pub attachments: Vec<AttachmentView>,
    /// Header fields, if `fields` asks for them.
    pub headers: Option<Vec<HeaderView>>,
}

/// Names of the fields that [`MessageView`] has beside those of lists.
pub const ALONE_FIELDS: [&str; 11] = [
    "bcc",
    "reply_to",
    "in_reply_to",
    "references",
    "text",
    "html",
    "truncated",
    "degraded",
    "degraded_reason",
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
            degraded_reason: None,
            headers: None,
        }
    }
}

/// The tag of a message: its bytes never change, so it covers where it is, its flags, its thread, and the rules by which
/// its HTML is made safe.
#[must_use]
pub fn etag(message: &Message) -> ETag {
    let places = message.summary.placements.iter().fold(String::new(), |all, p| {
        let role = p.role.map(Role::as_str).unwrap_or_default();
        let keywords = p.keywords.as_slice().join(" ");
        format!("{all}|{} {} {:?} {role} {} {keywords}", p.id, p.mailbox_id, p.mailbox_name, p.flags.bits())
    });
    let thread = message.summary.thread_id;
    let (policy, parser) = (mail::mime::html::POLICY_VERSION, mail::mime::PARSE_VERSION);
    ETag::content(format!("{} {thread} {policy} {parser}{places}", message.summary.id).as_bytes())
}
