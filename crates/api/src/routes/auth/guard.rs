//! What stands between a stranger and the passwords: limits of log-ins, whatever the limits of tenants are.
//!
//! A client is an IPv4 address or the /64 of an IPv6 one. Tries of one client are limited, and those of one client for one
//! user. A user as a whole is never locked, since then anybody could lock anybody out: tries from where the user has not
//! logged in before only take longer once there are many, and wait for the password work behind those from where it has.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use emailclient_core::access::password::Share;
use emailclient_core::access::user;
use emailclient_core::platform::metrics::table;
use sha2::{Digest as _, Sha256};

use crate::context::Context;
use crate::error::ApiError;
use crate::ratelimit::{self, Bucket};
use crate::state::AppState;

const MINUTE: Duration = Duration::from_secs(60);
/// A try that comes too soon for its user waits no longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Tries that wait so in one process; each keeps a connection and some kilobytes.
const MOST_WAITING: usize = 500;

static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Whose password is tried.
pub(super) struct Target<'a> {
    /// The tenant by its id, in whatever way it was named; a name of none as it is.
    tenant: String,
    email: &'a str,
}

impl<'a> Target<'a> {
    /// `known` is the tenant of that name.
    pub(super) fn new(
        known: Option<&emailclient_core::access::tenant::TenantKey>,
        named: &str,
        email: &'a str,
    ) -> Self {
        // A UUID has many spellings. Names of no tenant are not one, or the limit would tell which exist.
        let canonical =
            || uuid::Uuid::parse_str(named).map_or_else(|_| named.to_owned(), |id| id.to_string());
        Self { tenant: known.map_or_else(canonical, |tenant| tenant.id.to_string()), email }
    }

    /// A hash: Redis holds no addresses.
    fn key(&self, more: &str) -> String {
        let (tenant, email) = (&self.tenant, user::email_key(self.email));
        hex::encode(Sha256::digest(format!("{tenant}\n{email}\n{more}")))
    }
}

/// Counts a try of this client, before its body is read.
///
/// # Errors
/// 429.
pub(super) async fn limit_client(state: &AppState, context: &Context) -> Result<(), ApiError> {
    let quota = state.config.rate_limit.login_per_minute;
    let key = format!("login:from:{}", context.network());
    take(state, context, Bucket { key, name: "login", quota, window: MINUTE }).await
}

/// Counts a refresh of this client, before its body is read: six times as many as log-ins, for a company behind one address
/// has many clients, and each needs one in a quarter of an hour.
///
/// # Errors
/// 429.
pub(super) async fn limit_refresh(state: &AppState, context: &Context) -> Result<(), ApiError> {
    let quota = state.config.rate_limit.login_per_minute.saturating_mul(6);
    let key = format!("refresh:from:{}", context.network());
    take(state, context, Bucket { key, name: "refresh", quota, window: MINUTE }).await
}

/// Counts a try of this client for this user.
///
/// # Errors
/// 429.
pub(super) async fn limit_pair(
    state: &AppState,
    context: &Context,
    target: &Target<'_>,
) -> Result<(), ApiError> {
    let quota = state.config.rate_limit.login_per_minute.div_ceil(2);
    let key = format!("login:pair:{}", target.key(&context.network()));
    take(state, context, Bucket { key, name: "login-user", quota, window: MINUTE }).await
}

/// Lets a try wait whose user is tried a lot, from where it has not logged in before.
///
/// # Errors
/// 503 when too many wait already.
pub(super) async fn slow_down(state: &AppState, target: &Target<'_>) -> Result<(), ApiError> {
    let quota = state.config.rate_limit.login_per_minute;
    let key = format!("login:user:{}", target.key(""));
    let verdict = state.limiter.take(&[Bucket { key, name: "login-slow", quota, window: MINUTE }]).await;
    if verdict.allowed {
        return Ok(());
    }
    let _waits = Waits::begin().ok_or_else(|| ApiError::busy("too many log-ins wait", LONGEST_WAIT))?;
    // Not all at the same moment: the queue for the password work is short.
    let spread = 0.5 + state.clock.unit() / 2.0;
    tokio::time::sleep(verdict.retry_after.min(LONGEST_WAIT).mul_f64(spread)).await;
    Ok(())
}

/// Whose share of the password work a try takes.
pub(super) fn share(tenant: Option<&emailclient_core::access::tenant::TenantKey>, known_here: bool) -> Share {
    match tenant {
        Some(tenant) if known_here => Share::Known(tenant.id),
        Some(tenant) => Share::Of(tenant.id),
        None => Share::Nobody,
    }
}

/// One of those that wait, until dropped.
struct Waits;

impl Waits {
    fn begin() -> Option<Self> {
        let before = WAITING.fetch_add(1, Ordering::SeqCst);
        let waits = Self;
        (before < MOST_WAITING).then_some(waits)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn take(state: &AppState, context: &Context, bucket: Bucket) -> Result<(), ApiError> {
    let buckets = [bucket];
    let verdict = state.limiter.take(&buckets).await;
    let (policy, left) = ratelimit::headers(&buckets, &verdict);
    context.add_rate_headers(&policy, &left);
    if verdict.allowed {
        return Ok(());
    }
    metrics::counter!(table::HTTP_RATE_LIMITED.name, "limit" => "log-in").increment(1);
    Err(ApiError::rate_limited(verdict.retry_after.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)))
}
