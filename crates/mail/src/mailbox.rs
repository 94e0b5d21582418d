//! Mailbox names as they are on the wire and as people read them, and what a mailbox is for.
//!
//! A name is stored as the server wrote it, byte for byte, because only that selects it again; the decoded
//! form is for showing. Names in modified UTF-7: RFC 3501 §5.1.3. Roles: RFC 6154.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

pub use self::role::{Role, assign as assign_roles};

mod role;

/// RFC 3501's base64: a comma for the slash, no padding, stray bits refused.
const MUTF7: GeneralPurpose = GeneralPurpose::new(
    &alphabet::IMAP_MUTF7,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// Longest name we ask a server to create, in wire bytes: Dovecot and Cyrus stop near here.
pub const MAX_NAME_BYTES: usize = 255;

/// Why a name cannot be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum NameError {
    /// Nothing there.
    #[error("a mailbox name must not be empty")]
    Empty,
    /// Longer than [`MAX_NAME_BYTES`] on the wire.
    #[error("the mailbox name is too long")]
    TooLong,
    /// Control characters, or the delimiter inside one level.
    #[error("the mailbox name contains a character that is not allowed")]
    Forbidden,
    /// `.`, `..`, or `~` at the beginning: servers keep mail in files of these names and refuse them.
    #[error("the mailbox name must be neither `.` nor `..`, nor begin with `~`")]
    Reserved,
    /// Blanks at its beginning or end, which nobody sees and servers keep or drop.
    #[error("the mailbox name must not begin or end with a blank")]
    Blanks,
}

/// The readable form of a wire name. What is not valid modified UTF-7 is shown as it is on the wire (8-bit
/// names as UTF-8, unreadable bytes replaced); NUL is replaced, because storage refuses it.
#[must_use]
pub fn decode_name(wire: &[u8]) -> String {
    let shown = std::str::from_utf8(wire).ok().and_then(decode_mutf7);
    let shown = shown.unwrap_or_else(|| String::from_utf8_lossy(wire).into_owned());
    if shown.contains('\0') { shown.replace('\0', "\u{fffd}") } else { shown }
}

/// `None` when the text is not strictly valid: bad base64, half a surrogate pair, 8-bit characters, or an
/// encoding of what should stand plainly (two spellings of one name must not look alike).
fn decode_mutf7(text: &str) -> Option<String> {
    if !text.is_ascii() {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, after)) = rest.split_once('&') {
        out.push_str(plain);
        let (coded, tail) = after.split_once('-')?;
        if coded.is_empty() {
            out.push('&');
        } else {
            let bytes = MUTF7.decode(coded).ok()?;
            if bytes.len() % 2 != 0 {
                return None;
            }
            let units = bytes.chunks_exact(2).filter_map(|c| Some(u16::from_be_bytes(c.try_into().ok()?)));
            for c in char::decode_utf16(units) {
                let c = c.ok()?;
                if matches!(c, ' '..='~') || c == '\0' {
                    return None;
                }
                out.push(c);
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    Some(out)
}

/// The wire form of a readable name, whole path included.
///
/// # Errors
/// [`NameError`] for an empty name, control characters, or more than 255 bytes.
pub fn encode_name(name: &str) -> Result<String, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Forbidden);
    }
    let mut out = String::with_capacity(name.len());
    let mut pending: Vec<u8> = Vec::new();
    let flush = |pending: &mut Vec<u8>, out: &mut String| {
        if !pending.is_empty() {
            out.push('&');
            MUTF7.encode_string(&*pending, out);
            out.push('-');
            pending.clear();
        }
    };
    for c in name.chars() {
        match c {
            '&' => {
                flush(&mut pending, &mut out);
                out.push_str("&-");
            }
            ' '..='~' => {
                flush(&mut pending, &mut out);
                out.push(c);
            }
            _ => pending.extend(c.encode_utf16(&mut [0; 2]).iter().flat_map(|u| u.to_be_bytes())),
        }
    }
    flush(&mut pending, &mut out);
    if out.len() > MAX_NAME_BYTES { Err(NameError::TooLong) } else { Ok(out) }
}

/// Judges a name that somebody asked for. Names that the server has may be otherwise.
///
/// # Errors
/// [`NameError::Blanks`].
pub fn check_blanks(name: &str) -> Result<(), NameError> {
    if name.trim() == name { Ok(()) } else { Err(NameError::Blanks) }
}

/// The wire form of one new level below `parent` (a wire name), or at the top.
///
/// # Errors
/// [`NameError`] as for [`encode_name`], when `name` holds the delimiter, `*` or `%`, and when it is reserved.
pub fn child_name(parent: Option<&str>, delimiter: Option<char>, name: &str) -> Result<String, NameError> {
    match (parent, delimiter) {
        (None, _) => prefixed_name("", delimiter, name),
        (Some(parent), Some(d)) => prefixed_name(&format!("{parent}{d}"), delimiter, name),
        (Some(_), None) => Err(NameError::Forbidden),
    }
}

