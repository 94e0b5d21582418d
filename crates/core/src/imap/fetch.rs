//! UID FETCH: flags as a stream, messages as a pipeline.
//!
//! Flags go to a closure one by one (a million of them must not stand in memory); messages go through a bounded
//! channel, each with its share of a memory budget, while the next command is already under way. ENVELOPE and
//! BODYSTRUCTURE are never asked for: they cost the server more than the bytes, which we need anyway.

use std::collections::VecDeque;

use bytes::Bytes;
use chrono::{DateTime, FixedOffset};
use mail::flags::{Flags, Keywords, parse_flag_list};
use mail::modseq::ModSeq;
use mail::uid::{Uid, UidSet};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::ImapError;
use super::command::{Command, Session, judge, read_vanished, set_chunks, uid_of};
use super::guard::MemoryBudget;
use super::parse::{Fetch, Response, Untagged, Value};

/// FETCH commands under way at once: two saturate Dovecot, which queues at most four.
const IN_FLIGHT: usize = 2;
/// A flags line is some 60 bytes; this is eight million of them.
const FLAGS_ANSWER_BYTES: u64 = 512 << 20;
/// Bytes one call for bodies may cost. Oversized messages are read and dropped, so it is far above a batch.
const BODIES_ANSWER_BYTES: u64 = 1 << 40;

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
    /// The message. Empty when it is too large, see `skipped_bytes`.
    pub raw: Bytes,
    /// Its size, when it is above [`super::MAX_LITERAL_BYTES`] and was not kept.
    pub skipped_bytes: Option<u64>,
    /// Its share of the memory budget: keep it as long as `raw`.
    pub permit: Option<OwnedSemaphorePermit>,
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

/// A batch on its way.
struct Batch {
    tag: String,
    /// What was asked by this command.
    asked: UidSet,
    missing: UidSet,
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
        let modifier = match since {
            Some(s) if s.vanished && self.qresync_enabled => format!(" (CHANGEDSINCE {} VANISHED)", s.modseq),
            Some(s) => format!(" (CHANGEDSINCE {})", s.modseq),
            None => String::new(),
        };
        let mut gone = UidSet::new();
        for text in uids.texts() {
            let command = Command::new(format!("UID FETCH {text} (UID FLAGS){modifier}"));
            self.run_within(command, FLAGS_ANSWER_BYTES, |u| match u {
                Untagged::Fetch(fetch) => match read_flags(&fetch) {
                    Some(flags) if uids.contains(flags.uid) => {
                        sink(flags);
                        None
                    }
                    _ => Some(Untagged::Fetch(fetch)),
                },
                Untagged::Data(name, cursor) if name == "VANISHED" => match read_vanished(cursor.clone()) {
                    (true, set) => {
                        gone = gone.union(&set);
                        None
                    }
                    (false, _) => Some(Untagged::Data(name, cursor)),
                },
                other => Some(other),
            })
            .await?;
        }
        Ok(gone)
    }

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
        loop {
            while under_way.len() < IN_FLIGHT && !out.is_closed() && refused.is_none() {
                let Some(set) = commands.next() else { break };
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
                            let done = FetchEvent::BatchDone { requested: batch.asked, missing: batch.missing };
                            let _ = out.send(done).await;
                        }
                        (Err(e), _) => refused = refused.or(Some(e)),
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
        let modseq = if self.capabilities.condstore { " MODSEQ" } else { "" };
        let line =
            format!("{tag} UID FETCH {set} (UID FLAGS INTERNALDATE RFC822.SIZE{modseq} BODY.PEEK[])\r\n");
        self.framer.allow_until(Instant::now() + self.reply);
        self.framer.write(line.as_bytes()).await?;
        let asked = UidSet::parse(set).map_err(|_| ImapError::protocol("a UID set of our own is malformed"))?;
        Ok(Batch { tag, missing: asked.clone(), asked })
    }

    /// Passes a message on if it was asked for and has not come yet; anything else is news.
    async fn deliver(&mut self, fetch: Fetch, under_way: &mut VecDeque<Batch>, out: &mpsc::Sender<FetchEvent>) {
        let body = fetch.items.iter().any(|(n, v)| n == "BODY[]" && !v.is_nil());
        let uid = find(&fetch, "UID").and_then(uid_of);
        let wanted = uid.filter(|_| body).is_some_and(|uid| under_way.iter_mut().any(|b| b.missing.remove(uid)));
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

fn find<'a>(fetch: &'a Fetch, name: &str) -> Option<&'a Value> {
    fetch.items.iter().find(|(n, _)| n == name).map(|(_, v)| v)
}

/// The flags of a FETCH response; `None` without a UID or without flags.
pub(super) fn read_flags(fetch: &Fetch) -> Option<FetchedFlags> {
    let uid = uid_of(find(fetch, "UID")?)?;
    let names: Vec<std::borrow::Cow<'_, str>> =
        find(fetch, "FLAGS")?.list()?.iter().filter_map(|v| v.bytes()).map(|b| String::from_utf8_lossy(b)).collect();
    let (flags, keywords) = parse_flag_list(names.iter().map(AsRef::as_ref));
    Some(FetchedFlags { uid, flags, keywords, modseq: read_modseq(fetch) })
}

/// `MODSEQ (n)`
fn read_modseq(fetch: &Fetch) -> Option<ModSeq> {
    find(fetch, "MODSEQ")?.list()?.first()?.number().map(ModSeq)
}

fn read_message(mut fetch: Fetch) -> Option<FetchedMessage> {
    let uid = uid_of(find(&fetch, "UID")?)?;
    let flags = read_flags(&fetch);
    let internal_date = find(&fetch, "INTERNALDATE").and_then(Value::text).and_then(parse_date);
    let size = find(&fetch, "RFC822.SIZE").and_then(Value::number);
    let (raw, skipped_bytes) = match find(&fetch, "BODY[]")? {
        Value::Skipped(size) => (Bytes::new(), Some(*size)),
        value => (value.bytes()?.clone(), None),
    };
    let (flags, keywords, modseq) =
        flags.map_or((Flags::NONE, Keywords::new(), read_modseq(&fetch)), |f| (f.flags, f.keywords, f.modseq));
    let permit = fetch.permit.take();
    Some(FetchedMessage { uid, flags, keywords, modseq, internal_date, size, raw, skipped_bytes, permit })
}

/// `date-time` (RFC 9051 §9): ` 1-Jan-2026 10:00:00 +0100`.
fn parse_date(text: &str) -> Option<DateTime<FixedOffset>> {
    DateTime::parse_from_str(text.trim(), "%d-%b-%Y %H:%M:%S %z").ok()
}
