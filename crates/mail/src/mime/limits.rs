//! What is too much of a message to be understood. Beyond a limit the raw bytes are kept, and what came before it is
//! shown; the rest is not looked at.

use super::structure;

/// Whole message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 50 * 1024 * 1024;
/// Multiparts and messages inside each other.
pub const MAX_DEPTH: usize = 100;
/// Parts of all kinds, nested messages' parts included.
pub const MAX_PARTS: usize = 10_000;
/// One header field, name and folded value.
pub const MAX_HEADER_BYTES: usize = 100 * 1024;
/// All header blocks of a message together.
pub const MAX_HEADERS_BYTES: usize = 10 * 1024 * 1024;
/// Header fields in one block.
pub const MAX_HEADERS: usize = 1000;
/// A multipart's boundary. RFC 2046 allows 70; real ones reach 200.
pub const MAX_BOUNDARY_BYTES: usize = 2048;
/// Addresses in all fields of one header block.
pub const MAX_ADDRESSES: usize = 10_240;
/// Parameters of one Content-Type or Content-Disposition.
pub const MAX_PARAMETERS: usize = 100;

/// Which limit a message goes beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LimitExceeded {
    /// [`MAX_MESSAGE_BYTES`].
    #[error("the message is larger than {MAX_MESSAGE_BYTES} bytes")]
    Size,
    /// [`MAX_DEPTH`].
    #[error("parts are nested deeper than {MAX_DEPTH}")]
    Depth,
    /// [`MAX_PARTS`].
    #[error("more than {MAX_PARTS} parts")]
    Parts,
    /// [`MAX_HEADER_BYTES`].
    #[error("a header field is larger than {MAX_HEADER_BYTES} bytes")]
    HeaderSize,
    /// [`MAX_HEADERS_BYTES`].
    #[error("the header fields are larger than {MAX_HEADERS_BYTES} bytes")]
    HeadersSize,
    /// [`MAX_HEADERS`].
    #[error("more than {MAX_HEADERS} header fields in one block")]
    Headers,
    /// [`MAX_BOUNDARY_BYTES`].
    #[error("a boundary is longer than {MAX_BOUNDARY_BYTES} bytes")]
    Boundary,
    /// [`MAX_ADDRESSES`].
    #[error("more than {MAX_ADDRESSES} addresses")]
    Addresses,
    /// [`MAX_PARAMETERS`].
    #[error("more than {MAX_PARAMETERS} parameters in one header field")]
    Parameters,
}

/// Whether a message is within every limit. One pass over the bytes, no recursion; parts hidden in base64 are
/// never opened by anything here, so they need no check.
///
/// # Errors
/// The first limit that is exceeded.
pub fn check(raw: &[u8]) -> Result<(), LimitExceeded> {
    match structure::walk(raw).limited {
        Some(limit) => Err(limit),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{LimitExceeded, MAX_MESSAGE_BYTES, check};

    #[test]
    fn forty_thousand_nested_messages_are_refused_at_once() {
        let raw = "Content-Type: message/rfc822\r\n\r\n".repeat(40_000);
        assert_eq!(check(raw.as_bytes()), Err(LimitExceeded::Depth));
    }

    #[test]
    fn nested_multiparts_are_refused_at_once() {
        let mut raw = String::new();
        for i in 0..101 {
            raw.push_str(&format!("Content-Type: multipart/mixed; boundary=b{i}\r\n\r\n--b{i}\r\n"));
        }
        assert_eq!(check(raw.as_bytes()), Err(LimitExceeded::Depth));
    }

    #[test]
    fn every_count_has_its_limit() {
        let parts =
            format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\nx\r\n".repeat(10_001));
        assert_eq!(check(parts.as_bytes()), Err(LimitExceeded::Parts));
        assert_eq!(check("A: b\r\n".repeat(1001).as_bytes()), Err(LimitExceeded::Headers));
        assert_eq!(check(format!("A: {}", "x".repeat(102_401)).as_bytes()), Err(LimitExceeded::HeaderSize));
        let folded = format!("A: x\r\n{}", " x\r\n".repeat(30_000));
        assert_eq!(check(folded.as_bytes()), Err(LimitExceeded::HeaderSize));
        let to = format!("To: a@b{}\r\nCc: a@b{}\r\n\r\n", ",a@b".repeat(6000), ",a@b".repeat(6000));
        assert_eq!(check(to.as_bytes()), Err(LimitExceeded::Addresses));
        let params = format!("Content-Type: text/plain{}\r\n\r\n", "; a=b".repeat(101));
        assert_eq!(check(params.as_bytes()), Err(LimitExceeded::Parameters));
        let boundary = format!("Content-Type: multipart/mixed; boundary={}\r\n\r\n", "b".repeat(2049));
        assert_eq!(check(boundary.as_bytes()), Err(LimitExceeded::Boundary));
        assert_eq!(check(&vec![b'a'; MAX_MESSAGE_BYTES + 1]), Err(LimitExceeded::Size));
    }

    #[test]
    fn all_blocks_together_have_a_limit() {
        let part = format!("--b\r\nA: {}\r\n\r\nx\r\n", "x".repeat(100_000));
        let raw = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", part.repeat(110));
        assert_eq!(check(raw.as_bytes()), Err(LimitExceeded::HeadersSize));
    }

    #[test]
    fn an_ordinary_message_passes() {
        assert_eq!(check(b"Subject: x\r\n\r\nbody"), Ok(()));
        assert_eq!(check(b""), Ok(()));
    }
}
