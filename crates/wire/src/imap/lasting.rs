//! Ids that a message keeps in every mailbox (X-GM-MSGID and X-GM-THRID of Gmail's IMAP extensions): by them it is known
//! before its bytes are fetched.

use mail::uid::UidSet;

use super::ImapError;
use super::command::{Command, Session, set_chunks, uid_of};
use super::fetch::{FetchedMessage, read_facts};
use super::flags::find;
use super::parse::{Fetch, Untagged, Value};

/// What is asked for along with the bytes.
pub(super) const ITEMS: &str = " X-GM-MSGID X-GM-THRID";
/// A line of these is some 200 bytes.
const ANSWER_BYTES: u64 = 512 << 20;

/// What a message is called in every mailbox of the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LastingIds {
    /// Its own (X-GM-MSGID).
    pub message: u64,
    /// Its conversation's (X-GM-THRID).
    pub thread: u64,
}

impl Session {
    /// Whether the server tells ids that a message keeps in every mailbox.
    #[must_use]
    pub const fn tells_ids(&self) -> bool {
        self.capabilities.gmail && self.has_ids
    }

    /// Everything about messages of the open mailbox but their bytes, each handed to `sink` as it comes. Those of which the
    /// server tells no ids are left out. Only where it tells them ([`Session::tells_ids`]).
    ///
    /// # Errors
    /// Any [`ImapError`]; then what `sink` saw is true but may be incomplete.
    pub async fn fetch_ids(
        &mut self,
        uids: &UidSet,
        mut sink: impl FnMut(FetchedMessage),
    ) -> Result<(), ImapError> {
        let mut missing = uids.clone();
        for set in set_chunks(uids) {
            let modseq = if self.has_modseq { " MODSEQ" } else { "" };
            let command = format!("UID FETCH {set} (UID FLAGS INTERNALDATE RFC822.SIZE{modseq}{ITEMS})");
            self.run_within(Command::new(command), ANSWER_BYTES, |u| {
                let Untagged::Fetch(fetch) = u else { return Some(u) };
                let known = find(&fetch, "FLAGS").is_some() && read_ids(&fetch).is_some();
                let uid = find(&fetch, "UID").and_then(uid_of).filter(|_| known);
                // Once each: what comes again, or unasked, is news.
                if !uid.is_some_and(|uid| missing.remove(uid)) {
                    return Some(Untagged::Fetch(fetch));
                }
                if let Some(message) = read_facts(&fetch) {
                    sink(message);
                }
                None
            })
            .await?;
        }
        Ok(())
    }
}

/// Both of them, or nothing.
pub(super) fn read_ids(fetch: &Fetch) -> Option<LastingIds> {
    let of = |name| find(fetch, name).and_then(Value::number).filter(|id| *id != 0);
    Some(LastingIds { message: of("X-GM-MSGID")?, thread: of("X-GM-THRID")? })
}

#[cfg(test)]
mod tests {
    use mail::uid::UidSet;
    use tokio::sync::mpsc;

    use super::super::script::{commands, session};
    use super::super::{FetchEvent, MemoryBudget};
    use super::LastingIds;

    fn set(text: &str) -> UidSet {
        UidSet::parse(text).unwrap()
    }

    #[tokio::test]
    async fn ids_come_with_the_facts_and_only_whole_once_and_asked_for() {
        let answer = "* 1 FETCH (X-GM-THRID 18446744073709551615 X-GM-MSGID 1278455344230334865 UID 1 RFC822.SIZE 9 FLAGS (\\Seen) INTERNALDATE \" 1-Jan-2026 10:00:00 +0100\")\r\n\
                      * 1 FETCH (X-GM-THRID 3 X-GM-MSGID 4 UID 1 RFC822.SIZE 8 FLAGS ())\r\n\
                      * 2 FETCH (UID 2 X-GM-MSGID 7 FLAGS ())\r\n* 3 FETCH (UID 3 X-GM-THRID x X-GM-MSGID 7 FLAGS ())\r\n\
                      * 4 FETCH (UID 4 X-GM-THRID 7 X-GM-MSGID 0 FLAGS ())\r\n* 9 FETCH (UID 9 X-GM-THRID 7 X-GM-MSGID 8 FLAGS ())\r\n$ OK\r\n";
        let (mut s, seen) = session("X-GM-EXT-1", &[answer]).await;
        let mut met = Vec::new();
        s.fetch_ids(&set("1:5"), |m| met.push((m.uid.get(), m.ids, m.size))).await.unwrap();
        let ids = LastingIds { message: 1_278_455_344_230_334_865, thread: u64::MAX };
        assert_eq!(met, [(1, Some(ids), Some(9))]);
        assert!(commands(&seen)[0].ends_with("RFC822.SIZE X-GM-MSGID X-GM-THRID)"), "{:?}", commands(&seen));
    }

    #[tokio::test]
    async fn messages_come_without_ids_where_those_are_offered_and_not_understood() {
        let answers =
            ["$ BAD Could not parse command\r\n", "* 1 FETCH (UID 1 FLAGS () BODY[] \"x\")\r\n$ OK\r\n"];
        let (mut s, seen) = session("X-GM-EXT-1", &answers).await;
        let (sender, mut receiver) = mpsc::channel(9);
        s.fetch_bodies([set("1")], &MemoryBudget::new(9), &sender).await.unwrap();
        let Some(FetchEvent::Message(message)) = receiver.recv().await else { panic!("no message") };
        assert_eq!((message.ids, s.tells_ids(), s.capabilities().gmail), (None, false, true));
        assert!(!commands(&seen)[1].contains("X-GM"), "{:?}", commands(&seen));
    }
}
