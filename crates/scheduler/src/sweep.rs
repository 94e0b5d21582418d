//! Picks up what was left: leases that ran out, submissions in limbo, bulk actions without a job, messages without
//! a mailbox, old rows.

use std::time::Duration;

use emailclient_core::domain::draft::spool;
use emailclient_core::domain::operation;
use emailclient_core::domain::search::index;
use emailclient_core::domain::submission;
use emailclient_core::platform::db::{Db, DbError};
use emailclient_core::platform::statistics;
use emailclient_core::queue::job::{Job, enqueue, priority, queue};
use emailclient_core::sync::due;
use emailclient_core::sync::run;
use emailclient_core::sync::store;

/// Finished jobs are kept this long, for whoever asks what became of them.
const KEEP_JOBS: Duration = Duration::from_secs(24 * 3600);

/// On to the next, when something could not be done for this account or submission: somebody may hold its rows for minutes, and it is
/// asked first again in the next turn. What was not done is done then. A database that is away is the end of the turn.
///
/// # Errors
/// Then.
pub(crate) async fn past(
    db: &Db,
    what: impl std::fmt::Display,
    done: Result<(), DbError>,
) -> Result<(), DbError> {
    let Err(error) = done else { return Ok(()) };
    db.ping().await?;
    tracing::warn!(%what, ?error, "one was passed over; it is tried again at the next turn");
    Ok(())
}

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

/// Releases submissions whose worker died, and enqueues what lost its job: a hand-over, a copy in Sent, a search.
///
/// # Errors
/// When the database refuses.
pub async fn submissions(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let abandoned = due::submissions_abandoned(&mut tx).await?;
    let unsent = due::submissions_forgotten(&mut tx).await?;
    let uncopied = due::sent_copies_forgotten(&mut tx).await?;
    let unsearched = due::searches_forgotten(&mut tx).await?;
    drop(tx);
    for (tenant, id) in abandoned {
        let released = async {
            let mut tx = db.tenant(tenant).await?;
            submission::release_expired(&mut tx, id).await?;
            tx.commit().await
        };
        past(db, id, released.await).await?;
    }
    let jobs =
        unsent.into_iter().map(|(tenant, submission_id)| (tenant, Job::SendSubmission { submission_id }));
    let jobs =
        jobs.chain(uncopied.into_iter().map(|(t, submission_id)| (t, Job::FileSentCopy { submission_id })));
    let jobs = jobs
        .chain(unsearched.into_iter().map(|(t, submission_id)| (t, Job::ProbeSubmission { submission_id })));
    for (tenant, job) in jobs {
        let enqueued = async {
            let mut tx = db.tenant(tenant).await?;
            enqueue(&mut tx, &job, Duration::ZERO, priority::SEND).await?;
            tx.commit().await
        };
        past(db, job.dedupe_key(), enqueued.await).await?;
    }
    Ok(())
}

/// Enqueues bulk actions that are not over and lost their job.
///
/// # Errors
/// When the database refuses.
pub async fn operations(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let forgotten = operation::forgotten(&mut tx).await?;
    drop(tx);
    for (tenant, id) in forgotten {
        let mut tx = db.tenant(tenant).await?;
        operation::enqueue(&mut tx, id).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Enqueues the indexing of text that no job stands for.
///
/// # Errors
/// When the database refuses.
pub async fn unindexed(db: &Db) -> Result<(), DbError> {
    let mut tx = db.system().await?;
    let accounts = due::accounts_unindexed(&mut tx).await?;
    drop(tx);
    for (tenant, account_id) in accounts {
        let enqueued = async {
            let mut tx = db.tenant(tenant).await?;
            enqueue(&mut tx, &Job::IndexText { account_id }, Duration::ZERO, priority::BACKGROUND).await?;
            tx.commit().await
        };
        past(db, account_id, enqueued.await).await?;
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
