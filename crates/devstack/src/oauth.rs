//! A provider that signs people in: OAuth2 (RFC 6749) and OpenID Connect, on a loopback port of its own.
//!
//! It issues codes against PKCE (RFC 7636), device codes (RFC 8628), tokens for apps (RFC 6749 §4.4) and for service
//! accounts (RFC 7523); it renews, rotates, expires and revokes (RFC 7009). Access tokens are JWTs (RFC 9068), so a
//! mail server that has the public key takes them without asking back. Nothing is on disk: an authority that ends
//! forgets its clients and grants.
//!
//! What lives here: the server, switches for what providers do wrong ([`Switches`], [`Fault`]), lists of what was asked
//! ([`Authority::asked`]) and of every secret that was given out ([`Authority::issued`]), and a browser for its pages
//! ([`consent`], [`deny`], [`activate`]). There are no passwords: whoever names an address is its owner.
//!
//! To add a grant type: a function beside those in `oauth/grants.rs` and a line in `token.rs`. Claims are in
//! `claims.rs` only.

mod authorize;
mod browser;
mod claims;
mod device;
mod grants;
mod issue;
mod keys;
mod metadata;
mod model;
mod page;
mod params;
mod server;
mod state;
mod switches;
#[cfg(test)]
mod tests;
mod token;

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use chrono::TimeDelta;
use serde_json::Value;

pub use browser::{activate, consent, deny, deny_device};
pub use claims::{AUDIENCE, KEY_ID};
pub use keys::{new_key, new_rsa_key};
pub use model::{Asked, Client, Endpoint, Issued, Kind, ServiceAccount, User};
pub use switches::{ExpiresIn, Fault, FaultAt, IdToken, Rotation, Switches};

use model::Robot;
use server::Server;

/// A running authority. Dropping it ends it, and every connection to it.
pub struct Authority(Server);

impl Authority {
    /// Starts one on a free port. `key`: a private key in PKCS#8 PEM ([`new_key`]), P-256 for ES256 or RSA for RS256.
    ///
    /// # Errors
    /// The file is not that, or there is no port.
    pub fn start(key: &Path) -> Result<Self> {
        Self::start_at(key, 0)
    }

    /// The same on this port, so that a folder's saved accounts find it again.
    ///
    /// # Errors
    /// The file is no such key, or somebody listens there.
    pub fn start_at(key: &Path, port: u16) -> Result<Self> {
        let pem = fs::read_to_string(key).with_context(|| key.display().to_string())?;
        Self::start_with(&pem, port).with_context(|| key.display().to_string())
    }

    /// The same with the key itself.
    ///
    /// # Errors
    /// It is no such key, or somebody listens there.
    pub fn start_with(pem: &str, port: u16) -> Result<Self> {
        Server::start(pem, port).map(Self)
    }

    /// `http://127.0.0.1:port`, which is the issuer as well.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.0.shared.base
    }

    /// The address of an endpoint.
    #[must_use]
    pub fn url(&self, endpoint: Endpoint) -> String {
        let path = match endpoint {
            Endpoint::Discovery => "/.well-known/openid-configuration",
            Endpoint::Keys => "/jwks",
            Endpoint::Authorize => "/authorize",
            Endpoint::Token => "/token",
            Endpoint::Device => "/device",
            Endpoint::Activate => "/activate",
            Endpoint::Revoke => "/revoke",
            Endpoint::UserInfo => "/userinfo",
            Endpoint::Trap => "/trap",
            Endpoint::Other => "/",
        };
        format!("{}{path}", self.base_url())
    }

    /// The public key by which tokens are verified (RFC 7517).
    #[must_use]
    pub fn jwk(&self) -> Value {
        self.0.shared.keys.own.jwk()
    }

    /// Registers a client, or changes the one of that id.
    pub fn register(&self, client: Client) {
        self.0.shared.lock().clients.insert(client.id.clone(), client);
    }

    /// Makes a service account that may act for all mailboxes of these domains. It takes a moment: the key is RSA.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn service_account(&self, email: &str, domains: &[&str]) -> Result<ServiceAccount> {
        let key_id = keys::random(12)?;
        let private_key = new_rsa_key()?;
        let key = keys::SigningKey::from_pem(&private_key, &key_id)?;
        let (modulus, exponent) = key.rsa_components().context("an RSA key")?;
        let domains = domains.iter().map(|domain| domain.to_lowercase()).collect();
        let robot = Robot { key_id: key_id.clone(), modulus, exponent, domains };
        self.0.shared.lock().robots.insert(email.to_owned(), robot);
        let token_uri = self.url(Endpoint::Token);
        Ok(ServiceAccount { email: email.to_owned(), key_id, private_key, token_uri })
    }

    /// The service account may act for nobody any more.
    pub fn dismiss(&self, service_account: &str) {
        self.0.shared.lock().robots.remove(service_account);
    }

    /// The account of that address; it begins now if it was not there.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn user(&self, email: &str) -> Result<User> {
        self.0.shared.lock().user(email)
    }

    /// Changes or reads the switches.
    pub fn with<R>(&self, change: impl FnOnce(&mut Switches) -> R) -> R {
        change(&mut self.0.shared.lock().switches)
    }

    /// Lets a fault happen from now on.
    pub fn fail(&self, fault: FaultAt) {
        self.with(|switches| switches.faults.push(fault));
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.with(|switches| switches.faults.clear());
    }

    /// Ends all that this user ever allowed, as a person does on the provider's page.
    pub fn withdraw(&self, user: &str) {
        self.0.shared.lock().withdraw(user);
    }

    /// How many grants of this user can still be renewed.
    #[must_use]
    pub fn live_grants(&self, user: &str) -> usize {
        self.0.shared.lock().grants_of(user).filter(|grant| grant.lasting && !grant.revoked).count()
    }

    /// How often grants of this user were renewed.
    #[must_use]
    pub fn renewals(&self, user: &str) -> u64 {
        self.0.shared.lock().grants_of(user).map(|grant| grant.renewals).sum()
    }

    /// Every request that arrived, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.0.shared.lock().asked.clone()
    }

    /// How many requests arrived there.
    #[must_use]
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.0.shared.lock().asked.iter().filter(|asked| asked.endpoint == endpoint).count()
    }

    /// How many requests for this grant type arrived, whatever became of them.
    #[must_use]
    pub fn count_grant(&self, grant_type: &str) -> usize {
        let state = self.0.shared.lock();
        state.asked.iter().filter(|asked| asked.grant_type.as_deref() == Some(grant_type)).count()
    }

    /// Every secret that was ever given out: none of them may be found in a log, a dump or an event.
    #[must_use]
    pub fn issued(&self) -> Vec<Issued> {
        self.0.shared.lock().issued.clone()
    }

    /// How many bytes of [`Fault::Gigabyte`] were taken, to some buffers.
    #[must_use]
    pub fn poured(&self) -> u64 {
        self.0.shared.poured.load(Ordering::Relaxed)
    }

    /// An access token of a user without a flow, for the client `devstack`. A negative lifetime: it has ended.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn token_for(&self, user: &str, lifetime: TimeDelta, scope: &str) -> Result<String> {
        let scope: Vec<String> = scope.split_whitespace().map(str::to_owned).collect();
        let shared = &self.0.shared;
        let mut state = shared.lock();
        let user = state.user(user)?;
        let holder = issue::Holder { client: "devstack", user: Some(&user), grant: None };
        issue::access(shared, &mut state, &holder, &scope, lifetime)
    }
}
