//! Files of a draft, stored with it until it is sent.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use uuid::Uuid;

use super::spool::{Contents, put_together};
use super::touch;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AttachmentId, DraftId};

/// Largest file, in bytes: base64 makes 34 MB of it, and few servers take messages over 35 MB.
pub const MAX_ATTACHMENT_BYTES: usize = 25 * 1024 * 1024;
/// All files of a draft together, in bytes.
pub const MAX_ATTACHMENTS_BYTES: i64 = 25 * 1024 * 1024;
/// Files of a draft.
pub const MAX_ATTACHMENTS: i64 = 100;

/// A file, without its contents.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// Row id.
    pub id: AttachmentId,
    /// Name as given.
    pub filename: String,
    /// Media type.
    pub content_type: String,
    /// Size of the contents.
    pub size_bytes: i64,
    /// To be shown inside the HTML.
    pub inline: bool,
    /// Content-ID without angle brackets.
    pub content_id: Option<String>,
    /// Upload.
    pub created_at: DateTime<Utc>,
}

/// A file to be added.
#[derive(Debug, Clone)]
pub struct NewAttachment {
    /// Name.
    pub filename: String,
    /// Media type.
    pub content_type: String,
    /// To be shown inside the HTML.
    pub inline: bool,
    /// Content-ID without angle brackets.
    pub content_id: Option<String>,
    /// Contents.
    pub content: Contents,
}

/// Why a file was not added.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// One file, or all together, are over [`MAX_ATTACHMENT_BYTES`] or [`MAX_ATTACHMENTS_BYTES`].
    #[error("the attachments are too large")]
    TooLarge,
    /// Pieces of a file were lost before it was put together; the upload has to be repeated.
    #[error("a part of the upload was lost")]
    Lost,
    /// More than [`MAX_ATTACHMENTS`].
    #[error("there are too many attachments")]
    TooMany,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<sqlx::Error> for AttachError {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error.into())
    }
}

/// Adds files to a draft that the caller holds by [`super::get_for_update`]; all of them or none.
pub async fn add(
    tx: &mut TenantTx,
    draft: DraftId,
    files: &[NewAttachment],
) -> Result<Vec<Attachment>, AttachError> {
    let tenant = tx.tenant();
    let (mut count, mut bytes, last): (i64, i64, i32) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(size_bytes), 0)::bigint, coalesce(max(position), -1) FROM draft_attachments WHERE tenant_id = $1 AND draft_id = $2",
    )
    .bind(tenant)
    .bind(draft)
    .fetch_one(tx.conn())
    .await?;
    let mut added = Vec::with_capacity(files.len());
    for (position, file) in (last.saturating_add(1)..).zip(files) {
        count += 1;
        let size = file.content.size();
        bytes = bytes.saturating_add(i64::try_from(size).unwrap_or(i64::MAX));
        if size > MAX_ATTACHMENT_BYTES || bytes > MAX_ATTACHMENTS_BYTES {
            return Err(AttachError::TooLarge);
        }
        if count > MAX_ATTACHMENTS {
            return Err(AttachError::TooMany);
        }
        let id = AttachmentId::new();
        let here: &[u8] = match &file.content {
            Contents::Here(bytes) => bytes,
            Contents::Spooled { .. } => &[],
        };
        let row = sqlx::query(
            "INSERT INTO draft_attachments (tenant_id, id, draft_id, position, filename, content_type, size_bytes, inline, content_id, content)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             RETURNING id, filename, content_type, size_bytes, inline, content_id, created_at",
        )
        .bind(tenant)
        .bind(id)
        .bind(draft)
        .bind(position)
        .bind(&file.filename)
        .bind(&file.content_type)
        .bind(i64::try_from(size).unwrap_or(i64::MAX))
        .bind(file.inline)
        .bind(&file.content_id)
        .bind(here)
        .fetch_one(tx.conn())
        .await?;
        if let Contents::Spooled { upload, file, .. } = file.content
            && !put_together(tx, id.0, upload, file).await?
        {
            return Err(AttachError::Lost);
        }
        added.push(read(&row)?);
    }
    if !added.is_empty() {
        touch(tx, draft).await?;
    }
    Ok(added)
}

