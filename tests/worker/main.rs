//! The worker: the lease table under it, and its jobs.

mod canary;
mod hostile;
mod queue;
mod sending;
