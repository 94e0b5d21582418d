//! The table: what is due how often. The next periodic thing is a variant of [`Duty`], a row of [`DUTIES`] and an arm
//! of the `match`.

use std::time::Duration;

use emailclient_core::platform::ahead::{self, Longest};
use emailclient_core::platform::config::Config;
use emailclient_core::platform::db::{Db, DbError};
use emailclient_core::sync::due;
use tokio::time::Instant;

use crate::sweep;

/// How often the table is looked at.
pub const TICK: Duration = Duration::from_millis(500);
/// Rounds started in one go; the rest waits for the next tick, longest waiting first.
const ROUNDS_PER_TICK: i64 = 500;

/// Audits started in one go. Each account has its own time of the day; after a day without a scheduler all of them are due
/// at once, and are spread over hours again.
const AUDITS_PER_TURN: i64 = 20;

#[derive(Debug, Clone, Copy)]
enum Duty {
    Ahead,
    StartRounds,
    Statistics,
    ReapJobs,
    Submissions,
    Operations,
    IndexText,
    SearchIndex,
    Gone,
    Audits,
    Prune,
}

const DUTIES: [(Duty, Duration); 11] = [
    // First: what it draws in is seen by the others.
    (Duty::Ahead, Duration::from_secs(5)),
    (Duty::StartRounds, Duration::from_secs(1)),
    (Duty::Statistics, Duration::from_secs(2)),
    (Duty::ReapJobs, Duration::from_secs(5)),
    (Duty::Submissions, Duration::from_secs(5)),
    (Duty::Operations, Duration::from_secs(15)),
    (Duty::IndexText, Duration::from_secs(15)),
    (Duty::SearchIndex, Duration::from_secs(10)),
    (Duty::Gone, Duration::from_secs(30)),
    (Duty::Audits, Duration::from_secs(10)),
    (Duty::Prune, Duration::from_secs(600)),
];

/// When each duty was last done by this process.
#[derive(Debug)]
pub struct Schedule {
    next: [Instant; DUTIES.len()],
}

impl Default for Schedule {
    fn default() -> Self {
        Self::new()
    }
}

impl Schedule {
    /// Everything is due at once: a new leader looks at all of it.
    #[must_use]
    pub fn new() -> Self {
        Self { next: [Instant::now(); DUTIES.len()] }
    }

    /// Does what is due. A failure is logged and does not hold up the rest.
    pub async fn run_due(&mut self, db: &Db, config: &Config) {
        for ((duty, every), next) in DUTIES.iter().zip(self.next.iter_mut()) {
            if *next > Instant::now() {
                continue;
            }
            *next = Instant::now() + *every;
            if let Err(error) = run(*duty, db, config).await {
                tracing::warn!(?duty, error = ?error, "a periodic duty failed; it is tried again at its next turn");
            }
        }
    }
}

async fn run(duty: Duty, db: &Db, config: &Config) -> Result<(), DbError> {
    match duty {
        Duty::Ahead => draw_in(db, config).await,
        Duty::StartRounds => start_rounds(db, config).await,
        Duty::Statistics => sweep::statistics(db).await,
        Duty::ReapJobs => sweep::jobs(db).await,
        Duty::Submissions => sweep::submissions(db).await,
        Duty::Operations => sweep::operations(db).await,
        Duty::IndexText => sweep::unindexed(db).await,
        Duty::SearchIndex => sweep::search_index(db).await,
        Duty::Gone => sweep::gone(db).await,
        Duty::Audits => start_audits(db, config).await,
        Duty::Prune => sweep::prune(db).await,
    }
}

async fn draw_in(db: &Db, config: &Config) -> Result<(), DbError> {
    let drawn = ahead::draw_in(db, Longest::of(config)).await?;
    if drawn > 0 {
        tracing::warn!(
            drawn,
            "the clock was set back: leases and due times that lay too far ahead were drawn in"
        );
    }
    Ok(())
}

async fn start_audits(db: &Db, config: &Config) -> Result<(), DbError> {
    if !config.imap_enabled {
        return Ok(());
    }
    let mut tx = db.system().await?;
    let due = due::accounts_to_audit(&mut tx, AUDITS_PER_TURN).await?;
    drop(tx);
    for (tenant, account) in due {
        let started = async {
            let mut tx = db.tenant(tenant).await?;
            due::start_audit(&mut tx, account).await?;
            tx.commit().await
        };
        sweep::past(db, account, started.await).await?;
    }
    Ok(())
}

async fn start_rounds(db: &Db, config: &Config) -> Result<(), DbError> {
    if !config.imap_enabled {
        return Ok(());
    }
    let mut tx = db.system().await?;
    let due = due::accounts(&mut tx, ROUNDS_PER_TICK).await?;
    drop(tx);
    for (tenant, account) in due {
        let started = async {
            let mut tx = db.tenant(tenant).await?;
            due::start_round(&mut tx, account, config.sync_interval).await?;
            tx.commit().await
        };
        sweep::past(db, account, started.await).await?;
    }
    Ok(())
}
