//! What a client may say about an app, and whether it can be used.

use emailclient_core::domain::oauth::app::{Said, Secrets, is_private_key};
use emailclient_core::domain::oauth::provider::{Endpoints, MailServer, Provider};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use wire::dial::DialError;
use wire::imap::Security;
use wire::post::Address;
use wire::secret::Secret;

use super::view::providers;
use crate::error::{ApiError, FieldError};
use crate::limits::{self, Limits};
use crate::state::AppState;

/// A mail server of a custom provider.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct MailServerIn {
    host: String,
    #[schema(minimum = 1, maximum = 65535)]
    port: u16,
    /// `tls`, `starttls` or `none`.
    security: String,
}

/// Endpoints of a custom provider, by the names of RFC 8414.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct EndpointsIn {
    /// Who signs ID tokens.
    issuer: Option<String>,
    authorization_endpoint: String,
    token_endpoint: String,
    /// `client_secret_post` (left out) or `client_secret_basic`.
    token_endpoint_auth_method: Option<String>,
    revocation_endpoint: Option<String>,
    device_authorization_endpoint: Option<String>,
    userinfo_endpoint: Option<String>,
    jwks_uri: Option<String>,
    imap: MailServerIn,
    smtp: MailServerIn,
}

/// An app that is registered at a provider.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct AppIn {
    #[schema(schema_with = providers)]
    provider: Provider,
    name: Option<String>,
    /// As the provider shows it; of a service account its address.
    client_id: String,
    #[schema(value_type = Option<String>)]
    client_secret: Option<Secret>,
    /// Of a service account: the PEM text, with which it acts for users (Google's domain-wide delegation).
    #[schema(value_type = Option<String>)]
    private_key: Option<Secret>,
    /// Microsoft's directory (id or domain) that is asked; left out: any.
    tenant: Option<String>,
    /// For `custom`.
    endpoints: Option<EndpointsIn>,
    /// In place of the provider's usual ones.
    scopes: Option<Vec<String>>,
}

/// Some fields of an app; what is left out stays. The provider stays in any case.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct AppPatch {
    name: Option<String>,
    client_id: Option<String>,
    #[schema(value_type = Option<String>)]
    client_secret: Option<Secret>,
    #[schema(value_type = Option<String>)]
    private_key: Option<Secret>,
    /// `null`: any directory.
    #[serde(default, deserialize_with = "given")]
    tenant: Option<Option<String>>,
    endpoints: Option<EndpointsIn>,
    /// Empty: the provider's usual ones.
    scopes: Option<Vec<String>>,
}

/// Tells `null` from what is left out.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// What was given, with the faults that were met on the way.
pub struct Given {
    /// What is said.
    pub said: Said,
    /// Secrets to seal.
    pub secrets: Secrets,
    faults: Vec<FieldError>,
}

impl AppIn {
    /// What a client gave.
    pub fn given(self) -> Given {
        let mut faults = Vec::new();
        let endpoints = self.endpoints.map(|e| endpoints(e, &mut faults));
        let said = Said {
            provider: self.provider,
            name: self.name.unwrap_or_default(),
            client_id: self.client_id.trim().to_owned(),
            directory: self.tenant,
            endpoints,
            scopes: self.scopes.unwrap_or_default(),
        };
        let secrets = Secrets { client_secret: self.client_secret, private_key: self.private_key };
        Given { said, secrets, faults }
    }
}

impl AppPatch {
    /// `old` with these fields replaced.
    pub fn over(self, old: Said) -> Given {
        let mut faults = Vec::new();
        let said = Said {
            provider: old.provider,
            name: self.name.unwrap_or(old.name),
            client_id: self.client_id.map_or(old.client_id, |id| id.trim().to_owned()),
            directory: self.tenant.unwrap_or(old.directory),
            endpoints: self.endpoints.map(|e| endpoints(e, &mut faults)).or(old.endpoints),
            scopes: self.scopes.unwrap_or(old.scopes),
        };
        let secrets = Secrets { client_secret: self.client_secret, private_key: self.private_key };
        Given { said, secrets, faults }
    }
}

fn endpoints(e: EndpointsIn, faults: &mut Vec<FieldError>) -> Endpoints {
    let mut server = |name: &str, s: MailServerIn| {
        let security = Security::from_word(&s.security).unwrap_or_else(|| {
            let detail = "tls, starttls or none is expected";
            faults.push(FieldError::new(format!("/endpoints/{name}/security"), "unknown", detail));
            Security::Tls
        });
        MailServer { host: s.host.trim().trim_end_matches('.').to_owned(), port: s.port, security }
    };
    let (imap, smtp) = (server("imap", e.imap), server("smtp", e.smtp));
    Endpoints {
        issuer: e.issuer,
        authorization_endpoint: e.authorization_endpoint,
        token_endpoint: e.token_endpoint,
        token_endpoint_auth_method: e.token_endpoint_auth_method,
        revocation_endpoint: e.revocation_endpoint,
        device_authorization_endpoint: e.device_authorization_endpoint,
        userinfo_endpoint: e.userinfo_endpoint,
        jwks_uri: e.jwks_uri,
        imap,
        smtp,
    }
}

