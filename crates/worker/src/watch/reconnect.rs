//! When to connect again, by what went wrong. Nobody sleeps here.

use std::time::Duration;

use emailclient_core::connect::oauth::GrantError;
use emailclient_core::sync::driver::SyncError;
use mail::backoff;
use wire::imap::{ImapError, Limit};

/// A connection that lasted so long was a good one: what comes after it is a first failure.
const GOOD: Duration = Duration::from_secs(60);
/// After so many failures in a row a round is asked for, which tells the user what is the matter.
const TELL_AFTER: u32 = 3;

/// Where as much was read as the provider allows: the first wait and the longest.
const VOLUME: (Duration, Duration) = (Duration::from_secs(1800), Duration::from_secs(4 * 3600));

/// Failures in a row of one account's watch.
#[derive(Debug, Default)]
pub struct Reconnect {
    failures: u32,
    /// What has passed since the first of them: connections and waits.
    since: Duration,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// Time before the next attempt.
    pub wait: Duration,
    /// A round is due now: it meets the same trouble and records it at the account.
    pub round: bool,
}

impl Reconnect {
    /// After a connection that lasted `lasted` and ended in `error`; `unit` is a random number from 0 to 1.
    pub fn after(&mut self, lasted: Duration, error: &SyncError, unit: f64) -> Next {
        if lasted >= GOOD {
            *self = Self::default();
        }
        if self.failures > 0 {
            self.since = self.since.saturating_add(lasted);
        }
        self.failures = self.failures.saturating_add(1);
        let tell = self.failures == TELL_AFTER;
        let next = match error {
            // The round tells it, and the account's own wait says when.
            SyncError::Imap(error) if error.limit() == Some(Limit::Volume) => {
                Next { wait: backoff::bounded(self.since, VOLUME, unit), round: self.failures == 1 }
            }
            SyncError::Imap(ImapError::Throttled { retry_after, .. }) => {
                Next { wait: backoff::throttle(self.since, *retry_after, unit), round: tell }
            }
            // The round makes the account `needs_reauth`, and then it is nobody's to watch.
            SyncError::Imap(ImapError::AuthRejected { .. })
            | SyncError::Credentials(_)
            | SyncError::Grant(GrantError::Refused(_) | GrantError::Gone | GrantError::Seal(_)) => {
                Next { wait: backoff::auth(Duration::ZERO, unit).unwrap_or(GOOD), round: self.failures == 1 }
            }
            // No IDLE, no INBOX, no permission: the rounds that are due anyway bring the mail meanwhile.
            SyncError::Imap(
                ImapError::Refused { .. }
                | ImapError::Protocol(_)
                | ImapError::NoSuchMailbox(_)
                | ImapError::NotAllowed(_),
            )
            | SyncError::NoSuchAccount => {
                Next { wait: backoff::throttle(self.since, None, unit), round: false }
            }
            _ => Next { wait: backoff::network(self.since, unit), round: tell },
        };
        self.since = self.since.saturating_add(next.wait);
        next
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use emailclient_core::sync::driver::SyncError;
    use wire::imap::ImapError;

    use super::{Next, Reconnect};

    const SHORT: Duration = Duration::from_secs(1);

    #[test]
    fn a_broken_line_is_tried_again_soon_and_told_after_three_failures() {
        let mut r = Reconnect::default();
        let mut next = |lasted| r.after(lasted, &SyncError::Imap(ImapError::Timeout), 1.0);
        assert_eq!(next(SHORT), Next { wait: Duration::from_secs(2), round: false });
        let and_a_second = Duration::from_millis(3_500);
        assert_eq!(next(SHORT), Next { wait: and_a_second, round: false });
        assert!(next(SHORT).round);
        for _ in 0..20 {
            assert!(!next(SHORT).round);
        }
        assert_eq!(next(SHORT).wait, Duration::from_secs(60));
        let after_a_good_one = next(Duration::from_secs(61));
        assert_eq!(after_a_good_one.wait, Duration::from_secs(2));
    }

    #[test]
    fn a_server_that_asks_for_patience_gets_it() {
        let throttled = |hint| {
            SyncError::Imap(ImapError::Throttled { retry_after: hint, code: None, text: String::new() })
        };
        let mut r = Reconnect::default();
        assert!(
            r.after(SHORT, &throttled(Some(Duration::from_secs(300))), 0.0).wait >= Duration::from_secs(300)
        );
        assert!(
            r.after(SHORT, &throttled(None), 1.0).wait >= Duration::from_secs(300),
            "no sooner than it said"
        );
        assert_eq!(Reconnect::default().after(SHORT, &throttled(None), 1.0).wait, Duration::from_secs(60));
    }

    #[test]
    fn a_mailbox_that_was_read_as_much_as_it_may_be_is_left_alone_for_long() {
        let text = "Account exceeded command or bandwidth limits.".to_owned();
        let error =
            SyncError::Imap(ImapError::Throttled { retry_after: None, code: Some("OVERQUOTA".into()), text });
        let mut r = Reconnect::default();
        let first = r.after(SHORT, &error, 1.0);
        assert!(first.round && first.wait >= Duration::from_secs(1800), "{first:?}");
        assert!(!r.after(SHORT, &error, 1.0).round);
    }

    #[test]
    fn refused_credentials_are_told_at_once_and_not_tried_on() {
        let mut r = Reconnect::default();
        let refused =
            SyncError::Imap(ImapError::AuthRejected { code: None, text: String::new(), refusal: None });
        let first = r.after(SHORT, &refused, 0.5);
        assert!(first.round && first.wait >= Duration::from_secs(300));
        assert!(!r.after(SHORT, &refused, 0.5).round);
    }

    #[test]
    fn a_server_without_idle_is_left_to_the_rounds() {
        let mut r = Reconnect::default();
        let refused = SyncError::Imap(ImapError::Refused { code: None, text: String::new() });
        let next = r.after(SHORT, &refused, 1.0);
        assert!(!next.round && next.wait >= Duration::from_secs(60));
    }
}
