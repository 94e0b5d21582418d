//! Who uses the authority, and what it tells of its work.

use serde_json::{Value, json};

/// An app that is registered.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) id: String,
    pub(super) secret: Option<String>,
    pub(super) redirect_uris: Vec<String>,
    pub(super) mailbox: Option<String>,
}

impl Client {
    /// Without a secret: a public client (RFC 6749 §2.1).
    #[must_use]
    pub fn public(id: &str) -> Self {
        Self { id: id.to_owned(), secret: None, redirect_uris: Vec::new(), mailbox: None }
    }

    /// With one, sent as `client_secret_basic` or `client_secret_post`.
    #[must_use]
    pub fn confidential(id: &str, secret: &str) -> Self {
        Self { secret: Some(secret.to_owned()), ..Self::public(id) }
    }

    /// May have people sent back there. Compared whole.
    #[must_use]
    pub fn redirect(mut self, uri: &str) -> Self {
        self.redirect_uris.push(uri.to_owned());
        self
    }

    /// Its app-only tokens (RFC 6749 §4.4) name this mailbox, for a mail server that takes no other from the login.
    #[must_use]
    pub fn mailbox(self, email: &str) -> Self {
        Self { mailbox: Some(email.to_lowercase()), ..self }
    }
}

/// A person with a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// `sub`: says nothing about the address, and stays.
    pub subject: String,
    /// In small letters.
    pub email: String,
}

/// What acts without a person (RFC 7523), as Google's service accounts do.
#[derive(Debug, Clone)]
pub struct ServiceAccount {
    /// `iss` of its assertions.
    pub email: String,
    /// `kid` of its assertions.
    pub key_id: String,
    /// PKCS#8 in PEM, RSA.
    pub private_key: String,
    /// `aud` of its assertions.
    pub token_uri: String,
}

impl ServiceAccount {
    /// The file that Google gives an organisation.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "type": "service_account",
            "project_id": "devstack",
            "private_key_id": self.key_id,
            "private_key": self.private_key,
            "client_email": self.email,
            "client_id": self.email,
            "token_uri": self.token_uri,
        })
    }
}

pub(super) struct Robot {
    pub(super) key_id: String,
    /// RSA, base64url.
    pub(super) modulus: String,
    pub(super) exponent: String,
    /// Whose mailboxes it may act for.
    pub(super) domains: Vec<String>,
}

/// Where requests arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// `/.well-known/openid-configuration`.
    Discovery,
    /// `/jwks`.
    Keys,
    /// `/authorize`.
    Authorize,
    /// `/token`.
    Token,
    /// `/device`: a device begins.
    Device,
    /// `/activate`: the person's page for it.
    Activate,
    /// `/revoke`.
    Revoke,
    /// `/userinfo`.
    UserInfo,
    /// `/trap`, where nobody has any business: a redirect leads there.
    Trap,
    /// Anything else.
    Other,
}

impl Endpoint {
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/.well-known/openid-configuration" => Self::Discovery,
            "/jwks" => Self::Keys,
            "/authorize" => Self::Authorize,
            "/token" => Self::Token,
            "/device" => Self::Device,
            "/activate" => Self::Activate,
            "/revoke" => Self::Revoke,
            "/userinfo" => Self::UserInfo,
            "/trap" => Self::Trap,
            _ => Self::Other,
        }
    }
}

/// One request that arrived, whatever became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Where.
    pub endpoint: Endpoint,
    /// `grant_type` at the token endpoint.
    pub grant_type: Option<String>,
    /// Who asked, as it was said and not yet proved.
    pub client: Option<String>,
    /// Whose grant it was about.
    pub user: Option<String>,
    /// What was answered; nothing when no answer went out.
    pub status: Option<u16>,
}

/// What a secret is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An authorisation code.
    Code,
    /// An access token.
    Access,
    /// A refresh token.
    Refresh,
    /// An ID token.
    Id,
    /// A device code.
    Device,
}

/// A secret that was given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// What it is.
    pub kind: Kind,
    /// As it was sent.
    pub value: String,
    /// In whose name.
    pub user: Option<String>,
}
