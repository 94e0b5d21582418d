//! Real PostgreSQL, Redis, Dovecot and Postfix as private child processes, for tests, the demo and benchmarks.
//!
//! What lives here: starting and ending the four servers ([`Stack`]), the description of a running set that others
//! connect by ([`Endpoints`]), the one set that a test process shares ([`Shared`]), mail to fill mailboxes with
//! ([`corpus`]), and a provider that signs people in by OAuth2 ([`oauth`]). What does not: anything that knows the product's own schema, roles or routes; the binary's `demo`
//! and `bench` subcommands drive those from outside, through the programs and the REST API.
//!
//! To add a server: a module with `start(&Plan) -> Result<()>` that writes its configuration under `Plan::dir`,
//! spawns through `process::Spawner` (so that the watchdog knows it) and waits until it answers; one line in
//! `stack.rs`; its address in [`Endpoints`].

mod certificates;
pub mod corpus;
mod dovecot;
mod endpoints;
mod maildir;
pub mod oauth;
mod ports;
mod postfix;
mod postgres;
mod process;
mod redis;
mod shared;
mod stack;
mod token_key;
mod watchdog;

pub use endpoints::{
    CONDSTORE_HOST, Endpoints, OAUTH_SCOPE, PLAIN_HOST, PREFIX_HOST, RIGHTS_HOST, SINGLE_HOST,
};
pub use postgres::psql;
pub use process::signal;
pub use shared::Shared;
pub use stack::{Options, Stack};
