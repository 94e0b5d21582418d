//! Connecting and changing accounts.

use super::credential::{self, Protocol};
use super::keep;
use super::{Account, AccountError, Identity, email_key, get};
use crate::domain::event::{self, AccountCreated, AccountUpdated, Event};
use crate::domain::oauth::grant;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, GrantId};
use crate::platform::seal::{Keyring, SealError, Sealed};
use mail::keep::Keep;
use wire::imap::Security;
use wire::secret::Secret;

/// A server as a client gives it, checked by the caller.
#[derive(Debug, Clone)]
pub struct NewServer {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How the connection is protected.
    pub security: Security,
    /// User name.
    pub username: String,
    /// The password; nothing keeps the one there is.
    pub password: Option<Secret>,
}

/// An account as a client gives it, checked by the caller.
#[derive(Debug, Clone)]
pub struct NewAccount {
    /// Its address.
    pub email: String,
    /// Its name.
    pub name: String,
    /// Where mail is read.
    pub imap: NewServer,
    /// Where mail is handed in.
    pub smtp: NewServer,
    /// Who it may write as; the own address is put first if it is not there.
    pub identities: Vec<Identity>,
    /// Whether mailboxes of other users and shared ones (RFC 2342) are read as well.
    pub shared_mailboxes: bool,
    /// How much of it is kept here.
    pub keep: Keep,
    /// Logs in with tokens of this grant; its passwords are forgotten.
    pub grant: Option<GrantId>,
}

impl NewAccount {
    fn identities(&self) -> Vec<Identity> {
        let own = email_key(&self.email);
        let (mut first, others): (Vec<_>, Vec<_>) =
            self.identities.iter().cloned().partition(|i| email_key(&i.email) == own);
        first.truncate(1);
        if first.is_empty() {
            let (text, html) = (String::new(), String::new());
            first.push(Identity {
                email: self.email.clone(),
                name: self.name.clone(),
                signature_text: text,
                signature_html: html,
            });
        }
        first.extend(others);
        first
    }
}

