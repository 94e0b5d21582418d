//! What two or more of the binaries share.
//!
//! Here live: settings ([`config`]), the database and the only way into a tenant's rows ([`db`]), the domain modules
//! (one file a table or two: [`tenant`], [`user`], [`account`], [`mailbox`], [`message`], [`thread`], [`draft`],
//! [`submission`] …), the job queue ([`job`]), and everything that leaves the machine ([`dial`], [`imap`], [`smtp`]).
//! Not here: HTTP (crate `emailclient-api`), apalis (crate `emailclient-worker`), and decisions that need no input or
//! output (crate `emailclient-mail`).
//!
//! The next domain: a migration, a file named after the table with functions that take a [`db::TenantTx`], a line here.

pub mod clock;
pub mod config;
pub mod db;
pub mod due;
pub mod event;
pub mod id;
pub mod job;
pub mod secret;
pub mod signal;
pub mod seal;
pub mod telemetry;
pub mod tenant;
pub mod audit;
pub mod redis_pool;
pub mod smtp;
pub mod submission;
pub mod draft;
pub mod identity;
pub mod password;
pub mod token;
pub mod idempotency;
pub mod user;
pub mod session;
pub mod lease;
pub mod sync_store;
pub mod blob;
pub mod mailbox;
pub mod message;
pub mod thread;
pub mod search;
pub mod dial;
pub mod tls;
pub mod imap;
pub mod account;
pub mod sync_run;