/// Removes one file of a draft. `false`: the draft has no such file.
pub async fn remove(tx: &mut TenantTx, draft: DraftId, id: AttachmentId) -> Result<bool, DbError> {
    let done =
        sqlx::query("DELETE FROM draft_attachments WHERE tenant_id = $1 AND draft_id = $2 AND id = $3")
            .bind(tx.tenant())
            .bind(draft)
            .bind(id)
            .execute(tx.conn())
            .await?;
    if done.rows_affected() == 1 {
        touch(tx, draft).await?;
    }
    Ok(done.rows_affected() == 1)
}

fn read(row: &sqlx::postgres::PgRow) -> Result<Attachment, sqlx::Error> {
    Ok(Attachment {
        id: row.try_get("id")?,
        filename: row.try_get("filename")?,
        content_type: row.try_get("content_type")?,
        size_bytes: row.try_get("size_bytes")?,
        inline: row.try_get("inline")?,
        content_id: row.try_get("content_id")?,
        created_at: row.try_get("created_at")?,
    })
}

/// The files of several drafts, in order, without contents.
pub(super) async fn of_drafts(
    tx: &mut TenantTx,
    drafts: &[DraftId],
) -> Result<HashMap<DraftId, Vec<Attachment>>, DbError> {
    let ids: Vec<Uuid> = drafts.iter().map(|d| d.0).collect();
    let rows = sqlx::query(
        "SELECT draft_id, id, filename, content_type, size_bytes, inline, content_id, created_at FROM draft_attachments
         WHERE tenant_id = $1 AND draft_id = ANY ($2) ORDER BY draft_id, position",
    )
    .bind(tx.tenant())
    .bind(&ids)
    .fetch_all(tx.conn())
    .await?;
    let mut files: HashMap<DraftId, Vec<Attachment>> = HashMap::new();
    for row in &rows {
        files.entry(row.try_get("draft_id")?).or_default().push(read(row)?);
    }
    Ok(files)
}

/// One file of a draft, without its contents; `None`: the draft has no such file.
///
/// # Errors
/// Those of the database.
pub async fn find(
    tx: &mut TenantTx,
    draft: DraftId,
    id: AttachmentId,
) -> Result<Option<Attachment>, DbError> {
    let row = sqlx::query(
        "SELECT id, filename, content_type, size_bytes, inline, content_id, created_at FROM draft_attachments
         WHERE tenant_id = $1 AND draft_id = $2 AND id = $3",
    )
    .bind(tx.tenant())
    .bind(draft)
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.as_ref().map(read).transpose()?)
}

/// `length` bytes of a file, from `offset` on. `None`: the file is gone.
///
/// # Errors
/// Those of the database.
pub async fn piece(
    tx: &mut TenantTx,
    id: AttachmentId,
    offset: usize,
    length: usize,
) -> Result<Option<Vec<u8>>, DbError> {
    // Counted from 1; no file is longer than PostgreSQL's numbers.
    Ok(sqlx::query_scalar(
        "SELECT substring(content FROM $3 FOR $4) FROM draft_attachments WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(i32::try_from(offset.saturating_add(1)).unwrap_or(i32::MAX))
    .bind(i32::try_from(length).unwrap_or(i32::MAX))
    .fetch_optional(tx.conn())
    .await?)
}

/// The files of one draft as they go into the message.
pub(super) async fn contents(
    tx: &mut TenantTx,
    draft: DraftId,
) -> Result<Vec<mail::compose::DraftAttachment>, DbError> {
    let rows = sqlx::query(
        "SELECT filename, content_type, inline, content_id, content FROM draft_attachments
         WHERE tenant_id = $1 AND draft_id = $2 ORDER BY position",
    )
    .bind(tx.tenant())
    .bind(draft)
    .fetch_all(tx.conn())
    .await?;
    let file = |row: &sqlx::postgres::PgRow| {
        Ok::<_, sqlx::Error>(mail::compose::DraftAttachment {
            filename: Some(row.try_get("filename")?),
            content_type: Some(row.try_get("content_type")?),
            bytes: bytes::Bytes::from(row.try_get::<Vec<u8>, _>("content")?),
            inline: row.try_get("inline")?,
            content_id: row.try_get("content_id")?,
        })
    };
    Ok(rows.iter().map(file).collect::<Result<Vec<_>, _>>()?)
}
