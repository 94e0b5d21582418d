//! People who were sent to our page to connect a mailbox ([`crate::domain::oauth::flow`] is the way from there to a provider).
//!
//! What stands in the address is random for whoever does not have our key, and names its tenant under a code, so that nobody asks
//! the database for one that was made up. The table has its hash alone. It is made of the session's id under the key: whoever
//! comes back from a provider, where only the id is known, is sent to the same page again.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::types::Json;

use crate::access::token::{authenticate, seal, tenant_in};
use crate::domain::oauth::provider::MailServer;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, AppId, ConnectId, TenantId, UserId};
use wire::secret::Secret;

/// How long a person may take.
pub const LIFETIME: TimeDelta = TimeDelta::minutes(30);
/// How long is remembered that there was one: whoever comes too late is told so.
const REMEMBERED: TimeDelta = TimeDelta::days(1);
/// What the code in an address is for.
const PURPOSE: &str = "connect page";
const RANDOM: &str = "connect page random";
const FORM: &str = "connect page form";

/// A server with its user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where.
    #[serde(flatten)]
    pub server: MailServer,
    /// Who logs in.
    pub username: String,
}

/// What is known of an address that was entered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The provider's name, where it is known.
    pub provider: Option<String>,
    /// Where mail is read.
    pub imap: Option<Place>,
    /// Where mail is handed in.
    pub smtp: Option<Place>,
    /// Words of `wire::discover::Note`.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The app by which a person of that provider consents.
    pub app: Option<AppId>,
}

/// Why a person came back from a provider without an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// For programs.
    pub code: String,
    /// What was said.
    pub text: String,
}

/// What a person is sent for.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Where they go in the end.
    pub redirect_url: String,
    /// Whose mailbox it is thought to be.
    pub email: Option<String>,
    /// The account that is renewed; none: a new one.
    pub account_id: Option<AccountId>,
    /// The caller's own state, given back as it is.
    pub client_state: Option<String>,
    /// The person's language.
    pub locale: Option<String>,
    /// Who sent them.
    pub actor: UserId,
}

/// A person on the page.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Session {
    /// Its id.
    pub id: ConnectId,
    /// Where they go in the end.
    pub redirect_url: String,
    /// Whose mailbox it is thought to be; with `found` the address that was entered.
    pub email: Option<String>,
    /// The account that is renewed; none: a new one.
    pub account_id: Option<AccountId>,
    /// The caller's own state, given back as it is.
    pub client_state: Option<String>,
    /// The person's language.
    pub locale: Option<String>,
    /// Who sent them.
    pub actor: UserId,
    /// What is known of the address.
    #[sqlx(json(nullable))]
    pub found: Option<Found>,
    /// Why they came back from a provider.
    #[sqlx(json(nullable))]
    pub fault: Option<Fault>,
    /// Until when they may take.
    pub expires_at: DateTime<Utc>,
    /// When it was over.
    pub ended_at: Option<DateTime<Utc>>,
    /// The account that came of it.
    pub connected_id: Option<AccountId>,
}

/// What stands in the address of this session's page.
#[must_use]
pub fn token_of(key: &Secret, tenant: TenantId, id: ConnectId) -> String {
    let named = [tenant.0.as_bytes().as_slice(), id.0.as_bytes()].concat();
    seal(key, PURPOSE, &[tenant.0.as_bytes().as_slice(), &authenticate(key, RANDOM, &named)].concat())
}

/// The tenant that an address names; `None`: it is none of ours.
#[must_use]
pub fn tenant_of(key: &Secret, token: &str) -> Option<TenantId> {
    tenant_in(key, PURPOSE, token)
}

