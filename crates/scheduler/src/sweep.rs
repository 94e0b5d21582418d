//! Picks up what was left and is no work of a job: leases that ran out, messages without a mailbox, old rows. What lost its job
//! is found by the sweep in that job's own file.

use std::time::Duration;

use emailclient_core::domain::draft::spool;
use emailclient_core::domain::operation;
use emailclient_core::domain::search::index;
use emailclient_core::jobs::past;
use emailclient_core::platform::db::{Db, DbError};
use emailclient_core::platform::statistics;
use emailclient_core::queue::job::queue;
use emailclient_core::sync::due;
use emailclient_core::sync::run;
use emailclient_core::sync::store;

/// Finished jobs are kept this long, for whoever asks what became of them.
const KEEP_JOBS: Duration = Duration::from_secs(24 * 3600);

/// Makes jobs of dead workers ready again.
///
/// # Errors
/// When the database refuses.
pub async fn jobs(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let reaped = queue::reap(&mut tx).await?;
    tx.commit().await?;
    if reaped > 0 {
        tracing::warn!(reaped, "jobs of a worker that stopped answering were taken back");
    }
    Ok(())
}

/// Analyses tables that have just been filled.
///
/// # Errors
/// When the database refuses.
pub async fn statistics(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let tables = statistics::refresh(&mut tx).await?;
    tx.commit().await?;
    if tables > 0 {
        tracing::debug!(tables, "tables that grew were analysed");
    }
    Ok(())
}

/// Sorts the words of new messages into the text index.
///
/// # Errors
/// When the database refuses.
pub async fn search_index(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let pages = index::merge(&mut tx).await?;
    tx.commit().await?;
    if pages > 0 {
        tracing::debug!(pages, "new words were sorted into the text index");
    }
    Ok(())
}

/// Removes messages in no mailbox that nobody waits for any more.
///
/// # Errors
/// When the database refuses.
pub async fn gone(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let accounts = due::accounts_with_gone(&mut tx).await?;
    let ahead = due::accounts_with_gone_ahead(&mut tx).await?;
    drop(tx);
    for (tenant, account) in ahead {
        let drawn = async {
            let mut tx = db.tenant(tenant).await?;
            due::gone_by_now(&mut tx, account).await?;
            tx.commit().await
        };
        past(db, account, drawn.await).await?;
    }
    for (tenant, account) in accounts {
        let swept = async {
            let mut tx = db.tenant(tenant).await?;
            store::vanish::sweep_gone(&mut tx, account).await?;
            tx.commit().await
        };
        past(db, account, swept.await).await?;
    }
    Ok(())
}

/// Removes rows that only age.
///
/// # Errors
/// When the database refuses.
pub async fn prune(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    queue::prune(&mut tx, KEEP_JOBS).await?;
    due::prune_idempotency(&mut tx).await?;
    run::prune(&mut tx).await?;
    operation::prune(&mut tx).await?;
    spool::prune(&mut tx).await?;
    tx.commit().await
}
