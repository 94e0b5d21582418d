//! What the planner knows of tables that are filled for the first time. Once they have grown, autovacuum does it.

use crate::platform::db::{DbError, SystemTx};

/// Analyses the tables of mail that have tripled since they were analysed last; those beyond 200,000 rows are left
/// to autovacuum. Returns how many it was.
pub async fn refresh(tx: &mut SystemTx) -> Result<i32, DbError> {
    Ok(sqlx::query_scalar("SELECT analyze_young_tables()").fetch_one(tx.conn()).await?)
}
