//! Files on their way into a draft, kept in the database piece by piece: an upload may last for minutes, and what a process
//! holds of it meanwhile is one piece.
//!
//! A small file stays in memory. [`super::attachment::add`] puts a spooled one together in its own transaction; the pieces go
//! when the [`Spool`] is dropped, whatever became of the upload, and those of a process that died after two hours.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::platform::db::{Db, DbError, SystemTx, TenantTx};
use crate::platform::id::{TenantId, new_uuid};

/// How much of a file is in memory. Twice that while a piece is written.
pub const PIECE_BYTES: usize = 64 * 1024;

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
pub enum Contents {
    /// In memory.
    Here(Bytes),
    /// In pieces, which [`Spool`] wrote.
    Spooled {
        /// Which upload.
        upload: Uuid,
        /// Which of its files.
        file: i32,
        /// How many bytes.
        size: usize,
    },
}

impl Contents {
    /// How many bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Here(bytes) => bytes.len(),
            Self::Spooled { size, .. } => *size,
        }
    }
}

/// The files of one upload.
#[derive(Debug)]
pub struct Spool {
    db: Db,
    tenant: TenantId,
    upload: Uuid,
    files: i32,
    written: bool,
}

impl Spool {
    /// For an upload to a draft of `tenant`. Nothing is written before a file has more than one piece.
    #[must_use]
    pub fn new(db: &Db, tenant: TenantId) -> Self {
        Self { db: db.clone(), tenant, upload: new_uuid(), files: 0, written: false }
    }

    /// Begins the next file.
    pub fn file(&mut self) -> Incoming<'_> {
        self.files += 1;
        let buffer = Vec::new();
        Incoming { spool: self, buffer, pieces: 0, size: 0, digest: Sha256::new() }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if self.written
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (db, tenant, upload) = (self.db.clone(), self.tenant, self.upload);
            runtime.spawn(async move {
                if let Err(error) = forget(&db, tenant, upload).await {
                    tracing::debug!(%error, "pieces of an upload stay until they are swept");
                }
            });
        }
    }
}

async fn forget(db: &Db, tenant: TenantId, upload: Uuid) -> Result<(), DbError> {
    let mut tx = db.relaxed(tenant).await?;
    sqlx::query("DELETE FROM upload_pieces WHERE tenant_id = $1 AND upload_id = $2")
        .bind(tenant)
        .bind(upload)
        .execute(tx.conn())
        .await?;
    tx.commit().await
}

/// A file that is arriving.
#[derive(Debug)]
pub struct Incoming<'a> {
    spool: &'a mut Spool,
    buffer: Vec<u8>,
    pieces: i32,
    size: usize,
    digest: Sha256,
}

impl Incoming<'_> {
    /// How many bytes have arrived.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When the database does not take a piece.
    pub async fn push(&mut self, mut bytes: &[u8]) -> Result<(), DbError> {
        self.digest.update(bytes);
        self.size += bytes.len();
        while self.buffer.len() + bytes.len() > PIECE_BYTES {
            let (now, later) = bytes.split_at(PIECE_BYTES - self.buffer.len());
            self.buffer.extend_from_slice(now);
            self.write().await?;
            bytes = later;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    async fn write(&mut self) -> Result<(), DbError> {
        let (tenant, upload) = (self.spool.tenant, self.spool.upload);
        // A piece that a crash of the database takes along is missed when the file is put together.
        let mut tx = self.spool.db.relaxed(tenant).await?;
        sqlx::query(
            "INSERT INTO upload_pieces (tenant_id, upload_id, file, n, bytes) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(tenant)
        .bind(upload)
        .bind(self.spool.files)
        .bind(self.pieces)
        .bind(&self.buffer)
        .execute(tx.conn())
        .await?;
        self.spool.written = true;
        tx.commit().await?;
        self.pieces += 1;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the file. Returns where it is, and its SHA-256.
    ///
    /// # Errors
    /// When the database does not take the last piece.
    pub async fn end(mut self) -> Result<(Contents, [u8; 32]), DbError> {
        let digest = std::mem::take(&mut self.digest).finalize().into();
        if self.pieces == 0 {
            return Ok((Contents::Here(std::mem::take(&mut self.buffer).into()), digest));
        }
        self.write().await?;
        Ok((Contents::Spooled { upload: self.spool.upload, file: self.spool.files, size: self.size }, digest))
    }
}

/// Puts the pieces of a file into the row of an attachment. `false`: they are not all there.
pub(super) async fn put_together(
    tx: &mut TenantTx,
    attachment: Uuid,
    upload: Uuid,
    file: i32,
) -> Result<bool, DbError> {
    let done = sqlx::query(
        "UPDATE draft_attachments a SET content = p.content
         FROM (SELECT string_agg(bytes, ''::bytea ORDER BY n) AS content FROM upload_pieces
               WHERE tenant_id = $1 AND upload_id = $3 AND file = $4) p
         WHERE a.tenant_id = $1 AND a.id = $2 AND octet_length(p.content) = a.size_bytes",
    )
    .bind(tx.tenant())
    .bind(attachment)
    .bind(upload)
    .bind(file)
    .execute(tx.conn())
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets the pieces of uploads whose process died.
///
/// # Errors
/// Those of the database.
pub async fn prune(tx: &mut SystemTx) -> Result<(), DbError> {
    sqlx::query("DELETE FROM upload_pieces WHERE created_at < now() - interval '2 hours'")
        .execute(tx.conn())
        .await?;
    Ok(())
}
