//! What a server says of a token that it refuses: JSON in the challenge that follows (RFC 7628 §3.2.2), which XOAUTH2 has too.
//!
//! The bytes are the server's: bounded before they are read, and every text of them before it is kept.

use serde_json::Value;

use crate::secret::Secret;

/// The longest challenge that is read, in bytes; Google's has 90.
const MAX_CHALLENGE_BYTES: usize = 8 << 10;
/// Longest status that is kept, in bytes.
const MAX_STATUS_BYTES: usize = 64;
/// Longest scope or address that is kept, in bytes.
const MAX_TEXT_BYTES: usize = 500;

/// What a server says of a token that it refuses. Texts are without control characters, bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// A number as HTTP has them (`401`), or an error of RFC 6750 (`invalid_token`).
    pub status: Option<String>,
    /// What the token should allow.
    pub scope: Option<String>,
    /// Where the server's authorisation server is described (RFC 7628 §3.2.2).
    pub openid_configuration: Option<String>,
}

/// What is the matter with a token, as far as a server tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFault {
    /// It has expired, was revoked, or is none.
    Invalid,
    /// It does not allow what we do. Gmail says 400 with a scope for this, and for a token of another user as well (reports of
    /// 2013 to 2021): a new token is worth a try before anybody is asked for consent.
    Scope,
    /// The server says something else.
    Other,
}

impl Refusal {
    /// Reads a challenge, without base64. `None`: it is no JSON object, or says nothing that we know.
    pub(super) fn read(challenge: &[u8]) -> Option<Self> {
        if challenge.len() > MAX_CHALLENGE_BYTES {
            return None;
        }
        let Ok(Value::Object(fields)) = serde_json::from_slice(challenge) else { return None };
        let text = |name: &str, limit: usize| match fields.get(name)? {
            Value::String(text) => shown(text, limit),
            Value::Number(number) => shown(&number.to_string(), limit),
            _ => None,
        };
        let refusal = Self {
            status: text("status", MAX_STATUS_BYTES),
            scope: text("scope", MAX_TEXT_BYTES),
            openid_configuration: text("openid-configuration", MAX_TEXT_BYTES),
        };
        (refusal != Self::default()).then_some(refusal)
    }

    /// What the server means.
    #[must_use]
    pub fn fault(&self) -> TokenFault {
        match self.status.as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("401" | "invalid_token") => TokenFault::Invalid,
            Some("403" | "insufficient_scope") => TokenFault::Scope,
            Some("400") if self.scope.is_some() => TokenFault::Scope,
            _ => TokenFault::Other,
        }
    }

    /// The same without `secret`, which a server may have put anywhere.
    pub(crate) fn without(mut self, secret: &Secret) -> Self {
        for text in [&mut self.status, &mut self.scope, &mut self.openid_configuration].into_iter().flatten()
        {
            *text = secret.strike_out(text);
        }
        self
    }
}