/// The wire form of one new level behind `prefix`, which ends in the delimiter where there is one: what the names of a
/// namespace begin with (RFC 2342).
///
/// # Errors
/// As for [`child_name`].
pub fn prefixed_name(prefix: &str, delimiter: Option<char>, name: &str) -> Result<String, NameError> {
    if name.contains(['*', '%']) || delimiter.is_some_and(|d| name.contains(d)) {
        return Err(NameError::Forbidden);
    }
    // Dovecot refuses `~` only where the whole name begins with it.
    if matches!(name, "." | "..") || (prefix.is_empty() && name.starts_with('~')) {
        return Err(NameError::Reserved);
    }
    let full = format!("{prefix}{}", encode_name(name)?);
    if full.len() > MAX_NAME_BYTES { Err(NameError::TooLong) } else { Ok(full) }
}

/// Parent path (if any) and last part of a decoded path. A path that ends in its delimiter (some servers
/// list it so) is read without it.
#[must_use]
pub fn split_last(path: &str, delimiter: Option<char>) -> (Option<&str>, &str) {
    let Some(d) = delimiter else { return (None, path) };
    let trimmed = path.strip_suffix(d).filter(|p| !p.is_empty()).unwrap_or(path);
    match trimmed.rsplit_once(d) {
        Some((parent, last)) if !parent.is_empty() && !last.is_empty() => (Some(parent), last),
        _ => (None, trimmed),
    }
}

/// Whether this wire name is the one that every account has, in any case (RFC 9051 §5.1).
#[must_use]
pub fn is_inbox(wire: &[u8]) -> bool {
    wire.eq_ignore_ascii_case(b"INBOX")
}

/// A wire name as an IMAP quoted string, or `None` if it needs a literal (8-bit, CR, LF, NUL).
#[must_use]
pub fn quote(wire: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(wire).ok()?;
    if !text.bytes().all(|b| matches!(b, 1..=127) && b != b'\r' && b != b'\n') {
        return None;
    }
    Some(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{NameError, check_blanks, child_name, decode_name, encode_name, quote, split_last};

    #[test]
    fn the_examples_of_the_rfc_decode() {
        assert_eq!(decode_name(b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"), "~peter/mail/台北/日本語");
        assert_eq!(decode_name(b"Entw&APw-rfe"), "Entwürfe");
        assert_eq!(decode_name(b"a&-b"), "a&b");
    }

    #[test]
    fn what_is_broken_stays_as_it_is() {
        for wire in ["a&b", "&AGE-", "&A-", "&2AA-", "&!!!-", "&", "&AAA-", "x&APw"] {
            assert_eq!(decode_name(wire.as_bytes()), wire);
        }
        assert_eq!(decode_name("Größe".as_bytes()), "Größe");
        assert_eq!(decode_name(b"\xff\0a"), "\u{fffd}\u{fffd}a");
    }

    #[test]
    fn unusable_names_are_refused() {
        assert_eq!(encode_name(""), Err(NameError::Empty));
        assert_eq!(encode_name("a\r\nb"), Err(NameError::Forbidden));
        assert_eq!(encode_name(&"ü".repeat(200)), Err(NameError::TooLong));
        assert_eq!(child_name(None, Some('/'), "a/b"), Err(NameError::Forbidden));
        assert_eq!(child_name(Some("INBOX"), Some('.'), "Größe"), Ok("INBOX.Gr&APYA3w-e".into()));
        for name in ["", "*", "a%", "a\u{7}", "a\0b", &"x".repeat(256)] {
            assert!(child_name(None, Some('/'), name).is_err(), "{name:?}");
        }
        for name in [".", "..", "~", "~x"] {
            assert_eq!(child_name(None, Some('/'), name), Err(NameError::Reserved), "{name:?}");
        }
        for name in [" a", "a ", " ", "\t", "a\u{a0}", "\u{3000}a"] {
            assert_eq!(check_blanks(name), Err(NameError::Blanks), "{name:?}");
        }
        assert_eq!(check_blanks("a b"), Ok(()));
        assert_eq!(child_name(Some("a"), Some('/'), ".."), Err(NameError::Reserved));
        assert_eq!(child_name(Some("a"), Some('/'), "~x"), Ok("a/~x".into()));
        assert_eq!(child_name(None, Some('/'), "..."), Ok("...".into()));
        assert_eq!(child_name(Some("INBOX"), None, "x"), Err(NameError::Forbidden));
    }

    #[test]
    fn the_last_part_is_split_off() {
        assert_eq!(split_last("a/b/c", Some('/')), (Some("a/b"), "c"));
        assert_eq!(split_last("a/b/", Some('/')), (Some("a"), "b"));
        assert_eq!(split_last("a", Some('/')), (None, "a"));
        assert_eq!(split_last("a/b", None), (None, "a/b"));
        assert_eq!(split_last("/", Some('/')), (None, "/"));
        assert_eq!(split_last("a\\b", Some('\\')), (Some("a"), "b"));
    }

    #[test]
    fn names_are_quoted_or_need_a_literal() {
        assert_eq!(quote(b"a\"b\\c").as_deref(), Some("\"a\\\"b\\\\c\""));
        assert_eq!(quote(b"a\r\nX"), None);
        assert_eq!(quote("ü".as_bytes()), None);
    }

    proptest! {
        #[test]
        fn every_name_survives_the_round_trip(name in "[^\\p{Cc}]{1,40}") {
            if let Ok(wire) = encode_name(&name) {
                prop_assert_eq!(decode_name(wire.as_bytes()), name);
            }
        }

        #[test]
        fn any_bytes_decode_to_storable_text(wire in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(!decode_name(&wire).contains('\0'));
        }
    }
}
