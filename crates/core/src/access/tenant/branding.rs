//! What a tenant's people see of it on our pages: its name, its colour, its logo.

use sqlx::Row as _;

use crate::platform::db::{DbError, TenantTx};

/// A picture, as it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logo {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// `image/png`, `image/jpeg`, `image/gif` or `image/webp`.
    pub media_type: String,
    /// SHA-256 of the bytes.
    pub hash: Vec<u8>,
}

/// What is shown, without the picture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Branding {
    /// The name people know.
    pub name: String,
    /// `#rrggbb`, in lower case.
    pub colour: Option<String>,
    /// Where the logo was fetched from.
    pub logo_url: Option<String>,
    /// The hash of the logo that is kept.
    pub logo_hash: Option<Vec<u8>>,
}

/// What the tenant shows; `None`: it said nothing.
///
/// # Errors
/// Those of the database.
pub async fn get(tx: &mut TenantTx) -> Result<Option<Branding>, DbError> {
    let row =
        sqlx::query("SELECT name, colour, logo_url, logo_hash FROM tenant_branding WHERE tenant_id = $1")
            .bind(tx.tenant())
            .fetch_optional(tx.conn())
            .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Branding {
        name: row.try_get("name")?,
        colour: row.try_get("colour")?,
        logo_url: row.try_get("logo_url")?,
        logo_hash: row.try_get("logo_hash")?,
    }))
}

/// Replaces what the tenant shows. The hash is the logo's.
///
/// # Errors
/// Those of the database.
pub async fn set(tx: &mut TenantTx, branding: &Branding, logo: Option<&Logo>) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO tenant_branding (tenant_id, name, colour, logo_url, logo, logo_type, logo_hash) VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (tenant_id) DO UPDATE SET name = excluded.name, colour = excluded.colour, logo_url = excluded.logo_url,
           logo = excluded.logo, logo_type = excluded.logo_type, logo_hash = excluded.logo_hash",
    )
    .bind(tx.tenant())
    .bind(&branding.name)
    .bind(&branding.colour)
    .bind(&branding.logo_url)
    .bind(logo.map(|logo| &logo.bytes))
    .bind(logo.map(|logo| &logo.media_type))
    .bind(logo.map(|logo| &logo.hash))
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The logo, if it is still the one of this hash.
///
/// # Errors
/// Those of the database.
pub async fn logo(tx: &mut TenantTx, hash: &[u8]) -> Result<Option<Logo>, DbError> {
    let row = sqlx::query(
        "SELECT logo, logo_type, logo_hash FROM tenant_branding WHERE tenant_id = $1 AND logo_hash = $2",
    )
    .bind(tx.tenant())
    .bind(hash)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Logo {
        bytes: row.try_get("logo")?,
        media_type: row.try_get("logo_type")?,
        hash: row.try_get("logo_hash")?,
    }))
}
