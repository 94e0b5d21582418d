//! The table: what is due how often. The sweeps of jobs come from the jobs' own files (`emailclient_core::jobs`); the next other
//! thing is a row of [`DUTIES`].

use std::time::Duration;

use emailclient_core::jobs;
use emailclient_core::platform::ahead::{self, Longest};
use emailclient_core::platform::config::Config;
use emailclient_core::platform::db::{Db, DbError};
use emailclient_core::queue::job::{Look, Sweep};
use tokio::time::Instant;

use crate::sweep;

/// How often the table is looked at.
pub const TICK: Duration = Duration::from_millis(500);

/// Something that is due from time to time.
#[derive(Debug, Clone, Copy)]
struct Duty {
    name: &'static str,
    every: Duration,
    look: Look,
}

const fn duty(name: &'static str, every_s: u64, look: Look) -> Duty {
    Duty { name, every: Duration::from_secs(every_s), look }
}

const DUTIES: [Duty; 6] = [
    // First: what it draws in is seen by the others.
    duty("ahead", 5, |db, config| Box::pin(draw_in(db, config))),
    duty("statistics", 2, |db, _| Box::pin(sweep::statistics(db))),
    duty("reap_jobs", 5, |db, _| Box::pin(sweep::jobs(db))),
    duty("search_index", 10, |db, _| Box::pin(sweep::search_index(db))),
    duty("gone", 30, |db, _| Box::pin(sweep::gone(db))),
    duty("prune", 600, |db, _| Box::pin(sweep::prune(db))),
];

/// The duties, each with the moment when this process does it next.
#[derive(Debug)]
pub struct Schedule(Vec<(Duty, Instant)>);

impl Default for Schedule {
    fn default() -> Self {
        Self::new()
    }
}

impl Schedule {
    /// Everything is due at once: a new leader looks at all of it.
    #[must_use]
    pub fn new() -> Self {
        let sweeps = jobs::ALL.iter().filter_map(|job| match job.sweep {
            Sweep::Every(every, look) => Some(Duty { name: job.kind, every, look }),
            Sweep::Needless(_) => None,
        });
        let now = Instant::now();
        Self(DUTIES.into_iter().chain(sweeps).map(|duty| (duty, now)).collect())
    }

    /// Does what is due. A failure is logged and does not hold up the rest.
    pub async fn run_due(&mut self, db: &Db, config: &Config) {
        for (duty, next) in &mut self.0 {
            if *next > Instant::now() {
                continue;
            }
            *next = Instant::now() + duty.every;
            if let Err(error) = (duty.look)(db, config).await {
                tracing::warn!(
                    duty = duty.name,
                    ?error,
                    "a periodic duty failed; it is tried again at its next turn"
                );
            }
        }
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
