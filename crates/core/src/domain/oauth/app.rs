//! Apps that are registered at a provider: the tenant's own, and those of the deployment (`OAUTH_APPS_FILE`), which every tenant
//! may use and none may change. Their secrets are sealed, opened for who asks the provider, and shown to nobody.

use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use super::provider::{Endpoints, Provider, Terms};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AppId, TenantId};
use crate::platform::seal::{Keyring, Place, SealError, Sealed};
use wire::oauth::Client;
use wire::secret::Secret;

/// Apps of a tenant.
pub const MOST: i64 = 50;
const CLIENT_SECRET: &str = "client_secret";
const PRIVATE_KEY: &str = "private_key";

/// What is said of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whose authorization server.
    pub provider: Provider,
    /// For people.
    pub name: String,
    /// As the provider knows it.
    pub client_id: String,
    /// Microsoft's directory (an id or a domain); none: any.
    pub directory: Option<String>,
    /// Of a custom provider.
    pub endpoints: Option<Endpoints>,
    /// In place of the provider's usual ones.
    pub scopes: Vec<String>,
}

impl Said {
    /// How its provider is asked. `None`: a custom one without endpoints, which no client can make.
    #[must_use]
    pub fn terms(&self) -> Option<Terms> {
        let own = |endpoints: &Endpoints| Terms {
            endpoints: endpoints.clone(),
            scopes: String::new(),
            own_scopes: String::new(),
            extra: &[],
        };
        let mut terms =
            self.provider.terms(self.directory.as_deref()).or_else(|| self.endpoints.as_ref().map(own))?;
        if !self.scopes.is_empty() {
            terms.scopes = self.scopes.join(" ");
            // What a known provider grants an app for itself has a name of its own.
            if self.provider == Provider::Custom {
                terms.own_scopes.clone_from(&terms.scopes);
            }
        }
        Some(terms)
    }
}

/// Secrets that a client gives; what is left out stays.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// Of the client.
    pub client_secret: Option<Secret>,
    /// Of a service account: PKCS#8 in PEM, RSA.
    pub private_key: Option<Secret>,
}

/// An app as clients see it.
#[derive(Debug, Clone)]
pub struct App {
    /// Its id.
    pub id: AppId,
    /// What is said of it.
    pub said: Said,
    /// Whether a client secret is kept.
    pub has_client_secret: bool,
    /// Whether a private key is kept.
    pub has_private_key: bool,
    /// Of the deployment.
    pub is_shared: bool,
    /// Grows with each change.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed last.
    pub updated_at: DateTime<Utc>,
}

/// An app with its secrets, for who asks its provider.
#[derive(Debug, Clone)]
pub struct Usable {
    /// Its id.
    pub id: AppId,
    /// What is said of it.
    pub said: Said,
    /// How its provider is asked.
    pub terms: Terms,
    /// What it is to its provider.
    pub client: Client,
    /// Of a service account.
    pub private_key: Option<Secret>,
    /// Of the deployment: every tenant may send its people there, and none may act by the app's own rights.
    pub is_shared: bool,
}

/// Why an app cannot be made, changed or used.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The tenant has [`MOST`] of them.
    #[error("a tenant has at most {MOST} OAuth apps")]
    TooMany,
    /// Accounts log in by what was granted to it.
    #[error("accounts use the app")]
    InUse,
    /// A secret could not be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<sqlx::Error> for AppError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

/// Whether a text is a private key that can sign assertions: RSA, in PEM.
#[must_use]
pub fn is_private_key(text: &Secret) -> bool {
    jsonwebtoken::EncodingKey::from_rsa_pem(text.expose().as_bytes()).is_ok()
}

/// Apps of the deployment.
#[derive(Debug, Clone, Default)]
pub struct Shared(Vec<SharedApp>);

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct SharedApp {
    id: AppId,
    provider: Provider,
    #[serde(default)]
    name: String,
    client_id: String,
    client_secret: Option<Secret>,
    private_key: Option<Secret>,
    tenant: Option<String>,
    endpoints: Option<Endpoints>,
    #[serde(default)]
    scopes: Vec<String>,
}

impl Shared {
    /// Reads `OAUTH_APPS_FILE`: a JSON array of what `POST /api/oauth/apps` takes, each with an `id` (a UUID).
    ///
    /// # Errors
    /// What is wrong with it, without its contents.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read(file).map_err(|error| error.to_string())?;
        let apps: Vec<SharedApp> = serde_json::from_slice(&text)
            .map_err(|error| format!("line {}, column {}: not as expected", error.line(), error.column()))?;
        for (n, app) in apps.iter().enumerate() {
            if app.said().terms().is_none() {
                return Err(format!("app {n}: a custom provider needs endpoints"));
            }
            if apps.iter().filter(|other| other.id == app.id).count() > 1 {
                return Err(format!("app {n}: its id stands twice"));
            }
        }
        Ok(Self(apps))
    }

    /// All of them, in the order of the file.
    pub fn list(&self) -> impl Iterator<Item = App> + '_ {
        self.0.iter().map(SharedApp::view)
    }
}

