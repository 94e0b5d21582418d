//! What clients see and change, one file a table or two.
//!
//! Not here: what is read from and told to the users' servers ([`crate::sync`]).

pub mod account;
pub mod blob;
pub mod connect;
pub mod draft;
pub mod edits;
pub mod event;
pub mod identity;
pub mod mailbox;
pub mod message;
pub mod namespaces;
pub mod oauth;
pub mod operation;
pub mod search;
pub mod states;
pub mod submission;
pub mod thread;
