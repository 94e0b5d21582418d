//! Suspending a tenant, and lifting that.
//!
//! Nothing of a suspended tenant runs or leaves: its jobs are not claimed ([`crate::queue::job::queue`]), its accounts' leases are
//! taken away and cannot be taken again ([`crate::queue::lease`]), and a hand-over that is under way asks once more before each of
//! its phases ([`crate::domain::submission::mark`]). Nothing is removed; what waits goes on when the suspension is lifted.

use std::time::Duration;

use crate::platform::db::{Db, DbError, TenantTx};
use crate::platform::id::{AccountId, TenantId};
use crate::queue::job;
use crate::queue::lease;

/// Why a submission waits, as its user reads it.
pub const HELD: &str = "held back: the tenant is suspended";

/// A hand-over that was held back is due again after this; its job waits for the end of the suspension anyway.
pub(crate) const HELD_FOR: Duration = Duration::from_secs(1);

/// Suspends the tenant of `tx`. From the commit on no job of it begins and no message leaves; [`stop`] ends what runs.
pub async fn suspend(tx: &mut TenantTx) -> Result<(), DbError> {
    sqlx::query("UPDATE tenants SET suspended_at = coalesce(suspended_at, now()) WHERE id = $1")
        .bind(tx.tenant())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Takes the leases of the tenant's webhooks and accounts away, so that rounds that are under way write nothing more. Each account on its
/// own: one whose row is held for long, such as by its deletion, keeps no other waiting. Returns how many were left so.
///
/// # Errors
/// When the database does not answer.
pub async fn stop(db: &Db, tenant: TenantId) -> Result<usize, DbError> {
    let mut tx = db.tenant(tenant).await?;
    let accounts: Vec<AccountId> = sqlx::query_scalar(
        "SELECT account_id FROM account_leases WHERE tenant_id = $1 AND owner IS NOT NULL",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    tx.release();
    let mut tx = db.tenant(tenant).await?;
    sqlx::query(
        "UPDATE webhooks SET owner = NULL, lease_until = NULL, epoch = epoch + 1 WHERE tenant_id = $1 AND owner IS NOT NULL",
    )
    .bind(tenant)
    .execute(tx.conn())
    .await?;
    tx.commit().await?;
    let mut left = 0;
    for account in accounts {
        let mut tx = db.tenant(tenant).await?;
        let taken = async {
            lease::lock(&mut tx, &[account]).await?;
            lease::take_away(&mut tx, account).await
        };
        match taken.await {
            Ok(()) => tx.commit().await?,
            Err(error) => {
                tracing::warn!(%account, %error, "a round of a suspended tenant could not be stopped; it ends by itself");
                left += 1;
            }
        }
    }
    Ok(left)
}

/// Lifts the suspension. What waited is due at once, and its time to give up moves on by as long as it was held.
pub async fn lift(tx: &mut TenantTx) -> Result<(), DbError> {
    let tenant = tx.tenant();
    sqlx::query(
        "UPDATE submissions s SET give_up_at = s.give_up_at + (now() - greatest(t.suspended_at, s.created_at))
         FROM tenants t WHERE t.id = $1 AND s.tenant_id = $1 AND t.suspended_at IS NOT NULL AND s.state IN ('queued', 'sending')",
    )
    .bind(tenant)
    .execute(tx.conn())
    .await?;
    // Rounds that lost their lease were put off; what is to be sent at an hour of its own stays for that hour.
    sqlx::query(
        "UPDATE jobs SET run_at = now() WHERE tenant_id = $1 AND state = 'ready' AND run_at > now()
           AND kind IN ('sync_account', 'push_changes')
           AND EXISTS (SELECT 1 FROM tenants t WHERE t.id = $1 AND t.suspended_at IS NOT NULL)",
    )
    .bind(tenant)
    .execute(tx.conn())
    .await?;
    // Webhooks had no chance to succeed meanwhile.
    sqlx::query(
        "UPDATE webhooks w SET failing_since = w.failing_since + (now() - least(now(), greatest(t.suspended_at, w.failing_since)))
         FROM tenants t WHERE t.id = $1 AND w.tenant_id = $1 AND t.suspended_at IS NOT NULL AND w.failing_since IS NOT NULL",
    )
    .bind(tenant)
    .execute(tx.conn())
    .await?;
    // One that is deleted stays suspended.
    sqlx::query("UPDATE tenants SET suspended_at = NULL WHERE id = $1 AND removed_at IS NULL")
        .bind(tenant)
        .execute(tx.conn())
        .await?;
    sqlx::query("SELECT pg_notify($1, '')").bind(job::CHANNEL).execute(tx.conn()).await?;
    Ok(())
}

/// Whether the tenant of `tx` is suspended now.
pub async fn is_suspended(tx: &mut TenantTx) -> Result<bool, DbError> {
    let suspended: Option<bool> =
        sqlx::query_scalar("SELECT suspended_at IS NOT NULL FROM tenants WHERE id = $1")
            .bind(tx.tenant())
            .fetch_optional(tx.conn())
            .await?;
    Ok(suspended.unwrap_or(false))
}
