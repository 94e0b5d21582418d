//! One mail address with an optional display name.
//!
//! Two ways in: [`Address::parse`] for what a user typed (strict: what leaves must be right), and
//! [`Address::received`] for what arrived in a message (lenient: shown, cleaned, never trusted). Groups,
//! comments and lists of addresses in received headers are the work of `mime::mailboxes`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::check_single_line;

/// RFC 5321 §4.5.3.1: 64 for the local part, 255 for the domain, 254 for the whole in practice.
const MAX_ADDRESS_BYTES: usize = 254;
const MAX_LOCAL_BYTES: usize = 64;
/// Longest display name sent or kept.
const MAX_NAME_BYTES: usize = 998;

/// An address as `{name, address}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// The display name, if there is one.
    #[serde(default)]
    pub name: Option<String>,
    /// `local@domain`; empty where a received field has a name only (`root`, `MAILER-DAEMON`).
    pub address: String,
}

/// Why an address cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// CR, LF or NUL in the name or the address.
    #[error("an address must not contain line breaks or NUL")]
    UnsafeText,
    /// Not `local@domain` with both halves well formed.
    #[error("not a valid mail address")]
    Malformed,
    /// Beyond the length limits of SMTP, or a display name over 998 bytes.
    #[error("the mail address is too long")]
    TooLong,
}

impl Address {
    /// A checked address with a name; a name of blanks counts as none.
    ///
    /// # Errors
    /// [`AddressError`] when either part could not be sent.
    pub fn new(name: Option<&str>, address: &str) -> Result<Self, AddressError> {
        let address = address.trim_matches([' ', '\t']);
        validate(address)?;
        let name = name.map(|n| n.trim_matches([' ', '\t'])).filter(|n| !n.is_empty());
        if let Some(name) = name {
            check_single_line(name).map_err(|_| AddressError::UnsafeText)?;
            if name.len() > MAX_NAME_BYTES {
                return Err(AddressError::TooLong);
            }
        }
        Ok(Self { name: name.map(str::to_owned), address: address.to_owned() })
    }

    /// Reads what a user typed: `a@b`, `<a@b>`, `Name <a@b>` or `"Name, quoted" <a@b>`. One address only.
    ///
    /// # Errors
    /// [`AddressError`] for anything else.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        check_single_line(text).map_err(|_| AddressError::UnsafeText)?;
        let text = text.trim();
        if let Some(body) = text.strip_suffix('>') {
            let (name, address) = body.rsplit_once('<').ok_or(AddressError::Malformed)?;
            return Self::new(unquote(name.trim())?.as_deref(), address);
        }
        Self::new(None, text)
    }

    /// Checks an address that was built from parts, as a client's `{name, address}`.
    ///
    /// # Errors
    /// [`AddressError`] when either part could not be sent.
    pub fn validate(&self) -> Result<(), AddressError> {
        Self::new(self.name.as_deref(), &self.address).map(|_| ())
    }

    /// What arrived in a message: the name cleaned for showing, the address without control characters.
    /// A sender without an address keeps its name, and an empty address; `None` if nothing is left of either.
    #[must_use]
    pub fn received(name: Option<&str>, address: &str) -> Option<Self> {
        let address: String = clean_text(address, MAX_NAME_BYTES);
        let name = name.map(|n| clean_text(n, MAX_NAME_BYTES)).filter(|n| !n.is_empty());
        (name.is_some() || !address.is_empty()).then_some(Self { name, address })
    }

    /// Whether there is an address, not only a name.
    #[must_use]
    pub fn has_address(&self) -> bool {
        !self.address.is_empty()
    }

    /// The part after the last `@`, in lower case; empty if there is none.
    #[must_use]
    pub fn domain(&self) -> String {
        self.address.rsplit_once('@').map(|(_, d)| d.to_lowercase()).unwrap_or_default()
    }

    /// Whether both mean the same mailbox for our purposes, as [`mailbox_key`] says.
    #[must_use]
    pub fn same_mailbox(&self, other: &str) -> bool {
        let (own, other) = (self.address.trim(), other.trim());
        if own.is_ascii() && other.is_ascii() {
            return !own.is_empty() && own.eq_ignore_ascii_case(other);
        }
        // Most pairs differ in the local part; a domain costs more to bring into its ASCII form.
        let local = |address: &str| address.rsplit_once('@').map(|(local, _)| local.to_lowercase());
        self.has_address() && local(own) == local(other) && mailbox_key(own) == mailbox_key(other)
    }
}

