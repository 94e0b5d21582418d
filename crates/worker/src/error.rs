//! How a job failed: whether to try again is said inside the error, by the one who knows.

use std::time::Duration;

/// The failure of a job.
#[derive(Debug)]
pub struct JobError {
    /// What happened, for the log and the row; no secrets, no contents.
    pub cause: anyhow::Error,
    /// What follows from it.
    pub then: Then,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Try again; the queue chooses when.
    Retry,
    /// Try again after this time.
    RetryAfter(Duration),
    /// It was not its turn: try again after this time, and do not count the attempt.
    Postpone(Duration),
    /// Never try again.
    Fail,
}

impl JobError {
    /// Try again, later each time.
    pub fn retry(cause: impl Into<anyhow::Error>) -> Self {
        Self { cause: cause.into(), then: Then::Retry }
    }
    /// Try again after `wait`.
    pub fn retry_after(wait: Duration, cause: impl Into<anyhow::Error>) -> Self {
        Self { cause: cause.into(), then: Then::RetryAfter(wait) }
    }
    /// It was not its turn yet; try again after `wait` without counting this as an attempt.
    pub fn postpone(wait: Duration, cause: impl Into<anyhow::Error>) -> Self {
        Self { cause: cause.into(), then: Then::Postpone(wait) }
    }
    /// Trying again would not help.
    pub fn fail(cause: impl Into<anyhow::Error>) -> Self {
        Self { cause: cause.into(), then: Then::Fail }
    }
}

impl std::fmt::Display for JobError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.cause)
    }
}

impl From<emailclient_core::platform::db::DbError> for JobError {
    fn from(error: emailclient_core::platform::db::DbError) -> Self {
        Self::retry(error)
    }
}
