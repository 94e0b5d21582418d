//! Asks a provider for a token before the one there is ends: of grants that are used, a while before; of others, once a week, so
//! that the provider does not forget them.

use std::time::Duration;

use super::{JobError, enqueue_lost};
use crate::connect::oauth::{self, GrantError};
use crate::platform::clock::{Clock as _, SystemClock};
use crate::platform::db::{Db, DbError, SystemTx};
use crate::platform::id::{GrantId, TenantId};
use crate::queue::job::{Declaration, Job, Sweep, priority};
use crate::sync::driver::SyncContext;
use crate::sync::run;

/// Who connects meanwhile renews by itself, so nobody waits for it.
pub const DECLARATION: Declaration = Declaration {
    kind: "renew_grant",
    attempts: 20,
    priority: priority::ROUND,
    sweep: Sweep::Every(Duration::from_secs(15), |db, _| Box::pin(sweep(db))),
};

/// Grants given a job in one look.
const AT_ONCE: i64 = 1_000;

/// Its dedupe key.
#[must_use]
pub fn key(grant_id: GrantId) -> String {
    grant_id.to_string()
}

/// Renews the grant, unless its time has not come. Where the provider has refused it, its accounts get a round, which says so.
///
/// # Errors
/// When the provider does not answer, or the database refuses.
pub async fn run(env: &SyncContext, tenant: TenantId, grant: GrantId) -> Result<(), JobError> {
    match oauth::renew(env, (tenant, grant)).await {
        Ok(()) | Err(GrantError::Gone) => Ok(()),
        Err(GrantError::Refused(_)) => {
            let mut tx = env.db.tenant(tenant).await?;
            let accounts: Vec<_> = sqlx::query_scalar(
                "SELECT id FROM accounts WHERE tenant_id = $1 AND grant_id = $2 AND state <> 'paused'",
            )
            .bind(tenant)
            .bind(grant)
            .fetch_all(tx.conn())
            .await
            .map_err(DbError::from)?;
            for account in accounts {
                run::request(&mut tx, account).await?;
            }
            Ok(tx.commit().await?)
        }
        Err(GrantError::Db(error)) => Err(error.into()),
        Err(GrantError::Later { wait, error }) => {
            let words = error.map_or_else(|| "somebody else asks".to_owned(), |error| error.to_string());
            Err(JobError::postpone(wait.max(Duration::from_secs(1)), anyhow::anyhow!(words)))
        }
        Err(error) => Err(JobError::postpone(Duration::from_secs(600), error)),
    }
}

async fn sweep(db: &Db) -> Result<(), DbError> {
    let due = due(&mut db.system().await?, SystemClock.now()).await?;
    enqueue_lost(db, due, |grant_id| Job::RenewGrant { grant_id }).await
}

/// Grants whose time has come, without a job.
///
/// # Errors
/// Those of the database.
pub async fn due(
    tx: &mut SystemTx,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<Vec<(TenantId, GrantId)>, DbError> {
    Ok(sqlx::query_as(
        "SELECT g.tenant_id, g.id FROM oauth_grants g JOIN tenants t ON t.id = g.tenant_id
         WHERE g.renew_at <= $1 AND g.refused IS NULL AND t.suspended_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.tenant_id = g.tenant_id AND j.kind = 'renew_grant'
                           AND j.dedupe_key = g.id::text AND j.state IN ('ready','running'))
         ORDER BY g.renew_at LIMIT $2",
    )
    .bind(now)
    .bind(AT_ONCE)
    .fetch_all(tx.conn())
    .await?)
}
