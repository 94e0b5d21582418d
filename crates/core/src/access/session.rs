//! Log-in sessions. The refresh tokens of one session form a family: each is good once, and using one again ends all.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, Row as _};

use crate::access::user::User;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{SessionId, UserId};

/// What became of a refresh token.
#[derive(Debug)]
pub enum Refreshed {
    /// It was good and is used up now.
    User {
        /// The session goes on.
        session: SessionId,
        /// Whose it is.
        user: User,
    },
    /// It had been used before: someone copied it, so the session is over. Commit for that to hold.
    Reused {
        /// The session that ended.
        session: SessionId,
        /// Whose it was.
        user: UserId,
    },
    /// Unknown, expired, or of a session that is over.
    Refused,
}

/// Opens a session with its first refresh token, of which `token_hash` is kept. It ends at `expires_at`.
pub async fn open(
    tx: &mut TenantTx,
    user: UserId,
    token_hash: &[u8],
    expires_at: DateTime<Utc>,
) -> Result<SessionId, DbError> {
    let id = SessionId::new();
    sqlx::query("INSERT INTO sessions (tenant_id, id, user_id, expires_at) VALUES ($1, $2, $3, $4)")
        .bind(tx.tenant())
        .bind(id)
        .bind(user)
        .bind(expires_at)
        .execute(tx.conn())
        .await?;
    add_token(tx, id, token_hash).await?;
    Ok(id)
}

async fn add_token(tx: &mut TenantTx, session: SessionId, token_hash: &[u8]) -> Result<(), DbError> {
    sqlx::query("INSERT INTO refresh_tokens (tenant_id, token_hash, session_id) VALUES ($1, $2, $3)")
        .bind(tx.tenant())
        .bind(token_hash)
        .bind(session)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Uses up the token with hash `old` and puts `new` in its place; the session then lasts until `expires_at`.
pub async fn refresh(
    tx: &mut TenantTx,
    old: &[u8],
    new: &[u8],
    now: DateTime<Utc>,
    expires_at: DateTime<Utc>,
) -> Result<Refreshed, DbError> {
    // The lock makes two uses at the same time one use and one reuse.
    let row = sqlx::query(
        "SELECT s.id AS session_id, s.user_id, t.used_at, s.revoked_at IS NOT NULL OR s.expires_at <= $3 AS over,
                u.id, u.email, u.name, u.role, u.disabled_at
         FROM refresh_tokens t
         JOIN sessions s ON s.tenant_id = t.tenant_id AND s.id = t.session_id
         JOIN users u ON u.tenant_id = s.tenant_id AND u.id = s.user_id
         WHERE t.tenant_id = $1 AND t.token_hash = $2 FOR UPDATE OF t, s",
    )
    .bind(tx.tenant())
    .bind(old)
    .bind(now)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(Refreshed::Refused) };
    let (session, user): (SessionId, User) = (row.try_get("session_id")?, User::from_row(&row)?);
    if row.try_get::<bool, _>("over")? || user.disabled {
        return Ok(Refreshed::Refused);
    }
    if row.try_get::<Option<DateTime<Utc>>, _>("used_at")?.is_some() {
        revoke(tx, session, "refresh token reused").await?;
        return Ok(Refreshed::Reused { session, user: user.id });
    }
    sqlx::query("UPDATE refresh_tokens SET used_at = now() WHERE tenant_id = $1 AND token_hash = $2")
        .bind(tx.tenant())
        .bind(old)
        .execute(tx.conn())
        .await?;
    sqlx::query("UPDATE sessions SET expires_at = $3 WHERE tenant_id = $1 AND id = $2")
        .bind(tx.tenant())
        .bind(session)
        .bind(expires_at)
        .execute(tx.conn())
        .await?;
    add_token(tx, session, new).await?;
    Ok(Refreshed::User { session, user })
}

/// The user of a session that is not over; nothing when the session is, or the user was switched off.
pub async fn live(
    tx: &mut TenantTx,
    session: SessionId,
    user: UserId,
    now: DateTime<Utc>,
) -> Result<Option<User>, DbError> {
    Ok(sqlx::query_as(
        "SELECT u.id, u.email, u.name, u.role, u.disabled_at FROM sessions s
         JOIN users u ON u.tenant_id = s.tenant_id AND u.id = s.user_id
         WHERE s.tenant_id = $1 AND s.id = $2 AND s.user_id = $3 AND s.revoked_at IS NULL AND s.expires_at > $4
           AND u.disabled_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(session)
    .bind(user)
    .bind(now)
    .fetch_optional(tx.conn())
    .await?)
}

/// A session that is not over.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Open {
    /// Its id.
    pub id: SessionId,
    /// The log-in.
    pub created_at: DateTime<Utc>,
    /// The last refresh, or the log-in.
    pub refreshed_at: DateTime<Utc>,
    /// When it ends if it is not refreshed.
    pub expires_at: DateTime<Utc>,
}

/// The sessions of a user that are not over, the latest first.
pub async fn list(tx: &mut TenantTx, user: UserId, now: DateTime<Utc>) -> Result<Vec<Open>, DbError> {
    Ok(sqlx::query_as(
        "SELECT s.id, s.created_at, s.expires_at,
                coalesce((SELECT max(t.issued_at) FROM refresh_tokens t
                          WHERE t.tenant_id = s.tenant_id AND t.session_id = s.id), s.created_at) AS refreshed_at
         FROM sessions s
         WHERE s.tenant_id = $1 AND s.user_id = $2 AND s.revoked_at IS NULL AND s.expires_at > $3
         ORDER BY s.created_at DESC, s.id DESC",
    )
    .bind(tx.tenant())
    .bind(user)
    .bind(now)
    .fetch_all(tx.conn())
    .await?)
}

/// Ends one session of this user. `false`: it has no such session that was not over.
pub async fn end(tx: &mut TenantTx, user: UserId, session: SessionId, why: &str) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE sessions SET revoked_at = now(), revoked_why = $4
         WHERE tenant_id = $1 AND user_id = $2 AND id = $3 AND revoked_at IS NULL",
    )
    .bind(tx.tenant())
    .bind(user)
    .bind(session)
    .bind(why)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends one session.
pub async fn revoke(tx: &mut TenantTx, session: SessionId, why: &str) -> Result<(), DbError> {
    sqlx::query("UPDATE sessions SET revoked_at = now(), revoked_why = $3 WHERE tenant_id = $1 AND id = $2 AND revoked_at IS NULL")
        .bind(tx.tenant())
        .bind(session)
        .bind(why)
        .execute(tx.conn())
        .await?;
    Ok(())
}
