//! How fast connections are made: a bucket for each host and one for the whole process.
//!
//! After a restart, or when a large provider comes back, thousands of accounts want to connect in the same second; servers
//! take that for an attack. Whoever acts for a user who waits is not held up, but counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Buckets of hosts are looked through for full ones when there are so many.
const MANY_HOSTS: usize = 1024;

/// Shared by all that connects in a process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Pace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    overall: u32,
    per_host: u32,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    overall: Bucket,
    hosts: HashMap<String, Bucket>,
}

/// Generic cell rate: one second's worth may go at once. Until when the bucket is used up.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    used_until: Option<Instant>,
}

impl Bucket {
    /// Takes a place; when it may be used.
    fn take(&mut self, now: Instant, a_second: u32) -> Instant {
        let used_until =
            self.used_until.filter(|t| *t > now).unwrap_or(now) + Duration::from_secs(1) / a_second;
        self.used_until = Some(used_until);
        used_until.checked_sub(Duration::from_secs(1)).map_or(now, |at| at.max(now))
    }

    fn is_full(&self, now: Instant) -> bool {
        self.used_until.is_none_or(|t| t <= now)
    }
}

impl Pace {
    /// At most so many connections a second, at least one.
    #[must_use]
    pub fn new(overall: u32, per_host: u32) -> Self {
        let inner = Inner { overall: overall.max(1), per_host: per_host.max(1), buckets: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Waits for a place to connect to `host`; an `urgent` caller only counts.
    pub async fn wait(&self, host: &str, urgent: bool) {
        let at = self.take(|b, inner, now| {
            if b.hosts.len() >= MANY_HOSTS {
                b.hosts.retain(|_, bucket| !bucket.is_full(now));
            }
            b.hosts.entry(host.to_ascii_lowercase()).or_default().take(now, inner.per_host)
        });
        if !urgent {
            sleep_until(at).await;
        }
        // Only now: those who wait for one slow host must not use up the places of all others.
        let at = self.take(|b, inner, now| b.overall.take(now, inner.overall));
        if !urgent {
            sleep_until(at).await;
        }
    }

    fn take(&self, place: impl FnOnce(&mut Buckets, &Inner, Instant) -> Instant) -> Instant {
        let mut buckets = self.inner.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        place(&mut buckets, &self.inner, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Bucket, Pace};

    #[test]
    fn a_seconds_worth_goes_at_once_and_the_rest_in_step() {
        let (mut bucket, now) = (Bucket::default(), Instant::now() + Duration::from_secs(10));
        let waits: Vec<u128> = (0..12).map(|_| (bucket.take(now, 5) - now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 200, 400, 600, 800, 1000, 1200, 1400]);
        let later = now + Duration::from_secs(60);
        assert!(bucket.is_full(later) && bucket.take(later, 5) == later);
    }

    #[tokio::test]
    async fn one_hosts_queue_holds_up_neither_another_host_nor_a_user() {
        let pace = Pace::new(1000, 2);
        let crowd: Vec<_> = (0..50)
            .map(|_| {
                let pace = pace.clone();
                tokio::spawn(async move { pace.wait("slow.example", false).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let started = Instant::now();
        pace.wait("other.example", false).await;
        pace.wait("Slow.example", true).await;
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        assert!(crowd.iter().filter(|task| !task.is_finished()).count() >= 40);
        crowd.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
