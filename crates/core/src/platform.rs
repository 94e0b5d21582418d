//! What every binary stands on: settings, clock, ids, logs, the database, Redis, the start and the end of a process.
//!
//! Not here: anything about mail, users or jobs.

pub mod ahead;
pub mod budget;
pub mod clock;
pub mod config;
pub mod db;
pub mod failpoint;
pub mod heartbeat;
pub mod id;
pub mod metrics;
pub mod news;
pub mod redis_pool;
pub mod seal;
pub mod signal;
pub mod start;
pub mod statistics;
pub mod telemetry;
pub mod words;
