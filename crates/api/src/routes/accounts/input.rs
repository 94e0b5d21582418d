//! What a client may say about an account, and whether it can be used.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use emailclient_core::domain::account::{Account, Identity, NewAccount, NewServer, Server};
use emailclient_core::domain::oauth::grant::Kind as GrantKind;
use emailclient_core::domain::oauth::provider::{Endpoints, MailServer};
use emailclient_core::platform::id::AppId;
use mail::address;
use mail::keep::Keep;
use serde::Deserialize;
use utoipa::ToSchema;
use wire::dial::DialError;
use wire::imap::Security;
use wire::secret::Secret;
use wire::trouble::Trouble;

use super::keep::{SyncIn, SyncPatch, given};
use crate::error::{ApiError, FieldError};
use crate::limits::{self, Limits};
use crate::state::AppState;

/// `verify=false` saves without trying the credentials.
#[derive(Debug, Deserialize)]
pub struct VerifyQuery {
    pub verify: Option<bool>,
}

impl VerifyQuery {
    pub fn wanted(&self) -> bool {
        self.verify.unwrap_or(true)
    }
}

/// How a connection is protected.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecurityIn {
    /// TLS from the first byte.
    Tls,
    /// STARTTLS, required.
    Starttls,
    /// None; only for hosts that the operator allowed.
    None,
}

impl From<SecurityIn> for Security {
    fn from(s: SecurityIn) -> Self {
        match s {
            SecurityIn::Tls => Self::Tls,
            SecurityIn::Starttls => Self::StartTls,
            SecurityIn::None => Self::Plain,
        }
    }
}

/// A mail server.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct ServerIn {
    host: String,
    #[schema(minimum = 1, maximum = 65535)]
    port: u16,
    security: SecurityIn,
    username: String,
    /// Needed when the account is made, and when host, port, security or user name change; else, left out, the one there
    /// is stays.
    #[schema(value_type = Option<String>)]
    password: Option<Secret>,
}

/// Who the account may write as.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct IdentityIn {
    email: String,
    name: Option<String>,
    signature_text: Option<String>,
    signature_html: Option<String>,
}

/// How an account proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthKind {
    /// The passwords of its servers.
    Password,
    /// Tokens of a provider.
    OAuth2,
}

/// The same, as far as it is not the passwords.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct AuthIn {
    #[serde(rename = "type")]
    pub kind: AuthKind,
    /// The OAuth app.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub app_id: Option<AppId>,
    /// One that the caller has from a consent already. Left out: what `grant` says.
    #[schema(value_type = Option<String>)]
    pub refresh_token: Option<Secret>,
    /// Without a person: `client` (client credentials; the app itself may read the mailbox, as at Microsoft) or `service` (a
    /// service account with delegation over the domain, as at Google).
    #[schema(value_type = Option<String>)]
    pub grant: Option<GrantKind>,
}

/// A whole account.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct AccountIn {
    email: String,
    name: Option<String>,
    /// Needed where the account has passwords. With `oauth2` the servers are those of the app's provider.
    imap: Option<ServerIn>,
    /// The same.
    smtp: Option<ServerIn>,
    /// Left out: `{"type": "password"}`.
    auth: Option<AuthIn>,
    identities: Option<Vec<IdentityIn>>,
    /// Whether mailboxes of other users and shared ones are read as well; left out, they are not.
    shared_mailboxes: Option<bool>,
    /// How much of it is kept here; left out, all of it.
    sync: Option<SyncIn>,
}

/// Some fields of a server.
#[derive(Debug, Deserialize, ToSchema)]
pub struct ServerPatch {
    host: Option<String>,
    #[schema(minimum = 1, maximum = 65535)]
    port: Option<u16>,
    security: Option<SecurityIn>,
    username: Option<String>,
    #[schema(value_type = Option<String>)]
    password: Option<Secret>,
}

/// Some fields of an account; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
pub struct AccountPatch {
    email: Option<String>,
    name: Option<String>,
    imap: Option<ServerPatch>,
    smtp: Option<ServerPatch>,
    identities: Option<Vec<IdentityIn>>,
    /// Whether mailboxes of other users and shared ones are read as well.
    shared_mailboxes: Option<bool>,
    /// How much of it is kept here; `null` is all of it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<SyncPatch>)]
    sync: Option<Option<SyncPatch>>,
}

impl From<ServerIn> for NewServer {
    fn from(s: ServerIn) -> Self {
        let host = s.host.trim().trim_end_matches('.').to_owned();
        Self { host, port: s.port, security: s.security.into(), username: s.username, password: s.password }
    }
}

