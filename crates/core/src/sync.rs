//! Rounds over the users' servers: what clients have asked for is brought there, what is new there is read.
//!
//! - [`driver`]: performs what the planner (`mail::sync`) decides
//! - [`store`]: what it writes
//! - [`run`]: rounds as clients see them
//! - [`mailbox_change`], [`pause`]: what our users change of the tree and of the round itself
//! - [`due`]: accounts whose turn it is

pub mod driver;
pub mod due;
pub mod mailbox_change;
mod measured;
pub mod pause;
pub mod run;
pub mod store;

/// A server that refused a change of the tree so many times will not change its mind.
const GIVE_UP_AFTER: i32 = 5;
