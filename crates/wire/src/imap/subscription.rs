//! Subscriptions: SUBSCRIBE, UNSUBSCRIBE, and which mailboxes are subscribed to.
//!
//! A subscription belongs to a name, not to a mailbox (RFC 9051 §6.3.7): it neither follows a RENAME nor ends with a
//! DELETE. With LIST-EXTENDED the listing of a round tells subscriptions by the way; see [`Session::list_status`].

use std::collections::HashSet;

use super::ImapError;
use super::command::{Command, Session};
use super::list::{read_list, status_key};
use super::parse::Untagged;

/// Subscriptions beyond this number are not looked at.
const MAX_SUBSCRIPTIONS: usize = 50_000;
/// Nor are those behind so many bytes of names.
const MAX_NAMES_BYTES: usize = 4 << 20;
const ANSWER_BYTES: u64 = 64 << 20;

impl Session {
    /// Subscribes to a mailbox.
    ///
    /// # Errors
    /// Any [`ImapError`].
    pub async fn subscribe(&mut self, wire_name: &[u8]) -> Result<(), ImapError> {
        self.run(Command::new("SUBSCRIBE").string(wire_name)?, Some).await.map(drop)
    }

    /// Ends the subscription of a mailbox.
    ///
    /// # Errors
    /// Any [`ImapError`].
    pub async fn unsubscribe(&mut self, wire_name: &[u8]) -> Result<(), ImapError> {
        self.run(Command::new("UNSUBSCRIBE").string(wire_name)?, Some).await.map(drop)
    }

    /// Names the user subscribed to, with their delimiter; names of mailboxes that are gone may be among them.
    ///
    /// # Errors
    /// Any [`ImapError`].
    pub async fn subscriptions(&mut self) -> Result<Vec<(Vec<u8>, Option<char>)>, ImapError> {
        // IMAP4rev2 has no LSUB (RFC 9051 appendix E).
        let (command, answer) = match self.capabilities().list_extended {
            true => ("LIST (SUBSCRIBED) \"\" \"*\"", "LIST"),
            false => ("LSUB \"\" \"*\"", "LSUB"),
        };
        let (mut names, mut bytes) = (Vec::new(), 0);
        self.run_within(Command::new(command), ANSWER_BYTES, |u| match u {
            Untagged::Data(name, cursor) if name == answer => {
                let found = read_list(cursor).filter(|_| names.len() < MAX_SUBSCRIPTIONS);
                bytes += found.as_ref().map_or(0, |m| m.wire_name.len());
                names.extend(found.filter(|_| bytes <= MAX_NAMES_BYTES).map(|m| (m.wire_name, m.delimiter)));
                None
            }
            other => Some(other),
        })
        .await?;
        Ok(names)
    }

    /// The names of [`Session::subscriptions`], INBOX in capitals; `None` when the server refuses to tell.
    pub(super) async fn subscribed_names(&mut self) -> Result<Option<HashSet<Vec<u8>>>, ImapError> {
        match self.subscriptions().await {
            Ok(names) => Ok(Some(names.iter().map(|(name, _)| status_key(name)).collect())),
            Err(error) if self.is_only_refused(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Subscribes to a mailbox that was just made. A server that refuses keeps it unsubscribed, as the next listing tells.
    ///
    /// # Errors
    /// Any [`ImapError`] but a refusal.
    pub async fn subscribe_new(&mut self, wire_name: &[u8]) -> Result<(), ImapError> {
        let done = self.subscribe(wire_name).await;
        self.unless_refused(done)
    }

    /// Ends the subscription that a DELETE left behind. Some servers have ended it themselves and refuse.
    ///
    /// # Errors
    /// Any [`ImapError`] but a refusal.
    pub async fn unsubscribe_deleted(&mut self, wire_name: &[u8]) -> Result<(), ImapError> {
        let done = self.unsubscribe(wire_name).await;
        self.unless_refused(done)
    }

    /// After a RENAME: what was subscribed at `from` and below it is so at `to`. Doing it again changes nothing.
    ///
    /// # Errors
    /// Any [`ImapError`] but a refusal.
    pub async fn carry_subscriptions(&mut self, from: &[u8], to: &[u8]) -> Result<(), ImapError> {
        let names = match self.subscriptions().await {
            Ok(names) => names,
            Err(error) => return self.unless_refused(Err(error)),
        };
        for (name, delimiter) in names {
            let Some(rest) = name.strip_prefix(from) else { continue };
            let below = rest.first().is_some_and(|b| Some(char::from(*b)) == delimiter);
            if rest.is_empty() || below {
                self.subscribe_new(&[to, rest].concat()).await?;
                self.unsubscribe_deleted(&name).await?;
            }
        }
        Ok(())
    }

    fn unless_refused(&self, done: Result<(), ImapError>) -> Result<(), ImapError> {
        done.or_else(|error| if self.is_only_refused(&error) { Ok(()) } else { Err(error) })
    }

    fn is_only_refused(&self, error: &ImapError) -> bool {
        let refused =
            matches!(error, ImapError::Refused { .. } | ImapError::NoSuchMailbox(_) | ImapError::Protocol(_));
        refused && self.is_usable()
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{commands, session};

    #[tokio::test]
    async fn a_rename_carries_the_subscriptions_of_the_mailbox_and_those_below_it_and_no_others() {
        let lsub = "* LSUB () \"/\" a\r\n* LSUB () \"/\" a/x\r\n* LSUB () \"/\" ab\r\n$ OK\r\n";
        let (mut s, seen) = session("", &[lsub, "$ OK\r\n", "$ OK\r\n", "$ NO no\r\n", "$ OK\r\n"]).await;
        s.carry_subscriptions(b"a", b"b").await.unwrap();
        let wanted = [
            "LSUB \"\" \"*\"",
            "SUBSCRIBE \"b\"",
            "UNSUBSCRIBE \"a\"",
            "SUBSCRIBE \"b/x\"",
            "UNSUBSCRIBE \"a/x\"",
        ];
        assert_eq!(commands(&seen), wanted);
    }

    #[tokio::test]
    async fn a_server_that_refuses_to_tell_subscriptions_is_believed_to_know_nothing_of_them() {
        let list = "* LIST (\\Noselect) \"/\" a\r\n$ OK\r\n";
        let (mut s, _) = session("", &[list, "$ BAD unknown command\r\n"]).await;
        let mut room = super::super::Rooms::new(1 << 20).of(0);
        assert_eq!(s.list_status(&mut room).await.unwrap()[0].subscribed, None);
        let (mut s, seen) = session("LIST-EXTENDED", &["$ NO later\r\n"]).await;
        s.carry_subscriptions(b"a", b"b").await.unwrap();
        assert_eq!(commands(&seen), ["LIST (SUBSCRIBED) \"\" \"*\""]);
    }

    #[tokio::test]
    async fn a_connection_lost_while_subscribing_is_an_error() {
        let (mut s, _) = session("", &[]).await;
        assert!(s.subscribe_new(b"a").await.is_err());
    }
}