impl From<IdentityIn> for Identity {
    fn from(i: IdentityIn) -> Self {
        Self {
            email: i.email.trim().to_owned(),
            name: i.name.unwrap_or_default(),
            signature_text: i.signature_text.unwrap_or_default(),
            signature_html: i.signature_html.unwrap_or_default(),
        }
    }
}

impl AccountIn {
    /// What is said of OAuth2, if the account is to have it.
    pub fn oauth2(&self) -> Option<&AuthIn> {
        self.auth.as_ref().filter(|auth| auth.kind == AuthKind::OAuth2)
    }

    /// An account with passwords.
    ///
    /// # Errors
    /// 422 where a server is missing, or the account is to have OAuth2: for that there is another way.
    pub fn with_passwords(self) -> Result<NewAccount, ApiError> {
        if self.oauth2().is_some() {
            let detail =
                "an account gets OAuth2 when it is made, or by POST /api/oauth/authorize with its account_id";
            return Err(ApiError::invalid_field("/auth/type", "not-allowed", detail));
        }
        let mut faults = Vec::new();
        for (server, at) in [(&self.imap, "/imap"), (&self.smtp, "/smtp")] {
            if server.is_none() {
                faults.push(FieldError::new(at, "missing", "this field is required"));
            }
        }
        let (Some(imap), Some(smtp)) = (self.imap, self.smtp) else {
            return Err(ApiError::validation("see errors for the fields").with_errors(faults));
        };
        let mut new = as_said((self.email, self.name), self.identities, self.shared_mailboxes, self.sync)?;
        new.imap = imap.into();
        new.smtp = smtp.into();
        Ok(new)
    }

    /// An account at these servers, without credentials yet.
    ///
    /// # Errors
    /// 422 where servers are named as well.
    pub fn at_provider(self, endpoints: &Endpoints) -> Result<NewAccount, ApiError> {
        for (server, at) in [(&self.imap, "/imap"), (&self.smtp, "/smtp")] {
            if server.is_some() {
                let detail =
                    "with oauth2 the servers are those of the app's provider: tokens go nowhere else";
                return Err(ApiError::invalid_field(at, "not-allowed", detail));
            }
        }
        let mut new = as_said((self.email, self.name), self.identities, self.shared_mailboxes, self.sync)?;
        let server = |server: &MailServer| NewServer {
            host: server.host.clone(),
            port: server.port,
            security: server.security,
            username: new.email.clone(),
            password: None,
        };
        (new.imap, new.smtp) = (server(&endpoints.imap), server(&endpoints.smtp));
        Ok(new)
    }
}

fn as_said(
    (email, name): (String, Option<String>),
    identities: Option<Vec<IdentityIn>>,
    shared_mailboxes: Option<bool>,
    sync: Option<SyncIn>,
) -> Result<NewAccount, ApiError> {
    let mut faults = Vec::new();
    let keep = sync.unwrap_or_default().keep(&mut faults);
    none(faults)?;
    let nowhere = || NewServer {
        host: String::new(),
        port: 0,
        security: Security::Tls,
        username: String::new(),
        password: None,
    };
    Ok(NewAccount {
        email: email.trim().to_owned(),
        name: name.unwrap_or_default(),
        imap: nowhere(),
        smtp: nowhere(),
        identities: identities.unwrap_or_default().into_iter().map(Identity::from).collect(),
        shared_mailboxes: shared_mailboxes.unwrap_or_default(),
        keep,
        grant: None,
    })
}

/// `new`, which goes on with the tokens of `old` as long as nobody gives a password.
pub fn keep_grant(new: NewAccount, old: &Account) -> NewAccount {
    let passwords = new.imap.password.is_some() || new.smtp.password.is_some();
    NewAccount { grant: old.grant.as_ref().map(|(id, _)| *id).filter(|_| !passwords), ..new }
}

fn merged(old: &Server, patch: Option<ServerPatch>) -> NewServer {
    let kept = NewServer {
        host: old.host.clone(),
        port: old.port,
        security: old.security,
        username: old.username.clone(),
        password: None,
    };
    let Some(p) = patch else { return kept };
    NewServer {
        host: p.host.map_or(kept.host, |h| h.trim().trim_end_matches('.').to_owned()),
        port: p.port.unwrap_or(kept.port),
        security: p.security.map_or(kept.security, Security::from),
        username: p.username.unwrap_or(kept.username),
        password: p.password,
    }
}

impl AccountPatch {
    /// `old` with these fields replaced.
    ///
    /// # Errors
    /// 422 where `sync` cannot be read.
    pub fn over(self, old: &Account) -> Result<NewAccount, ApiError> {
        Ok(keep_grant(self.merged(old)?, old))
    }