impl SharedApp {
    fn said(&self) -> Said {
        Said {
            provider: self.provider,
            name: self.name.clone(),
            client_id: self.client_id.clone(),
            directory: self.tenant.clone(),
            endpoints: self.endpoints.clone(),
            scopes: self.scopes.clone(),
        }
    }

    fn view(&self) -> App {
        App {
            id: self.id,
            said: self.said(),
            has_client_secret: self.client_secret.is_some(),
            has_private_key: self.private_key.is_some(),
            is_shared: true,
            version: 0,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }
}

const SELECT: &str = "SELECT id, provider, name, client_id, client_secret, client_secret_key, private_key, private_key_key, directory,
    endpoints, scopes, version, created_at, updated_at FROM oauth_apps WHERE tenant_id = $1";

fn said(row: &PgRow) -> Result<Said, sqlx::Error> {
    Ok(Said {
        provider: row.try_get("provider")?,
        name: row.try_get("name")?,
        client_id: row.try_get("client_id")?,
        directory: row.try_get("directory")?,
        endpoints: row.try_get::<Option<Json<Endpoints>>, _>("endpoints")?.map(|json| json.0),
        scopes: row.try_get("scopes")?,
    })
}

fn sealed(row: &PgRow, field: &str) -> Result<Option<Sealed>, sqlx::Error> {
    let key_id: Option<String> = row.try_get(format!("{field}_key").as_str())?;
    let bytes: Option<Vec<u8>> = row.try_get(field)?;
    Ok(key_id.zip(bytes).map(|(key_id, bytes)| Sealed { key_id, bytes }))
}

fn view(row: &PgRow) -> Result<App, sqlx::Error> {
    Ok(App {
        id: row.try_get("id")?,
        said: said(row)?,
        has_client_secret: sealed(row, CLIENT_SECRET)?.is_some(),
        has_private_key: sealed(row, PRIVATE_KEY)?.is_some(),
        is_shared: false,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// One app, the tenant's or the deployment's.
///
/// # Errors
/// Those of the database.
pub async fn get(tx: &mut TenantTx, shared: &Shared, id: AppId) -> Result<Option<App>, DbError> {
    if let Some(app) = shared.list().find(|app| app.id == id) {
        return Ok(Some(app));
    }
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} AND id = $2"));
    let row = sqlx::query(sql).bind(tx.tenant()).bind(id).fetch_optional(tx.conn()).await?;
    Ok(row.as_ref().map(view).transpose()?)
}

/// The tenant's apps, in the order they were made.
///
/// # Errors
/// Those of the database.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<App>, DbError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY id LIMIT {MOST}"));
    let rows = sqlx::query(sql).bind(tx.tenant()).fetch_all(tx.conn()).await?;
    Ok(rows.iter().map(view).collect::<Result<_, _>>()?)
}

/// An app with its secrets. `None`: there is none.
///
/// # Errors
/// [`AppError`].
pub async fn open(
    tx: &mut TenantTx,
    shared: &Shared,
    keyring: &Keyring,
    id: AppId,
) -> Result<Option<Usable>, AppError> {
    if let Some(app) = shared.0.iter().find(|app| app.id == id) {
        let secrets = (app.client_secret.clone(), app.private_key.clone());
        return Ok(usable(id, app.said(), secrets, true));
    }
    let tenant = tx.tenant();
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} AND id = $2"));
    let Some(row) = sqlx::query(sql).bind(tenant).bind(id).fetch_optional(tx.conn()).await? else {
        return Ok(None);
    };
    let open = |field: &'static str| -> Result<Option<Secret>, AppError> {
        let sealed = sealed(&row, field)?;
        Ok(sealed.map(|sealed| keyring.open(place(tenant, id, field), &sealed)).transpose()?)
    };
    Ok(usable(id, said(&row)?, (open(CLIENT_SECRET)?, open(PRIVATE_KEY)?), false))
}

fn usable(
    id: AppId,
    said: Said,
    (secret, private_key): (Option<Secret>, Option<Secret>),
    is_shared: bool,
) -> Option<Usable> {
    let terms = said.terms()?;
    let client = Client { id: said.client_id.clone(), secret, auth: terms.endpoints.client_auth() };
    Some(Usable { id, said, terms, client, private_key, is_shared })
}

const fn place(tenant: TenantId, id: AppId, field: &str) -> Place<'_> {
    Place { tenant, row: id.0, field }
}

