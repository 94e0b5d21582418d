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
    if !ours(tx.conn()).await? {
        return Ok(());
    }
    match write(tx.conn(), Room::Emptied).await {
        Err(DbError::Busy(_)) => {}
        done => {
            done?;
            return tx.commit().await;
        }
    }
    drop(tx);
    let mut tx = db.system().await?;
    write(tx.conn(), Room::Added).await?;
    tx.commit().await
}

/// How a row gets a page of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// In a new file.
    Emptied,
    /// At the end of the file, where a reader of the table, such as a dump that runs for hours, lets nobody empty it.
    Added,
}

/// While another process tries, nobody else need.
pub(super) async fn ours(conn: &mut PgConnection) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(7203454)").fetch_one(conn).await?)
}

/// Writes a row, inside a transaction; as `emailclient_system`.
pub(super) async fn write(conn: &mut PgConnection, room: Room) -> Result<(), DbError> {
    if room == Room::Emptied {
        sqlx::query("SET LOCAL lock_timeout = '100ms'").execute(&mut *conn).await?;
        sqlx::query("TRUNCATE write_probe").execute(&mut *conn).await?;
    }
    sqlx::query("INSERT INTO write_probe (room) VALUES (repeat('x', 7000))").execute(conn).await?;
    Ok(())
}
