//! OAuth2 as it is stored: apps that are registered at providers ([`app`]), what a provider is like ([`provider`]), what was
//! granted to an app ([`grant`]), and people who are on their way to a provider and back ([`flow`]), or decide on another device ([`device`]).
//!
//! Nothing here talks to a provider: [`crate::connect::oauth`] does. The next provider: a row of [`provider`], and a test.

pub mod app;
pub mod device;
pub mod flow;
pub mod grant;
pub mod provider;
