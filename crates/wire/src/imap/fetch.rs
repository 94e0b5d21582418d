//! UID FETCH of messages, as a pipeline.
//!
//! They go through a bounded channel, each with its share of a memory budget, while the next command is already under
//! way. ENVELOPE and BODYSTRUCTURE are never asked for: they cost the server more than the bytes, which we need anyway.

use std::collections::VecDeque;

use bytes::Bytes;
use chrono::{DateTime, FixedOffset};
use mail::flags::{Flags, Keywords};
use mail::modseq::ModSeq;
use mail::uid::{Uid, UidSet};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::ImapError;
use super::command::{Session, set_chunks, uid_of};
use super::flags::{find, read_flags, read_modseq};
use super::guard::{MemoryBudget, Oversized};
use super::lasting::{ITEMS, LastingIds, read_ids};
use super::parse::{Fetch, Response, Untagged, Value};
use super::verdict::{judge, of_reading};

/// FETCH commands under way at once: two saturate Dovecot, which queues at most four.
const IN_FLIGHT: usize = 2;
/// Bytes one call for bodies may cost. Oversized messages are read and dropped, so it is far above a batch.
const BODIES_ANSWER_BYTES: u64 = 1 << 40;

/// One message with its bytes.
#[derive(Debug)]
pub struct FetchedMessage {
    /// Which message.
    pub uid: Uid,
    /// System flags.
    pub flags: Flags,
    /// Keywords.
    pub keywords: Keywords,
    /// Its mod-sequence, where the server keeps them.
    pub modseq: Option<ModSeq>,
    /// When the server received it, if that is a date at all.
    pub internal_date: Option<DateTime<FixedOffset>>,
    /// RFC822.SIZE; servers are known to lie about it.
    pub size: Option<u64>,
    /// The message. Empty when it is too large, see `oversized`.
    pub raw: Bytes,
    /// What is known of a message above [`super::MAX_LITERAL_BYTES`], which is not kept.
    pub oversized: Option<Oversized>,
    /// Its share of the memory budget: keep it as long as `raw`.
    pub permit: Option<OwnedSemaphorePermit>,
    /// What it is called in every mailbox, where the server tells.
    pub ids: Option<LastingIds>,
    /// Hash of its bytes, where the caller has them and did not ask for them again. Set by the caller alone.
    pub known: Option<[u8; 32]>,
}

/// What [`Session::fetch_bodies`] sends.
#[derive(Debug)]
pub enum FetchEvent {
    /// A message.
    Message(Box<FetchedMessage>),
    /// The server has answered one batch completely (a tagged OK).
    BatchDone {
        /// The batch as asked for.
        requested: UidSet,
        /// Those of it that did not come: expunged meanwhile, or unreadable for us.
        missing: UidSet,
    },
}

/// A batch on its way.
struct Batch {
    tag: String,
    /// Its mod-sequences were asked for.
    modseq: bool,
    /// Its lasting ids were.
    ids: bool,
    /// What was asked by this command.
    asked: UidSet,
    missing: UidSet,
}

impl Session {
    /// Loads messages, batch after batch with two commands under way, and sends them to `out` as they come,
    /// followed by [`FetchEvent::BatchDone`]. Bodies take their share of `memory` before they are read, so whoever
    /// receives must not wait for more than one message while it holds others back when memory runs short.
    ///
    /// When `out` is closed no further batch is asked for; what is under way is read and dropped, and the
    /// session stays usable.
    ///
    /// # Errors
    /// Any [`ImapError`]; what was sent before is whole and true.
    pub async fn fetch_bodies(
        &mut self,
        batches: impl IntoIterator<Item = UidSet>,
        memory: &MemoryBudget,
        out: &mpsc::Sender<FetchEvent>,
    ) -> Result<(), ImapError> {
        let mut commands = batches.into_iter().flat_map(|b| set_chunks(&b));
        let mut under_way: VecDeque<Batch> = VecDeque::new();
        let mut first_tag = Some(self.begin(BODIES_ANSWER_BYTES)?);
        self.framer.load_bodies(Some(memory.clone()));
        let result = self.pump(&mut commands, &mut under_way, &mut first_tag, out).await;
        self.framer.load_bodies(None);
        // A refusal of one command leaves the other one's answer on the wire.
        if result.is_ok() || (under_way.is_empty() && !is_stream_error(&result)) {
            self.settle();
        }
        result
    }

