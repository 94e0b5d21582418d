//! What the authority remembers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};

use super::keys;
use super::model::{Asked, Client, Issued, Kind, Robot, User};
use super::switches::Switches;

#[derive(Default)]
pub(super) struct State {
    pub(super) switches: Switches,
    pub(super) clients: BTreeMap<String, Client>,
    pub(super) robots: BTreeMap<String, Robot>,
    /// By address in small letters.
    users: BTreeMap<String, User>,
    /// Pages that wait for their person, by the ticket in the form.
    pub(super) pages: HashMap<String, Request>,
    pub(super) codes: HashMap<String, Code>,
    /// A grant's number is its place here.
    grants: Vec<Grant>,
    pub(super) refresh: HashMap<String, Refresh>,
    pub(super) access: HashMap<String, Access>,
    pub(super) devices: HashMap<String, Device>,
    /// `jti` of assertions that came.
    pub(super) assertions: BTreeSet<String>,
    pub(super) issued: Vec<Issued>,
    pub(super) asked: Vec<Asked>,
}

/// What a client asked for at `/authorize`.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) client: String,
    pub(super) redirect_uri: String,
    pub(super) scope: Vec<String>,
    pub(super) state: Option<String>,
    pub(super) nonce: Option<String>,
    pub(super) challenge: String,
    pub(super) login_hint: Option<String>,
    /// `access_type=offline`.
    pub(super) offline: bool,
    /// `prompt=consent`.
    pub(super) ask_again: bool,
}

pub(super) struct Code {
    pub(super) request: Request,
    pub(super) grant: usize,
    pub(super) ends: DateTime<Utc>,
    pub(super) used: bool,
}

/// What somebody allowed a client to do.
pub(super) struct Grant {
    pub(super) client: String,
    pub(super) user: String,
    pub(super) scope: Vec<String>,
    pub(super) revoked: bool,
    /// Whether a refresh token was given.
    pub(super) lasting: bool,
    /// How often it was renewed.
    pub(super) renewals: u64,
}

pub(super) struct Refresh {
    pub(super) grant: usize,
    /// When it was last good for something.
    pub(super) touched: DateTime<Utc>,
    /// When another one took its place.
    pub(super) replaced: Option<DateTime<Utc>>,
}

pub(super) struct Access {
    /// None: an app's, a robot's, or one that a test asked for.
    pub(super) grant: Option<usize>,
    pub(super) client: String,
    pub(super) user: Option<String>,
    pub(super) scope: Vec<String>,
    pub(super) ends: DateTime<Utc>,
    pub(super) revoked: bool,
}

pub(super) struct Device {
    pub(super) client: String,
    pub(super) scope: Vec<String>,
    pub(super) user_code: String,
    pub(super) ends: DateTime<Utc>,
    pub(super) interval: TimeDelta,
    pub(super) polled: Option<DateTime<Utc>>,
    pub(super) answer: DeviceAnswer,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) enum DeviceAnswer {
    Waiting,
    Allowed(String),
    Denied,
    Spent,
}

/// By the clock that the mail servers go by.
#[expect(clippy::disallowed_methods, reason = "a server of its own, beside the product and its Clock")]
pub(super) fn right_now() -> DateTime<Utc> {
    Utc::now()
}

impl State {
    /// By the authority's clock, which may be off.
    pub(super) fn now(&self) -> DateTime<Utc> {
        right_now() + self.switches.clock_offset
    }

    /// Somebody of that address; whoever signs in for the first time has an account from then on.
    pub(super) fn user(&mut self, email: &str) -> Result<User> {
        let email = email.to_lowercase();
        if let Some(user) = self.users.get(&email) {
            return Ok(user.clone());
        }
        let user = User { subject: keys::random(12)?, email: email.clone() };
        self.users.insert(email, user.clone());
        Ok(user)
    }

    /// Of what was asked, what is granted.
    pub(super) fn grantable(&self, asked: &[String]) -> Vec<String> {
        let granted = &self.switches.granted_scopes;
        asked.iter().filter(|s| granted.as_ref().is_none_or(|g| g.contains(s))).cloned().collect()
    }

    pub(super) fn add_grant(&mut self, client: &str, user: &str, scope: Vec<String>) -> usize {
        self.grants.push(Grant {
            client: client.to_owned(),
            user: user.to_lowercase(),
            scope,
            revoked: false,
            lasting: false,
            renewals: 0,
        });
        self.grants.len() - 1
    }

    pub(super) fn grant(&self, number: usize) -> Option<&Grant> {
        self.grants.get(number)
    }

    pub(super) fn grant_mut(&mut self, number: usize) -> Option<&mut Grant> {
        self.grants.get_mut(number)
    }

    pub(super) fn grants_of<'a>(&'a self, user: &str) -> impl Iterator<Item = &'a Grant> {
        let user = user.to_lowercase();
        self.grants.iter().filter(move |grant| grant.user == user)
    }

    /// Ends a grant and all tokens of it.
    pub(super) fn revoke(&mut self, number: usize) {
        if let Some(grant) = self.grants.get_mut(number) {
            grant.revoked = true;
        }
        self.access.values_mut().filter(|a| a.grant == Some(number)).for_each(|a| a.revoked = true);
    }

    /// Ends all that a user ever allowed, also what apps and robots were given in that name.
    pub(super) fn withdraw(&mut self, user: &str) {
        let user = user.to_lowercase();
        self.grants.iter_mut().filter(|g| g.user == user).for_each(|g| g.revoked = true);
        self.access.values_mut().filter(|a| a.user.as_ref() == Some(&user)).for_each(|a| a.revoked = true);
    }

    pub(super) fn note(&mut self, kind: Kind, value: &str, user: Option<&str>) {
        let user = user.map(str::to_owned);
        self.issued.push(Issued { kind, value: value.to_owned(), user });
    }

    /// A refresh token of a grant. It has a slash, as Google's have: whoever does not encode it finds out here.
    pub(super) fn new_refresh(&mut self, grant: usize) -> Result<String> {
        let token = format!("1//{}", keys::random(32)?);
        let touched = self.now();
        let user = self.grants.get_mut(grant).map(|grant| {
            grant.lasting = true;
            grant.user.clone()
        });
        self.refresh.insert(token.clone(), Refresh { grant, touched, replaced: None });
        self.note(Kind::Refresh, &token, user.as_deref());
        Ok(token)
    }
}
