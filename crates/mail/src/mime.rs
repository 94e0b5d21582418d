//! Reading messages (RFC 5322, MIME).
//!
//! The structure of a message (header blocks, boundaries, parts) is read by our own walker, which goes over
//! the bytes once and cannot recurse; the borrowed parser sees one header block at a time, never a body and
//! never a nested message. So the limits hold by construction, and a message is understood in one way only.
//!
//! - `limits`: what is too much, and the check for it
//! - `header`, `structure`: lines to header blocks to parts
//! - `transfer`, `text`, `date`: bytes to text, text to instants
//! - `parse`, `attachment`: what storage and readers ask for
//! - `html`: making HTML safe, and text from it
//!
//! Nothing in here fails: what cannot be understood comes back marked `degraded`. A repair for a new kind of
//! odd message goes into the file whose job it is, with the odd message as its test.

pub mod attachment;
mod date;
mod header;
pub mod html;
pub mod limits;
pub mod parse;
mod structure;
pub mod text;
mod transfer;

pub use self::attachment::{
    AttachmentData, AttachmentDecoder, AttachmentMeta, AttachmentPlace, attachment, content_disposition,
    find_attachment, safe_filename,
};
pub use self::limits::LimitExceeded;
pub use self::parse::{Body, ParsedMessage, body, parse};
