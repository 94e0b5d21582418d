//! When to try again: delays as pure functions of the time since the first failure, or of the attempt, and a random number.
//!
//! Nobody sleeps here. `unit` is a random number from 0 to 1 (values outside, NaN included, are pulled in);
//! it spreads clients that failed together. A new kind of trouble gets a new function here.

use std::time::Duration;

/// Give up sending after this long in the queue.
pub const SEND_GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// After a refused or broken connection: 2 s growing by half to a minute, which is 2 s and half of what has passed. Half of it
/// is jitter. `since` is the time since the first failure in a row: six that come within a second, because a user edits six
/// messages, say no more about the server than one.
#[must_use]
pub fn network(since: Duration, unit: f64) -> Duration {
    jitter(2.0 + since.as_secs_f64() / 2.0, 60.0, unit)
}

/// After a throttle: the server's own hint (held between 1 s and a day) plus up to 10 %, else a minute doubling to half an
/// hour, which is a minute and what has passed since the first failure in a row.
#[must_use]
pub fn throttle(since: Duration, hint: Option<Duration>, unit: f64) -> Duration {
    match hint {
        Some(h) => {
            let h = h.clamp(Duration::from_secs(1), Duration::from_secs(86_400));
            h.mul_f64(1.0 + 0.1 * clamp(unit))
        }
        None => jitter(60.0 + since.as_secs_f64(), 1800.0, unit),
    }
}

/// After a limit whose bounds are known: the first wait and what has passed since the first failure in a row, at most the
/// longest. Up to a quarter less.
#[must_use]
pub fn bounded(since: Duration, (first, longest): (Duration, Duration), unit: f64) -> Duration {
    (first + since).min(longest).mul_f64(0.75 + 0.25 * clamp(unit))
}

/// After refused credentials: 10 minutes, an hour, and `None` once they were refused for more than an hour: the user has to
/// act. `since` is the time since the first refusal in a row.
#[must_use]
pub fn auth(since: Duration, unit: f64) -> Option<Duration> {
    // The second try comes after five minutes at the soonest.
    match since.as_secs() {
        0..300 => Some(jitter(600.0, 600.0, unit)),
        300..3600 => Some(jitter(3600.0, 3600.0, unit)),
        _ => None,
    }
}

/// How long a capability that a host advertises but does not honour stays off for that host.
pub const CAPABILITY_OFF_FOR: Duration = Duration::from_secs(7 * 86_400);

/// Before the next attempt to send: 1, 5, 15, 30 minutes, 1, 2, 4, 8 hours and 8 from there on. `attempt`
/// counts failures so far, from 1. [`SEND_GIVE_UP_AFTER`] ends it.
#[must_use]
pub fn send(attempt: u32, unit: f64) -> Duration {
    const MINUTES: [f64; 8] = [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 240.0, 480.0];
    let at = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    let minutes = MINUTES.get(at).copied().unwrap_or(480.0);
    // Ten per cent either way: enough to spread, little enough that a greylisting server sees its wait.
    Duration::from_secs_f64(minutes * 60.0 * (0.9 + 0.2 * clamp(unit)))
}

/// The same while the cause is the operator's own server, such as a full disk: two minutes at most, so that mail leaves soon
/// after it was mended.
#[must_use]
pub fn send_at_home(attempt: u32, unit: f64) -> Duration {
    const AT_MOST: Duration = Duration::from_secs(120);
    send(attempt, unit).min(AT_MOST)
}

/// When to look in the mailbox for a message whose acceptance is unknown: 1, 5, 15 minutes, 1 hour after
/// the break, then `None`. `search` counts searches done so far, from 0.
#[must_use]
pub fn unknown_search(search: u32) -> Option<Duration> {
    match search {
        0 => Some(Duration::from_secs(60)),
        1 => Some(Duration::from_secs(5 * 60)),
        2 => Some(Duration::from_secs(15 * 60)),
        3 => Some(Duration::from_secs(3600)),
        _ => None,
    }
}

