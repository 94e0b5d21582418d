//! When to try again: delays as pure functions of the attempt and a random number.
//!
//! Nobody sleeps here. `unit` is a random number from 0 to 1 (values outside, NaN included, are pulled in);
//! it spreads clients that failed together. A new kind of trouble gets a new function here.

use std::time::Duration;

/// Give up sending after this long in the queue.
pub const SEND_GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 3600);

/// After a refused or broken connection: 2 s growing by half to a minute. Half of it is jitter.
/// `attempt` counts failures so far, from 1.
#[must_use]
pub fn network(attempt: u32, unit: f64) -> Duration {
    jitter(2.0 * 1.5f64.powi(exponent(attempt)), 60.0, unit)
}

/// After a throttle: the server's own hint (held between 1 s and a day) plus up to 10 %, else a minute
/// doubling to half an hour.
#[must_use]
pub fn throttle(attempt: u32, hint: Option<Duration>, unit: f64) -> Duration {
    match hint {
        Some(h) => {
            let h = h.clamp(Duration::from_secs(1), Duration::from_secs(86_400));
            h.mul_f64(1.0 + 0.1 * clamp(unit))
        }
        None => jitter(60.0 * 2f64.powi(exponent(attempt)), 1800.0, unit),
    }
}

/// After refused credentials: 10 minutes, an hour, then `None`: the user has to act.
#[must_use]
pub fn auth(attempt: u32, unit: f64) -> Option<Duration> {
    match attempt {
        0 | 1 => Some(jitter(600.0, 600.0, unit)),
        2 => Some(jitter(3600.0, 3600.0, unit)),
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

fn exponent(attempt: u32) -> i32 {
    i32::try_from(attempt.saturating_sub(1).min(40)).unwrap_or(40)
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

    use super::{auth, network, send, throttle, unknown_search};

    #[test]
    fn network_trouble_grows_to_a_minute() {
        assert_eq!(network(1, 1.0), Duration::from_secs(2));
        assert_eq!(network(2, 1.0), Duration::from_secs(3));
        assert_eq!(network(u32::MAX, 1.0), Duration::from_secs(60));
        assert_eq!(network(1, 0.0), Duration::from_secs(1));
    }

    #[test]
    fn a_hint_of_the_server_is_respected_within_reason() {
        assert!(throttle(9, Some(Duration::from_secs(90)), 0.0) >= Duration::from_secs(90));
        assert!(throttle(1, Some(Duration::MAX), 1.0) <= Duration::from_secs(86_400 * 2));
        assert_eq!(throttle(1, None, 1.0), Duration::from_secs(60));
        assert_eq!(throttle(20, None, 1.0), Duration::from_secs(1800));
    }

    #[test]
    fn refused_credentials_end_with_the_user() {
        assert_eq!(auth(1, 1.0), Some(Duration::from_secs(600)));
        assert_eq!(auth(2, 1.0), Some(Duration::from_secs(3600)));
        assert_eq!(auth(3, 1.0), None);
    }

    #[test]
    fn sending_follows_its_table() {
        for (attempt, minutes) in [(0, 1), (1, 1), (2, 5), (3, 15), (4, 30), (5, 60), (8, 480), (50, 480)] {
            assert_eq!(send(attempt, 0.5).as_secs(), minutes * 60, "{attempt}");
        }
        assert!(send(1, f64::NAN) > Duration::ZERO);
        assert_eq!(unknown_search(4), None);
    }
}
