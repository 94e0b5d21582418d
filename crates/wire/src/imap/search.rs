//! UID SEARCH: which messages there are.
//!
//! Its result decides over deletions, so an answer without the line that carries the result is an error, never
//! an empty mailbox.

use mail::uid::{Uid, UidSet};

use super::ImapError;
use super::command::{Command, Session, uid_of};
use super::parse::{Cursor, Untagged};
use super::unsolicited::Gone;

const ANSWER_BYTES: u64 = 64 << 20;

impl Session {
    /// The UIDs of all messages of the open mailbox that the server has already announced (NOOP first to have it
    /// look).
    ///
    /// # Errors
    /// [`ImapError::Protocol`] when the answer lacks its result; any other [`ImapError`].
    pub async fn uid_search_all(&mut self) -> Result<UidSet, ImapError> {
        if self.capabilities().esearch {
            let found = self.search(Command::new("UID SEARCH RETURN (ALL) ALL")).await;
            if !self.lacks(&found) {
                return found;
            }
            self.capabilities.esearch = false;
        }
        self.search(Command::new("UID SEARCH ALL")).await
    }

    /// The UIDs from `first` on, of messages that the server has already announced.
    ///
    /// # Errors
    /// As for [`Session::uid_search_all`].
    pub async fn uid_search_from(&mut self, first: Uid) -> Result<UidSet, ImapError> {
        // `n:*` names the newest message even when it is older.
        let found = self.search(Command::new(format!("UID SEARCH UID {first}:*"))).await?;
        Ok(found.intersection(&UidSet::range(first, Uid::MAX)))
    }

    /// The UIDs by a second, independent query: a plain SEARCH over UIDs. What deletes many rows asks both.
    ///
    /// # Errors
    /// As for [`Session::uid_search_all`].
    pub async fn uid_search_all_again(&mut self) -> Result<UidSet, ImapError> {
        self.search(Command::new("UID SEARCH UID 1:*")).await
    }

    /// Messages whose Message-ID header contains `message_id`: to find our own copy after an APPEND without
    /// APPENDUID. Servers match substrings; the caller compares what it then fetches.
    ///
    /// # Errors
    /// As for [`Session::uid_search_all`]; [`ImapError::Refused`] for line ends in the argument.
    pub async fn uid_search_header(&mut self, message_id: &str) -> Result<UidSet, ImapError> {
        let command = Command::new("UID SEARCH HEADER Message-ID").string(message_id.as_bytes())?;
        self.search(command).await
    }

    async fn search(&mut self, command: Command) -> Result<UidSet, ImapError> {
        let (mut found, mut answered, mut readable) = (Gone::default(), false, true);
        self.run_within(command, ANSWER_BYTES, |u| match u {
            Untagged::Data(name, cursor) if name == "SEARCH" => {
                answered = true;
                readable &= read_search(cursor).is_some_and(|set| found.absorb(&set));
                None
            }
            Untagged::Data(name, cursor) if name == "ESEARCH" => {
                answered = true;
                readable &= read_esearch(cursor).is_some_and(|set| found.absorb(&set));
                None
            }
            other => Some(other),
        })
        .await?;
        match (answered, readable) {
            (true, true) => Ok(found.set),
            (true, false) => Err(ImapError::protocol("an unreadable search result")),
            (false, _) => Err(ImapError::protocol("the answer to SEARCH lacks its result")),
        }
    }
}

/// `SEARCH n n n [(MODSEQ n)]`; some servers split a long one over several lines.
fn read_search(mut cursor: Cursor) -> Option<UidSet> {
    let mut uids: Vec<Uid> = Vec::new();
    while let Some(value) = cursor.value() {
        if value.list().is_some() {
            continue;
        }
        uids.push(uid_of(&value)?);
    }
    if !cursor.rest().iter().all(|b| *b == b' ') {
        return None;
    }
    uids.sort_unstable();
    Some(uids.into_iter().collect())
}

