//! SELECT and EXAMINE, with QRESYNC (RFC 7162 §3.2.5) when the session enabled it.

use mail::flags::{Flags, Keywords, parse_flag_list};
use mail::modseq::ModSeq;
use mail::uid::{UidSet, UidValidity};

use super::ImapError;
use super::command::{Command, MAX_SET_BYTES, Session};
use super::flags::{FetchedFlags, read_flags};
use super::parse::{Code, Condition, Cursor, Untagged};
use super::unsolicited::{Gone, read_vanished};

/// A QRESYNC answer repeats every change since the client last looked: up to a million lines.
const ANSWER_BYTES: u64 = 512 << 20;

/// Changed flags kept from one SELECT. With more, the answer does not count and CHANGEDSINCE, which streams,
/// tells them again.
const MAX_FLAGS: usize = 200_000;

/// What we know of a mailbox, for the server to tell only the difference.
#[derive(Clone, Debug)]
pub struct QresyncParam {
    /// The generation our knowledge belongs to.
    pub uidvalidity: UidValidity,
    /// Up to where we know everything; not zero.
    pub modseq: ModSeq,
    /// The UIDs we hold, if the server's VANISHED shall be limited to them; left out when the set is too long
    /// for one line.
    pub known_uids: Option<UidSet>,
}

/// A mailbox that is now open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Generation of the UIDs; `None` when the server has no lasting UIDs.
    pub uidvalidity: Option<UidValidity>,
    /// The UID the next message will get at least.
    pub uidnext: Option<u32>,
    /// Number of messages.
    pub exists: u32,
    /// Highest mod-sequence. Dovecot leaves it out until CONDSTORE was used in the session.
    pub highestmodseq: Option<ModSeq>,
    /// The server keeps no mod-sequences for this mailbox.
    pub nomodseq: bool,
    /// System flags that can be set for good; all when the server did not say.
    pub permanent_flags: Flags,
    /// Keywords that exist already and can be set.
    pub permanent_keywords: Keywords,
    /// Whether new keywords can be created (`\*`).
    pub can_create_keywords: bool,
    /// Whether nothing in it can be changed.
    pub read_only: bool,
    /// UIDs that went since the given mod-sequence (QRESYNC).
    pub vanished: UidSet,
    /// Flags that changed since, new messages included (QRESYNC).
    pub flags: Vec<FetchedFlags>,
    /// OBJECTID's identity of the mailbox.
    pub mailbox_id: Option<String>,
    /// The server took part in QRESYNC: it accepted the parameter and its generation is the one we gave.
    /// Without this, `vanished` and `flags` say nothing.
    pub resynced: bool,
}

impl Session {
    /// Opens a mailbox, `read_only` by EXAMINE. With `qresync` (ignored unless QRESYNC was enabled) the answer
    /// carries what changed. A server whose generation differs answers as if it had not been given.
    ///
    /// # Errors
    /// [`ImapError::NoSuchMailbox`] when it is gone or a phantom, any other [`ImapError`]; [`ImapError::Protocol`] also
    /// for an OK that does not say how many messages there are.
    pub async fn select(
        &mut self,
        wire_name: &[u8],
        qresync: Option<&QresyncParam>,
        read_only: bool,
    ) -> Result<Selected, ImapError> {
        let qresync = qresync.filter(|q| self.qresync_enabled && !q.modseq.is_zero());
        let selected = self.select_once(wire_name, qresync, read_only).await;
        if self.capabilities().condstore && self.lacks(&selected) {
            self.restrict(|c| (c.condstore, c.qresync) = (false, false));
            return self.select_once(wire_name, None, read_only).await;
        }
        selected
    }

    async fn select_once(
        &mut self,
        wire_name: &[u8],
        qresync: Option<&QresyncParam>,
        read_only: bool,
    ) -> Result<Selected, ImapError> {
        let verb = if read_only { "EXAMINE" } else { "SELECT" };
        let mut command = Command::new(verb).string(wire_name)?;
        match qresync {
            Some(param) => command = command.text(&qresync_text(param)).relying_on(Some("QRESYNC")),
            None if self.capabilities().condstore => {
                command = command.text(" (CONDSTORE)").relying_on(Some("CONDSTORE"));
            }
            None => {}
        }
        // News of the mailbox that was open before must not be taken for news of this one.
        drop(self.take_unsolicited());
        self.has_modseq = false;
        let mut gone = Gone::default();
        let mut selected =
            Selected { permanent_flags: Flags::ALL, can_create_keywords: true, ..Selected::default() };
        selected.read_only = read_only;
        let mut counted = false;
        let done = self.run_within(command, ANSWER_BYTES, |u| {
            counted |= matches!(u, Untagged::Exists(_));
            collect(&mut selected, &mut gone, u)
        });
        let done = done.await.map_err(super::verdict::as_missing)?;
        if !counted {
            // Without it (RFC 9051 §6.3.2) a mailbox would seem to be empty, and another one.
            return Err(ImapError::protocol("the answer to SELECT lacks the number of messages"));
        }
        self.has_modseq = self.capabilities().condstore && !selected.nomodseq;
        selected.read_only |= done.code.as_ref().is_some_and(|c| c.name == "READ-ONLY");
        selected.resynced = qresync.is_some_and(|q| selected.uidvalidity == Some(q.uidvalidity))
            && !gone.is_exhausted()
            && selected.flags.len() <= MAX_FLAGS;
        selected.vanished = gone.set;
        Ok(selected)
    }

