//! Extensions that a mail server advertises and answers with BAD: left alone for a week, then tried again.
//!
//! Kept for each tenant, host and port. Which command relied on which extension is said where the command is built
//! (`wire::imap`); that a session does without it is `mail::capabilities`' [`forgo`].
//!
//! [`forgo`]: mail::capabilities::Capabilities::forgo

use std::time::Duration;

use mail::backoff::CAPABILITY_OFF_FOR;

use crate::platform::db::{DbError, TenantTx};
use wire::imap::Endpoint;

/// The extensions to do without at this server now; none for longer than [`CAPABILITY_OFF_FOR`] from now.
pub async fn list(tx: &mut TenantTx, server: &Endpoint) -> Result<Vec<String>, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT capability FROM capabilities_off WHERE tenant_id = $1 AND host = $2 AND port = $3 AND until > now()
           AND until <= now() + make_interval(secs => $4)",
    )
    .bind(tx.tenant())
    .bind(server.host.to_ascii_lowercase())
    .bind(i32::from(server.port))
    .bind(CAPABILITY_OFF_FOR.as_secs_f64())
    .fetch_all(tx.conn())
    .await?)
}

/// Does without `capability` at this server for `time`; `words` are what it said.
pub async fn note(
    tx: &mut TenantTx,
    server: &Endpoint,
    capability: &str,
    words: &str,
    time: Duration,
) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO capabilities_off (tenant_id, host, port, capability, words, until)
         VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))
         ON CONFLICT (tenant_id, host, port, capability) DO UPDATE SET words = excluded.words, until = excluded.until",
    )
    .bind(tx.tenant())
    .bind(server.host.to_ascii_lowercase())
    .bind(i32::from(server.port))
    .bind(capability)
    .bind(words)
    .bind(time.as_secs_f64())
    .execute(tx.conn())
    .await?;
    Ok(())
}
