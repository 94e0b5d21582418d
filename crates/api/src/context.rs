//! What belongs to one request from its first byte to its last: id, client address, and what was learned on the way.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::extract::FromRequestParts;
use emailclient_core::access::audit::Action;
use emailclient_core::platform::budget::Held;
use emailclient_core::platform::id::TenantId;
use http::request::Parts;
use ipnet::Ipv6Net;

use crate::error::ApiError;

#[derive(Debug, Default)]
struct Learned {
    rate_headers: Option<(String, String)>,
    body_hash: Option<[u8; 32]>,
    tenant: Option<TenantId>,
    audited: Option<(String, Action)>,
    refused: Option<String>,
    held: Vec<Held>,
    counted: bool,
    tried_elsewhere: bool,
}

#[derive(Debug)]
struct Inner {
    request_id: String,
    address: Option<IpAddr>,
    path: String,
    learned: Mutex<Learned>,
}

/// The request's own facts; the edge puts it into the extensions of every request.
#[derive(Debug, Clone)]
pub struct Context(Arc<Inner>);

impl Context {
    pub(crate) fn new(request_id: String, address: Option<IpAddr>, path: String) -> Self {
        Self(Arc::new(Inner { request_id, address, path, learned: Mutex::default() }))
    }

    /// The id in `X-Request-Id`, the log and every problem.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.0.request_id
    }

    /// The client, behind trusted proxies if there are any.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.0.address
    }

    /// The client as limits count it, see [`network_of`].
    #[must_use]
    pub fn network(&self) -> String {
        self.0.address.map_or_else(|| "unknown".to_owned(), network_of)
    }

    /// The path that was asked for, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The path as it may stand in logs: what lets a person in to the page on which mailboxes are connected is left out.
    pub(crate) fn path_for_logs(&self) -> Cow<'_, str> {
        const PAGE: &str = "/connect/";
        let (page, sub) = match self.0.path.split_once(PAGE) {
            Some(("", rest)) if !rest.starts_with("logo/") => (true, rest.split_once('/')),
            _ => (false, None),
        };
        match (page, sub) {
            (false, _) => Cow::Borrowed(&self.0.path),
            (true, None) => Cow::Owned(format!("{PAGE}…")),
            (true, Some((_, rest))) => Cow::Owned(format!("{PAGE}…/{rest}")),
        }
    }

    /// Adds limits to those that the answer tells of already: a log-in has two, taken one after the other.
    pub(crate) fn add_rate_headers(&self, policy: &str, state: &str) {
        if let Ok(mut learned) = self.0.learned.lock() {
            let told = learned.rate_headers.take();
            let joined = told
                .map(|(policies, states)| (format!("{policies}, {policy}"), format!("{states}, {state}")));
            learned.rate_headers = Some(joined.unwrap_or_else(|| (policy.to_owned(), state.to_owned())));
        }
    }

    pub(crate) fn rate_headers(&self) -> Option<(String, String)> {
        self.0.learned.lock().ok().and_then(|l| l.rate_headers.clone())
    }

    pub(crate) fn set_body_hash(&self, hash: [u8; 32]) {
        if let Ok(mut learned) = self.0.learned.lock() {
            learned.body_hash = Some(hash);
        }
    }

    pub(crate) fn body_hash(&self) -> Option<[u8; 32]> {
        self.0.learned.lock().ok().and_then(|l| l.body_hash)
    }

    pub(crate) fn set_tenant(&self, tenant: TenantId) {
        if let Ok(mut learned) = self.0.learned.lock() {
            learned.tenant = Some(tenant);
        }
    }

    /// Who asks for what that the audit trail tells of, refusals too.
    pub(crate) fn set_audited(&self, actor: &str, action: Action) {
        if let Ok(mut learned) = self.0.learned.lock() {
            learned.audited = Some((actor.to_owned(), action));
        }
    }

    pub(crate) fn audited(&self) -> Option<(String, Action)> {
        self.0.learned.lock().ok().and_then(|l| l.audited.clone())
    }

    /// The code of a refusal that is written out before the edge sees it.
    pub(crate) fn set_refused(&self, code: &str) {
        if let Ok(mut learned) = self.0.learned.lock() {
            learned.refused = Some(code.to_owned());
        }
    }

    pub(crate) fn refused(&self) -> Option<String> {
        self.0.learned.lock().ok().and_then(|l| l.refused.clone())
    }

    /// `true` for the first time: a request that runs again was counted by its first run.
    pub(crate) fn count_once(&self) -> bool {
        self.0.learned.lock().is_ok_and(|mut l| !std::mem::replace(&mut l.counted, true))
    }

    /// A mail server was asked something for this request, which must not be asked again by itself.
    pub(crate) fn tried_elsewhere(&self) {
        if let Ok(mut learned) = self.0.learned.lock() {
            learned.tried_elsewhere = true;
        }
    }

    /// Gives back what the handler held.
    pub(crate) fn let_go(&self) {
        if let Ok(mut learned) = self.0.learned.lock() {
            learned.held.clear();
        }
    }

    /// Lets go what the run before held. `false`: this request runs once only.
    pub(crate) fn begin_again(&self) -> bool {
        self.0.learned.lock().is_ok_and(|mut learned| {
            learned.held.clear();
            !learned.tried_elsewhere
        })
    }

    /// Keeps a share of memory until the request ends.
    pub(crate) fn hold(&self, held: Held) {
        if let Ok(mut learned) = self.0.learned.lock() {
            learned.held.push(held);
        }
    }

    /// Whose request it is, once that is known.
    pub(crate) fn tenant(&self) -> Option<TenantId> {
        self.0.learned.lock().ok().and_then(|l| l.tenant)
    }

    pub(crate) fn of(parts: &Parts) -> Self {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .unwrap_or_else(|| Self::new(String::new(), None, String::new()))
    }
}

/// An IPv4 address, or the /64 of an IPv6 one: whoever has one address of that has all of them (RFC 4291 §2.5.4).
#[must_use]
pub fn network_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => Ipv6Net::new_assert(v6, 64).trunc().to_string(),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Context {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self::of(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_a_person_in_to_the_page_stands_in_no_log() {
        let logged =
            |path: &str| Context::new(String::new(), None, path.to_owned()).path_for_logs().into_owned();
        for (path, expected) in [
            ("/connect/TOKEN", "/connect/…"),
            ("/connect/TOKEN/consent/1", "/connect/…/consent/1"),
            ("/connect//x", "/connect/…/x"),
            ("/connect/", "/connect/…"),
            ("/connect/logo/KEY", "/connect/logo/KEY"),
            ("/api/connect/sessions", "/api/connect/sessions"),
            ("/api/accounts", "/api/accounts"),
        ] {
            assert_eq!(logged(path), expected);
        }
    }

    #[test]
    fn a_client_is_an_address_of_ipv4_or_a_64_of_ipv6() {
        for (address, network) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::", "2001:db8:1:3::/64"),
            ("::1", "::/64"),
        ] {
            assert_eq!(network_of(address.parse().unwrap()), network);
        }
    }
}
