//! How much of an account is kept, as its user wants it, and how far that is. What follows from it in the rows is
//! [`crate::sync::store::keep`]'s.

use chrono::{DateTime, Utc};
use mail::keep::{Choice, Keep, Since};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::AccountId;
use crate::platform::words::unknown;

/// What an account shows of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// As its user wants it.
    pub wanted: Keep,
    /// What is outside and still here.
    pub narrowing: Option<Narrowing>,
    /// Mail that is kept is still being read for the first time or anew. Mailboxes that cannot be opened do not count: they say so
    /// themselves.
    pub widening: bool,
    /// The moment by which it was last seen to that nothing is here that is outside.
    pub narrowed_at: Option<DateTime<Utc>>,
}

/// How far what is outside has left our copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Narrowing {
    /// Since when.
    pub asked_at: DateTime<Utc>,
    /// Places of messages that are to go; `None`: nobody has counted yet, or it would take too long.
    pub total: Option<i64>,
    /// Those that have gone.
    pub removed: i64,
}

/// SQL: the columns that [`Kept`] is read from, of the account `tenant_id` and `id` of the statement's table `accounts`.
pub(super) const COLUMNS: &str = "keep_since, keep_mailboxes, keep_max_bytes, narrowed_at,
    (SELECT asked_at FROM account_narrowings n WHERE n.tenant_id = accounts.tenant_id AND n.account_id = accounts.id) AS narrowing_since,
    (SELECT total FROM account_narrowings n WHERE n.tenant_id = accounts.tenant_id AND n.account_id = accounts.id) AS narrowing_total,
    (SELECT removed FROM account_narrowings n WHERE n.tenant_id = accounts.tenant_id AND n.account_id = accounts.id) AS narrowing_removed,
    EXISTS (SELECT 1 FROM mailboxes b WHERE b.tenant_id = accounts.tenant_id AND b.account_id = accounts.id
            AND b.selectable AND b.synchronised AND b.tail_uid <> 1 AND b.cause_code IS NULL) AS widening";

impl Kept {
    pub(super) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let since: Option<DateTime<Utc>> = row.try_get("narrowing_since")?;
        let (total, removed): (Option<i64>, Option<i64>) =
            (row.try_get("narrowing_total")?, row.try_get("narrowing_removed")?);
        Ok(Self {
            wanted: read(row)?,
            narrowing: since.map(|asked_at| Narrowing {
                asked_at,
                total,
                removed: removed.unwrap_or_default(),
            }),
            widening: row.try_get("widening")?,
            narrowed_at: row.try_get("narrowed_at")?,
        })
    }
}

/// From the columns `keep_…` of an account.
pub(crate) fn read(row: &PgRow) -> Result<Keep, sqlx::Error> {
    let since: Option<String> = row.try_get("keep_since")?;
    // Nothing is taken out by a word that this release does not know.
    let since = since
        .map(|text| {
            Since::parse(&text).map_err(|_| sqlx::Error::ColumnDecode {
                index: "keep_since".to_owned(),
                source: unknown("Since", &text).into(),
            })
        })
        .transpose()?;
    let mailboxes: Option<Json<Choice>> = row.try_get("keep_mailboxes")?;
    let most: Option<i64> = row.try_get("keep_max_bytes")?;
    Ok(Keep {
        since,
        mailboxes: mailboxes.map(|choice| choice.0).unwrap_or_default(),
        max_message_bytes: most.and_then(|most| u64::try_from(most).ok()),
    })
}

/// How much of the account is kept; all of it where there is no such account.
///
/// # Errors
/// Those of the database.
pub async fn wanted(tx: &mut TenantTx, account: AccountId) -> Result<Keep, DbError> {
    let row = sqlx::query(
        "SELECT keep_since, keep_mailboxes, keep_max_bytes FROM accounts WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.as_ref().map(read).transpose()?.unwrap_or_default())
}

/// Writes what is wanted.
pub(super) async fn write(tx: &mut TenantTx, account: AccountId, keep: &Keep) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE accounts SET keep_since = $3, keep_mailboxes = $4, keep_max_bytes = $5 WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(keep.since.map(|since| since.to_string()))
    .bind((!keep.mailboxes.is_all()).then_some(Json(&keep.mailboxes)))
    .bind(keep.max_message_bytes.map(|most| i64::try_from(most).unwrap_or(i64::MAX)))
    .execute(tx.conn())
    .await?;
    Ok(())
}
