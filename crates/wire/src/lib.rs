//! Everything that talks to other hosts, and nothing that knows a database.
//!
//! Here live the way out ([`dial`], [`dns`], [`tls`]) and how fast it is taken ([`pace`]), what large providers allow ([`provider`]), the sessions ([`imap`], [`smtp`]), what is found out about a server
//! before there is an account ([`discover`], [`diagnose`]), the one table of what can go wrong ([`trouble`]), and
//! what is posted to addresses of our users ([`post`]), what is said to authorization servers ([`oauth`]), [`secret::Secret`], which no log shows. Users of this crate see sessions and typed errors, and hand over plain values: which account they are of is not known here.
//! Not here: what to ask a server and what to make of its answer (the planner is in the crate `mail`, the driver in
//! `emailclient-core`), settings, rows.
//!
//! The next protocol: a file named after it, whose connections go through [`dial`] and [`tls`] and whose reads have a bound and
//! a deadline; a line here.

pub mod diagnose;
pub mod dial;
pub mod discover;
pub mod dns;
pub mod imap;
pub mod login;
pub mod measured;
pub mod oauth;
pub mod pace;
pub mod post;
pub mod provider;
pub mod secret;
pub mod smtp;
pub mod tls;
pub mod trouble;
