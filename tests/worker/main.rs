//! The worker: the lease table under it, and its jobs.

mod queue;
mod hostile;
