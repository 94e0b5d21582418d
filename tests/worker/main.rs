//! The worker: the lease table under it, and its jobs.

mod act_on_messages;
mod canary;
mod clock;
mod contention;
mod credentials;
mod fairness;
mod hostile;
mod hostile_listing;
mod large;
mod leases;
mod locked;
mod lost;
mod one_connection;
mod places;
mod queue;
mod sending;
mod suspension;
mod taken_over;
mod told_too_much;
mod watching;
