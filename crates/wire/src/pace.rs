//! How fast connections are made: a bucket for each host and one for the whole process.
//!
//! They count for both protocols: what a provider takes for an attack is the number of log-ins from one address. After a
//! restart, or when a large provider comes back, thousands of accounts want to connect in the same second. Whoever acts for
//! a user who waits is not held up, but counts. Watchers, of whom there may be thousands, come to the buckets one at a time:
//! a round, which keeps an account and a place of the worker from others while it waits, waits for other rounds and for one
//! of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::measured;
use crate::provider;

/// Buckets of hosts are looked through for full ones when there are so many.
const MANY_HOSTS: usize = 1024;

/// For whom a connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// A user who waits: only counts.
    User,
    /// What is due, such as a round or mail to be sent: stands in line.
    Round,
    /// A watcher, whom nothing waits for: joins the line when the watcher before it has left it.
    Watch,
}

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
    watch: Gate,
}

/// Held by the one watcher that is in line. Fair: watchers pass it in the order in which they came.
type Gate = Arc<tokio::sync::Mutex<()>>;

#[derive(Debug, Default)]
struct Buckets {
    overall: Bucket,
    hosts: HashMap<String, Host>,
}

#[derive(Debug, Default)]
struct Host {
    bucket: Bucket,
    watch: Gate,
}

impl Buckets {
    fn host(&mut self, name: &str, now: Instant) -> &mut Host {
        if self.hosts.len() >= MANY_HOSTS {
            self.hosts.retain(|_, h| !h.bucket.is_full(now) || Arc::strong_count(&h.watch) > 1);
        }
        self.hosts.entry(name.to_ascii_lowercase()).or_default()
    }
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
        let inner = Inner {
            overall: overall.max(1),
            per_host: per_host.max(1),
            buckets: Mutex::default(),
            watch: Gate::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Waits for a place to connect to `host`, as long as such a one has to.
    pub async fn wait(&self, host: &str, haste: Haste) {
        let _first_of_host = match haste {
            Haste::Watch => Some(self.with(|b, _, now| b.host(host, now).watch.clone()).lock_owned().await),
            Haste::User | Haste::Round => None,
        };
        let a_second = self.inner.per_host.min(provider::of(host).log_ins_per_second);
        let at = self.with(|b, _, now| b.host(host, now).bucket.take(now, a_second));
        if haste != Haste::User {
            if at > Instant::now() {
                measured::paced();
            }
            sleep_until(at).await;
        }
        // Only now: those who wait for one slow host must not use up the places of all others.
        let _first_of_all = match haste {
            Haste::Watch => Some(self.inner.watch.lock().await),
            Haste::User | Haste::Round => None,
        };
        let at = self.with(|b, inner, now| b.overall.take(now, inner.overall));
        if haste != Haste::User {
            sleep_until(at).await;
        }
    }

    fn with<T>(&self, place: impl FnOnce(&mut Buckets, &Inner, Instant) -> T) -> T {
        let mut buckets = self.inner.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        place(&mut buckets, &self.inner, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinHandle;
    use tokio::time::Instant;

    use super::{Bucket, Haste, Pace};

    #[test]
    fn a_seconds_worth_goes_at_once_and_the_rest_in_step() {
        let (mut bucket, now) = (Bucket::default(), Instant::now() + Duration::from_secs(10));
        let waits: Vec<u128> = (0..12).map(|_| (bucket.take(now, 5) - now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 200, 400, 600, 800, 1000, 1200, 1400]);
        let later = now + Duration::from_secs(60);
        assert!(bucket.is_full(later) && bucket.take(later, 5) == later);
    }

    fn crowd(pace: &Pace, haste: Haste, hosts: impl Iterator<Item = String>) -> Vec<JoinHandle<()>> {
        hosts
            .map(|host| {
                let pace = pace.clone();
                tokio::spawn(async move { pace.wait(&host, haste).await })
            })
            .collect()
    }

    fn waiting(crowd: &[JoinHandle<()>]) -> usize {
        crowd.iter().filter(|task| !task.is_finished()).count()
    }

    #[tokio::test]
    async fn one_hosts_queue_holds_up_neither_another_host_nor_a_user() {
        let pace = Pace::new(1000, 2);
        let crowd = crowd(&pace, Haste::Round, (0..50).map(|_| "slow.example".into()));
        tokio::task::yield_now().await;
        let started = Instant::now();
        pace.wait("other.example", Haste::Round).await;
        pace.wait("Slow.example", Haste::User).await;
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        assert!(waiting(&crowd) >= 40);
        crowd.iter().for_each(JoinHandle::abort);
    }

    /// After a restart all accounts are to be watched at once; the rounds of the same accounts are due, too.
    #[tokio::test]
    async fn a_round_does_not_stand_behind_a_thousand_watchers_of_one_host_or_of_a_thousand() {
        let one: fn(u32) -> String = |_| "host.example".to_owned();
        let many: fn(u32) -> String = |n| format!("host{n}.example");
        for (pace, host) in [(Pace::new(1000, 5), one), (Pace::new(5, 1000), many)] {
            let watchers = crowd(&pace, Haste::Watch, (0..1000).map(host));
            tokio::time::sleep(Duration::from_millis(50)).await;
            let started = Instant::now();
            pace.wait(&host(999), Haste::Round).await;
            assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
            // Nor are they forgotten over it: as many as there are places for.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let through = 1000 - waiting(&watchers);
            assert!((8..=13).contains(&through), "{through} watchers in {:?}", started.elapsed());
            watchers.iter().for_each(JoinHandle::abort);
        }
    }

    /// As many as it is known to take, whatever the settings allow.
    #[tokio::test(start_paused = true)]
    async fn a_provider_that_takes_fewer_log_ins_gets_fewer() {
        let pace = Pace::new(1000, 100);
        let started = Instant::now();
        for _ in 0..6 {
            pace.wait("imap.mail.yahoo.com", Haste::Round).await;
        }
        let rate = crate::provider::of("imap.mail.yahoo.com").log_ins_per_second;
        assert_eq!((rate, started.elapsed().as_secs()), (2, 2), "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_watcher_that_is_stopped_in_line_lets_the_next_one_go() {
        let pace = Pace::new(1000, 1);
        pace.wait("host.example", Haste::Watch).await;
        let stopped = crowd(&pace, Haste::Watch, (0..20).map(|_| "host.example".into()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        stopped.iter().for_each(JoinHandle::abort);
        let started = Instant::now();
        pace.wait("host.example", Haste::Watch).await;
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
}
