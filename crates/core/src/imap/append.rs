//! APPEND: putting a message into a mailbox.

use bytes::Bytes;
use chrono::{DateTime, FixedOffset};
use mail::flags::{Flags, Keywords};
use mail::uid::{Uid, UidValidity};

use super::ImapError;
use super::command::{Command, Session, flag_list};
use super::parse::Code;

impl Session {
    /// Stores a message. `None` when the server does not tell where (no UIDPLUS): look for its Message-ID. The
    /// bytes go out in a literal that the server must accept first, unless it allows otherwise: a refused
    /// message must never be read as commands.
    ///
    /// # Errors
    /// [`ImapError::NoSuchMailbox`] for TRYCREATE, [`ImapError::Refused`] (`OVERQUOTA`, `TOOBIG`, …), any other
    /// [`ImapError`]. After [`ImapError::Closed`] or [`ImapError::Timeout`] it may or may not be stored.
    pub async fn append(
        &mut self,
        wire_name: &[u8],
        flags: (Flags, &Keywords),
        internal_date: Option<DateTime<FixedOffset>>,
        message: Bytes,
    ) -> Result<Option<(UidValidity, Uid)>, ImapError> {
        let flags = flag_list(flags.0, flags.1)?;
        let mut command = Command::new("APPEND").string(wire_name)?.text(" ").text(&flags);
        if let Some(date) = internal_date {
            command = command.text(&format!(" \"{}\"", date.format("%e-%b-%Y %H:%M:%S %z")));
        }
        let done = self.run(command.literal(message), Some).await.map_err(super::select::as_missing)?;
        Ok(done.code.as_ref().and_then(read_appenduid))
    }
}

fn read_appenduid(code: &Code) -> Option<(UidValidity, Uid)> {
    let text = std::str::from_utf8(&code.arguments).ok().filter(|_| code.name == "APPENDUID")?;
    let (uidvalidity, uid) = text.trim().split_once(' ')?;
    Some((UidValidity(uidvalidity.parse().ok()?), Uid::new(uid.trim().parse().ok()?)?))
}