    /// Leaves the open mailbox without expunging; nothing happens on servers without UNSELECT (RFC 3691).
    ///
    /// # Errors
    /// Any [`ImapError`].
    pub async fn unselect(&mut self) -> Result<(), ImapError> {
        if self.capabilities().unselect {
            let done = self.run(Command::new("UNSELECT"), Some).await;
            if self.lacks(&done) {
                self.capabilities.unselect = false;
                return Ok(());
            }
            done?;
        }
        Ok(())
    }
}

fn qresync_text(param: &QresyncParam) -> String {
    let known = param.known_uids.as_ref().map(|u| u.to_chunks(MAX_SET_BYTES));
    let known = match known.as_deref() {
        Some([one]) => format!(" {one}"),
        _ => String::new(),
    };
    format!(" (QRESYNC ({} {}{known}))", param.uidvalidity, param.modseq)
}

fn collect(selected: &mut Selected, gone: &mut Gone, untagged: Untagged) -> Option<Untagged> {
    match untagged {
        Untagged::Exists(n) => selected.exists = n,
        // QRESYNC: everything before belonged to the mailbox that was open (RFC 7162 §3.2.11).
        Untagged::Condition(Condition { code: Some(code), .. }) if code.name == "CLOSED" => {
            *gone = Gone::default();
            selected.flags.clear();
            selected.exists = 0;
        }
        Untagged::Condition(Condition { code: Some(code), .. }) if note_code(selected, &code) => {}
        Untagged::Data(name, cursor) if name == "VANISHED" => {
            gone.absorb(&read_vanished(cursor).1);
        }
        Untagged::Data(name, _) if name == "FLAGS" => {}
        Untagged::Fetch(fetch) => match read_flags(&fetch) {
            Some(flags) if selected.flags.len() <= MAX_FLAGS => selected.flags.push(flags),
            Some(_) => {}
            None => return Some(Untagged::Fetch(fetch)),
        },
        other => return Some(other),
    }
    None
}

