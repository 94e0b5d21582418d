//! The worker: the lease table under it, and its jobs.

mod hostile;
mod queue;
