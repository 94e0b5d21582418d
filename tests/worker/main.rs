//! The worker: the lease table under it, and its jobs.

mod act_on_messages;
mod canary;
mod contention;
mod credentials;
mod hostile;
mod hostile_listing;
mod queue;
mod sending;