/// What the forms of a session's page carry, and no other's.
#[must_use]
pub fn form_token(key: &Secret, token: &str) -> String {
    hex::encode(authenticate(key, FORM, token.as_bytes()))
}

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// Keeps a session and gives its token, and when it ends. Those that are long over are swept away.
///
/// # Errors
/// Those of the database.
pub async fn begin(
    tx: &mut TenantTx,
    key: &Secret,
    sent: &Sent,
    now: DateTime<Utc>,
) -> Result<(String, DateTime<Utc>), DbError> {
    let (id, until) = (ConnectId::new(), now + LIFETIME);
    let token = token_of(key, tx.tenant(), id);
    sqlx::query("DELETE FROM connect_sessions WHERE tenant_id = $1 AND expires_at < $2")
        .bind(tx.tenant())
        .bind(now - REMEMBERED)
        .execute(tx.conn())
        .await?;
    sqlx::query(
        "INSERT INTO connect_sessions (tenant_id, id, token_hash, redirect_url, email, account_id, client_state, locale, actor, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(hash(&token))
    .bind(&sent.redirect_url)
    .bind(&sent.email)
    .bind(sent.account_id)
    .bind(&sent.client_state)
    .bind(&sent.locale)
    .bind(sent.actor)
    .bind(until)
    .execute(tx.conn())
    .await?;
    Ok((token, until))
}

/// The session of an address, also one that is over.
///
/// # Errors
/// Those of the database.
pub async fn find(tx: &mut TenantTx, token: &str) -> Result<Option<Session>, DbError> {
    Ok(sqlx::query_as(
        "SELECT id, redirect_url, email, account_id, client_state, locale, actor, found, fault, expires_at, ended_at, connected_id
         FROM connect_sessions WHERE tenant_id = $1 AND token_hash = $2",
    )
    .bind(tx.tenant())
    .bind(hash(token))
    .fetch_optional(tx.conn())
    .await?)
}

/// Notes the address that was entered, and what is known of it. What a provider said before is forgotten.
///
/// # Errors
/// Those of the database.
pub async fn entered(tx: &mut TenantTx, id: ConnectId, email: &str, found: &Found) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE connect_sessions SET email = $3, found = $4, fault = NULL WHERE tenant_id = $1 AND id = $2 AND ended_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(email)
    .bind(Json(found))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Notes why a person came back from a provider without an account; nothing: they set out anew.
///
/// # Errors
/// Those of the database.
pub async fn came_back(tx: &mut TenantTx, id: ConnectId, fault: Option<&Fault>) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE connect_sessions SET fault = $3 WHERE tenant_id = $1 AND id = $2 AND ended_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(fault.map(Json))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// How a session stands, for who is about to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is open, and this transaction has it.
    Open,
    /// It ended before, with this account or without one.
    Over(Option<AccountId>),
}

/// Takes a session for this transaction: another one that would end it waits, and finds it over.
///
/// # Errors
/// Those of the database.
pub async fn take(tx: &mut TenantTx, id: ConnectId) -> Result<Standing, DbError> {
    let row: Option<(Option<DateTime<Utc>>, Option<AccountId>)> = sqlx::query_as(
        "SELECT ended_at, connected_id FROM connect_sessions WHERE tenant_id = $1 AND id = $2 FOR UPDATE",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    Ok(match row {
        Some((None, _)) => Standing::Open,
        Some((Some(_), connected)) => Standing::Over(connected),
        None => Standing::Over(None),
    })
}

/// Ends a session that this transaction has: with an account, or given up.
///
/// # Errors
/// Those of the database.
pub async fn end(
    tx: &mut TenantTx,
    id: ConnectId,
    connected: Option<AccountId>,
    now: DateTime<Utc>,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE connect_sessions SET ended_at = $3, connected_id = $4 WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(now)
    .bind(connected)
    .execute(tx.conn())
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_its_tenant_and_nobody_without_the_key_makes_one() {
        let (key, other) = (Secret::new("k".repeat(32)), Secret::new("l".repeat(32)));
        let (tenant, id) = (TenantId::new(), ConnectId::new());
        let token = token_of(&key, tenant, id);
        assert_eq!(tenant_of(&key, &token), Some(tenant));
        assert_eq!(token, token_of(&key, tenant, id));
        for wrong in [
            token_of(&other, tenant, id),
            format!("{token}A"),
            token.get(1..).unwrap().to_owned(),
            String::new(),
        ] {
            assert_eq!(tenant_of(&key, &wrong), None, "{wrong}");
        }
        let another = token_of(&key, tenant, ConnectId::new());
        assert_ne!(token, another);
        assert_ne!(form_token(&key, &token), form_token(&key, &another));
        // The id, which the table has, says nothing of the token.
        assert!(!token.contains(&id.0.simple().to_string()));
    }
}