    async fn pump(
        &mut self,
        commands: &mut impl Iterator<Item = String>,
        under_way: &mut VecDeque<Batch>,
        first_tag: &mut Option<String>,
        out: &mpsc::Sender<FetchEvent>,
    ) -> Result<(), ImapError> {
        let mut refused = None;
        let mut again: VecDeque<String> = VecDeque::new();
        loop {
            while under_way.len() < IN_FLIGHT && !out.is_closed() && refused.is_none() {
                let Some(set) = again.pop_front().or_else(|| commands.next()) else { break };
                let tag = first_tag.take().unwrap_or_else(|| self.tag());
                under_way.push_back(self.ask_for_bodies(tag, &set).await?);
            }
            if under_way.is_empty() {
                return refused.map_or(Ok(()), Err);
            }
            match self.next().await? {
                Response::Continue(_) => {}
                Response::Tagged { tag, condition } => {
                    let Some(at) = under_way.iter().position(|b| b.tag.as_bytes() == tag.as_ref()) else {
                        continue;
                    };
                    let batch = under_way.remove(at);
                    match (judge(condition), batch) {
                        (Ok(_), Some(batch)) => {
                            let done =
                                FetchEvent::BatchDone { requested: batch.asked, missing: batch.missing };
                            let _ = out.send(done).await;
                        }
                        // The command is not understood: there are servers that offer CONDSTORE and know no MODSEQ.
                        (Err(ImapError::Protocol(_)), Some(batch))
                            if (batch.modseq || batch.ids) && batch.missing == batch.asked =>
                        {
                            // One at a time: the other may be understood.
                            if batch.ids {
                                self.has_ids = false;
                            } else {
                                self.has_modseq = false;
                            }
                            again.push_back(batch.asked.to_string());
                        }
                        (Err(e), _) => {
                            let e = if self.capabilities.gmail { of_reading(e) } else { e };
                            refused = refused.or(Some(e));
                        }
                        (Ok(_), None) => {}
                    }
                }
                Response::Untagged(Untagged::Fetch(fetch)) => self.deliver(fetch, under_way, out).await,
                Response::Untagged(u) => {
                    if let Some(e) = self.dispatch(Some(u)) {
                        return Err(e);
                    }
                }
            }
        }
    }

    async fn ask_for_bodies(&mut self, tag: String, set: &str) -> Result<Batch, ImapError> {
        let modseq = self.has_modseq;
        let item = if modseq { " MODSEQ" } else { "" };
        let ids = self.tells_ids();
        let names = if ids { ITEMS } else { "" };
        let line = format!(
            "{tag} UID FETCH {set} (UID FLAGS INTERNALDATE RFC822.SIZE{item}{names} BODY.PEEK[])\r\n"
        );
        self.framer.allow_until(Instant::now() + self.reply);
        self.framer.write(line.as_bytes()).await?;
        let asked =
            UidSet::parse(set).map_err(|_| ImapError::protocol("a UID set of our own is malformed"))?;
        Ok(Batch { tag, modseq, ids, missing: asked.clone(), asked })
    }