/// A server's text on one line, without control and reordering characters, cut at `limit`; `None`: nothing is left.
fn shown(text: &str, limit: usize) -> Option<String> {
    let visible = |c: &char| !mail::address::is_invisible(*c);
    let mut out = String::new();
    for c in text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).filter(visible) {
        if out.len() + c.len_utf8() > limit {
            break;
        }
        out.push(c);
    }
    (!out.trim().is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(challenge: &str) -> Option<TokenFault> {
        Refusal::read(challenge.as_bytes()).map(|refusal| refusal.fault())
    }

    #[test]
    fn what_is_the_matter_with_a_token_is_told_apart() {
        for (challenge, means) in [
            // Google's document; Gmail (2021); Dovecot 2.3 to XOAUTH2, and to OAUTHBEARER; RFC 7628 §4.3.
            (
                r#"{"status":"401","schemes":"bearer mac","scope":"https://mail.google.com/"}"#,
                TokenFault::Invalid,
            ),
            (r#"{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}"#, TokenFault::Scope),
            (r#"{"status":"401","schemes":"bearer","scope":"mail"}"#, TokenFault::Invalid),
            (r#"{"status":"invalid_token"}"#, TokenFault::Invalid),
            (
                r#"{"status":"invalid_token","scope":"example_scope","openid-configuration":"https://example.com/.well-known/openid-configuration"}"#,
                TokenFault::Invalid,
            ),
            (r#"{"status":401}"#, TokenFault::Invalid),
            (r#"{"status":"INVALID_TOKEN"}"#, TokenFault::Invalid),
            (r#"{"status":"403","scope":"mail"}"#, TokenFault::Scope),
            (r#"{"status":"insufficient_scope"}"#, TokenFault::Scope),
            (r#"{"status":"400"}"#, TokenFault::Other),
            (r#"{"status":"400","scope":""}"#, TokenFault::Other),
            (r#"{"status":"invalid_request"}"#, TokenFault::Other),
            (r#"{"scope":"mail"}"#, TokenFault::Other),
            (r#"{"status":"500"}"#, TokenFault::Other),
        ] {
            assert_eq!(fault(challenge), Some(means), "{challenge}");
        }
    }

    #[test]
    fn what_is_no_refusal_is_none() {
        let deep = format!("{}{}", "[".repeat(4_000), "]".repeat(4_000));
        let deep_inside = format!(r#"{{"status":{}1{}}}"#, "{\"a\":".repeat(1_000), "}".repeat(1_000));
        let huge = format!(r#"{{"status":"401","x":"{}"}}"#, "x".repeat(9_000));
        for challenge in [
            "",
            "null",
            "401",
            "\"401\"",
            "[\"status\",\"401\"]",
            "{}",
            "{\"status\":401",
            "{\"status\":\"401\"}{",
            r#"{"status":null,"scope":["mail"]}"#,
            r#"{"status":{"status":"401"},"scope":true}"#,
            r#"{"status":"","scope":"  \u0000\u0007 "}"#,
            r#"{"STATUS":"401"}"#,
            "Invalid credentials",
            &deep,
            &deep_inside,
            &huge,
        ] {
            assert_eq!(Refusal::read(challenge.as_bytes()), None, "{challenge:.60}");
        }
        assert_eq!(Refusal::read(b"{\"status\":\"\xff\"}"), None);
    }

    #[test]
    fn what_is_kept_is_short_and_fit_to_be_shown() {
        let challenge = format!(
            r#"{{"status":"4{}","scope":"\u001b[31mred\r\n\u202e{}","openid-configuration":"{}"}}"#,
            "0".repeat(1_000),
            "\u{e4}".repeat(1_000),
            "y".repeat(3_000)
        );
        let refusal = Refusal::read(challenge.as_bytes()).unwrap();
        for (text, limit) in [
            (&refusal.status, MAX_STATUS_BYTES),
            (&refusal.scope, MAX_TEXT_BYTES),
            (&refusal.openid_configuration, MAX_TEXT_BYTES),
        ] {
            let text = text.as_ref().unwrap();
            assert!(text.len() <= limit && text.len() + 2 > limit, "{text}");
            assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
        }
    }

    #[test]
    fn numbers_of_any_kind_stay_short() {
        for number in ["1e308", "-0.00000000000000000001", "18446744073709551616", "4.01e2"] {
            let refusal = Refusal::read(format!("{{\"status\":{number}}}").as_bytes()).unwrap();
            assert!(refusal.status.unwrap().len() <= MAX_STATUS_BYTES, "{number}");
        }
    }

    #[test]
    fn a_token_that_the_server_repeats_is_not_kept() {
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl";
        let challenge = format!(
            r#"{{"status":"{token}","scope":"x {token}","openid-configuration":"https://a/?t={token}"}}"#
        );
        let refusal = Refusal::read(challenge.as_bytes()).unwrap().without(&Secret::new(token));
        assert!(!format!("{refusal:?}").contains("eyJ"), "{refusal:?}");
    }
}
