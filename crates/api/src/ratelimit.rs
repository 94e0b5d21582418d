//! Request limits: token buckets in Redis, all buckets of a request in one round trip.
//!
//! A bucket holds as many tokens as its window allows and refills evenly. When Redis does not answer, buckets in this
//! process take its place, so that a limit holds per replica then; log-in limits are never dropped.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use deadpool_redis::{Connection, Pool};
use emailclient_core::platform::metrics::table;
use redis::Script;
use redis::aio::MultiplexedConnection;

/// Takes one token from every bucket or from none. Answers {allowed, wait in ms, tokens left in each bucket …}.
static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local t = redis.call('TIME'); local now = t[1]*1000 + math.floor(t[2]/1000)
local ok, wait, left = 1, 0, {}
for i, key in ipairs(KEYS) do
  local cap, window = tonumber(ARGV[2*i-1]), tonumber(ARGV[2*i])
  local h = redis.call('HMGET', key, 'v', 't')
  local v, last = tonumber(h[1]) or cap, tonumber(h[2]) or now
  v = math.min(cap, v + math.max(0, now-last)*cap/window)
  left[i] = v
  -- Of before the clock was set back: it refills from now on, and lives no longer than it would.
  if last > now then
    redis.call('HSET', key, 't', now)
    redis.call('PEXPIRE', key, window + 1000)
  end
  if v < 1 then ok = 0; wait = math.max(wait, math.ceil((1-v)*window/cap)) end
end
local answer = {ok, wait}
for i, key in ipairs(KEYS) do
  if ok == 1 then
    left[i] = left[i] - 1
    redis.call('HSET', key, 'v', tostring(left[i]), 't', now)
    redis.call('PEXPIRE', key, tonumber(ARGV[2*i]) + 1000)
  end
  answer[#answer+1] = math.floor(left[i])
end
return answer",
    )
});

/// How long Redis is left alone after it did not answer.
const REST: Duration = Duration::from_secs(2);
const REDIS_PATIENCE: Duration = Duration::from_millis(300);
/// Local buckets kept at most; beyond, full ones are forgotten first.
const LOCAL_MAX: usize = 50_000;

/// One limit: `quota` requests in `window`.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// What is counted, unique among all buckets.
    pub key: String,
    /// The policy's name in the headers.
    pub name: &'static str,
    /// Requests in a window; at least 1.
    pub quota: u32,
    /// The window.
    pub window: Duration,
}

/// What a look at the buckets gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the request may go on.
    pub allowed: bool,
    /// If not, how long to wait.
    pub retry_after: Duration,
    /// Requests left, one for each bucket.
    pub remaining: Vec<u64>,
}

#[derive(Debug)]
struct Local {
    tokens: f64,
    at: Instant,
    window: Duration,
}

/// The limiter of this process.
#[derive(Debug)]
pub struct Limiter {
    redis: Pool,
    // One connection for all requests: commands of several travel together on it. The pool asks a PING of each connection
    // it hands out, which is a second round trip for every request.
    shared: Mutex<Option<MultiplexedConnection>>,
    local: Mutex<HashMap<String, Local>>,
    rest_until: Mutex<Option<Instant>>,
}

impl Limiter {
    /// A limiter over this Redis.
    #[must_use]
    pub fn new(redis: Pool) -> Self {
        Self { redis, shared: Mutex::default(), local: Mutex::default(), rest_until: Mutex::default() }
    }

    /// Takes one token from each of `buckets`, or none if one of them is empty.
    pub async fn take(&self, buckets: &[Bucket]) -> Verdict {
        let resting =
            self.rest_until.lock().ok().and_then(|r| *r).is_some_and(|until| Instant::now() < until);
        if !resting {
            match tokio::time::timeout(REDIS_PATIENCE, self.take_shared(buckets)).await {
                Ok(Ok(verdict)) => return verdict,
                failed => {
                    let cause = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "no answer in time".to_owned(),
                    };
                    metrics::counter!(table::REDIS_ERRORS.name).increment(1);
                    tracing::warn!(cause, "Redis is away, limits are kept in this process");
                    self.share(None);
                    if let Ok(mut rest) = self.rest_until.lock() {
                        *rest = Some(Instant::now() + REST);
                    }
                }
            }
        }
        metrics::counter!(table::LIMITER_FALLBACKS.name).increment(1);
        self.take_local(buckets, Instant::now())
    }

    async fn take_shared(&self, buckets: &[Bucket]) -> anyhow::Result<Verdict> {
        let known = self.shared.lock().ok().and_then(|conn| conn.clone());
        // It may be of a Redis that has been restarted since: then a new one is tried before Redis counts as away.
        if let Some(conn) = known
            && let Ok(verdict) = ask(conn, buckets).await
        {
            return Ok(verdict);
        }
        let conn = Connection::take(self.redis.get().await?);
        self.share(Some(conn.clone()));
        ask(conn, buckets).await
    }

    fn share(&self, conn: Option<MultiplexedConnection>) {
        if let Ok(mut shared) = self.shared.lock() {
            *shared = conn;
        }
    }

    fn take_local(&self, buckets: &[Bucket], now: Instant) -> Verdict {
        let Ok(mut local) = self.local.lock() else {
            return Verdict { allowed: false, retry_after: REST, remaining: vec![0; buckets.len()] };
        };
        if local.len() > LOCAL_MAX {
            // A bucket untouched for its window is full again, so that forgetting it changes nothing.
            local.retain(|_, l| now.saturating_duration_since(l.at) < l.window);
        }
        let levels: Vec<f64> = buckets
            .iter()
            .map(|b| {
                let full = f64::from(b.quota.max(1));
                local.get(&b.key).map_or(full, |l| {
                    let gone = now.saturating_duration_since(l.at).as_secs_f64();
                    (l.tokens + gone * full / b.window.as_secs_f64().max(0.001)).min(full)
                })
            })
            .collect();
        let wait =
            |b: &Bucket, level: f64| b.window.mul_f64(((1.0 - level) / f64::from(b.quota.max(1))).max(0.0));
        let retry_after = buckets.iter().zip(&levels).map(|(b, l)| wait(b, *l)).max().unwrap_or_default();
        let allowed = levels.iter().all(|l| *l >= 1.0);
        let spent = if allowed { 1.0 } else { 0.0 };
        let mut remaining = Vec::with_capacity(buckets.len());
        for (bucket, level) in buckets.iter().zip(levels) {
            let tokens = level - spent;
            local.insert(bucket.key.clone(), Local { tokens, at: now, window: bucket.window });
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a level lies between 0 and a u32"
            )]
            remaining.push(tokens.max(0.0) as u64);
        }
        Verdict { allowed, retry_after, remaining }
    }
}

