//! What two or more of the binaries share.
//!
//! Here live: settings ([`config`]), the database and the only way into a tenant's rows ([`db`]), the domain modules
//! (one file a table or two: [`tenant`], [`user`], [`account`], [`mailbox`], [`message`], [`thread`], [`draft`],
//! [`submission`] …), the job queue ([`job`]), and everything that leaves the machine ([`dial`], [`imap`], [`smtp`]).
//! Not here: HTTP (crate `emailclient-api`), apalis (crate `emailclient-worker`), and decisions that need no input or
//! output (crate `emailclient-mail`).
//!
//! The next domain: a migration, a file named after the table with functions that take a [`db::TenantTx`], a line here.

pub mod account;
pub mod ahead;
pub mod audit;
pub mod blob;
pub mod budget;
pub mod capability_off;
pub mod clock;
pub mod config;
pub mod db;
pub mod diagnose;
pub mod dial;
pub mod discover;
pub mod dns;
pub mod draft;
pub mod due;
pub mod edits;
pub mod event;
pub mod failpoint;
pub mod heartbeat;
pub mod id;
pub mod idempotency;
pub mod identity;
pub mod imap;
pub mod job;
pub mod lease;
pub mod mailbox;
pub mod message;
pub mod operation;
pub mod password;
pub mod redis_pool;
pub mod seal;
pub mod search;
pub mod secret;
pub mod session;
pub mod signal;
pub mod smtp;
pub mod start;
pub mod statistics;
pub mod submission;
pub mod suspension;
pub mod sync_run;
pub mod sync_store;
pub mod telemetry;
pub mod tenant;
pub mod thread;
pub mod tls;
pub mod token;
pub mod user;
