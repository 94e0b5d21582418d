//! Who may: tenants, users and how they log in, their sessions and tokens, what each may do, and the trail of what they did.

pub mod audit;
pub mod idempotency;
pub mod password;
pub mod principal;
pub mod session;
pub mod tenant;
pub mod ticket;
pub mod token;
pub mod user;