impl std::fmt::Display for Address {
    /// `Name <a@b>` for people, not for a header: nothing is quoted or encoded.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) if self.address.is_empty() => f.write_str(name),
            Some(name) => write!(f, "{name} <{}>", self.address),
            None => f.write_str(&self.address),
        }
    }
}

/// A display name as typed: quoted as a whole, or without quotes and angle brackets at all.
fn unquote(name: &str) -> Result<Option<String>, AddressError> {
    let Some(inner) = name.strip_prefix('"') else {
        return if name.contains(['<', '>', '"']) {
            Err(AddressError::Malformed)
        } else {
            Ok(Some(name.to_owned()).filter(|n| !n.is_empty()))
        };
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                let closed = chars.as_str().trim().is_empty();
                return if closed {
                    Ok(Some(out).filter(|n| !n.is_empty()))
                } else {
                    Err(AddressError::Malformed)
                };
            }
            '\\' => out.push(chars.next().ok_or(AddressError::Malformed)?),
            c => out.push(c),
        }
    }
    Err(AddressError::Malformed)
}

/// Checks `local@domain` as SMTP takes it (RFC 5321 Mailbox, RFC 6531 for other scripts). Quoted local parts
/// and address literals are refused: no mailbox of today needs them, and they are how injections look.
///
/// # Errors
/// [`AddressError`] naming what is wrong.
pub fn validate(address: &str) -> Result<(), AddressError> {
    check_single_line(address).map_err(|_| AddressError::UnsafeText)?;
    let (local, domain) = address.rsplit_once('@').ok_or(AddressError::Malformed)?;
    if address.len() > MAX_ADDRESS_BYTES || local.len() > MAX_LOCAL_BYTES {
        return Err(AddressError::TooLong);
    }
    let atoms_ok = local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_local_char));
    if atoms_ok && is_domain(domain) { Ok(()) } else { Err(AddressError::Malformed) }
}

/// The address with its domain as A-labels (RFC 5890 §2.3.2.1), which every server takes: only a local part in another script
/// needs SMTPUTF8. As it is where the domain is ASCII or has no such form.
#[must_use]
pub fn with_ascii_domain(address: &str) -> Cow<'_, str> {
    let Some((local, domain)) = address.rsplit_once('@').filter(|(_, domain)| !domain.is_ascii()) else {
        return Cow::Borrowed(address);
    };
    match idna::domain_to_ascii(domain) {
        Ok(ascii) if !ascii.is_empty() => Cow::Owned(format!("{local}@{ascii}")),
        _ => Cow::Borrowed(address),
    }
}

/// What is equal for two addresses exactly if they mean the same mailbox for our purposes. Case is ignored in both halves,
/// because no provider of today tells apart addresses by it. A domain is the same in letters of its script (U-labels) and as
/// A-labels (RFC 5890 §2.3.2.1). To compare and to look up, never to send.
#[must_use]
pub fn mailbox_key(address: &str) -> String {
    with_ascii_domain(address.trim()).to_lowercase()
}

fn is_local_char(c: char) -> bool {
    if c.is_ascii() {
        c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c)
    } else {
        !c.is_whitespace() && !is_invisible(c)
    }
}

fn is_domain(domain: &str) -> bool {
    domain.len() <= 253
        && domain.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| {
                    if c.is_ascii() {
                        c.is_ascii_alphanumeric() || c == '-' || c == '_'
                    } else {
                        c.is_alphanumeric() || is_mark(c)
                    }
                })
        })
}

/// Combining marks and the two joiners that scripts need inside a label; everything else non-alphanumeric in
/// a domain is a disguise.
fn is_mark(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c)
        || matches!(c, '\u{200c}' | '\u{200d}' | '\u{30fb}' | '\u{b7}')
}

/// Control characters, and those that reorder or hide text: with them a name can read as another address.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        ) && !matches!(c, '\u{200c}' | '\u{200d}')
}

