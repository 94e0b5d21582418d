//! Tickets for streams of events: what a browser can put into a URL, good once and for a minute.

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};

use super::token::{tenant_in, with_tenant};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{SessionId, TenantId, UserId};
use wire::secret::Secret;

/// How long a ticket is good for.
pub const LIFETIME: TimeDelta = TimeDelta::seconds(60);

const PREFIX: &str = "tkt_";
/// What the code in a ticket is for.
const PURPOSE: &str = "event ticket";

/// Whom a ticket lets in, as the token did that asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct Bearer {
    /// The user.
    pub user_id: UserId,
    /// The log-in session.
    pub session_id: SessionId,
    /// Seconds since 1970 at which the token ends.
    pub token_expires: i64,
}

fn hash(ticket: &str) -> Vec<u8> {
    Sha256::digest(ticket.as_bytes()).to_vec()
}

/// A new ticket. Those of the tenant that nobody used in time are swept away.
///
/// # Errors
/// Those of the database.
pub async fn issue(
    tx: &mut TenantTx,
    key: &Secret,
    bearer: Bearer,
    now: DateTime<Utc>,
) -> Result<String, DbError> {
    let ticket = written(key, tx.tenant());
    sqlx::query("DELETE FROM event_tickets WHERE tenant_id = $1 AND expires_at < $2")
        .bind(tx.tenant())
        .bind(now)
        .execute(tx.conn())
        .await?;
    sqlx::query(
        "INSERT INTO event_tickets (tenant_id, ticket_hash, user_id, session_id, token_expires, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(tx.tenant())
    .bind(hash(&ticket))
    .bind(bearer.user_id)
    .bind(bearer.session_id)
    .bind(bearer.token_expires)
    .bind(now + LIFETIME)
    .execute(tx.conn())
    .await?;
    Ok(ticket)
}

fn written(key: &Secret, tenant: TenantId) -> String {
    format!("{PREFIX}{}", with_tenant(key, PURPOSE, tenant))
}

/// The tenant that a ticket names; `None`: it is none of ours.
#[must_use]
pub fn tenant_of(key: &Secret, ticket: &str) -> Option<TenantId> {
    tenant_in(key, PURPOSE, ticket.strip_prefix(PREFIX)?)
}

/// Uses a ticket up. `None`: it was used, is too old, or never was one.
///
/// # Errors
/// Those of the database.
pub async fn redeem(tx: &mut TenantTx, ticket: &str, now: DateTime<Utc>) -> Result<Option<Bearer>, DbError> {
    Ok(sqlx::query_as(
        "DELETE FROM event_tickets WHERE tenant_id = $1 AND ticket_hash = $2 AND expires_at > $3
         RETURNING user_id, session_id, token_expires",
    )
    .bind(tx.tenant())
    .bind(hash(ticket))
    .bind(now)
    .fetch_optional(tx.conn())
    .await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_names_its_tenant_and_nothing_else_is_one() {
        let (tenant, key) = (TenantId::new(), Secret::new("k".repeat(32)));
        let ticket = written(&key, tenant);
        assert_eq!(tenant_of(&key, &ticket), Some(tenant));
        assert_eq!(tenant_of(&Secret::new("l".repeat(32)), &ticket), None);
        let short = format!("{PREFIX}{}", crate::access::token::seal(&key, PURPOSE, &[7; 47]));
        for bad in
            ["", PREFIX, "tkt_AAAA", ticket.trim_start_matches(PREFIX), &format!("{ticket}AAAA"), &short]
        {
            assert_eq!(tenant_of(&key, bad), None, "{bad}");
        }
    }
}
