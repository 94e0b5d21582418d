//! How a transaction begins: on a connection that is alive, and to its end even when whoever asked has gone.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use metrics::{counter, gauge, histogram};
use sqlx::postgres::{PgPool, Postgres};
use sqlx::{AssertSqlSafe, SqlSafeStr as _, Transaction};
use tokio::time::Instant;

use super::DbError;
use crate::platform::metrics::table;
use wire::measured::Held;

/// How long a connection is looked for.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries while the database restarts.
const PAUSE: Duration = Duration::from_millis(50);

type Begun = Result<Transaction<'static, Postgres>, sqlx::Error>;

/// Begins with `statement`, which is one round trip.
///
/// A connection that the server ended meanwhile (a restart, a failover, `pg_terminate_backend`) is noticed by its first
/// statement. Nothing was executed by then, so another connection is tried, until [`PATIENCE`] is over.
///
/// # Errors
/// [`DbError::Unavailable`] when there is no connection in time.
pub(super) async fn begin(pool: &PgPool, statement: &str) -> Result<Transaction<'static, Postgres>, DbError> {
    let (begun, _waits) = (Instant::now(), Held::new(gauge!(table::DB_WAITING.name)));
    let tx = begin_unmeasured(pool, statement).await;
    match &tx {
        Ok(_) => histogram!(table::DB_WAIT.name).record(begun.elapsed().as_secs_f64()),
        Err(_) => counter!(table::DB_FAILURES.name).increment(1),
    }
    tx
}

async fn begin_unmeasured(pool: &PgPool, statement: &str) -> Result<Transaction<'static, Postgres>, DbError> {
    let end = Instant::now() + PATIENCE;
    loop {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one home of connections: each begins a transaction"
        )]
        let acquired = pool.acquire().await;
        // The dead ones of a pool are used up at once, a server that cannot be reached is not asked without a rest.
        let (error, rest) = match acquired {
            Ok(connection) => {
                // `Pool::begin_with` is the same two steps, but the second must not be given up half-way.
                let sql = AssertSqlSafe(statement.to_owned());
                let begun = Transaction::begin(connection, Some(sql.into_sql_str()));
                match (ToItsEnd { begun: Some(begun) }).await {
                    Ok(tx) => return Ok(tx),
                    Err(error) => (error, false),
                }
            }
            Err(error) => (error, true),
        };
        if !is_stale(&error) || Instant::now() >= end {
            return Err(error.into());
        }
        tracing::debug!(%error, "a connection to the database was lost; another one is tried");
        if rest || starts_or_stops(&error) {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A `begin` that is completed by a task of its own when its caller is cancelled.
///
/// sqlx 0.9.0 gives the connection of a cancelled `begin` back to the pool inside a transaction that nobody ends. The
/// server ends it after `idle_in_transaction_session_timeout`, and the pool hands the dead connection out. Completed and
/// dropped, the transaction is rolled back.
struct ToItsEnd {
    begun: Option<Pin<Box<dyn Future<Output = Begun> + Send>>>,
}

impl Future for ToItsEnd {
    type Output = Begun;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Begun> {
        let Some(begun) = self.begun.as_mut() else { return Poll::Pending };
        let done = begun.as_mut().poll(cx);
        if done.is_ready() {
            self.begun = None;
        }
        done
    }
}

impl Drop for ToItsEnd {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { drop(begun.await) });
        }
    }
}

/// True when the connection had ended before its first statement.
fn is_stale(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // Classes 08 and 57, and the session that was ended for being idle (PostgreSQL, appendix A).
        sqlx::Error::Database(db) => {
            db.code().is_some_and(|code| code.starts_with("08") || code.starts_with("57P") || code == "25P03")
        }
        _ => false,
    }
}

/// 57P01 to 57P03: the server is ended or does not take connections yet.
fn starts_or_stops(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(db) if db.code().is_some_and(|code| code.starts_with("57P")))
}