/// Adds an account with its lease row, due at once. Asking for its first round is the caller's.
///
/// # Errors
/// [`DbError::Duplicate`] when the address is connected already; [`AccountError::Seal`].
pub async fn create(tx: &mut TenantTx, keyring: &Keyring, new: &NewAccount) -> Result<Account, AccountError> {
    let id = AccountId::new();
    sqlx::query(
        "INSERT INTO accounts (tenant_id, id, email, email_key, name, identities,
           imap_host, imap_port, imap_security, imap_username, smtp_host, smtp_port, smtp_security, smtp_username, shared_mailboxes, read_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(new.email.trim())
    .bind(email_key(&new.email))
    .bind(&new.name)
    .bind(sqlx::types::Json(new.identities()))
    .bind(&new.imap.host)
    .bind(i32::from(new.imap.port))
    .bind(new.imap.security.as_str())
    .bind(&new.imap.username)
    .bind(&new.smtp.host)
    .bind(i32::from(new.smtp.port))
    .bind(new.smtp.security.as_str())
    .bind(&new.smtp.username)
    .bind(new.shared_mailboxes)
    // Nothing is there that an earlier parser read.
    .bind(mail::mime::PARSE_VERSION)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    keep::write(tx, id, &new.keep).await?;
    keep_credentials(tx, keyring, id, new).await?;
    sqlx::query("INSERT INTO account_leases (tenant_id, account_id) VALUES ($1, $2)")
        .bind(tx.tenant())
        .bind(id)
        .execute(tx.conn())
        .await
        .map_err(DbError::from)?;
    written(tx, id, AccountCreated { id }).await
}

/// Replaces what a client can write. With `reconnect` a connection that was given up is tried again at once, for which
/// the caller holds the lease by [`crate::queue::lease::lock`]. Nothing: there is no such account.
///
/// # Errors
/// As [`create`].
pub async fn replace(
    tx: &mut TenantTx,
    keyring: &Keyring,
    id: AccountId,
    new: &NewAccount,
    reconnect: bool,
) -> Result<Option<Account>, AccountError> {
    let done = sqlx::query(
        "UPDATE accounts SET email = $3, email_key = $4, name = $5, identities = $6,
           imap_host = $7, imap_port = $8, imap_security = $9, imap_username = $10,
           smtp_host = $11, smtp_port = $12, smtp_security = $13, smtp_username = $14, shared_mailboxes = $15,
           version = version + 1, updated_at = now()
         WHERE tenant_id = $1 AND id = $2 AND removed_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(new.email.trim())
    .bind(email_key(&new.email))
    .bind(&new.name)
    .bind(sqlx::types::Json(new.identities()))
    .bind(&new.imap.host)
    .bind(i32::from(new.imap.port))
    .bind(new.imap.security.as_str())
    .bind(&new.imap.username)
    .bind(&new.smtp.host)
    .bind(i32::from(new.smtp.port))
    .bind(new.smtp.security.as_str())
    .bind(&new.smtp.username)
    .bind(new.shared_mailboxes)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    if done.rows_affected() == 0 {
        return Ok(None);
    }
    keep::write(tx, id, &new.keep).await?;
    keep_credentials(tx, keyring, id, new).await?;
    if reconnect {
        try_again(tx, id).await?;
    }
    written(tx, id, AccountUpdated { id }).await.map(Some)
}

async fn try_again(tx: &mut TenantTx, id: AccountId) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE account_leases SET next_due_at = now(), failing_since = NULL, wait_until = NULL, namespaces_at = NULL,
           one_connection_until = NULL
         WHERE tenant_id = $1 AND account_id = $2",
    )
        .bind(tx.tenant())
        .bind(id)
        .execute(tx.conn())
        .await?;
    sqlx::query(
        "UPDATE accounts SET
           state = CASE WHEN state IN ('unreachable', 'needs_reauth', 'throttled') THEN 'connecting' ELSE state END,
           cause_code = NULL, cause_text = NULL, cause_upstream = NULL, cause_since = NULL, cause_next_try_at = NULL
         WHERE tenant_id = $1 AND id = $2 AND state <> 'paused'",
    )
    .bind(tx.tenant())
    .bind(id)
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn keep_credentials(
    tx: &mut TenantTx,
    keyring: &Keyring,
    id: AccountId,
    new: &NewAccount,
) -> Result<(), AccountError> {
    let before: Option<GrantId> =
        sqlx::query_scalar("SELECT grant_id FROM accounts WHERE tenant_id = $1 AND id = $2")
            .bind(tx.tenant())
            .bind(id)
            .fetch_one(tx.conn())
            .await
            .map_err(DbError::from)?;
    let seal = |protocol, password: Option<&Secret>| -> Result<Option<Sealed>, SealError> {
        password.map(|p| credential::seal(tx, keyring, (id, protocol), p)).transpose()
    };
    let imap = seal(Protocol::Imap, new.imap.password.as_ref())?;
    let smtp = seal(Protocol::Smtp, new.smtp.password.as_ref())?;
    sqlx::query(
        "UPDATE accounts SET grant_id = $7::uuid,
           imap_password = CASE WHEN $7::uuid IS NULL THEN coalesce($3, imap_password) END,
           imap_password_key = CASE WHEN $7::uuid IS NULL THEN coalesce($4, imap_password_key) END,
           smtp_password = CASE WHEN $7::uuid IS NULL THEN coalesce($5, smtp_password) END,
           smtp_password_key = CASE WHEN $7::uuid IS NULL THEN coalesce($6, smtp_password_key) END
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(imap.as_ref().map(|s| s.bytes.as_slice()))
    .bind(imap.as_ref().map(|s| s.key_id.as_str()))
    .bind(smtp.as_ref().map(|s| s.bytes.as_slice()))
    .bind(smtp.as_ref().map(|s| s.key_id.as_str()))
    .bind(new.grant)
    .execute(tx.conn())
    .await
    .map_err(DbError::from)?;
    if let Some(before) = before.filter(|before| new.grant != Some(*before)) {
        grant::forget(tx, before).await?;
    }
    Ok(())
}

async fn written(tx: &mut TenantTx, id: AccountId, event: impl Into<Event>) -> Result<Account, AccountError> {
    event::tell(tx, id, event);
    let account = get(tx, id).await?;
    Ok(account.ok_or(DbError::Other(sqlx::Error::RowNotFound))?)
}
