//! UID FETCH of flags, one by one to a closure: a million of them must not stand in memory.

use std::collections::VecDeque;

use mail::flags::{Flags, Keywords, parse_flag_list};
use mail::modseq::ModSeq;
use mail::uid::{Uid, UidSet};

use super::ImapError;
use super::command::{Command, Session, set_chunks, uid_of};
use super::parse::{Fetch, Untagged, Value};
use super::unsolicited::{Gone, read_vanished};

/// A flags line is some 60 bytes; this is eight million of them.
const FLAGS_ANSWER_BYTES: u64 = 512 << 20;

/// Flags of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedFlags {
    /// Which message.
    pub uid: Uid,
    /// System flags.
    pub flags: Flags,
    /// Keywords.
    pub keywords: Keywords,
    /// Its mod-sequence, where the server keeps them.
    pub modseq: Option<ModSeq>,
}

/// Which messages.
#[derive(Clone, Copy, Debug)]
pub enum Uids<'a> {
    /// All.
    All,
    /// From this UID on. (`n:*` names the last message even when it is below `n`; such an answer is dropped.)
    From(Uid),
    /// These.
    Set(&'a UidSet),
}

impl Uids<'_> {
    fn texts(self) -> Vec<String> {
        match self {
            Self::All => vec!["1:*".to_owned()],
            Self::From(uid) => vec![format!("{uid}:*")],
            Self::Set(set) => set_chunks(set),
        }
    }

    fn contains(self, uid: Uid) -> bool {
        match self {
            Self::All => true,
            Self::From(first) => uid >= first,
            Self::Set(set) => set.contains(uid),
        }
    }
}

/// Only what changed after a mod-sequence (CONDSTORE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedSince {
    /// The mod-sequence we know.
    pub modseq: ModSeq,
    /// Also tell what is gone; only after QRESYNC was enabled (RFC 7162 §3.2.6), ignored otherwise.
    pub vanished: bool,
}

impl Session {
    /// Flags of messages, each handed to `sink` as it comes; returns the UIDs that are gone, where asked for.
    ///
    /// # Errors
    /// Any [`ImapError`]; then what `sink` saw is true but may be incomplete.
    pub async fn fetch_flags(
        &mut self,
        uids: Uids<'_>,
        since: Option<ChangedSince>,
        mut sink: impl FnMut(FetchedFlags),
    ) -> Result<UidSet, ImapError> {
        let relies_on = since.map(|s| match s.vanished && self.qresync_enabled {
            true => "QRESYNC",
            false => "CONDSTORE",
        });
        let modifier = match since {
            Some(s) if s.vanished && self.qresync_enabled => format!(" (CHANGEDSINCE {} VANISHED)", s.modseq),
            Some(s) => format!(" (CHANGEDSINCE {})", s.modseq),
            None => String::new(),
        };
        let (mut gone, mut too_many) = (Gone::default(), false);
        let mut texts: VecDeque<String> = uids.texts().into();
        while let Some(text) = texts.pop_front() {
            // CHANGEDSINCE implies it.
            let modseq = if self.has_modseq && since.is_none() { " MODSEQ" } else { "" };
            let command = Command::new(format!("UID FETCH {text} (UID FLAGS{modseq}){modifier}"));
            let command = command.relying_on(relies_on);
            let done = self.run_within(command, FLAGS_ANSWER_BYTES, |u| match u {
                Untagged::Fetch(fetch) => match read_flags(&fetch) {
                    Some(flags) if uids.contains(flags.uid) => {
                        sink(flags);
                        None
                    }
                    _ => Some(Untagged::Fetch(fetch)),
                },
                Untagged::Data(name, cursor) if name == "VANISHED" => match read_vanished(cursor.clone()) {
                    (true, set) => {
                        too_many |= !gone.absorb(&set);
                        None
                    }
                    (false, _) => Some(Untagged::Data(name, cursor)),
                },
                other => Some(other),
            });
            let done = done.await;
            if self.lacks(&done) && !modseq.is_empty() {
                self.has_modseq = false;
                texts.push_front(text);
                continue;
            }
            done?;
        }
        if too_many {
            Err(ImapError::protocol("more expunged messages than can be real"))
        } else {
            Ok(gone.set)
        }
    }
}

pub(super) fn find<'a>(fetch: &'a Fetch, name: &str) -> Option<&'a Value> {
    fetch.items.iter().find(|(n, _)| n == name).map(|(_, v)| v)
}

/// The flags of a FETCH response; `None` without a UID or without flags.
pub(super) fn read_flags(fetch: &Fetch) -> Option<FetchedFlags> {
    let uid = uid_of(find(fetch, "UID")?)?;
    let names: Vec<std::borrow::Cow<'_, str>> = find(fetch, "FLAGS")?
        .list()?
        .iter()
        .filter_map(|v| v.bytes())
        .map(|b| String::from_utf8_lossy(b))
        .collect();
    let (flags, keywords) = parse_flag_list(names.iter().map(AsRef::as_ref));
    Some(FetchedFlags { uid, flags, keywords, modseq: read_modseq(fetch) })
}

/// `MODSEQ (n)`
pub(super) fn read_modseq(fetch: &Fetch) -> Option<ModSeq> {
    find(fetch, "MODSEQ")?.list()?.first()?.number().map(ModSeq)
}

#[cfg(test)]
mod tests {
    use mail::modseq::ModSeq;
    use mail::uid::Uid;

    use super::super::script::{commands, session};
    use super::{ChangedSince, Uids};

    #[tokio::test]
    async fn flags_stream_and_what_is_gone_is_returned() {
        let answer = "* VANISHED (EARLIER) 3,7:9\r\n* 1 FETCH (UID 12 MODSEQ (77) FLAGS (\\Seen $Label1 K\u{fc}))\r\n\
                      * 2 FETCH (FLAGS (\\Seen) UID 2)\r\n$ OK done\r\n";
        let (mut s, seen) = session("ENABLE QRESYNC", &["* ENABLED QRESYNC\r\n$ OK\r\n", answer]).await;
        s.enable(&["QRESYNC"]).await.unwrap();
        let mut flags = Vec::new();
        let since = ChangedSince { modseq: ModSeq(5), vanished: true };
        let gone =
            s.fetch_flags(Uids::From(Uid::new(10).unwrap()), Some(since), |f| flags.push(f)).await.unwrap();
        assert_eq!(gone.to_string(), "3,7:9");
        assert_eq!((flags.len(), flags[0].uid.get(), flags[0].modseq), (1, 12, Some(ModSeq(77))));
        assert_eq!(flags[0].keywords.as_slice(), ["$Label1", "K\u{fc}"]);
        assert_eq!(s.take_unsolicited().flags.len(), 1, "the last message is not of the range");
        assert_eq!(commands(&seen)[1], "UID FETCH 10:* (UID FLAGS) (CHANGEDSINCE 5 VANISHED)");
    }
}