    fn merged(self, old: &Account) -> Result<NewAccount, ApiError> {
        let mut faults = Vec::new();
        let keep = match self.sync {
            None => old.kept.wanted.clone(),
            Some(None) => Keep::default(),
            Some(Some(patch)) => patch.over(&old.kept.wanted, &mut faults),
        };
        none(faults)?;
        let identities = self.identities.map(|all| all.into_iter().map(Identity::from).collect());
        Ok(NewAccount {
            email: self.email.map_or_else(|| old.email.clone(), |e| e.trim().to_owned()),
            name: self.name.unwrap_or_else(|| old.name.clone()),
            imap: merged(&old.imap, self.imap),
            smtp: merged(&old.smtp, self.smtp),
            identities: identities.unwrap_or_else(|| old.identities.clone()),
            shared_mailboxes: self.shared_mailboxes.unwrap_or(old.shared_mailboxes),
            keep,
            grant: None,
        })
    }
}

/// Whether a connection that was proved before would now be another one.
pub fn connection_changed(old: &Server, new: &NewServer) -> bool {
    new.password.is_some() || destination_changed(old, new)
}

/// Whether a password would now be shown to somebody else, or otherwise, than the user gave it for. Without this a
/// stored one goes wherever whoever may change the account points it.
fn destination_changed(old: &Server, new: &NewServer) -> bool {
    !old.host.eq_ignore_ascii_case(&new.host)
        || old.port != new.port
        || old.security != new.security
        || old.username != new.username
}

/// Judges everything that needs no network, at this moment. `old` is the account as it is, if there is one.
///
/// # Errors
/// 422 `invalid-address`, `invalid-header` or `validation-error`, with pointers.
pub fn check(new: &NewAccount, old: Option<&Account>, now: DateTime<Utc>) -> Result<(), ApiError> {
    check_address(&new.email, "/email")?;
    check_name(&new.name, "/name")?;
    let mut limits = Limits::default();
    limits.text("/name", &new.name, limits::NAME_BYTES);
    limits.count("/identities", new.identities.len(), limits::IDENTITIES);
    for (n, identity) in new.identities.iter().enumerate().take(limits::IDENTITIES) {
        let at = format!("/identities/{n}");
        check_address(&identity.email, &format!("{at}/email"))?;
        check_name(&identity.name, &format!("{at}/name"))?;
        limits.text(format!("{at}/name"), &identity.name, limits::NAME_BYTES);
        limits.text(format!("{at}/signature_text"), &identity.signature_text, limits::SIGNATURE_BYTES);
        limits.text(format!("{at}/signature_html"), &identity.signature_html, limits::SIGNATURE_BYTES);
    }
    for (server, at) in [(&new.imap, "/imap"), (&new.smtp, "/smtp")] {
        limits.text(format!("{at}/host"), &server.host, limits::HOST_BYTES);
        limits.text(format!("{at}/username"), &server.username, limits::USERNAME_BYTES);
        let password = server.password.as_ref().map_or("", |p| p.expose());
        limits.text(format!("{at}/password"), password, limits::PASSWORD_BYTES);
    }
    let mut faults = limits.faults();
    check_identities_differ(&new.identities, &mut faults);
    super::keep::check(&new.keep, old.map(|old| &old.kept.wanted), now, &mut faults);
    let tokens = new.grant.is_some();
    check_server(&new.imap, (old.map(|o| &o.imap), tokens), "/imap", &mut faults);
    check_server(&new.smtp, (old.map(|o| &o.smtp), tokens), "/smtp", &mut faults);
    none(faults)
}

fn none(faults: Vec<FieldError>) -> Result<(), ApiError> {
    match faults.is_empty() {
        true => Ok(()),
        false => Err(ApiError::validation("see errors for the fields").with_errors(faults)),
    }
}

/// A sender is found by the address without its case, so a second identity of one could never be chosen.
fn check_identities_differ(identities: &[Identity], faults: &mut Vec<FieldError>) {
    let mut seen = HashSet::new();
    for (n, identity) in identities.iter().enumerate().take(limits::IDENTITIES) {
        if !seen.insert(identity.email.to_lowercase()) {
            let detail = "there is an identity of this address already, case is ignored";
            faults.push(FieldError::new(format!("/identities/{n}/email"), "duplicate", detail));
        }
    }
}

fn check_address(text: &str, pointer: &str) -> Result<(), ApiError> {
    address::validate(text).map_err(|e| {
        ApiError::invalid_address(e.to_string()).with_errors([FieldError::new(
            pointer,
            "invalid-address",
            e.to_string(),
        )])
    })
}

