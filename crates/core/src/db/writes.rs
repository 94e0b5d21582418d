//! Whether the database takes writes: reading goes on for long when its disk is full, or when it became a standby.

use std::time::{Duration, Instant};

use sqlx::postgres::PgConnection;
use tokio::sync::Mutex;

use super::{Db, DbError};

/// A write is tried at most this often, however many ask.
const PACE: Duration = Duration::from_secs(10);
/// What does not end within this time has failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the last try came to, kept for [`PACE`].
#[derive(Debug, Default)]
pub struct Writes {
    last: Mutex<Option<(Instant, bool)>>,
}

impl Writes {
    /// Whether `db` takes writes. Who asks while one tries waits for that.
    pub async fn are_taken(&self, db: &Db) -> bool {
        let mut last = self.last.lock().await;
        if let Some((at, taken)) = *last
            && at.elapsed() < PACE
        {
            return taken;
        }
        // Ended from outside it must not look like one that never was: then each who asks would try.
        *last = Some((Instant::now(), last.is_none_or(|(_, taken)| taken)));
        let taken = match tokio::time::timeout(PATIENCE, attempt(db)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(
                    error = format!("{:#}", anyhow::Error::from(error)),
                    "the database takes no writes"
                );
                false
            }
            Err(_) => {
                tracing::warn!(patience_s = PATIENCE.as_secs(), "the database did not take a write in time");
                false
            }
        };
        *last = Some((Instant::now(), taken));
        taken
    }
}

async fn attempt(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    write(tx.conn()).await?;
    tx.commit().await
}

/// Writes a row into a file of its own, inside a transaction; as `emailclient_system`. While another process tries, nothing is
/// written.
pub(super) async fn write(conn: &mut PgConnection) -> Result<(), DbError> {
    let ours: bool =
        sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(7203454)").fetch_one(&mut *conn).await?;
    if ours {
        sqlx::query("TRUNCATE write_probe").execute(&mut *conn).await?;
        sqlx::query("INSERT INTO write_probe (at) VALUES (now())").execute(&mut *conn).await?;
    }
    Ok(())
}
