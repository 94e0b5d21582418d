//! UID STORE: changing flags and keywords, conditionally where the server can (CONDSTORE, RFC 7162 §3.1.3).

use mail::flags::{Flags, Keywords};
use mail::modseq::ModSeq;
use mail::uid::UidSet;

use super::ImapError;
use super::command::{Command, Session, set_chunks};
use super::flags::{FetchedFlags, read_flags};
use super::parse::{Code, Untagged};

const ANSWER_BYTES: u64 = 64 << 20;

/// How the given flags change those that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreMode {
    /// Adds them.
    Add,
    /// Takes them away.
    Remove,
    /// Makes them the only ones.
    Set,
}

/// What came of a STORE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreOutcome {
    /// Left unchanged, because they changed after the given mod-sequence: look at them again.
    pub modified: UidSet,
    /// Flags as they are now, as far as the server said.
    pub results: Vec<FetchedFlags>,
}

impl Session {
    /// Changes flags and keywords of messages in the open mailbox. `unchanged_since` is ignored where
    /// the open mailbox keeps no mod-sequences. UIDs that do not exist any more are silently passed over by the server.
    ///
    /// # Errors
    /// [`ImapError::Refused`] for a keyword that cannot be sent or a NO, any other [`ImapError`]. When the set is
    /// so large that several commands are needed, earlier ones have taken effect.
    pub async fn store(
        &mut self,
        uids: &UidSet,
        mode: StoreMode,
        change: (Flags, &Keywords),
        unchanged_since: Option<ModSeq>,
    ) -> Result<StoreOutcome, ImapError> {
        let flags = flag_list(change.0, change.1)?;
        let sign = match mode {
            StoreMode::Add => "+",
            StoreMode::Remove => "-",
            StoreMode::Set => "",
        };
        let condition = match unchanged_since {
            Some(modseq) if self.has_modseq => format!(" (UNCHANGEDSINCE {modseq})"),
            _ => String::new(),
        };
        let mut outcome = StoreOutcome::default();
        for set in set_chunks(uids) {
            let command = Command::new(format!("UID STORE {set}{condition} {sign}FLAGS {flags}"));
            self.store_one(command, uids, &mut outcome).await?;
        }
        Ok(outcome)
    }

    async fn store_one(
        &mut self,
        command: Command,
        uids: &UidSet,
        outcome: &mut StoreOutcome,
    ) -> Result<(), ImapError> {
        let results = &mut outcome.results;
        let condition = self
            .run_to_condition(command, ANSWER_BYTES, &mut |u| match u {
                Untagged::Fetch(fetch) => match read_flags(&fetch) {
                    Some(flags) if uids.contains(flags.uid) => {
                        // Twice is possible (another client at the same time), endlessly is not.
                        if (results.len() as u64) < 2 * uids.len() {
                            results.push(flags);
                        }
                        None
                    }
                    // Conditional STORE answers `(UID n MODSEQ (m))` without flags: nothing to learn.
                    None if fetch.items.iter().any(|(n, _)| n == "MODSEQ") => None,
                    _ => Some(Untagged::Fetch(fetch)),
                },
                other => Some(other),
            })
            .await?;
        let modified = condition.code.as_ref().and_then(modified);
        match (self.finish(condition), modified) {
            // RFC 7162 §3.1.3: NO with MODIFIED when nothing at all could be stored.
            (Ok(_) | Err(ImapError::Refused { .. }), Some(set)) => {
                outcome.modified = outcome.modified.union(&set);
                Ok(())
            }
            (Ok(_), None) => Ok(()),
            (Err(e), _) => Err(e),
        }
    }
}

/// Flags and keywords as STORE and APPEND take them: `(\Seen $Work)`.
pub(super) fn flag_list(flags: Flags, keywords: &Keywords) -> Result<String, ImapError> {
    if !keywords.iter().all(mail::flags::is_valid_keyword) {
        return Err(ImapError::refused("a keyword that cannot be sent"));
    }
    let names: Vec<&str> = flags.names().into_iter().chain(keywords.iter()).collect();
    Ok(format!("({})", names.join(" ")))
}

fn modified(code: &Code) -> Option<UidSet> {
    let text = std::str::from_utf8(&code.arguments).ok().filter(|_| code.name == "MODIFIED")?;
    UidSet::parse(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use mail::flags::{Flags, Keywords};
    use mail::modseq::ModSeq;
    use mail::uid::UidSet;

    use super::super::ImapError;
    use super::super::script::{commands, session};
    use super::StoreMode;

    #[tokio::test]
    async fn a_conditional_store_tells_what_it_left_alone() {
        let ok = "* 1 FETCH (UID 5 MODSEQ (9) FLAGS (\\Seen))\r\n* 2 FETCH (UID 6 MODSEQ (9))\r\n\
                  $ OK [MODIFIED 7,9] cond\r\n";
        let (mut s, seen) = session(
            "CONDSTORE",
            &["* 9 EXISTS\r\n$ OK\r\n", ok, "$ NO [MODIFIED 7] none\r\n", "$ NO [CANNOT] x\r\n"],
        )
        .await;
        s.select(b"x", None, false).await.unwrap();
        seen.lock().unwrap().clear();
        let (set, words) = (UidSet::parse("5:9").unwrap(), Keywords::from_wire(["Work"]));
        let outcome = s.store(&set, StoreMode::Add, (Flags::SEEN, &words), Some(ModSeq(8))).await.unwrap();
        assert_eq!((outcome.modified.to_string(), outcome.results.len()), ("7,9".to_owned(), 1));
        assert!(s.take_unsolicited().is_empty());
        let outcome = s.store(&set, StoreMode::Remove, (Flags::SEEN, &words), None).await.unwrap();
        assert_eq!(outcome.modified.to_string(), "7");
        let refused = s.store(&set, StoreMode::Set, (Flags::NONE, &Keywords::new()), None).await;
        assert!(matches!(refused, Err(ImapError::Refused { .. })));
        assert_eq!(
            commands(&seen),
            [
                "UID STORE 5:9 (UNCHANGEDSINCE 8) +FLAGS (\\Seen Work)",
                "UID STORE 5:9 -FLAGS (\\Seen Work)",
                "UID STORE 5:9 FLAGS ()",
            ]
        );
    }

    #[tokio::test]
    async fn a_keyword_that_would_break_the_command_is_refused() {
        let (mut s, seen) = session("", &["$ OK\r\n"]).await;
        let words = Keywords::from_wire(["a{9}\"]"]);
        let refused =
            s.store(&UidSet::parse("1").unwrap(), StoreMode::Add, (Flags::NONE, &words), None).await;
        assert!(matches!(refused, Err(ImapError::Refused { .. })) && commands(&seen).is_empty());
    }
}
