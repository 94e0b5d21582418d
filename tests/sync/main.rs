//! Synchronisation against the real server. Each test ends with the oracle: our rows equal a fresh plain fetch.

mod hostile_mail;
mod oracle;
mod poison;
mod refused_names;
mod rounds;
mod subscriptions;