/// `ESEARCH [(TAG "x")] [UID] *(name value)`; without ALL there is no match.
fn read_esearch(mut cursor: Cursor) -> Option<UidSet> {
    let mut all = UidSet::new();
    let mut count = None;
    while let Some(name) = cursor.value() {
        let Some(name) = name.text().map(str::to_ascii_uppercase) else { continue };
        if name == "UID" {
            continue;
        }
        let value = cursor.value()?;
        match name.as_str() {
            "ALL" => all = UidSet::parse(value.text()?).ok()?,
            "COUNT" => count = value.number(),
            _ => {}
        }
    }
    count.is_none_or(|c| c == all.len()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::super::ImapError;
    use super::super::script::{is_protocol, session};

    #[tokio::test]
    async fn a_tagged_no_is_an_error_and_not_an_empty_mailbox() {
        let (mut s, _) =
            session("", &["$ NO [LIMIT] slow down\r\n", "$ NO never\r\n", "$ BAD what\r\n"]).await;
        assert!(matches!(s.uid_search_all().await, Err(ImapError::Throttled { .. })));
        assert!(matches!(s.uid_search_all().await, Err(ImapError::Refused { .. })));
        assert!(is_protocol(&s.uid_search_all().await));
        assert!(s.is_usable());
    }

    #[tokio::test]
    async fn the_newest_message_is_not_new_when_it_is_below_what_was_asked_for() {
        let (mut s, seen) = session("", &["* SEARCH 7\r\n$ OK\r\n", "* SEARCH 9 8\r\n$ OK\r\n"]).await;
        let first = mail::uid::Uid::new(8).unwrap();
        assert!(s.uid_search_from(first).await.unwrap().is_empty());
        assert_eq!(s.uid_search_from(first).await.unwrap().to_string(), "8:9");
        assert_eq!(super::super::script::commands(&seen)[0], "UID SEARCH UID 8:*");
    }

    #[tokio::test]
    async fn an_ok_without_a_result_is_an_error() {
        let (mut s, _) = session("", &["$ OK done\r\n", "* SEARCH\r\n$ OK done\r\n"]).await;
        assert!(is_protocol(&s.uid_search_all().await));
        assert!(s.uid_search_all().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn results_of_both_kinds_are_read() {
        let answers = [
            "* ESEARCH (TAG \"A3\") UID ALL 1:3,9 COUNT 4\r\n$ OK\r\n",
            "* SEARCH 4 2 3 (MODSEQ 917)\r\n* SEARCH 9\r\n$ OK\r\n",
            "* ESEARCH (TAG \"A5\") UID\r\n$ OK\r\n",
            "* ESEARCH (TAG \"A5\") UID ALL 1:3 COUNT 9\r\n$ OK\r\n",
            "* SEARCH 1 x 3\r\n$ OK\r\n",
        ];
        let (mut s, seen) = session("ESEARCH", &answers).await;
        assert_eq!(s.uid_search_all().await.unwrap().to_string(), "1:3,9");
        assert_eq!(s.uid_search_header("<a@b>").await.unwrap().to_string(), "2:4,9");
        assert!(s.uid_search_all().await.unwrap().is_empty());
        // What cannot be is asked for again without the extension.
        assert!(is_protocol(&s.uid_search_all().await));
        assert_eq!(seen.lock().unwrap().last().unwrap(), "A6 UID SEARCH ALL");
        assert_eq!(seen.lock().unwrap()[1], "A3 UID SEARCH HEADER Message-ID \"<a@b>\"");
    }

    #[tokio::test]
    async fn a_line_end_in_a_search_text_is_refused() {
        let (mut s, _) = session("", &[]).await;
        let refused = s.uid_search_header("x\r\nA9 DELETE INBOX").await;
        assert!(matches!(refused, Err(ImapError::Refused { .. })));
    }

    #[tokio::test]
    async fn a_million_numbers_fit_on_a_search_line() {
        let mut line = String::from("* SEARCH");
        (1..=1_000_000u32).for_each(|n| line.push_str(&format!(" {}", n * 2)));
        line.push_str("\r\n$ OK\r\n");
        let (mut s, _) = session("", &[&line]).await;
        assert_eq!(s.uid_search_all().await.unwrap().len(), 1_000_000);
    }
}