fn check_name(text: &str, pointer: &str) -> Result<(), ApiError> {
    if text.chars().any(char::is_control) {
        let detail = "a name must not contain line breaks or control characters";
        return Err(ApiError::invalid_header(detail).with_errors([FieldError::new(
            pointer,
            "invalid-header",
            detail,
        )]));
    }
    Ok(())
}

fn check_server(
    server: &NewServer,
    (old, tokens): (Option<&Server>, bool),
    at: &str,
    faults: &mut Vec<FieldError>,
) {
    let mut fault = |field: &str, code: &str, detail: &str| {
        faults.push(FieldError::new(format!("{at}/{field}"), code, detail))
    };
    if server.username.chars().any(char::is_control) {
        fault("username", "invalid", "without control characters");
    }
    if at == "/imap" && server.username.is_empty() {
        fault("username", "empty", "a user name is needed");
    }
    match &server.password {
        None if tokens && old.is_none() => {}
        None if old.is_none() => fault("password", "missing", "this field is required"),
        None if tokens && old.is_some_and(|old| destination_changed(old, server)) => fault(
            "host",
            "not-allowed",
            "with oauth2 the servers are those of the app's provider: tokens go nowhere else",
        ),
        None if !tokens && !server.username.is_empty() && old.is_some_and(|old| !old.has_password) => {
            fault("password", "missing", "without oauth2 the password is needed")
        }
        None if old.is_some_and(|old| destination_changed(old, server)) => fault(
            "password",
            "missing",
            "with another host, port, security or user name the password is needed again",
        ),
        Some(p) if p.expose().is_empty() => fault("password", "empty", "a password is needed"),
        Some(p) if p.expose().contains(['\r', '\n']) => fault("password", "invalid", "on one line"),
        _ => {}
    }
}

/// Judges host and port of both servers by what the names resolve to now.
///
/// # Errors
/// 422 `host-not-allowed`, `port-not-allowed`, or `host-not-found` unless `later` admits that.
pub async fn check_hosts(state: &AppState, new: &NewAccount, later: bool) -> Result<(), ApiError> {
    let (imap, smtp) = tokio::join!(
        check_host(state, &new.imap, "/imap", later),
        check_host(state, &new.smtp, "/smtp", later)
    );
    imap.and(smtp)
}

async fn check_host(state: &AppState, server: &NewServer, at: &str, later: bool) -> Result<(), ApiError> {
    let plain = server.security == Security::Plain;
    let verdict = match state.outbound.check(&server.host, server.port).await {
        Ok(()) if plain => state.outbound.allows_plain(&server.host, server.port).await,
        Err(DialError::HostNotFound) if later && plain => {
            Ok(state.outbound.is_allowed_explicitly(&server.host, server.port))
        }
        other => other.map(|()| true),
    };
    let refuse = |trouble: Trouble, field: &str, detail: &str| {
        let error = FieldError::new(format!("{at}/{field}"), trouble.code(), detail);
        Err(ApiError::trouble(trouble, detail).with_errors([error]))
    };
    match verdict {
        Ok(true) => Ok(()),
        Ok(false) => refuse(
            Trouble::HostNotAllowed,
            "security",
            "a connection without TLS is only made to hosts the operator allowed",
        ),
        Err(DialError::HostNotAllowed) => {
            refuse(Trouble::HostNotAllowed, "host", "this host may not be connected to")
        }
        Err(DialError::PortNotAllowed) => {
            refuse(Trouble::PortNotAllowed, "port", "this port may not be connected to")
        }
        Err(DialError::HostNotFound | DialError::Timeout | DialError::Unreachable(_)) if later => Ok(()),
        Err(DialError::HostNotFound) => refuse(Trouble::HostNotFound, "host", "the host was not found"),
        Err(DialError::Timeout | DialError::Unreachable(_)) => {
            refuse(Trouble::Unreachable, "host", "the name of the host could not be resolved in time")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_that_differ_only_in_case_are_one_too_many() {
        let identity = |email: &str| {
            let given = serde_json::json!({ "email": email, "name": null });
            Identity::from(serde_json::from_value::<IdentityIn>(given).unwrap())
        };
        let all = ["me@a.example", "sales@a.example", "Sales@A.example "].map(identity);
        let mut faults = Vec::new();
        check_identities_differ(&all, &mut faults);
        let found: Vec<_> = faults.iter().map(|f| (f.pointer.as_str(), f.code.as_str())).collect();
        assert_eq!(found, [("/identities/2/email", "duplicate")]);
    }
}
