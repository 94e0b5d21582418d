//! Synchronisation against the real server. Each test ends with the oracle: our rows equal a fresh plain fetch.

mod audit;
mod case;
mod during;
mod hostile_mail;
mod identity;
mod killed;
mod lesser;
mod oracle;
mod pausing;
mod poison;
mod random;
mod refused_names;
mod rounds;
mod subscriptions;
mod trees;
