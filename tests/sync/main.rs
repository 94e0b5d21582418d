//! Synchronisation against the real server. Each test ends with the oracle: our rows equal a fresh plain fetch.

mod audit;
mod case;
mod case_list;
mod during;
mod edits;
mod faults;
mod hostile_mail;
mod identity;
mod killed;
mod lesser;
mod lies;
mod line;
mod listing;
mod login;
mod many_gone;
mod odd;
mod oracle;
mod pausing;
mod poison;
mod random;
mod refused_names;
mod rounds;
mod subscriptions;
mod taken_back;
mod traffic;
mod trees;
