//! The walls between tenants, asked of the database itself, and those around the services, asked of the manifests.

mod begin;
mod catalogue;
mod compose;
mod edits_migrated;
mod kubernetes;
mod matrix;
mod moment;
mod operator;
mod plans;
mod roles;
mod stack;
mod statistics;
