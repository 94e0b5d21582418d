//! Values that must not be printed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

/// A secret string: wiped when dropped, shown as `***` by `Debug`, without `Display` and without `Serialize`.
#[derive(Clone, Deserialize, Default)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes over `value`.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
    /// The value; for the call that needs it, never to keep or to print.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
    /// `text` with `***` wherever the value stands in it, as it is or in base64. A value of up to three bytes is looked
    /// for as a word of its own: struck out everywhere, it would leave holes that spell it.
    #[must_use]
    pub fn strike_out(&self, text: &str) -> String {
        const STRUCK: &str = "***";
        if self.0.is_empty() {
            return text.to_owned();
        }
        if self.0.len() < 4 {
            let edge = |c: char| !c.is_alphanumeric();
            let words = text.split_inclusive(edge).map(|word| match word.strip_suffix(edge) {
                Some(inner) if inner == self.0 => word.replacen(inner, STRUCK, 1),
                None if word == self.0 => STRUCK.to_owned(),
                _ => word.to_owned(),
            });
            return words.collect();
        }
        let coded = Zeroizing::new(STANDARD.encode(&self.0));
        text.replace(&self.0, STRUCK).replace(coded.as_str(), STRUCK)
    }
    /// An address (`scheme://user:password@host/path?query`) without what could be secret in it: the password and the
    /// values of the query. What does not look like an address is not shown at all.
    #[must_use]
    pub fn masked_address(&self) -> String {
        let hidden = || format!("*** ({} bytes)", self.0.len());
        let Some((scheme, rest)) = self.0.split_once("://") else { return hidden() };
        let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
        // A password may hold an @ or a slash that should have been percent-encoded: the last @ ends it.
        match rest.rsplit_once('@') {
            None => format!("{scheme}://{rest}{query}"),
            Some((user_info, host)) => {
                let user = user_info.split_once(':').map_or(user_info, |(user, _)| user);
                let password = if user_info.contains(':') { ":***" } else { "" };
                format!("{scheme}://{user}{password}@{host}{query}")
            }
        }
    }
    /// True for the empty string.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (address, shown) in [
            ("postgres://u:hunter2@db:5432/mail", "postgres://u:***@db:5432/mail"),
            ("postgres://u:hun/t@er2@db/mail?password=hunter2", "postgres://u:***@db/mail?***"),
            ("redis://:hunter2@cache", "redis://:***@cache"),
            ("postgres://u@db/mail", "postgres://u@db/mail"),
            ("hunter2", "*** (7 bytes)"),
        ] {
            assert_eq!(Secret::new(address).masked_address(), shown);
        }
    }

    #[test]
    fn a_secret_that_a_server_repeats_is_struck_out() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            secret.strike_out("LOGIN u \"hunter2\" failed (aHVudGVyMg==)"),
            "LOGIN u \"***\" failed (***)"
        );
        assert_eq!(
            Secret::new("p").strike_out("no p, permission denied for p"),
            "no ***, permission denied for ***"
        );
        assert_eq!(Secret::new("").strike_out("as it is"), "as it is");
    }
}
