//! What each provider is like: where it is asked, for what, and where its mail is. As their public documents say in 2026.
//!
//! The next provider: a value of [`Provider`], its row in [`Provider::terms`], and a test.

use serde::{Deserialize, Serialize};

use crate::platform::words::words;
use wire::imap::Security;
use wire::oauth::ClientAuth;

words! {
    /// Whose authorization server it is.
    pub enum Provider {
        /// Google: Gmail and Workspace.
        Google = "google",
        /// Microsoft: Outlook.com and Microsoft 365.
        Microsoft = "microsoft",
        /// Yahoo and AOL.
        Yahoo = "yahoo",
        /// Any other, whose endpoints the app names.
        Custom = "custom",
    }
}

/// A mail server of a provider, without the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailServer {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `tls`, `starttls` or `none`.
    #[serde(with = "security")]
    pub security: Security,
}

/// Endpoints of a provider, by the names of RFC 8414.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Who signs ID tokens (OpenID Connect Core §2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Where a person is sent (RFC 6749 §3.1).
    pub authorization_endpoint: String,
    /// Where tokens are asked for (RFC 6749 §3.2).
    pub token_endpoint: String,
    /// `client_secret_post` (unless it says otherwise) or `client_secret_basic`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint_auth_method: Option<String>,
    /// Where a grant is given back (RFC 7009).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation_endpoint: Option<String>,
    /// Where a device begins (RFC 8628).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_authorization_endpoint: Option<String>,
    /// Who it was (OpenID Connect Core §5.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userinfo_endpoint: Option<String>,
    /// Keys of ID tokens (RFC 7517).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_uri: Option<String>,
    /// Where mail is read.
    pub imap: MailServer,
    /// Where mail is handed in.
    pub smtp: MailServer,
}

impl Endpoints {
    /// How the client shows its secret.
    #[must_use]
    pub fn client_auth(&self) -> ClientAuth {
        match self.token_endpoint_auth_method.as_deref() {
            Some("client_secret_basic") => ClientAuth::Basic,
            _ => ClientAuth::Post,
        }
    }

    /// Every address that is asked, with its field.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let needed = [
            ("authorization_endpoint", &self.authorization_endpoint),
            ("token_endpoint", &self.token_endpoint),
        ];
        let others = [
            ("revocation_endpoint", &self.revocation_endpoint),
            ("device_authorization_endpoint", &self.device_authorization_endpoint),
            ("userinfo_endpoint", &self.userinfo_endpoint),
            ("jwks_uri", &self.jwks_uri),
        ];
        let others = others.into_iter().filter_map(|(name, url)| Some((name, url.as_ref()?)));
        needed.into_iter().chain(others).map(|(name, url)| (name, url.as_str()))
    }
}

/// How a provider is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Where.
    pub endpoints: Endpoints,
    /// What a person grants.
    pub scopes: String,
    /// What an app is granted for itself, or a service account for a user; empty: the provider has no such thing.
    pub own_scopes: String,
    /// Further fields of the first request.
    pub extra: &'static [(&'static str, &'static str)],
}

impl Provider {
    /// Its terms; `None` for [`Provider::Custom`], whose app has them. `directory`: the organisation at Microsoft.
    #[must_use]
    pub fn terms(self, directory: Option<&str>) -> Option<Terms> {
        let mut terms = match self {
            Self::Google => row(&GOOGLE),
            Self::Microsoft => row(&MICROSOFT),
            Self::Yahoo => row(&YAHOO),
            Self::Custom => return None,
        };
        if self == Self::Microsoft {
            let directory = directory.unwrap_or("common");
            let e = &mut terms.endpoints;
            let urls = [&mut e.authorization_endpoint, &mut e.token_endpoint].into_iter();
            for url in urls.chain(&mut e.device_authorization_endpoint).chain(&mut e.jwks_uri) {
                *url = url.replace("{directory}", directory);
            }
        }
        Some(terms)
    }
}

