//! The event log as it is read: what changed since a state, and events as they are sent out.
//!
//! Events are written by [`crate::domain::event`] and get their positions when their transaction commits. The doors of the
//! API and the webhooks read here, up to what is on disk.

pub mod changes;
pub mod envelope;
pub mod log;
pub mod webhook;
