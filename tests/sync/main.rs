//! Synchronisation against the real server. Each test ends with the oracle: our rows equal a fresh plain fetch.

mod oracle;
mod rounds;
