//! The one home of wall-clock time and randomness.
//!
//! Everything else takes a [`Clock`] (or an instant), so that a test can stand at any moment. Leases and schedules are
//! not judged here: they use the database's `now()`, which all replicas share.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

/// Source of the present moment and of random numbers.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The present moment, UTC.
    fn now(&self) -> DateTime<Utc>;
    /// A number in `[0, 1)`, for jitter. Not for secrets.
    fn unit(&self) -> f64;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one home of the wall clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
    fn unit(&self) -> f64 {
        rand::random()
    }
}

/// The machine's clock moved by an offset that a test sets.
#[derive(Debug, Default)]
pub struct ShiftedClock {
    offset_ms: AtomicI64,
}

impl ShiftedClock {
    /// Moves the clock forward (or back) by `delta`, for all who share it.
    pub fn advance(&self, delta: TimeDelta) {
        self.offset_ms.fetch_add(delta.num_milliseconds(), Ordering::SeqCst);
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + TimeDelta::milliseconds(self.offset_ms.load(Ordering::SeqCst))
    }
    fn unit(&self) -> f64 {
        0.5
    }
}

/// A number in `[0, 1)` for jitter, where no [`Clock`] is at hand.
#[must_use]
pub fn unit() -> f64 {
    rand::random()
}
