//! Which encryption keys the stored passwords need, whether those at hand open them, and how all get under the newest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::access::audit;
use crate::platform::db::{Db, DbError, TenantTx};
use crate::platform::id::{AccountId, TenantId};
use crate::platform::seal::{Keyring, Place, SealError, Sealed};

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
    let tenants = tenants(db).await?;
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

async fn tenants(db: &Db) -> Result<Vec<TenantId>, DbError> {
    let mut tx = db.system().await?;
    let ids = sqlx::query_scalar("SELECT id FROM tenants ORDER BY id").fetch_all(tx.conn()).await?;
    tx.release();
    Ok(ids)
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

/// Accounts in one transaction of a rotation: their rows are locked for some milliseconds.
const BATCH: i64 = 100;
/// How often a tenant is gone through because somebody else holds a row, [`PAUSE`] apart: 20 seconds, longer than a
/// transaction of the services lives.
const ROUNDS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(200);

/// What a rotation did, and what it had to leave.
#[derive(Debug, Clone, Default)]
pub struct Rotation {
    /// Passwords sealed anew, by the id of the key they were under.
    pub sealed: BTreeMap<String, i64>,
    /// Passwords left under keys that the settings lack, by the key's id.
    pub unknown: BTreeMap<String, i64>,
    /// Accounts with a password that does not open although its key is there: changed, or moved to another row.
    pub forged: Vec<AccountId>,
    /// Accounts whose row somebody else held all the time; the next rotation gets them.
    pub held: i64,
}

impl Rotation {
    /// True when no password is left under another key than the current one.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.unknown.is_empty() && self.forged.is_empty() && self.held == 0
    }
}

/// Seals every stored password anew that is not under the current key, in batches of [`BATCH`] accounts, each with a line
/// of the audit. Whatever ends it, what was committed stays, and the next call goes on with the rest.
///
/// Services may run, if they know the current key. A row is read and written under its lock, so a password that is
/// changed meanwhile is not put back; rows that others hold are passed over and come later, so nobody waits for us in a
/// circle.
///
/// # Errors
/// When the database refuses.
pub async fn rotate(db: &Db, keyring: &Keyring) -> Result<Rotation, DbError> {
    let mut done = Rotation::default();
    for tenant in tenants(db).await? {
        let mut rounds = 1;
        loop {
            let (left, held) = rotate_once(db, keyring, tenant, &mut done.sealed).await?;
            if held == 0 || rounds == ROUNDS {
                for key in left.unknown {
                    *done.unknown.entry(key).or_default() += 1;
                }
                done.forged.extend(left.forged);
                done.held += held;
                break;
            }
            rounds += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(done)
}

/// What one going through a tenant's accounts could not open.
#[derive(Default)]
struct Left {
    accounts: i64,
    /// The key's id, once for each password.
    unknown: Vec<String>,
    forged: Vec<AccountId>,
}

/// Goes once through the accounts of `tenant`; gives back what does not open, and how many rows somebody else held.
async fn rotate_once(
    db: &Db,
    keyring: &Keyring,
    tenant: TenantId,
    sealed: &mut BTreeMap<String, i64>,
) -> Result<(Left, i64), DbError> {
    let mut left = Left::default();
    let mut after = AccountId(uuid::Uuid::nil());
    loop {
        let mut tx = db.tenant(tenant).await?;
        let rows = sqlx::query(
            "SELECT id, imap_password, imap_password_key, smtp_password, smtp_password_key FROM accounts
             WHERE tenant_id = $1 AND id > $2 AND (imap_password IS NOT NULL AND imap_password_key <> $3
                                                   OR smtp_password IS NOT NULL AND smtp_password_key <> $3)
             ORDER BY id LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED",
        )
        .bind(tenant)
        .bind(after)
        .bind(keyring.current_id())
        .bind(BATCH)
        .fetch_all(tx.conn())
        .await?;
        let Some(last) = rows.last() else { break };
        after = last.get("id");
        let counts = seal_anew(&mut tx, keyring, &rows, &mut left).await?;
        tx.commit().await?;
        for (key, passwords) in counts {
            *sealed.entry(key).or_default() += passwords;
        }
    }
    let mut tx = db.tenant(tenant).await?;
    let others: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM accounts WHERE tenant_id = $1 AND (imap_password IS NOT NULL AND imap_password_key <> $2
                                                                 OR smtp_password IS NOT NULL AND smtp_password_key <> $2)",
    )
    .bind(tenant)
    .bind(keyring.current_id())
    .fetch_one(tx.conn())
    .await?;
    tx.release();
    // An account that was removed meanwhile may make it negative.
    let held = (others - left.accounts).max(0);
    Ok((left, held))
}

/// Writes the rows of one batch; gives back how many passwords were under which key.
async fn seal_anew(
    tx: &mut TenantTx,
    keyring: &Keyring,
    rows: &[PgRow],
    left: &mut Left,
) -> Result<BTreeMap<String, i64>, DbError> {
    let tenant = tx.tenant();
    let mut counts = BTreeMap::new();
    let (mut ids, mut imap, mut smtp) = (vec![], vec![], vec![]);
    for row in rows {
        let account: AccountId = row.get("id");
        let mut whole = true;
        let mut anew = |field: &str, key: &str| -> Option<Vec<u8>> {
            let (bytes, key_id) = (row.get::<Option<Vec<u8>>, _>(field)?, row.get::<Option<String>, _>(key)?);
            if key_id == keyring.current_id() {
                return None;
            }
            let place = Place { tenant, account, field };
            let old = Sealed { key_id, bytes };
            match keyring.open(place, &old).and_then(|password| keyring.seal(place, &password)) {
                Ok(sealed) => {
                    *counts.entry(old.key_id).or_default() += 1;
                    return Some(sealed.bytes);
                }
                Err(SealError::UnknownKey(key)) => left.unknown.push(key),
                Err(_) => left.forged.push(account),
            }
            whole = false;
            None
        };
        imap.push(anew("imap_password", "imap_password_key"));
        smtp.push(anew("smtp_password", "smtp_password_key"));
        ids.push(account);
        left.accounts += i64::from(!whole);
    }
    let passwords: i64 = counts.values().sum();
    if passwords == 0 {
        return Ok(counts);
    }
    sqlx::query(
        "UPDATE accounts a SET imap_password = coalesce(n.imap, a.imap_password),
           imap_password_key = CASE WHEN n.imap IS NULL THEN a.imap_password_key ELSE $5 END,
           smtp_password = coalesce(n.smtp, a.smtp_password),
           smtp_password_key = CASE WHEN n.smtp IS NULL THEN a.smtp_password_key ELSE $5 END
         FROM unnest($2::uuid[], $3::bytea[], $4::bytea[]) AS n(id, imap, smtp)
         WHERE a.tenant_id = $1 AND a.id = n.id",
    )
    .bind(tenant)
    .bind(ids)
    .bind(imap)
    .bind(smtp)
    .bind(keyring.current_id())
    .execute(tx.conn())
    .await?;
    let what = format!("{passwords} passwords under {}", keyring.current_id());
    audit::record(tx, &audit::Entry::by_operator("keys.rotate", &what)).await?;
    Ok(counts)
}
