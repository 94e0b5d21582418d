//! An app as clients see it.

use chrono::{DateTime, Utc};
use emailclient_core::domain::oauth::app::App;
use emailclient_core::domain::oauth::provider::{MailServer, Provider};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::Object;
use utoipa::openapi::{ObjectBuilder, Type};
use uuid::Uuid;

use crate::etag::ETag;

/// An app that is registered at a provider. Its secrets never come back.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OAuthApp)]
pub struct AppView {
    id: Uuid,
    #[schema(schema_with = providers)]
    provider: &'static str,
    name: String,
    client_id: String,
    has_client_secret: bool,
    /// Of a service account, whose assertions it signs.
    has_private_key: bool,
    /// Microsoft's directory; none: any.
    tenant: Option<String>,
    /// Of a custom provider.
    #[schema(value_type = Option<Object>)]
    endpoints: Option<Value>,
    /// Asked for in place of the provider's usual ones, where there are any.
    scopes: Vec<String>,
    /// What is registered at the provider as redirect URL; none while `PUBLIC_URL` is not set.
    redirect_uri: Option<String>,
    imap: MailServerView,
    smtp: MailServerView,
    /// Of the deployment: every tenant may use it, none may change it.
    deployment: bool,
    created_at: Option<DateTime<Utc>>,
    updated_at: Option<DateTime<Utc>>,
}

/// Where the provider's mail is.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct MailServerView {
    host: String,
    port: u16,
    security: &'static str,
}

impl From<MailServer> for MailServerView {
    fn from(s: MailServer) -> Self {
        Self { host: s.host, port: s.port, security: s.security.as_str() }
    }
}

pub(super) fn providers() -> Object {
    let words = Provider::ALL.iter().map(|w| w.as_str());
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
}

impl AppView {
    /// An app, at a deployment that is reached at `public_url`.
    pub fn of(app: App, public_url: Option<&str>) -> Self {
        let terms = app.said.terms();
        let (imap, smtp) =
            terms.map(|t| (t.endpoints.imap.into(), t.endpoints.smtp.into())).unwrap_or_default();
        let at = |time| (!app.is_shared).then_some(time);
        Self {
            id: app.id.0,
            provider: app.said.provider.as_str(),
            name: app.said.name,
            client_id: app.said.client_id,
            has_client_secret: app.has_client_secret,
            has_private_key: app.has_private_key,
            tenant: app.said.directory,
            endpoints: app.said.endpoints.and_then(|e| serde_json::to_value(e).ok()),
            scopes: app.said.scopes,
            redirect_uri: public_url.map(super::authorize::redirect_uri),
            imap,
            smtp,
            deployment: app.is_shared,
            created_at: at(app.created_at),
            updated_at: at(app.updated_at),
        }
    }
}

/// The tag over what a client can write.
pub fn etag(app: &App) -> ETag {
    ETag::version(app.id, app.version)
}
