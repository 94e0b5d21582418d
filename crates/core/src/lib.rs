//! What two or more of the binaries share: its groups; each may know those before it in this list.
//!
//! - [`platform`]: settings, clock, ids, logs, the database and the only way into a tenant's rows
//! - [`queue`]: jobs, leases, what a suspended tenant may not
//! - [`access`]: tenants, users, sessions, tokens, the audit trail
//! - [`domain`]: what clients see: accounts, mailboxes, messages, threads, drafts, submissions, events
//! - [`view`]: what clients see, in JSON
//! - [`connect`]: sessions with the users' servers, and what a process needs for them
//! - [`sync`]: rounds over the users' servers: the driver, what it stores, what is due
//! - [`events`]: the event log as it is read: changes, what is sent out, webhooks
//! - [`jobs`]: what each kind of job is and does, a file each
//!
//! Not here: HTTP (crate `emailclient-api`), apalis (crate `emailclient-worker`), connections to other hosts (crate `wire`), and
//! decisions that need no input or output (crate `mail`). The test `shape` reads the imports and fails on one that runs back.
//!
//! The next domain: a migration, a file named after the table with functions that take a [`platform::db::TenantTx`], a line
//! in its group.

pub mod access;
pub mod connect;
pub mod domain;
pub mod events;
pub mod jobs;
pub mod platform;
pub mod queue;
pub mod sync;
pub mod view;
