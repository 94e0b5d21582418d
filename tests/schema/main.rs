//! The walls between tenants, asked of the database itself, those around the services, asked of the manifests, and those in the
//! code, asked of its imports.

mod begin;
mod catalogue;
mod compose;
mod edits_migrated;
mod event_log;
mod kubernetes;
mod matrix;
mod metrics;
mod moment;
mod operator;
mod plans;
mod roles;
mod shape;
mod stack;
mod statements;
mod statistics;