    /// Passes a message on if it was asked for and has not come yet; anything else is news.
    async fn deliver(
        &mut self,
        fetch: Fetch,
        under_way: &mut VecDeque<Batch>,
        out: &mpsc::Sender<FetchEvent>,
    ) {
        let body = fetch.items.iter().any(|(n, v)| n == "BODY[]" && !v.is_nil());
        let uid = find(&fetch, "UID").and_then(uid_of);
        let wanted =
            uid.filter(|_| body).is_some_and(|uid| under_way.iter_mut().any(|b| b.missing.remove(uid)));
        if !wanted {
            let _ = self.dispatch(Some(Untagged::Fetch(fetch)));
            return;
        }
        if let Some(message) = read_message(fetch) {
            // A closed channel is noticed before the next batch.
            let _ = out.send(FetchEvent::Message(Box::new(message))).await;
        }
        // Only a message that was waited for buys more time, and the time our own consumer took is not the
        // server's.
        self.framer.allow_until(Instant::now() + self.reply);
    }
}

fn is_stream_error(result: &Result<(), ImapError>) -> bool {
    matches!(result, Err(ImapError::Closed { .. } | ImapError::Timeout))
}

fn read_message(mut fetch: Fetch) -> Option<FetchedMessage> {
    let (raw, oversized) = match find(&fetch, "BODY[]")? {
        Value::Skipped(oversized) => (Bytes::new(), Some(*oversized)),
        value => (value.bytes()?.clone(), None),
    };
    let permit = fetch.permit.take();
    Some(FetchedMessage { raw, oversized, permit, ..read_facts(&fetch)? })
}

/// All but its bytes.
pub(super) fn read_facts(fetch: &Fetch) -> Option<FetchedMessage> {
    let uid = uid_of(find(fetch, "UID")?)?;
    let internal_date = find(fetch, "INTERNALDATE").and_then(Value::text).and_then(parse_date);
    let size = find(fetch, "RFC822.SIZE").and_then(Value::number);
    let (flags, keywords, modseq) = read_flags(fetch)
        .map_or((Flags::NONE, Keywords::new(), read_modseq(fetch)), |f| (f.flags, f.keywords, f.modseq));
    let (raw, oversized, permit, ids) = (Bytes::new(), None, None, read_ids(fetch));
    Some(FetchedMessage {
        uid,
        flags,
        keywords,
        modseq,
        internal_date,
        size,
        raw,
        oversized,
        permit,
        ids,
        known: None,
    })
}

/// `date-time` (RFC 9051 §9): ` 1-Jan-2026 10:00:00 +0100`.
pub(super) fn parse_date(text: &str) -> Option<DateTime<FixedOffset>> {
    DateTime::parse_from_str(text.trim(), "%d-%b-%Y %H:%M:%S %z").ok()
}

#[cfg(test)]
mod tests {
    use mail::modseq::ModSeq;
    use mail::uid::UidSet;
    use sha2::{Digest as _, Sha256};
    use tokio::sync::mpsc;

    use super::super::script::{commands, is_protocol, session, session_by};
    use super::super::{ImapError, MAX_LITERAL_BYTES, MemoryBudget, Uids};
    use super::{FetchEvent, FetchedMessage, Oversized};

    fn set(text: &str) -> UidSet {
        UidSet::parse(text).unwrap()
    }

    fn messages(events: Vec<FetchEvent>) -> Vec<FetchedMessage> {
        let only = |e| if let FetchEvent::Message(m) = e { Some(*m) } else { None };
        events.into_iter().filter_map(only).collect()
    }

    async fn load(
        width: usize,
        batches: &[&str],
        answers: &[&str],
    ) -> (Result<(), ImapError>, Vec<FetchEvent>, bool) {
        let (mut s, _) = session_by(width, "CONDSTORE", answers).await;
        let (sender, mut receiver) = mpsc::channel(100);
        let budget = MemoryBudget::new(1 << 20);
        let result = s.fetch_bodies(batches.iter().map(|b| set(b)), &budget, &sender).await;
        drop(sender);
        let mut events = Vec::new();
        while let Some(event) = receiver.recv().await {
            events.push(event);
        }
        (result, events, s.is_usable())
    }

