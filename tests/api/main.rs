//! The REST API, laid out as its routes are; `bad_input` is the table of refusals, row by row.

mod auth;
mod bad_input;
mod compose;
mod contract;
mod health;
mod isolation;
mod tour;
