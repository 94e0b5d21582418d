//! UID COPY, UID MOVE and UID EXPUNGE: the functions that move and remove messages on a server.
//!
//! Nothing else in the program does. A bare EXPUNGE, which would also remove what other clients marked, is
//! never sent: without UIDPLUS a message keeps its `\Deleted` mark.

use mail::uid::{Uid, UidSet, UidValidity, parse_ordered};

use super::ImapError;
use super::command::{Command, Session, set_chunks};
use super::parse::{Code, Condition, Untagged};

/// UIDs in one COPYUID; our sets are bounded by their text, but a range in it is not.
const MAX_COPIED: usize = 1_000_000;

/// Where messages went (RFC 4315 §3): the n-th of `source` is the n-th of `dest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyUid {
    /// Generation of the destination.
    pub uidvalidity: UidValidity,
    /// UIDs in the open mailbox.
    pub source: Vec<Uid>,
    /// UIDs in the destination.
    pub dest: Vec<Uid>,
}

impl CopyUid {
    /// Old and new UID, message by message.
    pub fn pairs(&self) -> impl Iterator<Item = (Uid, Uid)> + '_ {
        self.source.iter().copied().zip(self.dest.iter().copied())
    }
}

impl Session {
    /// Copies messages of the open mailbox to another. `None` when the server does not tell the new UIDs, or
    /// nothing was there to copy.
    ///
    /// # Errors
    /// [`ImapError::NoSuchMailbox`] when the destination does not exist, any other [`ImapError`]. A set so large
    /// that it needs several commands may have been copied in part.
    pub async fn uid_copy(&mut self, uids: &UidSet, wire_name: &[u8]) -> Result<Option<CopyUid>, ImapError> {
        self.transfer("UID COPY", uids, wire_name).await
    }

    /// Moves messages of the open mailbox to another (RFC 6851), only where the server offers MOVE.
    ///
    /// # Errors
    /// [`ImapError::Refused`] without MOVE; otherwise as [`Session::uid_copy`].
    pub async fn uid_move(&mut self, uids: &UidSet, wire_name: &[u8]) -> Result<Option<CopyUid>, ImapError> {
        if !self.capabilities().move_ {
            return Err(ImapError::refused("the server does not offer MOVE"));
        }
        self.transfer("UID MOVE", uids, wire_name).await
    }

    /// Removes for good those of `uids` that are marked `\Deleted` (RFC 4315 §2.1).
    ///
    /// # Errors
    /// [`ImapError::Refused`] without UIDPLUS, any other [`ImapError`].
    pub async fn uid_expunge(&mut self, uids: &UidSet) -> Result<(), ImapError> {
        if !self.capabilities().uidplus {
            return Err(ImapError::refused("the server does not offer UID EXPUNGE"));
        }
        for set in set_chunks(uids) {
            self.run(Command::new(format!("UID EXPUNGE {set}")), Some).await?;
        }
        Ok(())
    }

    async fn transfer(
        &mut self,
        verb: &str,
        uids: &UidSet,
        wire_name: &[u8],
    ) -> Result<Option<CopyUid>, ImapError> {
        let mut all: Option<CopyUid> = None;
        for set in set_chunks(uids) {
            let mut told: Option<CopyUid> = None;
            let command = Command::new(format!("{verb} {set}")).string(wire_name)?;
            let command = command.relying_on((verb == "UID MOVE").then_some("MOVE"));
            // MOVE tells it in an untagged OK, before the EXPUNGEs (RFC 6851 §4.3).
            let done = self
                .run(command, |u| match &u {
                    Untagged::Condition(Condition { code: Some(code), .. }) if code.name == "COPYUID" => {
                        told = read_copyuid(code);
                        None
                    }
                    _ => Some(u),
                })
                .await
                .map_err(super::verdict::as_missing)?;
            let told = done.code.as_ref().and_then(read_copyuid).or(told);
            all = match (all, told) {
                (Some(mut a), Some(b)) if a.uidvalidity == b.uidvalidity => {
                    a.source.extend(b.source);
                    a.dest.extend(b.dest);
                    Some(a)
                }
                (a, b) => b.or(a),
            };
        }
        Ok(all)
    }
}

fn read_copyuid(code: &Code) -> Option<CopyUid> {
    let text = std::str::from_utf8(&code.arguments).ok().filter(|_| code.name == "COPYUID")?;
    let mut words = text.split(' ').filter(|w| !w.is_empty());
    let uidvalidity = UidValidity(words.next()?.parse().ok()?);
    let source = parse_ordered(words.next()?, MAX_COPIED).ok()?;
    let dest = parse_ordered(words.next()?, MAX_COPIED).ok()?;
    (source.len() == dest.len()).then_some(CopyUid { uidvalidity, source, dest })
}

#[cfg(test)]
mod tests {
    use mail::uid::UidSet;

    use super::super::ImapError;
    use super::super::script::{commands, session};

    fn set(text: &str) -> UidSet {
        UidSet::parse(text).unwrap()
    }

    #[tokio::test]
    async fn new_uids_are_paired_in_the_order_they_were_told() {
        let copy = "$ OK [COPYUID 38505 304,319:320 3958,3956:3957] done\r\n";
        let moved = "* OK [COPYUID 4 7 1] moved\r\n* 3 EXPUNGE\r\n$ OK done\r\n";
        let (mut s, _) = session("MOVE", &[copy, moved, "$ OK [COPYUID 4 1:3 5:6] lies\r\n"]).await;
        let told = s.uid_copy(&set("304,319:320"), b"x").await.unwrap().unwrap();
        let pairs: Vec<_> = told.pairs().map(|(a, b)| (a.get(), b.get())).collect();
        assert_eq!(pairs, [(304, 3958), (319, 3956), (320, 3957)]);
        assert_eq!(s.uid_move(&set("7"), b"x").await.unwrap().unwrap().uidvalidity.get(), 4);
        assert_eq!(s.take_unsolicited().expunged, 1);
        assert_eq!(s.uid_copy(&set("1:3"), b"x").await, Ok(None));
    }

    #[tokio::test]
    async fn nothing_is_expunged_or_moved_without_the_extension() {
        let (mut s, seen) = session("", &["$ OK\r\n"]).await;
        assert!(matches!(s.uid_expunge(&set("1")).await, Err(ImapError::Refused { .. })));
        assert!(matches!(s.uid_move(&set("1"), b"x").await, Err(ImapError::Refused { .. })));
        s.restrict(|c| c.uidplus = true);
        s.uid_expunge(&UidSet::new()).await.unwrap();
        assert!(commands(&seen).is_empty(), "an empty set is no command");
    }

    #[tokio::test]
    async fn a_missing_destination_is_named() {
        let (mut s, _) = session("", &["$ NO [TRYCREATE] no such\r\n"]).await;
        assert!(matches!(s.uid_copy(&set("1"), b"x").await, Err(ImapError::NoSuchMailbox(_))));
    }
}
