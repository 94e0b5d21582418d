//! How often passwords may be tried at mail servers, and the trail of those that were refused.
//!
//! Whoever may connect an account can guess passwords of anybody's mailbox. So each password that a client gives counts,
//! whether it is tried at once or, with `verify=false`, by the first round: 5 a minute and 20 an hour for each tenant, host and
//! user name. A host counts by its name and by each address it has now, since one server has many names.

use std::time::Duration;

use emailclient_core::access::audit::Action;
use emailclient_core::domain::account::{NewAccount, NewServer};
use sha2::{Digest as _, Sha256};
use wire::dial::Deadlines;

use super::trial::Failure;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::ratelimit::Bucket;
use crate::state::AppState;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const PER_MINUTE: u32 = 5;
const PER_HOUR: u32 = 20;
/// Addresses of one name that are counted; large providers answer with some of many, in turns.
const ADDRESSES: usize = 4;

/// Counts the passwords that are given.
///
/// # Errors
/// 429 `rate-limited` when one of them was tried too often; that is in the audit, too.
pub async fn admit(state: &AppState, caller: &Caller, new: &NewAccount) -> Result<(), ApiError> {
    let mut counted: Vec<&NewServer> = Vec::with_capacity(2);
    for (protocol, server) in [("imap", &new.imap), ("smtp", &new.smtp)] {
        // Without a user name nobody logs in (only SMTP takes that).
        if server.password.is_none() || server.username.is_empty() {
            continue;
        }
        // One password for reading and sending at one host is one guess.
        if counted.iter().any(|other| same(other, server)) {
            continue;
        }
        counted.push(server);
        caller.context.tried_elsewhere();
        let verdict = state.limiter.take(&buckets(state, caller, server).await).await;
        if !verdict.allowed {
            let mut tx = caller.aside(state).await?;
            caller.record(&mut tx, Action::AccountTry, &target(protocol, server), "rate-limited").await?;
            tx.commit().await?;
            let wait = verdict.retry_after.as_millis().div_ceil(1000);
            return Err(ApiError::rate_limited(u64::try_from(wait).unwrap_or(u64::MAX)));
        }
    }
    Ok(())
}

/// Adds the refusals of a try to the audit.
///
/// # Errors
/// When the database refuses.
pub async fn record(
    state: &AppState,
    caller: &Caller,
    new: &NewAccount,
    (imap, smtp): (Option<&Failure>, Option<&Failure>),
) -> Result<(), ApiError> {
    if imap.is_none() && smtp.is_none() {
        return Ok(());
    }
    let mut tx = caller.aside(state).await?;
    for (protocol, server, failure) in [("imap", &new.imap, imap), ("smtp", &new.smtp, smtp)] {
        if let Some(failure) = failure {
            let code = failure.trouble.code();
            caller.record(&mut tx, Action::AccountTry, &target(protocol, server), code).await?;
        }
    }
    Ok(tx.commit().await?)
}

fn same(one: &NewServer, other: &NewServer) -> bool {
    one.host.eq_ignore_ascii_case(&other.host)
        && one.username == other.username
        && one.password.as_ref().map(|p| p.expose()) == other.password.as_ref().map(|p| p.expose())
}

fn target(protocol: &str, server: &NewServer) -> String {
    format!("{protocol} {}:{} {}", server.host, server.port, server.username)
}

async fn buckets(state: &AppState, caller: &Caller, server: &NewServer) -> Vec<Bucket> {
    let mut hosts = vec![server.host.trim_end_matches('.').to_ascii_lowercase()];
    if let Ok(found) = state.outbound.resolve(&server.host, server.port, Deadlines::default().resolve).await {
        let mut addresses: Vec<String> = found.addresses().map(|a| a.to_canonical().to_string()).collect();
        addresses.sort();
        addresses.dedup();
        addresses.truncate(ADDRESSES);
        hosts.extend(addresses.into_iter().filter(|a| !hosts.contains(a)).collect::<Vec<_>>());
    }
    let user = server.username.trim().to_lowercase();
    hosts
        .into_iter()
        .flat_map(|host| {
            // A hash: Redis holds no user names.
            let place = hex::encode(Sha256::digest(format!("{host}\n{user}")));
            let bucket = |name: &'static str, quota: u32, window: Duration| Bucket {
                key: format!("{}:try:{name}:{place}", caller.tenant()),
                name,
                quota,
                window,
            };
            [bucket("minute", PER_MINUTE, MINUTE), bucket("hour", PER_HOUR, HOUR)]
        })
        .collect()
}
