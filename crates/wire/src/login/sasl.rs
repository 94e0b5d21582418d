//! The messages of SASL mechanisms: PLAIN (RFC 4616), OAUTHBEARER (RFC 7628) and XOAUTH2, which Google wrote down and Microsoft
//! took over.
//!
//! [`async_imap::Authenticator`] is the interface: challenge in, response out, both without base64. The next mechanism for
//! tokens: a variant of [`Mechanism`] in the order in which they are tried, its message, its goodbye.

use async_imap::Authenticator;
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::refusal::Refusal;
use crate::secret::Secret;

/// Challenges in one exchange; no mechanism needs more than three.
pub(crate) const MAX_CHALLENGES: usize = 8;
/// Challenges come with padding and without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A challenge without its base64. Who does not encode it says something all the same.
pub(crate) fn challenge(sent: &[u8]) -> Vec<u8> {
    LENIENT.decode(sent.trim_ascii()).unwrap_or_else(|_| sent.to_vec())
}

/// PLAIN's message: nobody to act for, who we are, the password.
pub(crate) fn plain(user: &str, password: &Secret) -> Zeroizing<String> {
    Zeroizing::new(format!("\0{user}\0{}", password.expose()))
}

/// Exchange of PLAIN: one message, said again to a server that asks again.
pub(crate) struct Plain<'a> {
    pub user: &'a str,
    pub password: &'a Secret,
}

impl Authenticator for Plain<'_> {
    type Response = Zeroizing<String>;

    fn process(&mut self, _challenge: &[u8]) -> Self::Response {
        plain(self.user, self.password)
    }
}

/// A mechanism that carries an access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    OAuthBearer,
    XOAuth2,
}

impl Mechanism {
    /// The standard first.
    pub const ALL: [Self; 2] = [Self::OAuthBearer, Self::XOAuth2];

    pub const fn name(self) -> &'static str {
        match self {
            Self::OAuthBearer => "OAUTHBEARER",
            Self::XOAuth2 => "XOAUTH2",
        }
    }

    /// Those that a server offers, in the order in which they are tried.
    pub fn offered(offers: impl Fn(&str) -> bool) -> Vec<Self> {
        Self::ALL.into_iter().filter(|m| offers(m.name())).collect()
    }

    /// What the client says first.
    pub fn message(self, user: &str, token: &Secret, (host, port): (&str, u16)) -> Zeroizing<String> {
        let token = token.expose();
        Zeroizing::new(match self {
            Self::OAuthBearer => {
                // RFC 5801 §4: these two have a meaning in the header.
                let name = user.replace('=', "=3D").replace(',', "=2C");
                format!("n,a={name},\x01host={host}\x01port={port}\x01auth=Bearer {token}\x01\x01")
            }
            Self::XOAuth2 => format!("user={user}\x01auth=Bearer {token}\x01\x01"),
        })
    }

    /// What makes the server say its NO after it told why (RFC 7628 §3.2.3).
    const fn goodbye(self) -> &'static str {
        match self {
            Self::OAuthBearer => "\x01",
            Self::XOAuth2 => "",
        }
    }
}

/// Exchange of a token.
pub(crate) struct Bearer {
    mechanism: Mechanism,
    message: Zeroizing<String>,
    /// Whether the server asked for the message and got it.
    asked: bool,
    /// Whether a challenge was anything else: then it knows the mechanism.
    pub challenged: bool,
    /// What the server said of the token.
    pub refusal: Option<Refusal>,
}

impl Bearer {
    pub const fn new(mechanism: Mechanism, message: Zeroizing<String>) -> Self {
        Self { mechanism, message, asked: false, challenged: false, refusal: None }
    }
}

impl Authenticator for Bearer {
    type Response = Zeroizing<String>;

    /// An empty challenge asks for the message; some servers ignore an initial response and ask then. Any other is the
    /// refusal.
    fn process(&mut self, challenge: &[u8]) -> Self::Response {
        if challenge.trim_ascii().is_empty() && !self.asked && !self.challenged {
            self.asked = true;
            return self.message.clone();
        }
        self.challenged |= !challenge.trim_ascii().is_empty();
        self.refusal = self.refusal.take().or_else(|| Refusal::read(challenge));
        Zeroizing::new(self.mechanism.goodbye().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: (&str, u16) = ("imap.example.com", 993);

    #[test]
    fn messages_are_those_of_the_documents() {
        let token = Secret::new("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==");
        // RFC 7628 §4.1.
        assert_eq!(
            *Mechanism::OAuthBearer.message("user@example.com", &token, ("server.example.com", 143)),
            "n,a=user@example.com,\x01host=server.example.com\x01port=143\x01\
             auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"
        );
        // Google, "XOAUTH2 Protocol".
        assert_eq!(
            *Mechanism::XOAuth2.message("someuser@example.com", &Secret::new("ya29.vF9dft4qmTc2"), AT),
            "user=someuser@example.com\x01auth=Bearer ya29.vF9dft4qmTc2\x01\x01"
        );
    }

    #[test]
    fn a_comma_in_a_name_does_not_end_the_header() {
        let message = Mechanism::OAuthBearer.message("a=b,c", &Secret::new("t"), AT);
        assert!(message.starts_with("n,a=a=3Db=2Cc,\x01host="), "{:?}", *message);
        assert!(Mechanism::XOAuth2.message("a=b,c", &Secret::new("t"), AT).starts_with("user=a=b,c\x01"));
    }

    #[test]
    fn the_standard_is_tried_first() {
        let of = |offers: &[&str]| Mechanism::offered(|name| offers.contains(&name));
        assert_eq!(of(&["PLAIN", "XOAUTH2", "OAUTHBEARER"]), [Mechanism::OAuthBearer, Mechanism::XOAuth2]);
        assert_eq!(of(&["XOAUTH2"]), [Mechanism::XOAuth2]);
        assert_eq!(of(&["PLAIN", "OAUTH"]), []);
    }

    #[test]
    fn a_message_is_told_when_it_is_asked_for_and_a_refusal_is_answered_so_that_it_ends() {
        for (mechanism, goodbye) in [(Mechanism::OAuthBearer, "\x01"), (Mechanism::XOAuth2, "")] {
            let mut exchange = Bearer::new(mechanism, Zeroizing::new("message".to_owned()));
            assert_eq!(*exchange.process(b""), "message");
            assert_eq!(*exchange.process(b""), goodbye, "not twice");
            assert!(!exchange.challenged && exchange.refusal.is_none());
            assert_eq!(*exchange.process(b"{\"status\":\"401\"}"), goodbye);
            assert_eq!(*exchange.process(b"{\"status\":\"403\"}"), goodbye);
            assert!(exchange.challenged);
            assert_eq!(exchange.refusal.unwrap().status.as_deref(), Some("401"), "the first counts");
            let mut exchange = Bearer::new(mechanism, Zeroizing::new("message".to_owned()));
            assert_eq!(*exchange.process(b"{}"), goodbye, "a message that went with the command");
            assert_eq!(*exchange.process(b""), goodbye, "is not said to who has refused it");
        }
    }
}
