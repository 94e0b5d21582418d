//! Work that is to be done, and who may do it: jobs, the leases of accounts, tenants whose work rests.
//!
//! Not here: what a job does (crate `emailclient-worker`).

pub mod job;
pub mod lease;
pub mod suspension;
