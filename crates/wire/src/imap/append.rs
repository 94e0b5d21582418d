//! APPEND: putting a message into a mailbox.

use bytes::Bytes;
use chrono::{DateTime, FixedOffset};
use mail::capabilities::AppendLimit;
use mail::flags::{Flags, Keywords};
use mail::uid::{Uid, UidValidity};

use super::ImapError;
use super::command::{Command, Session};
use super::parse::Code;
use super::store::flag_list;

impl Session {
    /// Stores a message. `None` when the server does not tell where (no UIDPLUS): look for its Message-ID. The
    /// bytes go out in a literal that the server must accept first, unless it allows otherwise: a refused
    /// message must never be read as commands.
    ///
    /// # Errors
    /// [`ImapError::NoSuchMailbox`] for TRYCREATE, [`ImapError::Refused`] (`OVERQUOTA`, `TOOBIG`, the latter without
    /// asking where the server told its APPENDLIMIT, …), any other [`ImapError`]. After [`ImapError::Closed`] or [`ImapError::Timeout`] it may or may not be stored.
    pub async fn append(
        &mut self,
        wire_name: &[u8],
        flags: (Flags, &Keywords),
        internal_date: Option<DateTime<FixedOffset>>,
        message: Bytes,
    ) -> Result<Option<(UidValidity, Uid)>, ImapError> {
        if let AppendLimit::Bytes(most) = self.capabilities().append_limit
            && message.len() as u64 > most
        {
            let text = format!("the server takes messages of up to {most} bytes");
            return Err(ImapError::Refused { code: Some("TOOBIG".to_owned()), text });
        }
        let flags = flag_list(flags.0, flags.1)?;
        let mut command = Command::new("APPEND").string(wire_name)?.text(" ").text(&flags);
        if let Some(date) = internal_date {
            command = command.text(&format!(" \"{}\"", date.format("%e-%b-%Y %H:%M:%S %z")));
        }
        let done = self.run(command.literal(message), Some).await.map_err(super::verdict::as_missing)?;
        Ok(done.code.as_ref().and_then(read_appenduid))
    }
}

fn read_appenduid(code: &Code) -> Option<(UidValidity, Uid)> {
    let text = std::str::from_utf8(&code.arguments).ok().filter(|_| code.name == "APPENDUID")?;
    let (uidvalidity, uid) = text.trim().split_once(' ')?;
    Some((UidValidity(uidvalidity.parse().ok()?), Uid::new(uid.trim().parse().ok()?)?))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::DateTime;
    use mail::flags::{Flags, Keywords};

    use super::super::ImapError;
    use super::super::script::{commands, session};

    #[tokio::test]
    async fn a_message_goes_out_after_the_go_ahead_and_its_place_is_told() {
        let (mut s, seen) = session("UIDPLUS", &["+ go\r\n", "$ OK [APPENDUID 3 9] done\r\n", ""]).await;
        let date = DateTime::parse_from_rfc3339("2026-01-02T03:04:05+01:00").unwrap();
        let (none, hi) = (Keywords::new(), Bytes::from_static(b"Hi\r\n"));
        let place = s.append(b"Sent", (Flags::SEEN, &none), Some(date), hi).await;
        let (validity, uid) = place.unwrap().unwrap();
        assert_eq!((validity.get(), uid.get()), (3, 9));
        assert_eq!(commands(&seen)[0], "APPEND \"Sent\" (\\Seen) \" 2-Jan-2026 03:04:05 +0100\" {4}");
    }

    #[tokio::test]
    async fn a_refusal_comes_before_the_message_leaves() {
        let answers = ["$ NO [OVERQUOTA] full\r\n", "$ NO [TRYCREATE] none\r\n", "$ OK\r\n"];
        let (mut s, seen) = session("LITERAL-", &answers).await;
        let big = Bytes::from("x".repeat(5000));
        let none = Keywords::new();
        let full = s.append(b"a", (Flags::NONE, &none), None, big.clone()).await;
        assert!(matches!(full, Err(ImapError::Refused { code: Some(c), .. }) if c == "OVERQUOTA"));
        assert!(matches!(
            s.append(b"a", (Flags::NONE, &none), None, big).await,
            Err(ImapError::NoSuchMailbox(_))
        ));
        s.noop().await.unwrap();
        assert_eq!(commands(&seen), ["APPEND \"a\" () {5000}", "APPEND \"a\" () {5000}", "NOOP"]);
    }
}
