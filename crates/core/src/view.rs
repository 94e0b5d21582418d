//! What clients see, in JSON: the same in the answers of the API and in the events that are sent out. Absent values are `null`,
//! never left out.

pub mod mailbox;
pub mod message;
pub mod submission;