    #[tokio::test]
    async fn messages_are_asked_for_without_mod_sequences_where_those_are_not_understood() {
        let answers =
            ["* 1 EXISTS\r\n$ OK\r\n", "$ BAD what\r\n", "* 1 FETCH (UID 1 BODY[] \"x\")\r\n$ OK\r\n"];
        let (mut s, seen) = session("CONDSTORE", &answers).await;
        s.select(b"x", None, false).await.unwrap();
        let (sender, mut receiver) = mpsc::channel(9);
        s.fetch_bodies([set("1")], &MemoryBudget::new(9), &sender).await.unwrap();
        assert!(matches!(receiver.recv().await, Some(FetchEvent::Message(_))) && s.is_usable());
        assert!(!commands(&seen)[2].contains("MODSEQ"), "{:?}", commands(&seen));
    }

    #[tokio::test]
    async fn the_end_of_the_stream_inside_a_fetch_is_an_error() {
        let cut = "* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n* 2 FETCH (UID 2 FLAGS ())\r\n";
        let (mut s, _) = session("", &[cut]).await;
        let mut seen = 0;
        let result = s.fetch_flags(Uids::All, None, |_| seen += 1).await;
        assert_eq!((seen, result), (2, Err(ImapError::Closed { bye: None })));
    }

    const TWO: &str = "* 1 FETCH (UID 1 FLAGS (\\Seen) INTERNALDATE \" 1-Jan-2026 10:00:00 +0100\" RFC822.SIZE 6 \
                       MODSEQ (9) BODY[] {6}\r\na\r\n)(\")\r\n* 2 FETCH (BODY[] \"q\\\"\" UID 2 INTERNALDATE \"x\")\r\n\
                       $ OK done\r\n";

    #[tokio::test]
    async fn messages_survive_a_split_at_every_byte() {
        for width in [1, 2, 3, 7, 64, 1 << 16] {
            let (result, events, usable) = load(width, &["1:3"], &[TWO]).await;
            assert_eq!((result, usable), (Ok(()), true), "{width}");
            assert!(
                matches!(events.last(), Some(FetchEvent::BatchDone { missing, .. }) if missing == &set("3"))
            );
            let got = messages(events);
            assert_eq!(got.len(), 2);
            assert_eq!((&got[0].raw[..], &got[1].raw[..]), (&b"a\r\n)(\""[..], &b"q\""[..]));
            assert_eq!(got[0].internal_date.unwrap().to_rfc3339(), "2026-01-01T10:00:00+01:00");
            assert_eq!((got[0].size, got[0].modseq, got[1].internal_date), (Some(6), Some(ModSeq(9)), None));
        }
    }

    #[tokio::test]
    async fn two_commands_are_under_way_and_the_third_waits() {
        let one = |u: u32| format!("* {u} FETCH (UID {u} FLAGS () BODY[] {{1}}\r\nx)\r\n");
        let first = String::new();
        let second = format!("{}A2 OK\r\n{}A3 OK\r\n", one(1), one(2));
        let third = format!("{}$ OK\r\n", one(3));
        let (result, events, _) = load(1 << 16, &["1", "2", "3"], &[&first, &second, &third]).await;
        assert_eq!(result, Ok(()));
        assert_eq!(messages(events).len(), 3);
    }

    #[tokio::test]
    async fn nothing_unasked_and_nothing_twice_is_delivered() {
        let answer = "* 1 FETCH (UID 1 FLAGS () BODY[] \"a\")\r\n* 1 FETCH (UID 1 FLAGS () BODY[] \"b\")\r\n\
                      * 1 FETCH (UID 7 FLAGS () BODY[] \"c\")\r\n* 1 FETCH (BODY[] \"d\")\r\n\
                      * 2 FETCH (UID 2 FLAGS () BODY[] NIL)\r\n$ OK\r\n";
        let (result, events, _) = load(1 << 16, &["1:2"], &[answer]).await;
        assert_eq!(result, Ok(()));
        let got = messages(events);
        assert_eq!((got.len(), &got[0].raw[..]), (1, &b"a"[..]));
    }

