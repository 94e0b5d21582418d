//! An account as clients see it.

use chrono::{DateTime, Utc};
use emailclient_core::domain::account::{Account, AccountError, Cause, Identity, Server};
use emailclient_core::domain::oauth::grant::GrantShown;
use emailclient_core::platform::db::DbError;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::keep::SyncView;
use crate::error::ApiError;
use crate::etag::ETag;

/// A mail server; the password never comes back.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServerView {
    host: String,
    port: u16,
    /// `tls`, `starttls` or `none`.
    security: &'static str,
    username: String,
    has_password: bool,
}

/// Who the account may write as.
#[derive(Debug, Serialize, ToSchema)]
pub struct IdentityView {
    email: String,
    name: String,
    signature_text: String,
    signature_html: String,
}

/// Why an account or a mailbox does not work.
#[derive(Debug, Serialize, ToSchema)]
pub struct CauseView {
    code: String,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<Value>,
    since: Option<DateTime<Utc>>,
    next_try_at: Option<DateTime<Utc>>,
}

/// How the account proves who it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AccountAuth)]
pub struct AuthView {
    /// `password` or `oauth2`.
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'static str>,
    /// `person` (consent), `client` (the app itself) or `service` (a service account for this user).
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<&'static str>,
    /// What was granted, as the provider said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    /// When the present token ends; it is renewed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<DateTime<Utc>>,
}

/// A connected account.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountView {
    id: Uuid,
    email: String,
    name: String,
    /// `connecting`, `syncing`, `connected`, `unreachable`, `throttled`, `needs_reauth` or `paused`.
    state: &'static str,
    cause: Option<CauseView>,
    imap: ServerView,
    smtp: ServerView,
    auth: AuthView,
    /// Whether the password for reading mail is kept.
    has_password: bool,
    identities: Vec<IdentityView>,
    /// Whether mailboxes of other users and shared ones are read as well.
    shared_mailboxes: bool,
    /// How much of it is kept here.
    sync: SyncView,
    last_synced_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Cause> for CauseView {
    fn from(c: Cause) -> Self {
        Self { code: c.code, text: c.text, upstream: c.upstream, since: c.since, next_try_at: c.next_try_at }
    }
}

impl From<Server> for ServerView {
    fn from(s: Server) -> Self {
        let security = s.security.as_str();
        Self { host: s.host, port: s.port, security, username: s.username, has_password: s.has_password }
    }
}

impl From<Option<GrantShown>> for AuthView {
    fn from(grant: Option<GrantShown>) -> Self {
        let kind = if grant.is_some() { "oauth2" } else { "password" };
        Self {
            kind,
            app_id: grant.as_ref().map(|g| g.app_id.0),
            provider: grant.as_ref().map(|g| g.provider.as_str()),
            grant: grant.as_ref().map(|g| g.kind.as_str()),
            scopes: grant.as_ref().map(|g| g.scopes.split_whitespace().map(str::to_owned).collect()),
            expires_at: grant.and_then(|g| g.expires_at),
        }
    }
}

impl From<Identity> for IdentityView {
    fn from(i: Identity) -> Self {
        Self {
            email: i.email,
            name: i.name,
            signature_text: i.signature_text,
            signature_html: i.signature_html,
        }
    }
}

impl From<Account> for AccountView {
    fn from(a: Account) -> Self {
        Self {
            id: a.id.0,
            email: a.email,
            name: a.name,
            state: a.state.as_str(),
            cause: a.cause.map(CauseView::from),
            auth: a.grant.map(|(_, grant)| grant).into(),
            has_password: a.imap.has_password,
            imap: a.imap.into(),
            smtp: a.smtp.into(),
            identities: a.identities.into_iter().map(IdentityView::from).collect(),
            shared_mailboxes: a.shared_mailboxes,
            sync: a.kept.into(),
            last_synced_at: a.last_synced_at,
            created_at: a.created_at,
            updated_at: a.updated_at,
        }
    }
}

/// The tag over what a client can write; the state of the synchronisation does not change it.
pub fn etag(account: &Account) -> ETag {
    ETag::version(account.id, account.version)
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Db(DbError::Duplicate(_)) => exists(),
            AccountError::Db(error) => error.into(),
            AccountError::Seal(error) => error.into(),
        }
    }
}

/// 409: the address is connected already.
pub fn exists() -> ApiError {
    ApiError::account_exists("an account with this address exists in this tenant")
}
