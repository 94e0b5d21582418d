//! Which encryption keys the stored passwords need, and whether those at hand open them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::Row as _;

use crate::db::{Db, DbError, TenantTx};
use crate::id::{AccountId, TenantId};
use crate::seal::{Keyring, Place, SealError, Sealed};

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct KeySurvey {
    /// Tenants looked at.
    pub tenants: usize,
    /// Tenants there was no time for.
    pub left_out: usize,
    /// Passwords under each key that the settings hold, by the key's id.
    pub known: BTreeMap<String, i64>,
    /// Passwords under keys that the settings lack, by the key's id.
    pub unknown: BTreeMap<String, i64>,
    /// Accounts whose password did not open although its key is there: changed, or moved to another row.
    pub forged: Vec<AccountId>,
}

/// Goes through all tenants, for at most `budget`, and opens one password for each key and column of each tenant.
///
/// # Errors
/// When the database refuses.
pub async fn survey(db: &Db, keyring: &Keyring, budget: Duration) -> Result<KeySurvey, DbError> {
    let started = Instant::now();
    let mut tx = db.system().await?;
    let tenants: Vec<TenantId> =
        sqlx::query_scalar("SELECT id FROM tenants ORDER BY id").fetch_all(tx.conn()).await?;
    drop(tx);
    let mut survey = KeySurvey::default();
    for tenant in &tenants {
        if started.elapsed() > budget {
            break;
        }
        let mut tx = db.tenant(*tenant).await?;
        look(&mut tx, keyring, &mut survey).await?;
        survey.tenants += 1;
    }
    survey.left_out = tenants.len() - survey.tenants;
    Ok(survey)
}

async fn look(tx: &mut TenantTx, keyring: &Keyring, survey: &mut KeySurvey) -> Result<(), DbError> {
    let tenant = tx.tenant();
    let rows = sqlx::query(
        "SELECT DISTINCT ON (field, key_id) field, key_id, id, bytes, count(*) OVER (PARTITION BY field, key_id) AS passwords FROM (
           SELECT 'imap_password' AS field, imap_password_key AS key_id, id, imap_password AS bytes FROM accounts
             WHERE tenant_id = $1 AND imap_password IS NOT NULL AND imap_password_key IS NOT NULL
           UNION ALL
           SELECT 'smtp_password', smtp_password_key, id, smtp_password FROM accounts
             WHERE tenant_id = $1 AND smtp_password IS NOT NULL AND smtp_password_key IS NOT NULL) s
         ORDER BY field, key_id, id",
    )
    .bind(tenant)
    .fetch_all(tx.conn())
    .await?;
    for row in rows {
        let (key_id, account) = (row.get::<String, _>("key_id"), AccountId(row.get("id")));
        let sealed = Sealed { key_id: key_id.clone(), bytes: row.get("bytes") };
        let field: String = row.get("field");
        let counts = match keyring.open(Place { tenant, account, field: &field }, &sealed) {
            Err(SealError::UnknownKey(_)) => &mut survey.unknown,
            Err(_) => {
                survey.forged.push(account);
                &mut survey.known
            }
            Ok(_) => &mut survey.known,
        };
        *counts.entry(key_id).or_default() += row.get::<i64, _>("passwords");
    }
    Ok(())
}
