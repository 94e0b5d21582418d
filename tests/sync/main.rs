//! Synchronisation against the real server. Each test ends with the oracle: our rows equal a fresh plain fetch.

mod case;
mod during;
mod hostile_mail;
mod identity;
mod killed;
mod lesser;
mod oracle;
mod poison;
mod random;
mod refused_names;
mod rounds;
mod subscriptions;
mod trees;