impl Given {
    /// Judges it: its form, and where its addresses and hosts lead to now.
    ///
    /// # Errors
    /// 422 with pointers.
    pub async fn check(self, state: &AppState) -> Result<(Said, Secrets), ApiError> {
        let Self { said, secrets, mut faults } = self;
        faults.extend(form(&said, &secrets));
        let custom =
            said.endpoints.iter().flat_map(|e| e.addresses().map(|(name, url)| (name, url.to_owned())));
        for (name, url) in custom.collect::<Vec<_>>() {
            let at = format!("/endpoints/{name}");
            let judged = match Address::parse(&url) {
                Ok(address) => address.check(&state.outbound).await,
                Err(error) => Err(error),
            };
            if let Err(error) = judged {
                faults.push(FieldError::new(at, error.code(), error.to_string()));
            }
        }
        let servers = said.endpoints.iter().flat_map(|e| [("imap", &e.imap), ("smtp", &e.smtp)]);
        for (name, server) in servers {
            if let Err(error) = check_server(state, server).await {
                let trouble = wire::post::PostError::from(error).0;
                faults.push(FieldError::new(
                    format!("/endpoints/{name}/host"),
                    trouble.code(),
                    trouble.text(),
                ));
            }
        }
        if faults.is_empty() {
            Ok((said, secrets))
        } else {
            Err(ApiError::validation("see errors for the fields").with_errors(faults))
        }
    }
}

async fn check_server(state: &AppState, server: &MailServer) -> Result<(), DialError> {
    state.outbound.check(&server.host, server.port).await?;
    let plain = server.security == Security::Plain;
    if plain && !state.outbound.allows_plain(&server.host, server.port).await? {
        return Err(DialError::HostNotAllowed);
    }
    Ok(())
}

fn form(said: &Said, secrets: &Secrets) -> Vec<FieldError> {
    let mut limits = Limits::default();
    limits.text("/name", &said.name, limits::NAME_BYTES);
    limits.text("/client_id", &said.client_id, limits::OAUTH_CLIENT_BYTES);
    limits.count("/scopes", said.scopes.len(), limits::OAUTH_SCOPES);
    for (n, scope) in said.scopes.iter().enumerate().take(limits::OAUTH_SCOPES) {
        limits.text(format!("/scopes/{n}"), scope, limits::OAUTH_SCOPE_BYTES);
    }
    let text = |secret: &Option<Secret>| secret.as_ref().map_or(String::new(), |s| s.expose().to_owned());
    limits.text("/client_secret", &text(&secrets.client_secret), limits::PASSWORD_BYTES);
    limits.text("/private_key", &text(&secrets.private_key), limits::OAUTH_KEY_BYTES);
    let mut faults = limits.faults();
    let mut fault = |at: &str, code: &str, detail: &str| faults.push(FieldError::new(at, code, detail));
    if said.client_id.is_empty() || said.client_id.chars().any(char::is_control) {
        fault("/client_id", "invalid", "the provider shows it, on one line");
    }
    if said.name.chars().any(char::is_control) {
        fault("/name", "invalid", "without line breaks");
    }
    // RFC 6749 §3.3.
    let is_scope =
        |s: &String| !s.is_empty() && s.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if let Some(n) = said.scopes.iter().position(|scope| !is_scope(scope)) {
        fault(&format!("/scopes/{n}"), "invalid", "one scope, without blanks");
    }
    if let Some(key) = &secrets.private_key
        && !is_private_key(key)
    {
        fault("/private_key", "invalid", "an RSA key in PEM is expected");
    }
    match (said.provider, &said.endpoints) {
        (Provider::Custom, None) => fault("/endpoints", "missing", "a custom provider needs its endpoints"),
        (Provider::Custom, Some(e)) => {
            if said.scopes.is_empty() {
                fault("/scopes", "missing", "a custom provider needs the scopes that are asked for");
            }
            let method = e.token_endpoint_auth_method.as_deref();
            if !matches!(method, None | Some("client_secret_post" | "client_secret_basic")) {
                let detail = "client_secret_post or client_secret_basic is expected";
                fault("/endpoints/token_endpoint_auth_method", "unknown", detail);
            }
            if e.jwks_uri.is_none() && e.userinfo_endpoint.is_none() {
                fault(
                    "/endpoints/jwks_uri",
                    "missing",
                    "this or userinfo_endpoint tells whose mailbox it is",
                );
            }
        }
        (_, Some(_)) => fault("/endpoints", "not-allowed", "those of this provider are known"),
        (_, None) => {}
    }
    if let Some(directory) = &said.directory {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
        if said.provider != Provider::Microsoft {
            fault("/tenant", "not-allowed", "only Microsoft has directories");
        } else if directory.is_empty()
            || directory.len() > limits::HOST_BYTES
            || !directory.bytes().all(plain)
        {
            fault(
                "/tenant",
                "invalid",
                "the id or a domain of a directory, common, organizations or consumers",
            );
        }
    }
    faults
}