/// Makes an app.
///
/// # Errors
/// [`AppError`].
pub async fn create(
    tx: &mut TenantTx,
    keyring: &Keyring,
    said: &Said,
    secrets: &Secrets,
) -> Result<App, AppError> {
    let tenant = tx.tenant();
    // Two that are made at once would both be the last that there is room for.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('oauth apps ' || $1::text, 0))")
        .bind(tenant)
        .execute(tx.conn())
        .await?;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM oauth_apps WHERE tenant_id = $1")
        .bind(tenant)
        .fetch_one(tx.conn())
        .await?;
    if count >= MOST {
        return Err(AppError::TooMany);
    }
    let id = AppId::new();
    sqlx::query("INSERT INTO oauth_apps (tenant_id, id, provider, client_id) VALUES ($1, $2, $3, '')")
        .bind(tenant)
        .bind(id)
        .bind(said.provider)
        .execute(tx.conn())
        .await?;
    let made = replace(tx, keyring, id, (said, secrets)).await?;
    Ok(made.ok_or(sqlx::Error::RowNotFound)?)
}

/// Replaces what is said of an app; secrets that are left out stay. `None`: there is none.
///
/// # Errors
/// [`AppError`].
pub async fn replace(
    tx: &mut TenantTx,
    keyring: &Keyring,
    id: AppId,
    (said, secrets): (&Said, &Secrets),
) -> Result<Option<App>, AppError> {
    let tenant = tx.tenant();
    let seal = |field: &'static str, secret: &Option<Secret>| {
        secret.as_ref().map(|secret| keyring.seal(place(tenant, id, field), secret)).transpose()
    };
    let secret = seal(CLIENT_SECRET, &secrets.client_secret)?;
    let private = seal(PRIVATE_KEY, &secrets.private_key)?;
    sqlx::query(
        "UPDATE oauth_apps SET name = $3, client_id = $4, directory = $5, endpoints = $6, scopes = $7,
           client_secret = coalesce($8, client_secret), client_secret_key = coalesce($9, client_secret_key),
           private_key = coalesce($10, private_key), private_key_key = coalesce($11, private_key_key),
           version = version + 1, updated_at = now()
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tenant)
    .bind(id)
    .bind(&said.name)
    .bind(&said.client_id)
    .bind(&said.directory)
    .bind(said.endpoints.as_ref().map(Json))
    .bind(&said.scopes)
    .bind(secret.as_ref().map(|s| s.bytes.as_slice()))
    .bind(secret.as_ref().map(|s| s.key_id.as_str()))
    .bind(private.as_ref().map(|s| s.bytes.as_slice()))
    .bind(private.as_ref().map(|s| s.key_id.as_str()))
    .execute(tx.conn())
    .await?;
    // What the provider refused may be right now. Rounds that are due say so.
    for sql in [
        "UPDATE oauth_grants SET next_try_at = NULL, failures = 0, app_fault = NULL WHERE tenant_id = $1 AND app_id = $2 AND refused IS NULL",
        "UPDATE account_leases l SET next_due_at = now() FROM accounts a JOIN oauth_grants g ON g.tenant_id = a.tenant_id AND g.id = a.grant_id
         WHERE l.tenant_id = $1 AND a.tenant_id = $1 AND a.id = l.account_id AND g.app_id = $2 AND a.state = 'unreachable'",
    ] {
        sqlx::query(sql).bind(tenant).bind(id).execute(tx.conn()).await?;
    }
    Ok(get(tx, &Shared::default(), id).await?)
}

/// Whether accounts log in by what was granted to the app.
///
/// # Errors
/// Those of the database.
pub async fn is_used(tx: &mut TenantTx, id: AppId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM oauth_grants g JOIN accounts a ON a.tenant_id = g.tenant_id AND a.grant_id = g.id
                        WHERE g.tenant_id = $1 AND g.app_id = $2)",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_one(tx.conn())
    .await?)
}

/// Removes an app with the grants that no account uses. `false`: there was none.
///
/// # Errors
/// [`AppError::InUse`], or the database's.
pub async fn delete(tx: &mut TenantTx, id: AppId) -> Result<bool, AppError> {
    let tenant = tx.tenant();
    if is_used(tx, id).await? {
        return Err(AppError::InUse);
    }
    for sql in [
        "DELETE FROM oauth_flows WHERE tenant_id = $1 AND app_id = $2",
        "DELETE FROM oauth_grants WHERE tenant_id = $1 AND app_id = $2",
    ] {
        sqlx::query(sql).bind(tenant).bind(id).execute(tx.conn()).await?;
    }
    let done = sqlx::query("DELETE FROM oauth_apps WHERE tenant_id = $1 AND id = $2")
        .bind(tenant)
        .bind(id)
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() == 1)
}
