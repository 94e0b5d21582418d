//! Writing messages: a typed draft in, the exact bytes out, the same ones each time.
//!
//! - `build`: draft to MIME. The caller gives Message-ID, date and the seed of the boundaries, so a message
//!   can be frozen once and every attempt to send it, and the copy kept of it, is identical.
//! - `answer`: recipients, headers and quote of replies and forwards.
//!
//! Every string is checked before it reaches a builder: the builder below cleans silently what we want to
//! refuse loudly. A new header that users may set goes on the list in [`check_header`].

mod answer;
mod build;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::answer::{ForwardParts, Original, ReplyParts, carried_id, forward, is_own, reply, written_to};
pub use self::build::{build, with_bcc};
use crate::address::{Address, AddressError};
use crate::error::check_single_line;

/// Longest value of a header that a user sets, in bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Longest line without its CRLF (RFC 5322 §2.1.1).
const MAX_LINE_BYTES: usize = 998;
/// Longest id: it stands on a line of its own, between brackets.
const MAX_ID_BYTES: usize = 900;
/// Headers beside `X-*` that a user may set.
const ALLOWED: [&str; 6] = [
    "importance",
    "priority",
    "auto-submitted",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "disposition-notification-to",
];

/// A message to be built.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// From.
    pub from: Address,
    /// To.
    pub to: Vec<Address>,
    /// Cc.
    pub cc: Vec<Address>,
    /// Bcc: checked like the others, never written.
    pub bcc: Vec<Address>,
    /// Reply-To.
    pub reply_to: Vec<Address>,
    /// Subject, decoded.
    pub subject: String,
    /// Plain text.
    pub text: Option<String>,
    /// HTML, as the user wrote it.
    pub html: Option<String>,
    /// Ids without angle brackets; unusable ones are left out, because the user cannot mend them.
    pub in_reply_to: Vec<String>,
    /// Ids without angle brackets, oldest first.
    pub references: Vec<String>,
    /// Further headers: `X-*` and a few known ones.
    pub headers: Vec<(String, String)>,
    /// In order.
    pub attachments: Vec<DraftAttachment>,
}

/// A file of a draft.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DraftAttachment {
    /// Made safe before it is written; the content type decides a name where there is none.
    pub filename: Option<String>,
    /// `type/subtype`; guessed from the name where it is missing or unusable.
    pub content_type: Option<String>,
    /// The contents, not encoded.
    pub bytes: Bytes,
    /// To be shown within the HTML, which names it by `cid:`.
    pub inline: bool,
    /// Content-ID without angle brackets.
    pub content_id: Option<String>,
}

/// Why a draft cannot become a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ComposeError {
    /// An address of a field (`from`, `to`, `cc`, `bcc`, `reply_to`) cannot be sent.
    #[error("{field}/{index}: not a usable address")]
    InvalidAddress {
        /// The field of the draft.
        field: &'static str,
        /// Which of its addresses, from 0.
        index: usize,
        /// It holds CR, LF or NUL.
        unsafe_text: bool,
    },
    /// A header (or the subject, a file name, a content id) holds what a header cannot.
    #[error("{name}: not a usable value")]
    InvalidHeader {
        /// Its name.
        name: String,
    },
    /// Users may not set this header.
    #[error("{name}: this header is not allowed")]
    HeaderNotAllowed {
        /// Its name.
        name: String,
    },
}

/// Whether a user may set this header to this value.
///
/// # Errors
/// [`ComposeError::InvalidHeader`] for a name or value that is not well formed, then
/// [`ComposeError::HeaderNotAllowed`] for a name that is not on the list.
pub fn check_header(name: &str, value: &str) -> Result<(), ComposeError> {
    let invalid =
        || ComposeError::InvalidHeader { name: name.chars().filter(|c| !c.is_control()).take(100).collect() };
    let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if name.is_empty() || name.len() > 100 || !name.bytes().all(token) {
        return Err(invalid());
    }
    let lower = name.to_ascii_lowercase();
    let own = lower.strip_prefix("x-").is_some_and(|rest| !rest.is_empty());
    if !own && !ALLOWED.contains(&lower.as_str()) {
        return Err(ComposeError::HeaderNotAllowed { name: name.to_owned() });
    }
    check_single_line(value).map_err(|_| invalid())?;
    let plain = own || value.is_ascii();
    if value.trim().is_empty()
        || value.len() > MAX_HEADER_BYTES
        || !foldable(name, value.trim())
        || !plain
        || value.chars().any(|c| c.is_control() && c != '\t')
    {
        return Err(invalid());
    }
    Ok(())
}

/// Whether no line gets too long. Lines are folded before a run of blanks, and nowhere else; what is not ASCII is written
/// as encoded words, which fit on any line.
fn foldable(name: &str, value: &str) -> bool {
    let mut line = name.len() + ": ".len();
    let mut after_blank = false;
    !value.is_ascii()
        || value.bytes().all(|b| {
            let blank = matches!(b, b' ' | b'\t');
            line = if blank && !after_blank { 1 } else { line + 1 };
            after_blank = blank;
            line <= MAX_LINE_BYTES
        })
}

impl Draft {
    /// Checks everything that [`build`] would refuse, without building.
    ///
    /// # Errors
    /// The first [`ComposeError`].
    pub fn check(&self) -> Result<(), ComposeError> {
        let from = std::slice::from_ref(&self.from);
        let fields = [
            ("from", from),
            ("to", &self.to),
            ("cc", &self.cc),
            ("bcc", &self.bcc),
            ("reply_to", &self.reply_to),
        ];
        for (field, list) in fields {
            for (index, address) in list.iter().enumerate() {
                address.validate().map_err(|e| ComposeError::InvalidAddress {
                    field,
                    index,
                    unsafe_text: e == AddressError::UnsafeText,
                })?;
            }
        }
        let single = |name: &str, value: &str| {
            check_single_line(value).map_err(|_| ComposeError::InvalidHeader { name: name.to_owned() })
        };
        single("subject", &self.subject)?;
        for (name, value) in &self.headers {
            check_header(name, value)?;
        }
        for a in &self.attachments {
            single("filename", a.filename.as_deref().unwrap_or_default())?;
            if a.content_id.as_deref().is_some_and(|id| !is_id(id)) {
                return Err(ComposeError::InvalidHeader { name: "content_id".to_owned() });
            }
        }
        Ok(())
    }
}

/// Whether an id can stand between angle brackets: visible ASCII (or other scripts' letters) without them.
#[must_use]
pub fn is_id(id: &str) -> bool {
    let fits = !id.is_empty() && id.len() <= MAX_ID_BYTES;
    fits && id.chars().all(|c| !c.is_whitespace() && !c.is_control() && !"<>()\",;\\".contains(c))
}

#[cfg(test)]
mod tests;
