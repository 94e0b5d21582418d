//! The walls between tenants, asked of the database itself.

mod begin;
mod catalogue;
mod matrix;
mod operator;
mod roles;
