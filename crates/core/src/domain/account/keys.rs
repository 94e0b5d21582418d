//! Which encryption keys the stored passwords and the secrets of webhooks need, whether those at hand open them, and how all get under the newest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use crate::access::audit::{self, Action, Entry};
use crate::platform::db::{Db, DbError, TenantTx};
use crate::platform::id::TenantId;
use crate::platform::seal::{Keyring, Place, SealError, Sealed};

/// Where sealed values lie: a table, what one of its rows is called, and its two columns of ciphertext; the id of the key of `c` is
/// in `c_key`. The next secret of a table of its own: a line here.
struct Table {
    name: &'static str,
    noun: &'static str,
    fields: [&'static str; 2],
}

const TABLES: [Table; 4] = [
    Table { name: "accounts", noun: "account", fields: ["imap_password", "smtp_password"] },
    Table { name: "webhooks", noun: "webhook", fields: ["secret", "previous_secret"] },
    Table { name: "oauth_apps", noun: "OAuth app", fields: ["client_secret", "private_key"] },
    Table { name: "oauth_grants", noun: "OAuth grant", fields: ["refresh_token", "access_token"] },
];

impl Table {
    fn row(&self, id: Uuid) -> String {
        format!("{} {id}", self.noun)
    }

    /// SQL: the row has a value that is sealed under another key than this parameter.
    fn is_under_another(&self, parameter: &str) -> String {
        let [a, b] = self.fields;
        format!("({a} IS NOT NULL AND {a}_key <> {parameter} OR {b} IS NOT NULL AND {b}_key <> {parameter})")
    }
}

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
    /// `account <id>`, `webhook <id>`: whose secret did not open although its key is there: changed, or moved to another row.
    pub forged: Vec<String>,
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
        for table in &TABLES {
            look(&mut tx, keyring, table, &mut survey).await?;
        }
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

async fn look(
    tx: &mut TenantTx,
    keyring: &Keyring,
    table: &Table,
    survey: &mut KeySurvey,
) -> Result<(), DbError> {
    let tenant = tx.tenant();
    let each = table.fields.map(|field| {
        format!(
            "SELECT '{field}' AS field, {field}_key AS key_id, id, {field} AS bytes FROM {} WHERE tenant_id = $1
               AND {field} IS NOT NULL AND {field}_key IS NOT NULL",
            table.name
        )
    });
    let sql = format!(
        "SELECT DISTINCT ON (field, key_id) field, key_id, id, bytes, count(*) OVER (PARTITION BY field, key_id) AS passwords
         FROM ({}) s ORDER BY field, key_id, id",
        each.join(" UNION ALL ")
    );
    for row in sqlx::query(AssertSqlSafe(sql)).bind(tenant).fetch_all(tx.conn()).await? {
        let (key_id, id) = (row.try_get::<String, _>("key_id")?, row.try_get::<Uuid, _>("id")?);
        let sealed = Sealed { key_id: key_id.clone(), bytes: row.try_get("bytes")? };
        let field: String = row.try_get("field")?;
        let counts = match keyring.open(Place { tenant, row: id, field: &field }, &sealed) {
            Err(SealError::UnknownKey(_)) => &mut survey.unknown,
            Err(_) => {
                survey.forged.push(table.row(id));
                &mut survey.known
            }
            Ok(_) => &mut survey.known,
        };
        *counts.entry(key_id).or_default() += row.try_get::<i64, _>("passwords")?;
    }
    Ok(())
}

/// Accounts, or webhooks, in one transaction of a rotation: their rows are locked for some milliseconds.
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
    /// As [`KeySurvey::forged`].
    pub forged: Vec<String>,
    /// Accounts and webhooks whose row somebody else held all the time; the next rotation gets them.
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
pub async fn rotate(db: &Db, keyring: &Keyring, actor: &str) -> Result<Rotation, DbError> {
    let mut done = Rotation::default();
    for tenant in tenants(db).await? {
        for table in &TABLES {
            rotate_table(db, (keyring, actor), (tenant, table), &mut done).await?;
        }
    }
    Ok(done)
}

async fn rotate_table(
    db: &Db,
    by: (&Keyring, &str),
    of: (TenantId, &Table),
    done: &mut Rotation,
) -> Result<(), DbError> {
    let mut rounds = 1;
    loop {
        let (left, held) = rotate_once(db, by, of, &mut done.sealed).await?;
        if held == 0 || rounds == ROUNDS {
            for key in left.unknown {
                *done.unknown.entry(key).or_default() += 1;
            }
            done.forged.extend(left.forged);
            done.held += held;
            return Ok(());
        }
        rounds += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// What one going through a tenant's accounts could not open.
#[derive(Default)]
struct Left {
    rows: i64,
    /// The key's id, once for each password.
    unknown: Vec<String>,
    forged: Vec<String>,
}

/// Goes once through a table's rows of `tenant`; gives back what does not open, and how many rows somebody else held.
async fn rotate_once(
    db: &Db,
    (keyring, actor): (&Keyring, &str),
    (tenant, table): (TenantId, &Table),
    sealed: &mut BTreeMap<String, i64>,
) -> Result<(Left, i64), DbError> {
    let mut left = Left::default();
    let mut after = Uuid::nil();
    let ([a, b], name) = (table.fields, table.name);
    loop {
        let mut tx = db.tenant(tenant).await?;
        let sql = format!(
            "SELECT id, {a}, {a}_key, {b}, {b}_key FROM {name} WHERE tenant_id = $1 AND id > $2 AND {}
             ORDER BY id LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED",
            table.is_under_another("$3")
        );
        let rows = sqlx::query(AssertSqlSafe(sql))
            .bind(tenant)
            .bind(after)
            .bind(keyring.current_id())
            .bind(BATCH)
            .fetch_all(tx.conn())
            .await?;
        let Some(last) = rows.last() else { break };
        after = last.try_get("id")?;
        let counts = seal_anew(&mut tx, (keyring, actor), (table, &rows), &mut left).await?;
        tx.commit().await?;
        for (key, passwords) in counts {
            *sealed.entry(key).or_default() += passwords;
        }
    }
    let mut tx = db.tenant(tenant).await?;
    let sql =
        format!("SELECT count(*) FROM {name} WHERE tenant_id = $1 AND {}", table.is_under_another("$2"));
    let others: i64 = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(tenant)
        .bind(keyring.current_id())
        .fetch_one(tx.conn())
        .await?;
    tx.release();
    // A row that was removed meanwhile may make it negative.
    let held = (others - left.rows).max(0);
    Ok((left, held))
}

/// Writes the rows of one batch; gives back how many secrets were under which key.
async fn seal_anew(
    tx: &mut TenantTx,
    (keyring, actor): (&Keyring, &str),
    (table, rows): (&Table, &[PgRow]),
    left: &mut Left,
) -> Result<BTreeMap<String, i64>, DbError> {
    let tenant = tx.tenant();
    let mut counts = BTreeMap::new();
    let (mut ids, mut first, mut second) = (vec![], vec![], vec![]);
    let [a, b] = table.fields;
    for row in rows {
        let id: Uuid = row.try_get("id")?;
        let mut whole = true;
        let mut anew = |field: &str| -> Result<Option<Vec<u8>>, sqlx::Error> {
            let key = format!("{field}_key");
            let stored: (Option<Vec<u8>>, Option<String>) = (row.try_get(field)?, row.try_get(key.as_str())?);
            let (Some(bytes), Some(key_id)) = stored else { return Ok(None) };
            if key_id == keyring.current_id() {
                return Ok(None);
            }
            let place = Place { tenant, row: id, field };
            let old = Sealed { key_id, bytes };
            match keyring.open(place, &old).and_then(|secret| keyring.seal(place, &secret)) {
                Ok(sealed) => {
                    *counts.entry(old.key_id).or_default() += 1;
                    return Ok(Some(sealed.bytes));
                }
                Err(SealError::UnknownKey(key)) => left.unknown.push(key),
                Err(_) => left.forged.push(table.row(id)),
            }
            whole = false;
            Ok(None)
        };
        first.push(anew(a)?);
        second.push(anew(b)?);
        ids.push(id);
        left.rows += i64::from(!whole);
    }
    let secrets: i64 = counts.values().sum();
    if secrets == 0 {
        return Ok(counts);
    }
    let sql = format!(
        "UPDATE {} t SET {a} = coalesce(n.a, t.{a}), {a}_key = CASE WHEN n.a IS NULL THEN t.{a}_key ELSE $5 END,
           {b} = coalesce(n.b, t.{b}), {b}_key = CASE WHEN n.b IS NULL THEN t.{b}_key ELSE $5 END
         FROM unnest($2::uuid[], $3::bytea[], $4::bytea[]) AS n(id, a, b) WHERE t.tenant_id = $1 AND t.id = n.id",
        table.name
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(tenant)
        .bind(ids)
        .bind(first)
        .bind(second)
        .bind(keyring.current_id())
        .execute(tx.conn())
        .await?;
    let what = format!("{secrets} passwords under {}", keyring.current_id());
    audit::record(tx, &Entry::here(actor, Action::KeysRotate, &what)).await?;
    Ok(counts)
}
