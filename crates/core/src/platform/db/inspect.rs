//! The database as an operator looks at it: can it be reached, is it ours, does its wall stand?
//!
//! One connection of its own for each look, without a pool: a pool tries again and in the end says only that time ran
//! out, and here the first reason counts. Services ask at their start (`start.rs`), `emailctl check` at any time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Row as _};

use super::migrate::{self, Refusal};
use super::writes::{self, Room};
use super::{DbError, SESSION};
use crate::platform::clock::Clock;
use wire::secret::Secret;

/// Connecting and logging in.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no connection. The text holds host, port, user and database, never the password.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// The address cannot be read.
    #[error(
        "cannot be read as an address ({0}); it has the form postgres://user:password@host:5432/database"
    )]
    Address(String),
    /// The server answered and refused: user, password, database, or its own rules.
    #[error(
        "{place} refuses: {words}; correct the address, or run `emailctl migrate` if the role is missing"
    )]
    Refused {
        /// Host, port, user and database.
        place: String,
        /// What the server said.
        words: String,
    },
    /// No server, or one that is starting, stopping or full; it may come back by itself.
    #[error("{place} cannot be reached: {words}; is PostgreSQL running there, and are host and port right?")]
    Away {
        /// Host, port, user and database.
        place: String,
        /// What happened.
        words: String,
    },
}

impl Unreachable {
    /// True when waiting may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

/// What the job table tells about the workers.
#[derive(Debug, Clone, Copy)]
pub struct JobTable {
    /// Jobs that could run now.
    pub due: i64,
    /// How long the oldest of them has been due.
    pub oldest_due: Duration,
    /// Jobs in the hands of a worker.
    pub running: i64,
    /// Jobs given up for good and not yet pruned.
    pub dead: i64,
}

/// One connection of one role.
#[derive(Debug)]
pub struct Look {
    conn: PgConnection,
}

impl Look {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`Unreachable`], within ten seconds.
    pub async fn open(url: &Secret) -> Result<Self, Unreachable> {
        let text = url.expose();
        // sqlx takes any scheme, and would ask a MySQL server for PostgreSQL.
        if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
            return Err(Unreachable::Address("it does not begin with postgres://".to_owned()));
        }
        let options: PgConnectOptions =
            text.parse().map_err(|e: sqlx::Error| Unreachable::Address(e.to_string()))?;
        let place = place(&options);
        let options = options.options(SESSION);
        match tokio::time::timeout(PATIENCE, PgConnection::connect_with(&options)).await {
            Ok(Ok(conn)) => Ok(Self { conn }),
            Ok(Err(error)) => Err(unreachable(place, &error)),
            Err(_) => Err(Unreachable::Away { place, words: format!("no answer within {PATIENCE:?}") }),
        }
    }

    /// Refuses another schema version than this program's.
    ///
    /// # Errors
    /// [`Refusal::Schema`] or [`Refusal::Db`].
    pub async fn schema(&mut self) -> Result<(), Refusal> {
        migrate::schema(&mut self.conn).await
    }

    /// Refuses a role that could pass the wall between tenants, and any but `wanted`.
    ///
    /// # Errors
    /// [`Refusal::Role`] or [`Refusal::Db`].
    pub async fn role(&mut self, wanted: &'static str) -> Result<(), Refusal> {
        migrate::role(&mut self.conn, wanted).await
    }

    /// Tables of tenants, and those of them whose row-level security is not enabled, not forced, or has no policy that
    /// names `app.tenant_id`.
    ///
    /// # Errors
    /// When the catalogue cannot be read.
    pub async fn wall(&mut self) -> Result<(i64, Vec<String>), DbError> {
        let row = sqlx::query(
            "SELECT count(*) AS all_of_them, coalesce(array_agg(name ORDER BY name) FILTER (WHERE NOT walled), '{}') AS open FROM (
               SELECT c.relname::text AS name, c.relrowsecurity AND c.relforcerowsecurity AND EXISTS (
                        SELECT 1 FROM pg_policies p WHERE p.schemaname = 'public' AND p.tablename = c.relname
                        AND 'emailclient_app' = ANY (p.roles)
                        AND p.qual LIKE '%app.tenant_id%' AND p.with_check LIKE '%app.tenant_id%') AS walled
               FROM pg_class c
               WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
                 AND (c.relname = 'tenants' OR EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid
                      AND a.attname = 'tenant_id' AND NOT a.attisdropped))) t",
        )
        .fetch_one(&mut self.conn)
        .await?;
        Ok((row.try_get("all_of_them")?, row.try_get("open")?))
    }

    /// Reads the job table; as `emailclient_system`, which sees all tenants' jobs.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn jobs(&mut self) -> Result<JobTable, DbError> {
        let row = sqlx::query(
            "SELECT count(*) FILTER (WHERE state = 'ready' AND run_at <= now()) AS due,
                    extract(epoch FROM now() - min(run_at) FILTER (WHERE state = 'ready' AND run_at <= now()))::float8 AS oldest,
                    count(*) FILTER (WHERE state = 'running') AS running, count(*) FILTER (WHERE state = 'dead') AS dead
             FROM jobs",
        )
        .fetch_one(&mut self.conn)
        .await?;
        let oldest = row.try_get::<Option<f64>, _>("oldest")?.unwrap_or(0.0).max(0.0);
        Ok(JobTable {
            due: row.try_get("due")?,
            oldest_due: Duration::try_from_secs_f64(oldest).unwrap_or_default(),
            running: row.try_get("running")?,
            dead: row.try_get("dead")?,
        })
    }

    /// Whether a write is taken; as `emailclient_system`. A row stays in the table for it, until the next health check.
    ///
    /// # Errors
    /// With PostgreSQL's own words, such as those of a full disk.
    pub async fn takes_writes(&mut self) -> Result<(), DbError> {
        let mut tx = self.conn.begin().await?;
        writes::write(&mut tx, Room::Added).await?;
        // To the disk, as every write of the services; the next health check takes it away.
        tx.commit().await?;
        Ok(())
    }

    pub(in crate::platform) fn conn(&mut self) -> &mut PgConnection {
        &mut self.conn
    }

    /// By how many milliseconds this machine's clock is ahead of the database's (negative: behind).
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn clock_ahead_ms(&mut self, clock: &dyn Clock) -> Result<i64, DbError> {
        let before = clock.now();
        let there: DateTime<Utc> =
            sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut self.conn).await?;
        let after = clock.now();
        // The database answered at some moment in between; half-way is off by half the round trip at most.
        let half_way = before + (after - before) / 2;
        Ok((half_way - there).num_milliseconds())
    }

    /// Says goodbye to the server.
    pub async fn close(self) {
        // It notices by itself when this fails.
        let _ = self.conn.close().await;
    }
}

fn place(options: &PgConnectOptions) -> String {
    format!(
        "PostgreSQL at {}:{} (database {}, user {})",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or(options.get_username()),
        options.get_username()
    )
}

fn unreachable(place: String, error: &sqlx::Error) -> Unreachable {
    match error {
        sqlx::Error::Database(db) => {
            let words = db.message().to_owned();
            // 53: no connection is free; 57: starting, stopping; 58: its machine is in trouble (PostgreSQL, appendix A).
            let passes =
                db.code().is_some_and(|c| ["53", "57", "58"].iter().any(|class| c.starts_with(class)));
            if passes { Unreachable::Away { place, words } } else { Unreachable::Refused { place, words } }
        }
        sqlx::Error::Io(error) => Unreachable::Away { place, words: error.to_string() },
        other => Unreachable::Refused { place, words: other.to_string() },
    }
}
