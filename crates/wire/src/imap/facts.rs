//! UID FETCH of size and date: what tells two messages apart without their bytes.

use mail::sync::Facts;
use mail::uid::UidSet;

use super::ImapError;
use super::command::{Command, Session, set_chunks, uid_of};
use super::fetch::parse_date;
use super::flags::find;
use super::parse::{Fetch, Untagged, Value};

const ANSWER_BYTES: u64 = 4 << 20;

impl Session {
    /// RFC822.SIZE and INTERNALDATE of those of `uids` that are there. Servers are known to lie about either.
    ///
    /// # Errors
    /// Any [`ImapError`].
    pub async fn fetch_facts(&mut self, uids: &UidSet) -> Result<Vec<Facts>, ImapError> {
        let mut found = Vec::new();
        for text in set_chunks(uids) {
            let command = Command::new(format!("UID FETCH {text} (UID RFC822.SIZE INTERNALDATE)"));
            self.run_within(command, ANSWER_BYTES, |u| match u {
                Untagged::Fetch(fetch) => match read(&fetch) {
                    Some(facts) if uids.contains(facts.uid) => {
                        found.push(facts);
                        None
                    }
                    _ => Some(Untagged::Fetch(fetch)),
                },
                other => Some(other),
            })
            .await?;
        }
        Ok(found)
    }
}

/// `None` for what is news of flags, or names no UID.
fn read(fetch: &Fetch) -> Option<Facts> {
    let uid = uid_of(find(fetch, "UID")?)?;
    let size = find(fetch, "RFC822.SIZE").and_then(Value::number);
    let date = find(fetch, "INTERNALDATE").and_then(Value::text);
    let date = date.and_then(parse_date).map(|date| date.timestamp());
    (find(fetch, "RFC822.SIZE").is_some() || date.is_some()).then_some(Facts { uid, size, date })
}

#[cfg(test)]
mod tests {
    use mail::sync::Facts;
    use mail::uid::{Uid, UidSet};

    use super::super::script::{commands, session};

    #[tokio::test]
    async fn sizes_and_dates_are_read_of_what_was_asked_for() {
        let answer = "* 1 FETCH (UID 1 RFC822.SIZE 6 INTERNALDATE \" 1-Jan-2026 10:00:00 +0100\")\r\n\
                      * 2 FETCH (INTERNALDATE \"never\" UID 2 RFC822.SIZE NIL)\r\n* 3 FETCH (UID 3 FLAGS (\\Seen))\r\n\
                      * 7 FETCH (UID 7 RFC822.SIZE 6)\r\n* 4 FETCH (RFC822.SIZE 6)\r\n$ OK\r\n";
        let (mut s, seen) = session("", &[answer]).await;
        let facts = |uid, size, date| Facts { uid: Uid::new(uid).unwrap(), size, date };
        let found = s.fetch_facts(&UidSet::parse("1:4").unwrap()).await.unwrap();
        assert_eq!(found, [facts(1, Some(6), Some(1_767_258_000)), facts(2, None, None)]);
        assert_eq!(commands(&seen), ["UID FETCH 1:4 (UID RFC822.SIZE INTERNALDATE)"]);
    }
}