/// Text of a received header made fit to show and store: invisible characters gone (line breaks and tabs
/// become one space), ends trimmed, at most `max_bytes`.
#[must_use]
pub fn clean_text(text: &str, max_bytes: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max_bytes));
    for c in text.chars() {
        let c = if matches!(c, '\t' | '\r' | '\n') { ' ' } else { c };
        if is_invisible(c) || (c == ' ' && out.ends_with(' ')) {
            continue;
        }
        if out.len() + c.len_utf8() > max_bytes {
            break;
        }
        out.push(c);
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Address, AddressError, mailbox_key, with_ascii_domain};

    fn parsed(text: &str) -> (Option<String>, String) {
        let a = Address::parse(text).unwrap();
        (a.name, a.address)
    }

    #[test]
    fn what_users_type_is_understood() {
        assert_eq!(parsed("a@b.example"), (None, "a@b.example".into()));
        assert_eq!(parsed(" <a@b.example> "), (None, "a@b.example".into()));
        assert_eq!(parsed("Ada L <a@b.example>"), (Some("Ada L".into()), "a@b.example".into()));
        assert_eq!(
            parsed(r#""L, \"Ada\"" <a@b.example>"#),
            (Some("L, \"Ada\"".into()), "a@b.example".into())
        );
        assert_eq!(parsed("jörg@exämple.example").1, "jörg@exämple.example");
        assert_eq!(parsed("用户@例子.广告").1, "用户@例子.广告");
    }

    #[test]
    fn a_domain_in_another_script_has_an_ascii_form() {
        assert_eq!(with_ascii_domain("ann@bücher.example"), "ann@xn--bcher-kva.example");
        assert_eq!(with_ascii_domain("用户@例子.example"), "用户@xn--fsqu00a.example");
        assert_eq!(with_ascii_domain("ann@x.example"), "ann@x.example");
        assert_eq!(with_ascii_domain("no address"), "no address");
    }

    #[test]
    fn a_mailbox_is_the_same_in_every_spelling_of_its_domain() {
        let same = |one: &str, other: &str| {
            let is = |a: &str, b: &str| Address::received(None, a).unwrap().same_mailbox(b);
            let both = is(one, other);
            assert_eq!(both, is(other, one), "{one} {other}");
            assert_eq!(both, mailbox_key(one) == mailbox_key(other), "{one} {other}");
            both
        };
        assert!(same("Ann@bücher.example", "ann@xn--bcher-kva.example"));
        assert!(same("ann@BÜCHER.Example", " ann@XN--bcher-kva.example "));
        assert!(same("JÖRG@x.example", "jörg@X.example"));
        assert!(same("ann@例子。example", "ann@xn--fsqu00a.example"));
        assert!(same("root", "Root") && same("a\u{301}", "A\u{301}"));
        assert!(!same("ann@bucher.example", "ann@bücher.example"));
        assert!(!same("bob@bücher.example", "ann@xn--bcher-kva.example"));
        assert!(!Address::default().same_mailbox(""));
    }

    #[test]
    fn what_is_not_one_address_is_refused() {
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a b@c",
            "a@b c",
            "a..b@c",
            ".a@b",
            "a@-b",
            "a@b..c",
            "a@[127.0.0.1]",
            "a@b, c@d",
            "a@b> <c@d",
            "\"x\"y <a@b>",
            "\"x <a@b>",
            "<a@b",
            "a@b>",
            "a\u{202e}@b",
            "\"a b\"@c",
            "x <y <a@b>",
        ] {
            assert_eq!(Address::parse(bad), Err(AddressError::Malformed), "{bad:?}");
        }
        assert_eq!(Address::parse(&format!("{}@b", "a".repeat(65))), Err(AddressError::TooLong));
    }

    #[test]
    fn line_breaks_never_pass() {
        for bad in ["a@b\r\nBcc: x@y", "N\nX: y <a@b>", "a\0@b"] {
            assert_eq!(Address::parse(bad), Err(AddressError::UnsafeText), "{bad:?}");
        }
        assert_eq!(Address::new(Some("a\r\nb"), "a@b"), Err(AddressError::UnsafeText));
        assert_eq!(Address::new(None, "\na@b"), Err(AddressError::UnsafeText));
    }

    #[test]
    fn a_received_name_cannot_disguise_itself() {
        let a =
            Address::received(Some("boss@work.example\u{202e}\u{0}\r\n <x>"), " x@evil.example ").unwrap();
        assert_eq!(a.name.as_deref(), Some("boss@work.example <x>"));
        assert_eq!(a.address, "x@evil.example");
        assert_eq!(Address::received(Some("n"), "\r\n").unwrap().to_string(), "n");
        assert_eq!(Address::received(Some("\u{202e}"), "\r\n"), None);
    }

    #[test]
    fn unknown_fields_are_refused() {
        assert!(serde_json::from_str::<Address>(r#"{"address":"a@b","x":1}"#).is_err());
        let a: Address = serde_json::from_str(r#"{"address":"a@b"}"#).unwrap();
        assert_eq!(serde_json::to_string(&a).unwrap(), r#"{"name":null,"address":"a@b"}"#);
    }

    proptest! {
        #[test]
        fn whatever_parses_is_one_line(text in "\\PC*[\r\n\0]?@?\\PC*") {
            if let Ok(a) = Address::parse(&text) {
                prop_assert!(!a.to_string().contains(['\r', '\n', '\0']));
                prop_assert!(a.validate().is_ok());
            }
        }
    }
}
