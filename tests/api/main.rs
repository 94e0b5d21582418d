//! The REST API, laid out as its routes are; `bad_input` is the table of refusals, row by row.

mod auth;
mod bad_input;
mod compose;
mod conditional;
mod contract;
mod cors;
mod description;
mod diagnose;
mod discover;
mod early;
mod edges;
mod explorer;
mod health;
mod hosts;
mod idempotency;
mod isolation;
mod jobs;
mod limits;
mod mailboxes;
mod patience;
mod status;
mod tokens;
mod tour;
mod uploads;
mod words;
