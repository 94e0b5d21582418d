//! Mail without input or output.
//!
//! Here lives everything about mail that can be decided from its arguments alone: IMAP numbers, flags and
//! mailbox names, addresses, parsing and composing of messages, threading, the search syntax and the sync
//! planner. Here does not live anything that reads a clock, draws a random number, opens a socket or talks to
//! a database: such values are parameters, so every function can be tested in microseconds.
//!
//! To add something: give it a file named after the protocol word it is about, take hostile input for granted
//! (bounds first, no panic), put its tests in the same file, and declare it below.

pub mod address;
pub mod backoff;
pub mod capabilities;
pub mod compose;
pub mod envelope;
pub mod error;
pub mod flags;
pub mod keep;
pub mod mailbox;
pub mod mime;
pub mod modseq;
pub mod namespace;
pub mod query;
pub mod search_index;
pub mod smtp_reply;
pub mod sync;
pub mod thread;
pub mod uid;
