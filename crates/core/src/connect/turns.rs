//! How few connections a server allows: where it is one, the watch and whoever works take turns.

use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::AccountId;

/// Whether the server refused a second connection within the last day.
pub async fn is_one(tx: &mut TenantTx, account: AccountId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT coalesce(one_connection_until > now(), false) FROM account_leases WHERE tenant_id = $1 AND account_id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?
    .unwrap_or(false))
}

/// The server refused a connection because of others: for a day there is one of ours at a time.
pub async fn note_one(tx: &mut TenantTx, account: AccountId) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE account_leases SET one_connection_until = now() + interval '1 day' WHERE tenant_id = $1 AND account_id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Somebody is about to connect: the watch is to end its connection. Returns whether there is a watch that may have one. Who
/// holds the account's lease keeps the watch away for as long as that; anybody else for some seconds.
pub async fn want(tx: &mut TenantTx, account: AccountId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(
        "UPDATE account_leases SET connection_wanted_until = now() + interval '15 seconds'
         WHERE tenant_id = $1 AND account_id = $2
         RETURNING watch_owner IS NOT NULL AND coalesce(watch_expires_at > now(), false)",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?
    .unwrap_or(false))
}
