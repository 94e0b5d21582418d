//! Reading messages (RFC 5322, MIME).
//!
//! The structure of a message (header blocks, boundaries, parts) is read by our own walker, which goes over
//! the bytes once and cannot recurse, and so are its fields. So the limits hold by construction, and a message is understood
//! in one way only.
//!
//! - `limits`: what is too much, and the check for it
//! - `header`, `part`, `structure`: lines to header blocks to parts
//! - `words`, `parameters`, `mailboxes`, `date`, `ids`: a reader for each grammar of a field. All go the same way: unfold,
//!   tokens on bytes, join the pieces, decode
//! - `charset`: bytes to characters, by one table of labels and one guess
//! - `transfer`, `text`, `flowed`, `enriched`: the bytes of a part to its text
//! - `layout`: the one walk that decides what is shown, in which order, and what is a file
//! - `parse`, `body`, `attachment`: what storage and readers ask for
//! - `html`: making HTML safe, and text from it
//!
//! Nothing in here fails: what cannot be understood comes back marked `degraded`. A repair for a new kind of
//! odd message goes into the file whose job it is, with the odd message as its test. Raise [`PARSE_VERSION`] with it.

pub mod attachment;
mod body;
mod charset;
mod date;
mod enriched;
mod flowed;
mod header;
pub mod html;
mod ids;
mod layout;
pub mod limits;
mod mailboxes;
mod parameters;
pub mod parse;
mod part;
#[cfg(test)]
mod readers;
mod structure;
pub mod text;
mod transfer;
mod words;

pub use self::attachment::{
    AttachmentData, AttachmentDecoder, AttachmentMeta, AttachmentPlace, attachment, attachments,
    content_disposition, find_attachment, safe_filename,
};
pub use self::body::{Body, body};
pub use self::limits::LimitExceeded;
pub use self::parse::{ParsedMessage, parse};

/// Raised when a message may be understood in another way than before, so that what was stored of it can be told apart.
pub const PARSE_VERSION: i16 = 3;