fn note_code(selected: &mut Selected, code: &Code) -> bool {
    let mut cursor = Cursor::over(code.arguments.clone());
    let value = cursor.value();
    let number = value.as_ref().and_then(super::parse::Value::number);
    let short = number.and_then(|n| u32::try_from(n).ok());
    match code.name.as_str() {
        "UIDVALIDITY" => selected.uidvalidity = short.map(UidValidity),
        "UIDNEXT" => selected.uidnext = short,
        "HIGHESTMODSEQ" => selected.highestmodseq = number.map(ModSeq),
        "NOMODSEQ" => selected.nomodseq = true,
        "PERMANENTFLAGS" => {
            let names: Vec<&str> =
                value.iter().filter_map(|v| v.list()).flatten().filter_map(|v| v.text()).collect();
            selected.can_create_keywords = names.contains(&"\\*");
            (selected.permanent_flags, selected.permanent_keywords) = parse_flag_list(names);
        }
        "MAILBOXID" => {
            selected.mailbox_id = value.and_then(|v| v.list()?.first()?.text().map(str::to_owned));
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use mail::flags::Flags;
    use mail::modseq::ModSeq;
    use mail::uid::{UidSet, UidValidity};

    use super::super::ImapError;
    use super::super::script::{commands, is_protocol, session};
    use super::QresyncParam;

    fn known(set: &str) -> QresyncParam {
        let known_uids = Some(UidSet::parse(set).unwrap());
        QresyncParam { uidvalidity: UidValidity(4), modseq: ModSeq(7), known_uids }
    }

    #[tokio::test]
    async fn a_plain_select_is_read() {
        let answer = "* FLAGS (\\Seen)\r\n* OK [PERMANENTFLAGS (\\Seen \\Deleted $Work \\*)] ok\r\n* 5 EXISTS\r\n\
                      * 0 RECENT\r\n* OK [UIDVALIDITY 3000000000] ok\r\n* OK [UIDNEXT 9] ok\r\n\
                      * OK [NOMODSEQ] none\r\n* OK [MAILBOXID (F2)] id\r\n$ OK [READ-ONLY] done\r\n";
        let (mut s, seen) = session("", &[answer]).await;
        let m = s.select(b"INBOX", Some(&known("1")), false).await.unwrap();
        assert_eq!((m.exists, m.uidvalidity, m.uidnext), (5, Some(UidValidity(3_000_000_000)), Some(9)));
        assert_eq!(
            (m.permanent_flags, m.permanent_keywords.as_slice()),
            (Flags::SEEN | Flags::DELETED, &["$Work".to_owned()][..])
        );
        assert!(m.nomodseq && m.read_only && m.can_create_keywords && !m.resynced);
        assert_eq!(m.mailbox_id.as_deref(), Some("F2"));
        assert_eq!(commands(&seen), ["SELECT \"INBOX\""], "QRESYNC was not enabled");
        assert!(s.take_unsolicited().is_empty());
    }

    #[tokio::test]
    async fn resynchronisation_ignores_what_belonged_to_the_mailbox_before() {
        let answer = "* VANISHED 77\r\n* OK [CLOSED] previous\r\n* 2 EXISTS\r\n* OK [UIDVALIDITY 4] ok\r\n\
                      * OK [HIGHESTMODSEQ 18446744073709551615] ok\r\n* VANISHED (EARLIER) 1:4000000000\r\n\
                      * 1 FETCH (UID 8 FLAGS () MODSEQ (9))\r\n$ OK [READ-WRITE] done\r\n";
        let (mut s, seen) = session("ENABLE QRESYNC", &["* ENABLED QRESYNC\r\n$ OK\r\n", answer]).await;
        s.enable(&["QRESYNC"]).await.unwrap();
        let m = s.select(b"x", Some(&known("1:5,8")), true).await.unwrap();
        assert!(m.resynced && m.read_only);
        assert_eq!(
            (m.vanished.len(), m.flags.len(), m.highestmodseq),
            (4_000_000_000, 1, Some(ModSeq(u64::MAX)))
        );
        assert_eq!(commands(&seen)[1], "EXAMINE \"x\" (QRESYNC (4 7 1:5,8))");
    }

    #[tokio::test]
    async fn another_generation_means_not_resynced() {
        let answer = "* 2 EXISTS\r\n* OK [UIDVALIDITY 5] ok\r\n$ OK done\r\n";
        let (mut s, _) = session("ENABLE QRESYNC", &["* ENABLED QRESYNC\r\n$ OK\r\n", answer]).await;
        s.enable(&["QRESYNC"]).await.unwrap();
        assert!(!s.select(b"x", Some(&known("1")), false).await.unwrap().resynced);
    }

    #[tokio::test]
    async fn a_mailbox_that_is_gone_is_named_so() {
        let (mut s, _) = session("", &["$ NO [TRYCREATE] x\r\n", "$ NO Unknown Mailbox: x\r\n"]).await;
        for _ in 0..2 {
            assert!(matches!(s.select(b"x", None, false).await, Err(ImapError::NoSuchMailbox(_))));
        }
    }

    #[tokio::test]
    async fn an_ok_without_the_number_of_messages_is_an_error() {
        let (mut s, _) = session("", &["* OK [UIDVALIDITY 4] ok\r\n$ OK\r\n"]).await;
        assert!(is_protocol(&s.select(b"x", None, false).await));
    }

    #[tokio::test]
    async fn an_unselect_that_is_not_understood_is_not_repeated() {
        let (mut s, seen) = session("UNSELECT", &["$ BAD what\r\n"]).await;
        for _ in 0..2 {
            s.unselect().await.unwrap();
        }
        assert_eq!(commands(&seen), ["UNSELECT"]);
    }

    #[tokio::test]
    async fn a_mailbox_without_mod_sequences_is_never_asked_for_them() {
        let answers = [
            "* 1 EXISTS\r\n* OK [NOMODSEQ] none\r\n$ OK\r\n",
            "$ OK\r\n",
            "* 1 EXISTS\r\n* OK [HIGHESTMODSEQ 1] x\r\n$ OK\r\n",
            "$ OK\r\n",
        ];
        let (mut s, seen) = session("CONDSTORE", &answers).await;
        for _ in 0..2 {
            s.select(b"x", None, false).await.unwrap();
            s.fetch_flags(super::super::Uids::All, None, drop).await.unwrap();
        }
        let sent = commands(&seen);
        assert_eq!(
            (sent[1].as_str(), sent[3].as_str()),
            ("UID FETCH 1:* (UID FLAGS)", "UID FETCH 1:* (UID FLAGS MODSEQ)")
        );
    }
}
