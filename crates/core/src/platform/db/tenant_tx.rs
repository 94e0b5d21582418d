//! The only way to a tenant's rows.

use sqlx::Transaction;
use sqlx::postgres::{PgConnection, PgPool, Postgres};
use tokio::sync::OwnedSemaphorePermit;

use super::{DbError, begin};
use crate::platform::id::TenantId;

/// What the statements of a transaction see of others.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    /// What is committed when each begins.
    Latest,
    /// The same, and its commit returns before it is on disk.
    Relaxed,
    /// What was committed when the transaction began; nothing can be written.
    Snapshot,
}

/// A transaction in which row-level security shows the rows of one tenant.
///
/// Dropping it rolls back. Only this crate can reach the connection, so the binaries cannot write SQL.
#[derive(Debug)]
pub struct TenantTx {
    tenant: TenantId,
    tx: Transaction<'static, Postgres>,
    _share: OwnedSemaphorePermit,
}

impl TenantTx {
    pub(super) async fn begin(
        pool: &PgPool,
        share: OwnedSemaphorePermit,
        tenant: TenantId,
        mode: Mode,
    ) -> Result<Self, DbError> {
        let mode = match mode {
            Mode::Latest => "",
            Mode::Relaxed => "; SET LOCAL synchronous_commit = off",
            Mode::Snapshot => " ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        };
        let statement = format!("BEGIN{mode}; SELECT set_config('app.tenant_id', '{tenant}', true)");
        Ok(Self { tenant, tx: begin::begin(pool, &statement).await?, _share: share })
    }

    /// The tenant whose rows these are.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The connection, for the queries of this crate.
    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Lets the statements of this transaction wait three seconds for a locked row: for work that cannot be begun anew, since
    /// somebody else was asked something for it.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn wait_for_rows(&mut self) -> Result<(), DbError> {
        sqlx::query("SET LOCAL lock_timeout = '3s'").execute(self.conn()).await?;
        Ok(())
    }

    /// Ends a transaction that only read; never one that wrote, since it rolls back. Nothing waits for the database: the
    /// ROLLBACK travels while the connection returns to its pool, which spares the caller a round trip.
    pub fn release(self) {
        drop(self.tx);
    }

    /// Makes everything written visible and durable.
    ///
    /// # Errors
    /// When the database refused or the line broke; then nothing, or in the second case possibly all, was written.
    pub async fn commit(self) -> Result<(), DbError> {
        self.tx.commit().await.map_err(DbError::from)
    }
}
