//! The REST API, laid out as its routes are; `bad_input` is the table of refusals, row by row.

mod auth;
mod bad_input;
mod compose;
mod conditions;
mod contract;
mod cors;
mod destinations;
mod diagnose;
mod discover;
mod edges;
mod guessing;
mod hangups;
mod health;
mod hosts;
mod isolation;
mod jobs;
mod limits;
mod locked_rows;
mod memory;
mod patience;
mod status;
mod tokens;
mod tour;
mod tries;
mod uploads;
mod users;
