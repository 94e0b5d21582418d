//! Values that must not be printed.

use std::collections::HashSet;
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
    /// `text` with `***` wherever the value stands in it, as it is or in base64, also where 16 bytes of it or more were left
    /// when somebody cut or folded the text, in any case of letters. A value of up to three bytes is looked for as a word of
    /// its own: struck out everywhere, it would leave holes that spell it.
    #[must_use]
    pub fn strike_out(&self, text: &str) -> String {
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
        let text = text.replace(&self.0, STRUCK).replace(coded.as_str(), STRUCK);
        [self.0.as_str(), coded.as_str()].into_iter().fold(text, |text, value| strike_pieces(&text, value))
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

/// What stands in the place of a secret.
const STRUCK: &str = "***";
/// Fewer bytes of a secret in a row are chance.
const PIECE: usize = 16;

/// `text` with `***` for each run of it that is a piece of `value`.
fn strike_pieces(text: &str, value: &str) -> String {
    if value.len() < PIECE || text.len() < PIECE {
        return text.to_owned();
    }
    let (low, value) = (text.to_ascii_lowercase(), Zeroizing::new(value.to_ascii_lowercase()));
    // Both may be long, and a hostile server chooses one of them.
    let of_text: HashSet<&[u8]> = low.as_bytes().windows(PIECE).collect();
    let common: HashSet<&[u8]> = value.as_bytes().windows(PIECE).filter(|w| of_text.contains(w)).collect();
    let mut of_value = vec![false; text.len()];
    for (at, _) in low.as_bytes().windows(PIECE).enumerate().filter(|(_, window)| common.contains(window)) {
        if let Some(run) = of_value.get_mut(at..at + PIECE) {
            run.fill(true);
        }
    }
    let mut out = String::with_capacity(text.len());
    let mut before = false;
    for (at, c) in text.char_indices() {
        let struck = of_value.get(at).copied().unwrap_or_default();
        match (struck, before) {
            (true, false) => out.push_str(STRUCK),
            (true, true) => {}
            (false, _) => out.push(c),
        }
        before = struck;
    }
    out
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

    #[test]
    fn what_is_left_of_a_secret_that_was_cut_or_folded_is_struck_out() {
        let value: String = (0..400).map(|i| format!("{i:x}")).collect();
        let (secret, coded) = (Secret::new(value.as_str()), STANDARD.encode(&value));
        for (text, shown) in [
            (format!("no: {}", value.get(..300).unwrap()), "no: ***"),
            (format!("no: {} (5)", value.get(500..600).unwrap()), "no: *** (5)"),
            (format!("no: {}", coded.get(..40).unwrap()), "no: ***"),
            (format!("{}\n{}", value.get(..70).unwrap(), value.get(70..).unwrap()), "***\n***"),
            (format!("\u{e4}{}\u{e4}", value.get(100..117).unwrap().to_ascii_uppercase()), "\u{e4}***\u{e4}"),
            (format!("{}\u{20ac}", value.get(..15).unwrap()), "0123456789abcde\u{20ac}"),
        ] {
            assert_eq!(secret.strike_out(&text), shown, "{text}");
        }
    }
}
