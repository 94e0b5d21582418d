//! Users: who may log in to a tenant. Sessions are in `session.rs`, the hashing in `password.rs`.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row as _};

use crate::access::principal::Role;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::UserId;

/// A user, without the password hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// The log-in name, as it was entered.
    pub email: String,
    /// The display name, may be empty.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// True when an operator switched it off.
    pub disabled: bool,
}

impl FromRow<'_, PgRow> for User {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: UserId(row.try_get("id")?),
            email: row.try_get("email")?,
            name: row.try_get("name")?,
            role: row.try_get("role")?,
            disabled: row.try_get::<Option<DateTime<Utc>>, _>("disabled_at")?.is_some(),
        })
    }
}

/// The form of an address under which it is unique in its tenant.
#[must_use]
pub fn email_key(email: &str) -> String {
    email.trim().to_lowercase()
}

/// Adds a user; `password_hash` comes from [`crate::access::password::hash`].
///
/// # Errors
/// [`DbError::Duplicate`] when the address is taken in this tenant.
pub async fn create(
    tx: &mut TenantTx,
    email: &str,
    name: &str,
    role: Role,
    password_hash: &str,
) -> Result<UserId, DbError> {
    let id = UserId::new();
    sqlx::query("INSERT INTO users (tenant_id, id, email, email_key, name, role, password_hash) VALUES ($1,$2,$3,$4,$5,$6,$7)")
        .bind(tx.tenant())
        .bind(id)
        .bind(email.trim())
        .bind(email_key(email))
        .bind(name)
        .bind(role)
        .bind(password_hash)
        .execute(tx.conn())
        .await?;
    Ok(id)
}

/// The user with this address and its password hash.
pub async fn for_login(tx: &mut TenantTx, email: &str) -> Result<Option<(User, String)>, DbError> {
    let row = sqlx::query(
        "SELECT id, email, name, role, disabled_at, password_hash FROM users WHERE tenant_id = $1 AND email_key = $2",
    )
    .bind(tx.tenant())
    .bind(email_key(email))
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|r| Ok::<_, sqlx::Error>((User::from_row(&r)?, r.try_get("password_hash")?))).transpose()?)
}

/// Networks of one user that are remembered, the latest ones.
const NETWORKS: i64 = 20;

/// Whether the user has logged in from this network within the last 90 days.
pub async fn knows_network(tx: &mut TenantTx, user: UserId, network: &str) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM login_networks
         WHERE tenant_id = $1 AND user_id = $2 AND network = $3 AND seen_at > now() - interval '90 days')",
    )
    .bind(tx.tenant())
    .bind(user)
    .bind(network)
    .fetch_one(tx.conn())
    .await?)
}

/// Remembers from where the user has just logged in.
pub async fn remember_network(tx: &mut TenantTx, user: UserId, network: &str) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO login_networks (tenant_id, user_id, network) VALUES ($1, $2, $3)
         ON CONFLICT (tenant_id, user_id, network) DO UPDATE SET seen_at = now()",
    )
    .bind(tx.tenant())
    .bind(user)
    .bind(network)
    .execute(tx.conn())
    .await?;
    sqlx::query(
        "DELETE FROM login_networks WHERE tenant_id = $1 AND user_id = $2 AND network IN (
           SELECT network FROM login_networks WHERE tenant_id = $1 AND user_id = $2
           ORDER BY seen_at DESC, network OFFSET $3)",
    )
    .bind(tx.tenant())
    .bind(user)
    .bind(NETWORKS)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// All users of the tenant, oldest first.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<User>, DbError> {
    Ok(sqlx::query_as(
        "SELECT id, email, name, role, disabled_at FROM users WHERE tenant_id = $1 ORDER BY id",
    )
    .bind(tx.tenant())
    .fetch_all(tx.conn())
    .await?)
}

/// A user who is let in. `None`: there is none, or it is switched off.
pub async fn let_in(tx: &mut TenantTx, user: UserId) -> Result<Option<User>, DbError> {
    Ok(sqlx::query_as(
        "SELECT id, email, name, role, disabled_at FROM users WHERE tenant_id = $1 AND id = $2 AND disabled_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(user)
    .fetch_optional(tx.conn())
    .await?)
}

/// The role of a user who is let in. `None`: there is none, or it is switched off.
pub async fn role_of(tx: &mut TenantTx, user: UserId) -> Result<Option<Role>, DbError> {
    Ok(sqlx::query_scalar("SELECT role FROM users WHERE tenant_id = $1 AND id = $2 AND disabled_at IS NULL")
        .bind(tx.tenant())
        .bind(user)
        .fetch_optional(tx.conn())
        .await?)
}

/// Replaces the password and ends all sessions of the user. `None`: there is no such user.
pub async fn set_password(
    tx: &mut TenantTx,
    email: &str,
    password_hash: &str,
) -> Result<Option<UserId>, DbError> {
    let id: Option<UserId> = sqlx::query_scalar(
        "UPDATE users SET password_hash = $3 WHERE tenant_id = $1 AND email_key = $2 RETURNING id",
    )
    .bind(tx.tenant())
    .bind(email_key(email))
    .bind(password_hash)
    .fetch_optional(tx.conn())
    .await?;
    if let Some(id) = id {
        end_sessions(tx, id, "password changed").await?;
    }
    Ok(id)
}

/// The user with this address.
pub async fn find(tx: &mut TenantTx, email: &str) -> Result<Option<User>, DbError> {
    Ok(for_login(tx, email).await?.map(|(user, _)| user))
}

/// Switches a user off, which ends all its sessions, or on again. `None`: there is no such user.
pub async fn set_disabled(tx: &mut TenantTx, email: &str, disabled: bool) -> Result<Option<UserId>, DbError> {
    let id: Option<UserId> = sqlx::query_scalar(
        "UPDATE users SET disabled_at = CASE WHEN $3 THEN coalesce(disabled_at, now()) END
         WHERE tenant_id = $1 AND email_key = $2 RETURNING id",
    )
    .bind(tx.tenant())
    .bind(email_key(email))
    .bind(disabled)
    .fetch_optional(tx.conn())
    .await?;
    if let Some(id) = id.filter(|_| disabled) {
        end_sessions(tx, id, "user disabled").await?;
    }
    Ok(id)
}

/// Gives a user another role; what it may do changes within seconds, its sessions go on. `None`: there is no such user.
pub async fn set_role(tx: &mut TenantTx, email: &str, role: Role) -> Result<Option<UserId>, DbError> {
    Ok(sqlx::query_scalar("UPDATE users SET role = $3 WHERE tenant_id = $1 AND email_key = $2 RETURNING id")
        .bind(tx.tenant())
        .bind(email_key(email))
        .bind(role)
        .fetch_optional(tx.conn())
        .await?)
}

/// Ends all sessions of a user. Returns how many there were.
pub async fn end_sessions(tx: &mut TenantTx, user: UserId, why: &str) -> Result<u64, DbError> {
    let done = sqlx::query("UPDATE sessions SET revoked_at = now(), revoked_why = $3 WHERE tenant_id = $1 AND user_id = $2 AND revoked_at IS NULL")
        .bind(tx.tenant())
        .bind(user)
        .bind(why)
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected())
}
