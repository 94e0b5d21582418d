//! Mail accounts: what a user connected, with sealed passwords.
//!
//! Writing is in `write`, removing in [`removal`], passwords in [`credential`] and, for all accounts at once, in [`keys`]; pausing in [`crate::sync::pause`]. Other states and causes of trouble are set by the synchronisation (`sync::store`), not here; the
//! version grows only with what a client can write.

pub mod credential;
pub mod keep;
pub mod keys;
pub mod removal;
mod write;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

pub use self::removal::delete;
pub use self::write::{NewAccount, NewServer, create, replace};

use crate::domain::oauth::grant::{GrantShown, Kind};
pub use crate::domain::states::AccountState;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, GrantId};
use crate::platform::seal::SealError;
use crate::platform::words::unknown;
use wire::imap::Security;

/// Why an account could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The database; [`DbError::Duplicate`] when the address is connected already.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The password could not be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Who the account may write as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The address.
    pub email: String,
    /// The display name, may be empty.
    #[serde(default)]
    pub name: String,
    /// Appended to plain text.
    #[serde(default)]
    pub signature_text: String,
    /// Appended to HTML.
    #[serde(default)]
    pub signature_html: String,
}

/// A mail server as an account names it, without the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `tls`, `starttls` or `none`.
    pub security: Security,
    /// User name.
    pub username: String,
    /// Whether a password is kept.
    pub has_password: bool,
}

impl Account {
    /// Whether a user paused it.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state == AccountState::Paused
    }
}

/// Why an account or a mailbox does not work.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// For programs.
    pub code: String,
    /// For people.
    pub text: String,
    /// What the server said.
    pub upstream: Option<Value>,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
    /// When it is tried again.
    pub next_try_at: Option<DateTime<Utc>>,
}

impl Cause {
    /// From the columns `cause_…` of an account or a mailbox.
    pub(crate) fn read(row: &PgRow) -> Result<Option<Self>, sqlx::Error> {
        let Some(code) = row.try_get("cause_code")? else { return Ok(None) };
        Ok(Some(Self {
            code,
            text: row.try_get::<Option<String>, _>("cause_text")?.unwrap_or_default(),
            upstream: row.try_get("cause_upstream")?,
            since: row.try_get("cause_since")?,
            next_try_at: row.try_get("cause_next_try_at")?,
        }))
    }
}

/// An account.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// Its address, as entered.
    pub email: String,
    /// Its name, may be empty.
    pub name: String,
    /// How it stands with its server.
    pub state: AccountState,
    /// Why it does not work, if it does not.
    pub cause: Option<Cause>,
    /// Where mail is read.
    pub imap: Server,
    /// Where mail is handed in.
    pub smtp: Server,
    /// It logs in with tokens of this grant in place of passwords.
    pub grant: Option<(GrantId, GrantShown)>,
    /// Who it may write as; its own address first.
    pub identities: Vec<Identity>,
    /// Whether mailboxes of other users and shared ones (RFC 2342) are read as well.
    pub shared_mailboxes: bool,
    /// How much of it is kept here.
    pub kept: keep::Kept,
    /// Grows with every change a client makes.
    pub version: i64,
    /// Start of the last round that finished over all mailboxes.
    pub last_synced_at: Option<DateTime<Utc>>,
    /// When it was connected.
    pub created_at: DateTime<Utc>,
    /// When a client last changed it.
    pub updated_at: DateTime<Utc>,
}

/// The kind of protection in a column.
///
/// # Errors
/// A word that this release does not know: no connection is made in another way than was meant.
pub(crate) fn security(row: &PgRow, column: &str) -> Result<Security, sqlx::Error> {
    let word: &str = row.try_get(column)?;
    Security::from_word(word).ok_or_else(|| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: unknown("Security", word).into(),
    })
}

/// The form of an address under which it is unique in its tenant.
#[must_use]
pub fn email_key(email: &str) -> String {
    email.trim().to_lowercase()
}

/// What accounts are read with.
fn select(rest: &str) -> sqlx::AssertSqlSafe<String> {
    let kept = keep::COLUMNS;
    sqlx::AssertSqlSafe(format!(
        "SELECT id, email, name, state, cause_code, cause_text, cause_upstream, cause_since, cause_next_try_at,
           imap_host, imap_port, imap_security, imap_username, imap_password IS NOT NULL AS imap_has_password,
           smtp_host, smtp_port, smtp_security, smtp_username, smtp_password IS NOT NULL AS smtp_has_password,
           identities, shared_mailboxes, version, last_synced_at, created_at, updated_at, grant_id, grant_app_id, grant_provider, grant_kind,
           grant_scopes, grant_expires_at, {kept}
         FROM accounts LEFT JOIN (SELECT tenant_id AS of_tenant, id AS of_grant, app_id AS grant_app_id, provider AS grant_provider, kind AS grant_kind,
           scopes AS grant_scopes, expires_at AS grant_expires_at FROM oauth_grants) g ON of_tenant = tenant_id AND of_grant = grant_id
         WHERE tenant_id = $1 {rest}"
    ))
}