    #[tokio::test]
    async fn an_oversized_message_is_skipped_and_the_session_lives() {
        let big = MAX_LITERAL_BYTES + 1;
        let answer = format!(
            "* 1 FETCH (UID 1 FLAGS () BODY[] {{{big}}}\r\n{})\r\n* 2 FETCH (UID 2 FLAGS () BODY[] {{0}}\r\n)\r\n$ OK\r\n",
            "x".repeat(big)
        );
        let (result, events, usable) = load(1 << 20, &["1:2"], &[&answer]).await;
        assert_eq!((result, usable), (Ok(()), true));
        let got = messages(events);
        let hash = Sha256::digest("x".repeat(big)).into();
        assert_eq!(got[0].oversized, Some(Oversized { size_bytes: big as u64, hash }));
        assert!(got[0].raw.is_empty() && got[1].raw.is_empty() && got[1].oversized.is_none());
    }

    #[tokio::test]
    async fn an_unasked_literal_over_the_cap_ends_the_session() {
        let (mut s, _) = session("", &["* 1 FETCH (UID 1 BODY[] {60000000}\r\nxxx"]).await;
        assert!(is_protocol(&s.noop().await));
        let (mut s, _) = session("", &["* 1 FETCH (UID 1 BODY[] {99999999999999999999999}\r\nxxx"]).await;
        assert!(is_protocol(&s.noop().await));
    }

    #[tokio::test]
    async fn a_refused_batch_is_an_error_after_the_other_one_is_read() {
        let second = "A2 NO no\r\n* 2 FETCH (UID 2 FLAGS () BODY[] \"x\")\r\nA3 OK\r\n";
        let (result, events, usable) = load(1 << 16, &["1", "2", "3"], &["", second]).await;
        assert!(matches!(result, Err(ImapError::Refused { .. })) && usable);
        assert_eq!(messages(events).len(), 1);
    }

    #[tokio::test]
    async fn bye_in_the_middle_keeps_the_prefix() {
        let answer = "* 1 FETCH (UID 1 FLAGS () BODY[] \"x\")\r\n* BYE FETCH failed: broken\r\n";
        let (result, events, usable) = load(1 << 16, &["1:2"], &[answer]).await;
        assert_eq!(result, Err(ImapError::Closed { bye: Some("FETCH failed: broken".into()) }));
        assert!(!usable && messages(events).len() == 1);
    }

    #[tokio::test]
    async fn a_closed_channel_ends_the_asking_and_leaves_the_session_usable() {
        let answer = "* 1 FETCH (UID 1 FLAGS () BODY[] \"x\")\r\n$ OK\r\n";
        let (mut s, seen) = session("", &[answer, "$ OK\r\n"]).await;
        let (sender, receiver) = mpsc::channel(1);
        drop(receiver);
        s.fetch_bodies([set("1"), set("2")], &MemoryBudget::new(9), &sender).await.unwrap();
        s.noop().await.unwrap();
        assert_eq!(commands(&seen), ["NOOP"]);
    }

    #[tokio::test]
    async fn bodies_wait_for_memory() {
        let answer = "* 1 FETCH (UID 1 FLAGS () BODY[] {4}\r\naaaa)\r\n* 2 FETCH (UID 2 FLAGS () BODY[] {4}\r\nbbbb)\r\n$ OK\r\n";
        let (mut s, _) = session("", &[answer]).await;
        let (sender, mut receiver) = mpsc::channel(10);
        let budget = MemoryBudget::new(5);
        let work = tokio::spawn(async move { s.fetch_bodies([set("1:2")], &budget, &sender).await });
        let Some(FetchEvent::Message(first)) = receiver.recv().await else { panic!("no message") };
        let early = tokio::time::timeout(std::time::Duration::from_millis(50), receiver.recv()).await;
        assert!(early.is_err(), "the second message came without memory for it");
        drop(first);
        assert!(matches!(receiver.recv().await, Some(FetchEvent::Message(m)) if &m.raw[..] == b"bbbb"));
        work.await.unwrap().unwrap();
    }
}