/// One round trip: the script, by its hash.
async fn ask(mut conn: MultiplexedConnection, buckets: &[Bucket]) -> anyhow::Result<Verdict> {
    let mut call = TAKE.prepare_invoke();
    for bucket in buckets {
        call.key(format!("limit:{}", bucket.key)).arg(bucket.quota.max(1)).arg(millis(bucket.window));
    }
    let answer: Vec<u64> = call.invoke_async(&mut conn).await?;
    let mut answer = answer.into_iter();
    let allowed = answer.next().unwrap_or(0) == 1;
    let retry_after = Duration::from_millis(answer.next().unwrap_or(1000));
    Ok(Verdict { allowed, retry_after, remaining: answer.collect() })
}

/// The values of `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers).
#[must_use]
pub fn headers(buckets: &[Bucket], verdict: &Verdict) -> (String, String) {
    let policy: Vec<String> =
        buckets.iter().map(|b| format!("\"{}\";q={};w={}", b.name, b.quota, b.window.as_secs())).collect();
    let state: Vec<String> = buckets
        .iter()
        .zip(&verdict.remaining)
        .map(|(b, left)| {
            let missing = u64::from(b.quota).saturating_sub(*left);
            let reset = (missing * b.window.as_secs()).div_ceil(u64::from(b.quota.max(1)));
            format!("\"{}\";r={left};t={reset}", b.name)
        })
        .collect();
    (policy.join(", "), state.join(", "))
}

fn millis(window: Duration) -> u64 {
    u64::try_from(window.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter() -> Limiter {
        let nowhere = wire::secret::Secret::new("redis://127.0.0.1:1/");
        Limiter::new(emailclient_core::platform::redis_pool::connect(&nowhere).unwrap())
    }

    fn bucket(name: &'static str, quota: u32, seconds: u64) -> Bucket {
        Bucket { key: name.to_owned(), name, quota, window: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_local_bucket_empties_and_refills_evenly() {
        let (l, start) = (limiter(), Instant::now());
        let buckets = [bucket("minute", 60, 60), bucket("hour", 100, 3600)];
        for n in 0..60 {
            assert!(l.take_local(&buckets, start).allowed, "{n}");
        }
        let refused = l.take_local(&buckets, start);
        assert!(!refused.allowed && refused.retry_after <= Duration::from_secs(1));
        assert_eq!(refused.remaining, [0, 40]);
        assert!(l.take_local(&buckets, start + Duration::from_millis(1001)).allowed);
        assert!(!l.take_local(&buckets, start + Duration::from_millis(1002)).allowed);
    }

    #[tokio::test]
    async fn without_redis_the_limit_still_holds() {
        let (l, buckets) = (limiter(), [bucket("login", 2, 60)]);
        assert!(l.take(&buckets).await.allowed && l.take(&buckets).await.allowed);
        assert!(!l.take(&buckets).await.allowed);
    }

    #[test]
    fn the_headers_name_every_policy() {
        let buckets = [bucket("minute", 60, 60), bucket("hour", 1000, 3600)];
        let verdict = Verdict { allowed: true, retry_after: Duration::ZERO, remaining: vec![59, 999] };
        let (policy, state) = headers(&buckets, &verdict);
        assert_eq!(policy, r#""minute";q=60;w=60, "hour";q=1000;w=3600"#);
        assert_eq!(state, r#""minute";r=59;t=1, "hour";r=999;t=4"#);
    }
}
