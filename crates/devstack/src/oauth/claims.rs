//! What tokens say: the one place for their claims.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::keys::SigningKey;
use super::model::User;
use super::switches::{IdToken, Switches};

/// The name of the signing key: `kid` in tokens and in the key set. Dovecot 2.3 looks for keys at `<azp>/<alg>/<kid>`, with
/// `default` for what a token does not say: by this name it finds the one key either way.
pub const KEY_ID: &str = "default";
/// `aud` of access tokens: the mail servers, whoever the client is.
pub const AUDIENCE: &str = "mail";

/// What an access token is about.
pub(super) struct Access<'a> {
    pub(super) issuer: &'a str,
    pub(super) client: &'a str,
    /// None: the app itself.
    pub(super) user: Option<&'a User>,
    pub(super) scope: &'a [String],
    pub(super) now: DateTime<Utc>,
    pub(super) ends: DateTime<Utc>,
    /// Two tokens of one second are still two.
    pub(super) id: &'a str,
}

/// As a resource server reads it without asking back (RFC 9068 §2.2).
pub(super) fn access(about: &Access<'_>, switches: &Switches) -> Value {
    let begins = about.now.min(about.ends);
    let mut claims = json!({
        "iss": about.issuer,
        "sub": about.user.map_or(about.client, |user| &user.subject),
        "aud": AUDIENCE,
        "client_id": about.client,
        "scope": about.scope.join(" "),
        "iat": begins.timestamp(),
        "nbf": begins.timestamp(),
        "exp": about.ends.timestamp(),
        "jti": about.id,
    });
    if let Some(claims) = claims.as_object_mut() {
        if switches.azp {
            claims.insert("azp".into(), about.client.into());
        }
        if let Some(user) = about.user {
            claims.insert("email".into(), user.email.as_str().into());
            claims.insert("preferred_username".into(), user.email.as_str().into());
        }
        if switches.padding > 0 {
            claims.insert("padding".into(), "x".repeat(switches.padding).into());
        }
    }
    claims
}

/// What an ID token is about.
pub(super) struct Id<'a> {
    pub(super) issuer: &'a str,
    pub(super) client: &'a str,
    pub(super) user: &'a User,
    pub(super) scope: &'a [String],
    pub(super) nonce: Option<&'a str>,
    pub(super) now: DateTime<Utc>,
}

/// OpenID Connect Core §2, with what the switch says is wrong. Without `email` in the scope, no address.
pub(super) fn id(about: &Id<'_>, wrong: IdToken) -> Value {
    let now = about.now.timestamp();
    let mut claims = Map::new();
    let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    put("iss", about.issuer.into());
    put("sub", about.user.subject.as_str().into());
    put("aud", about.client.into());
    put("iat", now.into());
    put("exp", (now + 3600).into());
    if let Some(nonce) = about.nonce {
        put("nonce", nonce.into());
    }
    if about.scope.iter().any(|scope| scope == "email") {
        put("email", about.user.email.as_str().into());
        put("email_verified", true.into());
    }
    match wrong {
        IdToken::OtherAudience => drop(put("aud", "another-client".into())),
        IdToken::OtherIssuer => drop(put("iss", "https://another-issuer.test".into())),
        IdToken::Expired => {
            put("iat", (now - 7200).into());
            put("exp", (now - 3600).into());
        }
        IdToken::Unverified => drop(put("email_verified", false.into())),
        IdToken::OtherNonce => drop(put("nonce", "the-nonce-of-another".into())),
        IdToken::WithoutNonce => drop(claims.remove("nonce")),
        IdToken::VerifiedAbsent => drop(claims.remove("email_verified")),
        IdToken::WithoutEmail => {
            claims.remove("email");
            claims.remove("email_verified");
        }
        // These are wrong in their signature, or in being there.
        IdToken::Honest
        | IdToken::Absent
        | IdToken::OtherKey
        | IdToken::AlgNone
        | IdToken::Secret
        | IdToken::Garbage => {}
    }
    Value::Object(claims)
}

/// Both keys go by the name of the first.
pub(super) struct Keys {
    pub(super) own: SigningKey,
    /// Not in the key set.
    pub(super) other: SigningKey,
}
