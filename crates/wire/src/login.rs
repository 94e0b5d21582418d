//! What proves who we are towards a mail server, the same for every protocol.
//!
//! Here: the proof ([`Login`]), and what a server says of a token that it refuses ([`Refusal`]). In `login/`: the messages of
//! the mechanisms (`sasl`) and the reading of the refusal (`refusal`). How they travel is each protocol's own: `imap/login.rs`,
//! `smtp/login.rs`. Nothing here is ever logged.
//!
//! The next proof: a variant of [`Login`], its mechanisms in `login/sasl.rs`, an arm in the login of each protocol.

mod refusal;
pub(crate) mod sasl;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use self::refusal::{Refusal, TokenFault};
use crate::secret::Secret;

/// The longest token that is sent, in bytes. Microsoft's have up to some 4 KiB.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;

/// What proves who we are.
#[derive(Clone, Debug)]
pub enum Login {
    /// The server asks for no login: for submission only.
    Nobody,
    /// A user name and its password.
    Password {
        /// User name.
        user: String,
        /// Password.
        password: Secret,
    },
    /// A user name and an OAuth 2.0 access token.
    Token {
        /// User name, usually the address.
        user: String,
        /// Access token.
        token: Secret,
    },
}

impl Login {
    /// The one that a user name and a password make: nobody where the name is empty.
    #[must_use]
    pub fn of(user: &str, password: Secret) -> Self {
        if user.is_empty() { Self::Nobody } else { Self::Password { user: user.to_owned(), password } }
    }

    /// The password or the token.
    #[must_use]
    pub const fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Nobody => None,
            Self::Password { password: secret, .. } | Self::Token { token: secret, .. } => Some(secret),
        }
    }

    /// Everything that no word of a server may repeat: the secret, and the messages that carry it as they are sent.
    pub(crate) fn hidden(&self, host: &str, port: u16) -> Vec<Secret> {
        let messages = match self {
            Self::Nobody => Vec::new(),
            Self::Password { user, password } => vec![sasl::plain(user, password)],
            Self::Token { user, token } => {
                sasl::Mechanism::ALL.map(|m| m.message(user, token, (host, port))).into()
            }
        };
        let sent = messages.iter().map(|message| Secret::new(STANDARD.encode(message.as_bytes())));
        self.secret().cloned().into_iter().chain(sent).collect()
    }

    /// Why it cannot be sent. A NUL would end PLAIN's fields early, a `^A` those of the mechanisms for tokens, a line end any
    /// command.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let torn = |value: &str| value.bytes().any(|b| matches!(b, 0 | 1 | b'\r' | b'\n'));
        match self {
            Self::Nobody => None,
            Self::Password { user, password } => (torn(user) || torn(password.expose()))
                .then_some("a credential with a control character cannot be sent"),
            Self::Token { user, token } => {
                // RFC 6749 A.12, but for the space, which would end it.
                if torn(user) || user.is_empty() {
                    Some("a user name that is empty or has a control character cannot be sent")
                } else if token.is_empty() || !token.expose().bytes().all(|b| b.is_ascii_graphic()) {
                    Some("this is no access token")
                } else if token.expose().len() > MAX_TOKEN_BYTES {
                    Some("an access token of more than 16 KiB cannot be sent")
                } else {
                    None
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(user: &str, token: &str) -> Login {
        Login::Token { user: user.into(), token: Secret::new(token) }
    }

    #[test]
    fn nothing_secret_is_printed() {
        for login in [Login::of("ann", Secret::new("hunter2!")), token("ann", "hunter2!")] {
            assert!(!format!("{login:?}").contains("hunter2"), "{login:?}");
        }
        assert!(matches!(Login::of("", Secret::new("x")), Login::Nobody));
    }

    #[test]
    fn what_would_end_a_field_or_a_line_is_not_sent() {
        for bad in ["a\0b", "a\x01b", "a\rb", "a\nb"] {
            assert!(Login::of(bad, Secret::new("x")).fault().is_some(), "{bad:?}");
            assert!(Login::of("ann", Secret::new(bad)).fault().is_some(), "{bad:?}");
            assert!(token(bad, "x").fault().is_some(), "{bad:?}");
            assert!(token("ann", bad).fault().is_some(), "{bad:?}");
        }
        for bad in ["", "a b", "a\u{e4}b", "a\tb", "a\x7fb"] {
            assert!(token("ann", bad).fault().is_some(), "{bad:?}");
        }
        for good in ["eyJhbGciOi.a-b_c~d+e/f==", "M.C5_BAY*a!b$$", "ya29:a\"b,c"] {
            assert_eq!(token("ann", good).fault(), None, "{good}");
        }
        assert_eq!(Login::of("ann", Secret::new("pa ss\"\u{e4}")).fault(), None);
    }

    #[test]
    fn a_token_has_16_kibibytes_and_not_more() {
        assert_eq!(token("ann", &"x".repeat(16 << 10)).fault(), None);
        assert!(token("ann", &"x".repeat((16 << 10) + 1)).fault().is_some());
    }
}