fn server(row: &PgRow, protocol: &str) -> Result<Server, sqlx::Error> {
    let column = |name: &str| format!("{protocol}_{name}");
    Ok(Server {
        host: row.try_get(column("host").as_str())?,
        port: u16::try_from(row.try_get::<i32, _>(column("port").as_str())?).unwrap_or_default(),
        security: security(row, &column("security"))?,
        username: row.try_get(column("username").as_str())?,
        has_password: row.try_get(column("has_password").as_str())?,
    })
}

fn grant(row: &PgRow) -> Result<Option<(GrantId, GrantShown)>, sqlx::Error> {
    let (id, kind): (Option<GrantId>, Option<Kind>) = (row.try_get("grant_id")?, row.try_get("grant_kind")?);
    let Some((id, kind)) = id.zip(kind) else { return Ok(None) };
    let shown = GrantShown {
        app_id: row.try_get("grant_app_id")?,
        provider: row.try_get("grant_provider")?,
        kind,
        scopes: row.try_get("grant_scopes")?,
        expires_at: row.try_get("grant_expires_at")?,
    };
    Ok(Some((id, shown)))
}

fn from_row(row: &PgRow) -> Result<Account, sqlx::Error> {
    Ok(Account {
        id: row.try_get("id")?,
        email: row.try_get("email")?,
        name: row.try_get("name")?,
        state: row.try_get("state")?,
        cause: Cause::read(row)?,
        imap: server(row, "imap")?,
        smtp: server(row, "smtp")?,
        grant: grant(row)?,
        identities: serde_json::from_value(row.try_get("identities")?).unwrap_or_default(),
        shared_mailboxes: row.try_get("shared_mailboxes")?,
        kept: keep::Kept::read(row)?,
        version: row.try_get("version")?,
        last_synced_at: row.try_get("last_synced_at")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

/// One account.
pub async fn get(tx: &mut TenantTx, id: AccountId) -> Result<Option<Account>, DbError> {
    let row = sqlx::query(select("AND id = $2")).bind(tx.tenant()).bind(id).fetch_optional(tx.conn()).await?;
    Ok(row.as_ref().map(from_row).transpose()?)
}

/// The account of an address.
pub async fn of_email(tx: &mut TenantTx, email: &str) -> Result<Option<Account>, DbError> {
    let row = sqlx::query(select("AND email_key = $2"))
        .bind(tx.tenant())
        .bind(email_key(email))
        .fetch_optional(tx.conn())
        .await?;
    Ok(row.as_ref().map(from_row).transpose()?)
}

/// One account, locked against other changes until this transaction ends.
pub async fn get_for_update(tx: &mut TenantTx, id: AccountId) -> Result<Option<Account>, DbError> {
    let sql = select("AND id = $2 AND removed_at IS NULL FOR NO KEY UPDATE OF accounts");
    let row = sqlx::query(sql).bind(tx.tenant()).bind(id).fetch_optional(tx.conn()).await?;
    Ok(row.as_ref().map(from_row).transpose()?)
}

/// Whether a user paused the account; `None` when there is no such account.
pub async fn paused(tx: &mut TenantTx, id: AccountId) -> Result<Option<bool>, DbError> {
    let state: Option<AccountState> =
        sqlx::query_scalar("SELECT state FROM accounts WHERE tenant_id = $1 AND id = $2")
            .bind(tx.tenant())
            .bind(id)
            .fetch_optional(tx.conn())
            .await?;
    Ok(state.map(|state| state == AccountState::Paused))
}

/// Accounts in the order they were connected, those after `after`.
pub async fn list(tx: &mut TenantTx, after: Option<AccountId>, limit: i64) -> Result<Vec<Account>, DbError> {
    let sql = select("AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3");
    let rows = sqlx::query(sql).bind(tx.tenant()).bind(after).bind(limit).fetch_all(tx.conn()).await?;
    Ok(rows.iter().map(from_row).collect::<Result<_, _>>()?)
}

/// Whether the address is connected already, by another account than `except`.
pub async fn exists(tx: &mut TenantTx, email: &str, except: Option<AccountId>) -> Result<bool, DbError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM accounts WHERE tenant_id = $1 AND email_key = $2 AND ($3::uuid IS NULL OR id <> $3))";
    Ok(sqlx::query_scalar(sql)
        .bind(tx.tenant())
        .bind(email_key(email))
        .bind(except)
        .fetch_one(tx.conn())
        .await?)
}
