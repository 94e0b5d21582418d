//! What the tests share: real servers, a database of their own, the services in this process, and odd mail servers.
//!
//! A test starts an [`app::App`] (its own copy of a migrated database), acts through the REST API as a client would,
//! and ends with `app.finish().await`, which fails when connections or jobs are left. The servers come from `devstack`:
//! `make test` runs everything under one stack; a lone `cargo test -p tests` starts one by itself. A server that is
//! missing fails the test.
//!
//! The next test: a file under `api/`, `worker/`, `sync/` or `schema/` where its URL, job or case is, and a `mod` line.

pub mod app;
pub mod browser;
pub mod chromium;
pub mod database;
pub mod dice;
pub mod eventually;
pub mod fault;
pub mod follower;
pub mod imap;
pub mod imapd;
pub mod jwt;
pub mod ledger;
pub mod mail;
pub mod name_server;
pub mod oracle;
pub mod postgres;
pub mod provider;
pub mod python;
pub mod redis;
pub mod relay;
pub mod scripted;
pub mod served;
pub mod service;
pub mod sink;
pub mod tls;
pub mod visitor;
pub mod worker;
