//! Cross-tenant reads: who is due, which jobs wait.

use sqlx::Transaction;
use sqlx::postgres::{PgConnection, PgPool, Postgres};

use super::{DbError, begin};

/// A transaction of the role `emailclient_system`, which is granted queue columns only.
#[derive(Debug)]
pub struct SystemTx {
    tx: Transaction<'static, Postgres>,
}

impl SystemTx {
    pub(super) async fn begin(pool: &PgPool) -> Result<Self, DbError> {
        Ok(Self { tx: begin::begin(pool, "BEGIN").await? })
    }

    /// The connection, for the queries of this crate.
    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Ends a transaction that only read; never one that wrote, since it rolls back. Nothing waits for the database: the
    /// ROLLBACK travels while the connection returns to its pool, which spares the caller a round trip.
    pub fn release(self) {
        drop(self.tx);
    }

    /// Makes everything written visible and durable.
    pub async fn commit(self) -> Result<(), DbError> {
        self.tx.commit().await.map_err(DbError::from)
    }
}