type Place = (&'static str, u16, Security);

struct Row {
    issuer: &'static str,
    authorize: &'static str,
    token: &'static str,
    revoke: Option<&'static str>,
    device: Option<&'static str>,
    userinfo: Option<&'static str>,
    jwks: &'static str,
    scopes: &'static str,
    own_scopes: &'static str,
    extra: &'static [(&'static str, &'static str)],
    imap: Place,
    smtp: Place,
}

/// A refresh token comes with `access_type=offline`, and again with a second consent only with `prompt=consent`. Its device grant
/// knows no scope of mail.
const GOOGLE: Row = Row {
    issuer: "https://accounts.google.com",
    authorize: "https://accounts.google.com/o/oauth2/v2/auth",
    token: "https://oauth2.googleapis.com/token",
    revoke: Some("https://oauth2.googleapis.com/revoke"),
    device: None,
    userinfo: Some("https://openidconnect.googleapis.com/v1/userinfo"),
    jwks: "https://www.googleapis.com/oauth2/v3/certs",
    scopes: "https://mail.google.com/ openid email",
    own_scopes: "https://mail.google.com/",
    extra: &[("access_type", "offline"), ("prompt", "consent")],
    imap: ("imap.gmail.com", 993, Security::Tls),
    smtp: ("smtp.gmail.com", 465, Security::Tls),
};

/// There is no revocation endpoint. The issuer has the person's own directory in it, whichever was asked.
const MICROSOFT: Row = Row {
    issuer: "https://login.microsoftonline.com/{tid}/v2.0",
    authorize: "https://login.microsoftonline.com/{directory}/oauth2/v2.0/authorize",
    token: "https://login.microsoftonline.com/{directory}/oauth2/v2.0/token",
    revoke: None,
    device: Some("https://login.microsoftonline.com/{directory}/oauth2/v2.0/devicecode"),
    userinfo: None,
    jwks: "https://login.microsoftonline.com/{directory}/discovery/v2.0/keys",
    scopes: "https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send offline_access openid email profile",
    own_scopes: "https://outlook.office365.com/.default",
    extra: &[("prompt", "select_account")],
    imap: ("outlook.office365.com", 993, Security::Tls),
    smtp: ("smtp.office365.com", 587, Security::StartTls),
};

const YAHOO: Row = Row {
    issuer: "https://api.login.yahoo.com",
    authorize: "https://api.login.yahoo.com/oauth2/request_auth",
    token: "https://api.login.yahoo.com/oauth2/get_token",
    revoke: Some("https://api.login.yahoo.com/oauth2/revoke"),
    device: None,
    userinfo: Some("https://api.login.yahoo.com/openid/v1/userinfo"),
    jwks: "https://api.login.yahoo.com/openid/v1/certs",
    scopes: "mail-w openid email",
    own_scopes: "",
    extra: &[],
    imap: ("imap.mail.yahoo.com", 993, Security::Tls),
    smtp: ("smtp.mail.yahoo.com", 465, Security::Tls),
};

fn row(row: &Row) -> Terms {
    let text = |text: Option<&str>| text.map(str::to_owned);
    let place = |(host, port, security): Place| MailServer { host: host.to_owned(), port, security };
    Terms {
        endpoints: Endpoints {
            issuer: text(Some(row.issuer)),
            authorization_endpoint: row.authorize.to_owned(),
            token_endpoint: row.token.to_owned(),
            token_endpoint_auth_method: None,
            revocation_endpoint: text(row.revoke),
            device_authorization_endpoint: text(row.device),
            userinfo_endpoint: text(row.userinfo),
            jwks_uri: text(Some(row.jwks)),
            imap: place(row.imap),
            smtp: place(row.smtp),
        },
        scopes: row.scopes.to_owned(),
        own_scopes: row.own_scopes.to_owned(),
        extra: row.extra,
    }
}

/// The kind of protection as a word.
mod security {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use wire::imap::Security;

    pub fn serialize<S: Serializer>(security: &Security, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(security.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Security, D::Error> {
        let word = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Security::from_word(&word)
            .ok_or_else(|| serde::de::Error::custom("tls, starttls or none is expected"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::post::Address;

    #[test]
    fn every_provider_is_asked_over_https_and_has_mail_servers_with_tls() {
        for provider in Provider::ALL.iter().filter(|p| **p != Provider::Custom) {
            let terms = provider.terms(Some("contoso.example")).unwrap();
            for (name, url) in terms.endpoints.addresses() {
                let address = Address::parse(url).unwrap();
                assert!(!address.is_plain() && !url.contains('{'), "{provider} {name}: {url}");
            }
            assert!(
                terms.endpoints.imap.security != Security::Plain
                    && terms.endpoints.smtp.security != Security::Plain
            );
            assert!(!terms.scopes.is_empty());
        }
        let microsoft = |directory| Provider::Microsoft.terms(directory).unwrap().endpoints.token_endpoint;
        assert!(microsoft(None).contains("/common/") && microsoft(Some("a.example")).contains("/a.example/"));
        assert!(Provider::Custom.terms(None).is_none());
    }
}
