//! Does this Redis throw keys away when its memory is full?
//!
//! Nothing is lost with an evicted key, but a limiter whose counters disappear lets through what it should refuse. A
//! full Redis that does not evict refuses the write instead, and the limiter then counts in the process.

use std::collections::HashMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, RedisError};

use wire::secret::Secret;

/// The one policy that evicts nothing. The `volatile-` ones do evict: every counter has a time to live.
pub const WANTED: &str = "noeviction";
/// Connecting, logging in, each answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RedisTrouble {
    /// The address cannot be read.
    #[error(
        "cannot be read as an address ({0}); it has the form redis://[user:password@]host:6379/ or rediss://…"
    )]
    Address(String),
    /// The server does not know the user or the password.
    #[error("the server refuses to log us in ({0}); correct the user or the password in the address")]
    Login(String),
    /// It takes no writes.
    #[error("it takes no writes ({0}); give it memory, or free its disk, and see that it is no replica")]
    Refused(String),
    /// No answer; it may come back by itself.
    #[error("no answer ({0}); is it running, and are host and port right?")]
    Away(String),
}

impl RedisTrouble {
    /// True when waiting may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Away(_))
    }

    fn from_error(error: &RedisError) -> Self {
        // NOAUTH: no password was given where one is needed. WRONGPASS arrives as AuthenticationFailed.
        match (error.kind(), error.code()) {
            (ErrorKind::InvalidClientConfig, _) => Self::Address(error.to_string()),
            (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
                Self::Login(error.to_string())
            }
            _ => Self::Away(error.to_string()),
        }
    }
}

/// The `maxmemory-policy` of the Redis at `url`; `None` when it hides it.
///
/// Managed servers refuse CONFIG or do not know it; INFO tells the same there. A server that refuses both is a Redis
/// whose policy only its provider's console shows.
///
/// # Errors
/// [`RedisTrouble`] when it cannot be talked to within about five seconds.
pub async fn policy(url: &Secret) -> Result<Option<String>, RedisTrouble> {
    let mut conn = open(url).await?;
    let pong: Result<String, _> = redis::cmd("PING").query_async(&mut conn).await;
    // A user without the right to PING (NOPERM) is a server that answers.
    if let Err(error) = pong
        && error.code() != Some("NOPERM")
    {
        return Err(RedisTrouble::from_error(&error));
    }
    let mut get = redis::cmd("CONFIG");
    get.arg("GET").arg("maxmemory-policy");
    let told: Result<HashMap<String, String>, _> = get.query_async(&mut conn).await;
    if let Some(policy) = told.ok().and_then(|mut map| map.remove("maxmemory-policy")) {
        return Ok(Some(policy));
    }
    let info: Result<String, _> = redis::cmd("INFO").arg("memory").query_async(&mut conn).await;
    Ok(info.ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("maxmemory_policy:"))?;
        Some(line.trim().to_owned())
    }))
}

/// Whether the Redis at `url` takes a write; with its own words when it does not.
///
/// # Errors
/// [`RedisTrouble`] when it does not, or cannot be talked to.
pub async fn takes_writes(url: &Secret) -> Result<(), RedisTrouble> {
    let mut conn = open(url).await?;
    super::write(&mut conn).await.map_err(|error| match error.code() {
        // OOM: its memory is full. MISCONF: its disk. READONLY: a replica. NOPERM: the user may not.
        Some(_) => RedisTrouble::Refused(error.to_string()),
        None => RedisTrouble::from_error(&error),
    })
}

async fn open(url: &Secret) -> Result<MultiplexedConnection, RedisTrouble> {
    let client = redis::Client::open(url.expose()).map_err(|e| RedisTrouble::Address(e.to_string()))?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    // Around it all, because looking up a name has no limit of its own.
    match tokio::time::timeout(PATIENCE * 2, client.get_multiplexed_async_connection_with_config(&config))
        .await
    {
        Err(_) => Err(RedisTrouble::Away(format!("none within {} s", (PATIENCE * 2).as_secs()))),
        Ok(connected) => connected.map_err(|e| RedisTrouble::from_error(&e)),
    }
}
