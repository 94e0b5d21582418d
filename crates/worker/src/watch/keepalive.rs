//! How often to say something on a connection that is otherwise silent.
//!
//! Servers may end a connection after 30 minutes (RFC 2177), networks forget one without a word after less. Two
//! connections that were lost after about the same silence teach the interval.

use std::time::Duration;

use wire::imap::MAX_IDLE;

/// Not more often than this, whatever seems to have been learnt.
const SHORTEST: Duration = Duration::from_secs(60);

/// The interval of one account.
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    interval: Duration,
    lost_after: Option<Duration>,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: MAX_IDLE, lost_after: None }
    }
}

impl Keepalive {
    /// Time to idle before DONE and IDLE again.
    #[must_use]
    pub const fn interval(self) -> Duration {
        self.interval
    }

    /// A connection was lost after this silence.
    pub fn lost(&mut self, silence: Duration) {
        if silence < SHORTEST {
            return;
        }
        let alike = self.lost_after.is_some_and(|before| before.abs_diff(silence) < silence.max(before) / 5);
        if alike {
            let shorter = silence.min(self.lost_after.unwrap_or(silence));
            self.interval = self.interval.min((shorter * 3 / 4).max(SHORTEST));
        }
        self.lost_after = Some(silence);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Keepalive, MAX_IDLE};

    const fn minutes(n: u64) -> Duration {
        Duration::from_secs(60 * n)
    }

    #[test]
    fn two_losses_after_the_same_silence_teach_the_interval() {
        let mut k = Keepalive::default();
        assert_eq!(k.interval(), MAX_IDLE);
        k.lost(minutes(10));
        assert_eq!(k.interval(), MAX_IDLE, "once is an accident");
        k.lost(minutes(9));
        assert_eq!(k.interval(), minutes(9) * 3 / 4);
    }

    #[test]
    fn losses_without_a_pattern_or_after_no_silence_teach_nothing() {
        let mut k = Keepalive::default();
        for silence in [minutes(3), minutes(20), Duration::from_secs(5), minutes(3), Duration::from_secs(5)] {
            k.lost(silence);
        }
        assert_eq!(k.interval(), MAX_IDLE);
    }
}
