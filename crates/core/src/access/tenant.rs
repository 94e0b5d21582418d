//! Tenants: made, limited and deleted by the operator, found by slug or id at the edge.

pub mod branding;
pub mod removal;

use sqlx::Row as _;

use crate::access::audit::{self, Action, Entry};
use crate::platform::db::{Db, DbError, SystemTx, TenantTx};
use crate::platform::id::TenantId;

/// What the edge needs to know of a tenant before it opens a tenant transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantKey {
    /// Its id.
    pub id: TenantId,
    /// Its slug.
    pub slug: String,
    /// True when the operator suspended it.
    pub suspended: bool,
    /// Requests a minute; nothing: the deployment's default; 0: unlimited.
    pub per_minute: Option<u32>,
    /// Requests an hour, likewise.
    pub per_hour: Option<u32>,
}

/// The tenant with this slug or id.
pub async fn find(tx: &mut SystemTx, slug_or_id: &str) -> Result<Option<TenantKey>, DbError> {
    let id = uuid::Uuid::parse_str(slug_or_id).ok();
    let row = sqlx::query("SELECT id, slug, suspended_at IS NOT NULL AS suspended, per_minute, per_hour FROM tenants WHERE id = $1 OR ($1 IS NULL AND slug = $2)")
        .bind(id)
        .bind(slug_or_id)
        .fetch_optional(tx.conn())
        .await?;
    let Some(row) = row else { return Ok(None) };
    let limit = |v: Option<i32>| v.and_then(|n| u32::try_from(n).ok());
    Ok(Some(TenantKey {
        id: row.try_get("id")?,
        slug: row.try_get("slug")?,
        suspended: row.try_get("suspended")?,
        per_minute: limit(row.try_get("per_minute")?),
        per_hour: limit(row.try_get("per_hour")?),
    }))
}

/// True for `[a-z0-9][a-z0-9-]{1,62}`.
#[must_use]
pub fn is_slug(text: &str) -> bool {
    let mut chars = text.bytes();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (2..=63).contains(&text.len()) && chars.next().is_some_and(plain) && chars.all(|b| plain(b) || b == b'-')
}

/// Makes a tenant; `actor` goes into the audit trail.
///
/// # Errors
/// [`DbError::Duplicate`] when the slug is taken.
pub async fn create(db: &Db, actor: &str, slug: &str, name: &str) -> Result<TenantId, DbError> {
    let id = TenantId::new();
    let mut tx = db.tenant(id).await?;
    sqlx::query("INSERT INTO tenants (id, slug, name) VALUES ($1, $2, $3)")
        .bind(id)
        .bind(slug)
        .bind(name)
        .execute(tx.conn())
        .await?;
    audit::record(&mut tx, &Entry::here(actor, Action::TenantCreate, slug)).await?;
    tx.commit().await?;
    Ok(id)
}

/// The tenant's display name.
pub async fn name(tx: &mut TenantTx) -> Result<Option<String>, DbError> {
    Ok(sqlx::query_scalar("SELECT name FROM tenants").fetch_optional(tx.conn()).await?)
}

/// Where people may be sent after they connected an account.
pub async fn redirect_urls(tx: &mut TenantTx) -> Result<Vec<String>, DbError> {
    let found: Option<Vec<String>> =
        sqlx::query_scalar("SELECT redirect_urls FROM tenants").fetch_optional(tx.conn()).await?;
    Ok(found.unwrap_or_default())
}

/// Replaces [`redirect_urls`].
pub async fn set_redirect_urls(tx: &mut TenantTx, urls: &[String]) -> Result<(), DbError> {
    sqlx::query("UPDATE tenants SET redirect_urls = $1").bind(urls).execute(tx.conn()).await?;
    Ok(())
}

/// Sets the tenant's own limits; nothing takes the deployment's default, 0 lifts the limit.
pub async fn set_limits(
    tx: &mut TenantTx,
    per_minute: Option<u32>,
    per_hour: Option<u32>,
) -> Result<(), DbError> {
    let narrow = |v: Option<u32>| v.map(|n| i32::try_from(n).unwrap_or(i32::MAX));
    sqlx::query("UPDATE tenants SET per_minute = $1, per_hour = $2")
        .bind(narrow(per_minute))
        .bind(narrow(per_hour))
        .execute(tx.conn())
        .await?;
    Ok(())
}
