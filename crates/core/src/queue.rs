//! Work that is to be done, and who may do it: jobs, the leases of accounts, tenants whose work rests.
//!
//! Not here: what is declared of each kind of job, and what it does ([`crate::jobs`]).

pub mod fleet;
pub mod job;
pub mod lease;
pub mod portion;
pub mod suspension;
