//! A draft in JSON, as it comes and as it goes.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use emailclient_core::domain::draft::{Attachment, Draft, Header};
use emailclient_core::platform::id::{AccountId, AttachmentId, DraftId, MessageId, SubmissionId};
use mail::address::Address;
use mail::compose::ComposeError;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::error::{ApiError, FieldError};
use crate::etag::ETag;
use crate::extract::escape;
use crate::limits::{self, Limits};

/// An address as a client gives it: `Name <a@b>` or its parts. Judged later, so that the fault has a code of its own.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub enum AddressInput {
    /// As one text.
    Text(String),
    /// In parts.
    Parts(AddressParts),
}

/// An address in its parts.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressParts {
    /// Display name.
    pub name: Option<String>,
    /// `local@domain`.
    pub address: String,
}

impl<'de> Deserialize<'de> for AddressInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = AddressInput;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address as a string or as {name, address}")
            }
            fn visit_str<E>(self, text: &str) -> Result<AddressInput, E> {
                Ok(AddressInput::Text(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AddressInput, A::Error> {
                AddressParts::deserialize(MapAccessDeserializer::new(map)).map(AddressInput::Parts)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl AddressInput {
    /// The address, if it is one.
    pub fn read(&self, pointer: &str, faults: &mut Vec<FieldError>) -> Option<Address> {
        let read = match self {
            Self::Text(text) => Address::parse(text),
            Self::Parts(parts) => Address::new(parts.name.as_deref(), &parts.address),
        };
        read.map_err(|e| faults.push(FieldError::new(pointer, "invalid-address", e.to_string()))).ok()
    }
}

/// Headers as a list of `{name, value}` or as an object.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Headers {
    /// As a list, which may repeat a name.
    List(Vec<HeaderField>),
    /// As an object.
    Object(BTreeMap<String, String>),
}

/// One header field.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderField {
    /// Name: `X-*` or one of the few others that are allowed.
    pub name: String,
    /// Value.
    pub value: String,
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Headers;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of {name, value} or an object of strings")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Headers, A::Error> {
                let mut list = Vec::new();
                while let Some(field) = seq.next_element()? {
                    list.push(field);
                }
                Ok(Headers::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Headers, A::Error> {
                BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(Headers::Object)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Headers {
    /// The fields, and whether they came as an object.
    pub fn into_fields(self) -> (Vec<Header>, bool) {
        match self {
            Self::List(list) => {
                (list.into_iter().map(|h| Header { name: h.name, value: h.value }).collect(), false)
            }
            Self::Object(map) => {
                (map.into_iter().map(|(name, value)| Header { name, value }).collect(), true)
            }
        }
    }

    /// Judges number and lengths.
    pub fn check_limits(&self, limits: &mut Limits) {
        let mut one = |name_at: String, value_at: String, name: &str, value: &str| {
            limits.text(name_at, name, limits::HEADER_NAME_BYTES);
            limits.text(value_at, value, limits::HEADER_VALUE_BYTES);
        };
        let count = match self {
            Self::List(list) => {
                for (n, field) in list.iter().take(limits::HEADERS).enumerate() {
                    let at = format!("/headers/{n}");
                    one(format!("{at}/name"), format!("{at}/value"), &field.name, &field.value);
                }
                list.len()
            }
            Self::Object(map) => {
                for (name, value) in map.iter().take(limits::HEADERS) {
                    let at = format!("/headers/{}", escape(name));
                    one(at.clone(), at, name, value);
                }
                map.len()
            }
        };
        limits.count("/headers", count, limits::HEADERS);
    }

    fn of(fields: &[Header], as_object: bool) -> Self {
        if as_object {
            Self::Object(fields.iter().map(|h| (h.name.clone(), h.value.clone())).collect())
        } else {
            let field = |h: &Header| HeaderField { name: h.name.clone(), value: h.value.clone() };
            Self::List(fields.iter().map(field).collect())
        }
    }
}

/// Everything of a draft that a client writes; absent and `null` are the same.
#[derive(Debug, Default)]
pub struct Given {
    pub account_id: Option<AccountId>,
    pub from: Option<AddressInput>,
    pub to: Option<Vec<AddressInput>>,
    pub cc: Option<Vec<AddressInput>>,
    pub bcc: Option<Vec<AddressInput>>,
    pub reply_to: Option<Vec<AddressInput>>,
    pub subject: Option<String>,
    pub text: Option<String>,
    pub html: Option<String>,
    pub reply_to_message_id: Option<MessageId>,
    pub reply_all_to_message_id: Option<MessageId>,
    pub forward_message_id: Option<MessageId>,
    pub headers: Option<Headers>,
}

macro_rules! draft_body {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $extra:ident: $kind:ty,)* } => $account:expr) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize, ToSchema)]
        pub struct $name {
            $($(#[$attribute])* pub $extra: $kind,)*
            /// From; an identity of the account, its own address where absent.
            pub from: Option<AddressInput>,
            /// To. Given with a reply, it stands instead of the reply's.
            pub to: Option<Vec<AddressInput>>,
            /// Cc.
            pub cc: Option<Vec<AddressInput>>,
            /// Bcc.
            pub bcc: Option<Vec<AddressInput>>,
            /// Reply-To.
            pub reply_to: Option<Vec<AddressInput>>,
            /// Subject.
            pub subject: Option<String>,
            /// Plain text. A reply's or forward's quote is put below it.
            pub text: Option<String>,
            /// HTML. A reply's or forward's quote is put below it.
            pub html: Option<String>,
            /// Answers this message.
            #[schema(value_type = Option<Uuid>)]
            pub reply_to_message_id: Option<MessageId>,
            /// Answers this message to all.
            #[schema(value_type = Option<Uuid>)]
            pub reply_all_to_message_id: Option<MessageId>,
            /// Passes this message on.
            #[schema(value_type = Option<Uuid>)]
            pub forward_message_id: Option<MessageId>,
            /// Further headers.
            pub headers: Option<Headers>,
        }
        impl $name {
            /// What was given.
            pub fn into_given(self) -> Given {
                let account: fn(&Self) -> Option<AccountId> = $account;
                Given {
                    account_id: account(&self),
                    from: self.from,
                    to: self.to,
                    cc: self.cc,
                    bcc: self.bcc,
                    reply_to: self.reply_to,
                    subject: self.subject,
                    text: self.text,
                    html: self.html,
                    reply_to_message_id: self.reply_to_message_id,
                    reply_all_to_message_id: self.reply_all_to_message_id,
                    forward_message_id: self.forward_message_id,
                    headers: self.headers,
                }
            }
        }
    };
}

draft_body! {
    /// A draft to be made.
    NewDraft {
        /// The account it is to leave through.
        #[schema(value_type = Uuid)]
        account_id: AccountId,
    } => |body| Some(body.account_id)
}

draft_body! {
    /// A draft to be saved: made without `id`, changed in the fields given with it.
    SavedDraft {
        /// The draft to change.
        #[schema(value_type = Option<Uuid>)]
        id: Option<DraftId>,
        /// The account it is to leave through; needed without `id`.
        #[schema(value_type = Option<Uuid>)]
        account_id: Option<AccountId>,
    } => |body| body.account_id
}

draft_body! {
    /// A draft that replaces another.
    ReplacedDraft {
        /// The account it is to leave through; the same as before where absent.
        #[schema(value_type = Option<Uuid>)]
        account_id: Option<AccountId>,
    } => |body| body.account_id
}

/// A file of a draft.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DraftAttachment)]
pub struct AttachmentView {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub id: AttachmentId,
    /// Name.
    pub filename: String,
    /// Media type.
    pub content_type: String,
    /// Size.
    pub size_bytes: i64,
    /// Shown inside the HTML.
    pub inline: bool,
    /// Content-ID without angle brackets.
    pub content_id: Option<String>,
    /// Upload.
    pub created_at: DateTime<Utc>,
}

impl From<Attachment> for AttachmentView {
    fn from(a: Attachment) -> Self {
        Self {
            id: a.id,
            filename: a.filename,
            content_type: a.content_type,
            size_bytes: a.size_bytes,
            inline: a.inline,
            content_id: a.content_id,
            created_at: a.created_at,
        }
    }
}

/// A draft.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Draft)]
pub struct DraftView {
    /// Its id.
    #[schema(value_type = Uuid)]
    pub id: DraftId,
    /// The account it is to leave through.
    #[schema(value_type = Uuid)]
    pub account_id: AccountId,
    /// From.
    #[schema(value_type = Option<AddressParts>)]
    pub from: Option<Address>,
    /// To.
    #[schema(value_type = Vec<AddressParts>)]
    pub to: Vec<Address>,
    /// Cc.
    #[schema(value_type = Vec<AddressParts>)]
    pub cc: Vec<Address>,
    /// Bcc.
    #[schema(value_type = Vec<AddressParts>)]
    pub bcc: Vec<Address>,
    /// Reply-To.
    #[schema(value_type = Vec<AddressParts>)]
    pub reply_to: Vec<Address>,
    /// Subject.
    pub subject: String,
    /// Plain text.
    pub text: Option<String>,
    /// HTML.
    pub html: Option<String>,
    /// The message it answers.
    #[schema(value_type = Option<Uuid>)]
    pub reply_to_message_id: Option<MessageId>,
    /// The message it answers to all.
    #[schema(value_type = Option<Uuid>)]
    pub reply_all_to_message_id: Option<MessageId>,
    /// The message it passes on.
    #[schema(value_type = Option<Uuid>)]
    pub forward_message_id: Option<MessageId>,
    /// In-Reply-To as it will be sent, without angle brackets.
    pub in_reply_to: Vec<String>,
    /// References as they will be sent, without angle brackets.
    pub references: Vec<String>,
    /// Further headers.
    pub headers: Headers,
    /// Files.
    pub attachments: Vec<AttachmentView>,
    /// The last submission made of it.
    #[schema(value_type = Option<Uuid>)]
    pub submission_id: Option<SubmissionId>,
    /// Creation.
    pub created_at: DateTime<Utc>,
    /// Last change.
    pub updated_at: DateTime<Utc>,
}

impl From<Draft> for DraftView {
    fn from(draft: Draft) -> Self {
        let c = draft.content;
        Self {
            id: draft.id,
            account_id: draft.account_id,
            from: c.from,
            to: c.to,
            cc: c.cc,
            bcc: c.bcc,
            reply_to: c.reply_to,
            subject: c.subject,
            text: c.text,
            html: c.html,
            reply_to_message_id: c.reply_to_message_id,
            reply_all_to_message_id: c.reply_all_to_message_id,
            forward_message_id: c.forward_message_id,
            in_reply_to: c.in_reply_to,
            references: c.references,
            headers: Headers::of(&c.headers, c.headers_as_object),
            attachments: draft.attachments.into_iter().map(AttachmentView::from).collect(),
            submission_id: draft.submission_id,
            created_at: draft.created_at,
            updated_at: draft.updated_at,
        }
    }
}

/// The draft's entity tag.
pub fn tag(draft: &Draft) -> ETag {
    ETag::version(draft.id, draft.version)
}

/// What a fault of the content means to a client. `headers` tells where a header stands.
pub fn refusal(error: &ComposeError, headers: &[Header], as_object: bool) -> ApiError {
    let text = error.to_string();
    // The error names a header without its control characters.
    let named =
        |h: &Header, name: &str| h.name.chars().filter(|c| !c.is_control()).take(100).eq(name.chars());
    let header_pointer = |name: &str| match name {
        "subject" | "filename" | "content_id" => format!("/{name}"),
        _ => match headers.iter().enumerate().find(|(_, h)| h.name == name || named(h, name)) {
            Some((_, header)) if as_object => format!("/headers/{}", escape(&header.name)),
            Some((index, _)) => format!("/headers/{index}"),
            None => "/headers".to_owned(),
        },
    };
    match error {
        ComposeError::InvalidAddress { field: "from", .. } => ApiError::invalid_address(text.clone())
            .with_errors([FieldError::new("/from", "invalid-address", text)]),
        ComposeError::InvalidAddress { field, index, .. } => ApiError::invalid_address(text.clone())
            .with_errors([FieldError::new(format!("/{field}/{index}"), "invalid-address", text)]),
        ComposeError::InvalidHeader { name } => ApiError::invalid_header(text.clone())
            .with_errors([FieldError::new(header_pointer(name), "invalid-header", text)]),
        ComposeError::HeaderNotAllowed { name } => ApiError::header_not_allowed(text.clone())
            .with_errors([FieldError::new(header_pointer(name), "header-not-allowed", text)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::from_json;

    #[test]
    fn addresses_come_as_text_or_in_parts_and_nothing_else() {
        let body = br#"{"account_id":"00000000-0000-0000-0000-000000000001","to":["A <a@x.example>",{"name":"B","address":"b@x.example"}],"headers":{"X-A":"1"}}"#;
        let draft: NewDraft = from_json(body, true).unwrap();
        let mut faults = Vec::new();
        let to: Vec<_> = draft.to.unwrap().iter().filter_map(|a| a.read("/to/0", &mut faults)).collect();
        assert_eq!(to.iter().map(|a| a.address.as_str()).collect::<Vec<_>>(), ["a@x.example", "b@x.example"]);
        assert!(faults.is_empty());
        for bad in [
            r#""to":[7]"#,
            r#""to":"a@x.example""#,
            r#""to":[{"mail":"a@x.example"}]"#,
            r#""state":"sent""#,
            r#""headers":7"#,
        ] {
            let body = format!(r#"{{"account_id":"00000000-0000-0000-0000-000000000001",{bad}}}"#);
            let error = from_json::<NewDraft>(body.as_bytes(), true).unwrap_err();
            assert_eq!(error.code(), "validation-error", "{bad}");
        }
    }

    #[test]
    fn an_address_with_a_line_break_or_nul_is_no_address() {
        for bad in ["a@x.example\r\nBcc: b@x", "a\0@x.example", "no address"] {
            let mut faults = Vec::new();
            assert!(AddressInput::Text(bad.to_owned()).read("/to/0", &mut faults).is_none());
            assert_eq!(faults[0].pointer, "/to/0");
        }
    }

    #[test]
    fn a_refused_header_is_pointed_at() {
        let headers = [
            Header { name: "X-A".into(), value: "1".into() },
            Header { name: "Bcc".into(), value: "x".into() },
        ];
        let error = ComposeError::HeaderNotAllowed { name: "Bcc".to_owned() };
        let problem = refusal(&error, &headers, false);
        assert_eq!(
            (problem.code(), problem.problem().errors[0].pointer.as_str()),
            ("header-not-allowed", "/headers/1")
        );
        assert_eq!(refusal(&error, &headers, true).problem().errors[0].pointer, "/headers/Bcc");
    }

    #[test]
    fn a_header_name_with_a_line_break_is_pointed_at() {
        let name = "X-A\r\nBcc";
        let headers = [("X-B", "1"), (name, "2")].map(|(n, v)| Header { name: n.into(), value: v.into() });
        let error = mail::compose::check_header(name, "2").unwrap_err();
        let problem = refusal(&error, &headers, false);
        assert_eq!(
            (problem.code(), problem.problem().errors[0].pointer.as_str()),
            ("invalid-header", "/headers/1")
        );
    }
}
