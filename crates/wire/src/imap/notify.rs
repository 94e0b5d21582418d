//! NOTIFY (RFC 5465): news of all mailboxes on one connection.

use super::ImapError;
use super::command::{Command, Session};

/// Everything that makes a round worth while. FlagChange elsewhere is told by HIGHESTMODSEQ (RFC 5465 §5.3), which needs
/// CONDSTORE.
const MESSAGES: &str = "MessageNew MessageExpunge";
const FLAGS: &str = " FlagChange";
const TREE: &str = " MailboxName SubscriptionChange";

impl Session {
    /// Has the server tell news of the open mailbox and of all others of the user, here and in [`Session::idle`]. News
    /// of the others is [`Unsolicited::elsewhere`](super::Unsolicited::elsewhere): where and what is found by listing.
    ///
    /// Dovecot 2.3.19 tells of other mailboxes in IDLE or behind the next command, 0.5 s after the event.
    ///
    /// # Errors
    /// [`ImapError::Refused`] when the server does not offer it or not for these events; any other [`ImapError`].
    pub async fn notify_all(&mut self) -> Result<(), ImapError> {
        if !self.capabilities.notify {
            return Err(ImapError::refused("the server does not offer NOTIFY"));
        }
        let flags = if self.capabilities.condstore { FLAGS } else { "" };
        let events = format!("(selected ({MESSAGES} FlagChange)) (personal ({MESSAGES}{flags}{TREE}))");
        let command = Command::new(format!("NOTIFY SET {events}")).relying_on(Some("NOTIFY"));
        self.run(command, Some).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use super::super::script::{commands, is_protocol, session};
    use super::super::{IdleEnd, ImapError};

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn news_of_another_mailbox_ends_the_wait() {
        for told in ["* STATUS Sent (MESSAGES 3 UIDNEXT 9)\r\n", "* LIST () \"/\" New\r\n"] {
            let idle = format!("+ idling\r\n{told}");
            let (mut s, seen) = session("IDLE NOTIFY CONDSTORE", &["$ OK\r\n", &idle, "$ OK\r\n"]).await;
            s.notify_all().await.unwrap();
            assert_eq!(s.idle(LONG, pending()).await, Ok(IdleEnd::News));
            let news = s.take_unsolicited();
            assert!(news.elsewhere && news.exists.is_none());
            assert!(
                commands(&seen)[0].contains("(personal (MessageNew MessageExpunge FlagChange MailboxName")
            );
        }
    }

    #[tokio::test]
    async fn a_server_that_offers_it_and_answers_bad_is_not_asked_again() {
        let (mut s, _) =
            session("IDLE NOTIFY", &["$ BAD what\r\n", "$ NO [BADEVENT (MessageNew)] no\r\n"]).await;
        assert!(is_protocol(&s.notify_all().await));
        assert_eq!(s.take_broken_promise(), Some("NOTIFY"));
        assert!(matches!(s.notify_all().await, Err(ImapError::Refused { .. })));
        let (mut s, _) = session("NOTIFY", &["$ NO [BADEVENT (MessageNew)] no\r\n"]).await;
        assert!(matches!(s.notify_all().await, Err(ImapError::Refused { .. })));
        assert_eq!(s.take_broken_promise(), None, "these events only");
    }
}