fn clamp(unit: f64) -> f64 {
    if unit.is_nan() { 0.5 } else { unit.clamp(0.0, 1.0) }
}

fn jitter(seconds: f64, cap: f64, unit: f64) -> Duration {
    Duration::from_secs_f64(seconds.min(cap) * (0.5 + 0.5 * clamp(unit)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{auth, bounded, network, send, send_at_home, throttle, unknown_search};

    const NOW: Duration = Duration::ZERO;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// The waits of one that tries again whenever it may, in seconds.
    fn waits(tries: usize, wait: impl Fn(Duration) -> Duration) -> Vec<f64> {
        let next = |since: &mut Duration| {
            let wait = wait(*since);
            *since += wait;
            Some(wait.as_secs_f64())
        };
        std::iter::repeat_n((), tries).scan(NOW, |since, ()| next(since)).collect()
    }

    #[test]
    fn network_trouble_grows_by_half_to_a_minute() {
        assert_eq!(waits(5, |t| network(t, 1.0)), [2.0, 3.0, 4.5, 6.75, 10.125]);
        assert_eq!(network(secs(3600), 1.0), secs(60));
        assert_eq!(network(Duration::MAX, 1.0), secs(60));
        assert_eq!(network(NOW, 0.0), secs(1));
    }

    #[test]
    fn a_limit_of_known_bounds_is_waited_out_within_them() {
        let bounds = (secs(3600), secs(86_400));
        assert_eq!(bounded(NOW, bounds, 1.0), secs(3600));
        assert_eq!(bounded(secs(3600), bounds, 1.0), secs(7200));
        assert_eq!(bounded(secs(1_000_000), bounds, 1.0), secs(86_400));
        assert_eq!(bounded(NOW, bounds, 0.0), secs(2700));
    }

    #[test]
    fn a_throttle_without_a_hint_doubles_to_half_an_hour() {
        assert_eq!(waits(6, |t| throttle(t, None, 1.0)), [60.0, 120.0, 240.0, 480.0, 960.0, 1800.0]);
        assert_eq!(throttle(Duration::MAX, None, 1.0), secs(1800));
    }

    #[test]
    fn a_hint_of_the_server_is_respected_within_reason() {
        assert!(throttle(secs(9), Some(secs(90)), 0.0) >= secs(90));
        assert!(throttle(NOW, Some(Duration::MAX), 1.0) <= secs(86_400 * 2));
    }

    #[test]
    fn refused_credentials_end_with_the_user_after_an_hour_and_not_before() {
        for unit in [0.0, 0.5, 1.0] {
            let first = auth(NOW, unit).unwrap();
            let second = auth(first, unit).unwrap();
            assert!(first <= secs(600) && second >= secs(1800), "{first:?} {second:?}");
        }
        assert_eq!((auth(NOW, 1.0), auth(secs(600), 1.0)), (Some(secs(600)), Some(secs(3600))));
        assert_eq!(auth(secs(4200), 1.0), None);
        assert_eq!(auth(Duration::MAX, 1.0), None);
    }

    #[test]
    fn however_often_somebody_tries_within_moments_nothing_escalates() {
        for ms in [0, 500, 1_000, 2_600] {
            let since = Duration::from_millis(ms);
            assert!(network(since, 1.0) < secs(4));
            assert!(throttle(since, None, 1.0) < secs(63));
            assert_eq!(auth(since, 1.0), Some(secs(600)));
        }
    }

    #[test]
    fn sending_follows_its_table() {
        for (attempt, minutes) in [(0, 1), (1, 1), (2, 5), (3, 15), (4, 30), (5, 60), (8, 480), (50, 480)] {
            assert_eq!(send(attempt, 0.5).as_secs(), minutes * 60, "{attempt}");
        }
        assert!(send(1, f64::NAN) > Duration::ZERO);
        for (attempt, unit) in [(1, 0.0), (2, 1.0), (8, 0.5), (50, 1.0)] {
            assert!(send_at_home(attempt, unit) <= secs(120) && send_at_home(attempt, unit) >= secs(54));
        }
        assert_eq!(unknown_search(4), None);
    }
}
