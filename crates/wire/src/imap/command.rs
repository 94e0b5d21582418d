//! One command and everything that may come back until it is done.
//!
//! [`Session::run`] is the only loop that ends commands, and it ends them only at their own tagged line: OK is
//! success, NO and BAD are errors, and so are BYE and the end of the stream, however complete the answer looked
//! before. Untagged responses nobody asked for are kept, bounded, in [`Unsolicited`]. Verbs live in their own
//! files; this one knows none of them.

use std::time::Duration;

use bytes::Bytes;
use mail::capabilities::Capabilities;
use mail::uid::{Uid, UidSet};
use tokio::time::Instant;

use super::ImapError;
use super::flags::read_flags;
use super::guard::{Allowance, Framer};
use super::idle::Pulse;
use super::parse::{Code, Condition, Cursor, Response, Status, Untagged, parse};
use super::unsolicited::{Gone, Unsolicited, read_vanished};
use super::verdict::{Done, bye_error, judge, of_reading, only_reads};
use crate::measured;

/// Longest UID set in one command: servers must take 8,192 bytes a line (RFC 7162 §4 recommends this bound).
pub(super) const MAX_SET_BYTES: usize = 7_500;
/// What one command may receive when it does not say otherwise.
const DEFAULT_ANSWER_BYTES: u64 = 64 << 20;
/// Flag changes kept for a caller who has not asked yet; beyond it only the fact is kept.
const MAX_UNSOLICITED_FLAGS: usize = 1_000;

/// A command that keeps delivering may take this many times the deadline of one answer: half an hour.
const PATIENCE: u32 = 30;
/// A command under construction: no byte of it comes from outside unencoded.
#[derive(Debug)]
pub(super) struct Command {
    /// Text, then each time a literal and the text after it.
    text: Vec<u8>,
    literals: Vec<(usize, Bytes)>,
    relies_on: Option<&'static str>,
}

impl Command {
    /// Starts with literal protocol text of our own.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into().into_bytes(), literals: Vec::new(), relies_on: None }
    }

    /// Names the extension without which the command would be written differently: a BAD is blamed on it.
    pub fn relying_on(mut self, extension: Option<&'static str>) -> Self {
        self.relies_on = extension;
        self
    }

    /// Adds protocol text of our own.
    pub fn text(mut self, text: &str) -> Self {
        self.text.extend_from_slice(text.as_bytes());
        self
    }

    /// Adds a space and a string in whatever form carries it.
    ///
    /// # Errors
    /// [`ImapError::Refused`] for CR, LF or NUL, which no IMAP string of ours may hold.
    pub fn string(mut self, value: &[u8]) -> Result<Self, ImapError> {
        if value.iter().any(|b| matches!(b, 0 | b'\r' | b'\n')) {
            return Err(ImapError::refused("a name or search text with a line end or NUL cannot be sent"));
        }
        self.text.push(b' ');
        match mail::mailbox::quote(value) {
            Some(quoted) => self.text.extend_from_slice(quoted.as_bytes()),
            None => self.literals.push((self.text.len(), Bytes::copy_from_slice(value))),
        }
        Ok(self)
    }

    /// Adds a space and a literal of any bytes.
    pub fn literal(mut self, value: Bytes) -> Self {
        self.text.push(b' ');
        self.literals.push((self.text.len(), value));
        self
    }
}

/// A logged-in connection. Commands run one after another; after an error that leaves the conversation in an
/// unknown state every further command fails with [`ImapError::Closed`].
#[derive(Debug)]
pub struct Session {
    pub(super) framer: Framer,
    pub(super) capabilities: Capabilities,
    pub(super) reply: Duration,
    pub(super) qresync_enabled: bool,
    /// Whether the open mailbox keeps mod-sequences: a mailbox that answered NOMODSEQ must refuse every
    /// command that names one (RFC 7162 §3.1.2.2).
    pub(super) has_modseq: bool,
    /// False once the server offered lasting ids of messages and did not understand a command that names them.
    pub(super) has_ids: bool,
    unsolicited: Unsolicited,
    gone: Gone,
    next_tag: u32,
    pub(super) heard_at: Instant,
    /// What the server's regular signs of life in IDLE taught.
    pub(super) pulse: Pulse,
    /// The extension whose command was answered with BAD.
    pub(super) broken_promise: Option<&'static str>,
    /// False from the first byte of a command until its tagged line: a future dropped in between leaves an
    /// answer on the wire that would be taken for the next command's.
    settled: bool,
    _open: measured::Held,
}

impl Session {
    pub(super) fn new(framer: Framer, reply: Duration) -> Self {
        Self {
            framer,
            capabilities: Capabilities::default(),
            reply,
            qresync_enabled: false,
            has_modseq: false,
            has_ids: true,
            unsolicited: Unsolicited::default(),
            gone: Gone::default(),
            next_tag: 0,
            heard_at: Instant::now(),
            pulse: Pulse::default(),
            broken_promise: None,
            settled: true,
            _open: measured::open("imap"),
        }
    }

    /// What the server can do, as it said after login.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Whether another command may be sent.
    #[must_use]
    pub const fn is_usable(&self) -> bool {
        self.settled
    }

    /// Hands out what came unasked and starts afresh.
    pub fn take_unsolicited(&mut self) -> Unsolicited {
        self.unsolicited.vanished = std::mem::take(&mut self.gone).set;
        std::mem::take(&mut self.unsolicited)
    }

    pub(super) fn has_news(&self) -> bool {
        !self.unsolicited.is_empty() || !self.gone.set.is_empty()
    }

    /// From now on what the server says at length counts for this tenant, whose number the caller chooses.
    pub fn count_for(&mut self, tenant: u128) {
        self.framer.count_for(tenant);
    }

    /// Whether messages of the open mailbox went, as far as the server told since the last [`Session::take_unsolicited`].
    #[must_use]
    pub fn has_heard_of_gone(&self) -> bool {
        self.unsolicited.expunged > 0 || !self.gone.set.is_empty()
    }

    /// Sends a command and reads until its tagged line. `on_untagged` takes the responses the command asked for
    /// and returns the others, which are noted as unsolicited.
    pub(super) async fn run(
        &mut self,
        command: Command,
        on_untagged: impl FnMut(Untagged) -> Option<Untagged>,
    ) -> Result<Done, ImapError> {
        self.run_within(command, DEFAULT_ANSWER_BYTES, on_untagged).await
    }

    /// As [`Session::run`], for answers that may be larger.
    pub(super) async fn run_within(
        &mut self,
        command: Command,
        answer_bytes: u64,
        mut on_untagged: impl FnMut(Untagged) -> Option<Untagged>,
    ) -> Result<Done, ImapError> {
        let reads = self.capabilities.gmail && only_reads(&command.text);
        let condition = self.run_to_condition(command, answer_bytes, &mut on_untagged).await?;
        self.finish(condition).map_err(|error| if reads { of_reading(error) } else { error })
    }

    /// As [`Session::run_within`], but the tagged line is returned unjudged, for verbs to which a NO means
    /// something special. [`Session::finish`] must follow.
    pub(super) async fn run_to_condition(
        &mut self,
        command: Command,
        answer_bytes: u64,
        on_untagged: &mut impl FnMut(Untagged) -> Option<Untagged>,
    ) -> Result<Condition, ImapError> {
        let (verb, begun) = (measured::verb(&command.text), Instant::now());
        let answer = self.answer_of(command, answer_bytes, on_untagged).await;
        measured::imap_command(verb, answer.as_ref().map_or("error", |c| c.status.word()), begun.elapsed());
        answer
    }

    async fn answer_of(
        &mut self,
        command: Command,
        answer_bytes: u64,
        on_untagged: &mut impl FnMut(Untagged) -> Option<Untagged>,
    ) -> Result<Condition, ImapError> {
        let tag = self.begin(answer_bytes)?;
        let relies_on = command.relies_on;
        self.broken_promise = None;
        if let Some(condition) = self.send(&tag, command, on_untagged).await? {
            return Ok(condition);
        }
        let latest = Instant::now() + self.reply * PATIENCE;
        loop {
            match self.next().await? {
                Response::Tagged { tag: t, condition } if t == tag => {
                    if let Some(extension) = relies_on {
                        self.blame(&condition, extension);
                    }
                    return Ok(condition);
                }
                Response::Tagged { .. } | Response::Continue(_) => {}
                Response::Untagged(u) => match on_untagged(u) {
                    // What was asked for is coming: a slow line may take longer than one answer's time.
                    None => self.framer.allow_until(latest.min(Instant::now() + self.reply)),
                    other => {
                        if let Some(e) = self.dispatch(other) {
                            return Err(e);
                        }
                    }
                },
            }
        }
    }

    /// A new tag, with the allowance of one command.
    pub(super) fn begin(&mut self, answer_bytes: u64) -> Result<String, ImapError> {
        if !self.settled {
            return Err(ImapError::Closed { bye: None });
        }
        self.settled = false;
        self.framer.allow(Allowance { until: Instant::now() + self.reply, bytes: answer_bytes });
        Ok(self.tag())
    }

    pub(super) fn tag(&mut self) -> String {
        self.next_tag = self.next_tag.wrapping_add(1);
        format!("A{}", self.next_tag)
    }

    /// Turns the tagged line into the result and marks the conversation as settled.
    pub(super) fn finish(&mut self, condition: Condition) -> Result<Done, ImapError> {
        self.settled = true;
        judge(condition)
    }

    pub(super) async fn next(&mut self) -> Result<Response, ImapError> {
        let response = parse(self.framer.read().await?);
        self.heard_at = Instant::now();
        Ok(response)
    }

    /// How long ago the server said something.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.heard_at.elapsed()
    }

    /// Writes a command; where a literal needs the server's go-ahead, waits for it. The tagged line, if the
    /// server ended the command instead.
    async fn send(
        &mut self,
        tag: &str,
        command: Command,
        on_untagged: &mut impl FnMut(Untagged) -> Option<Untagged>,
    ) -> Result<Option<Condition>, ImapError> {
        let mut out = format!("{tag} ").into_bytes();
        let mut from = 0;
        for (at, literal) in command.literals {
            out.extend_from_slice(command.text.get(from..at).unwrap_or_default());
            from = at;
            let at_once = self.capabilities.may_send_literal_at_once(literal.len());
            out.extend_from_slice(
                format!("{{{}{}}}\r\n", literal.len(), if at_once { "+" } else { "" }).as_bytes(),
            );
            if !at_once || literal.len() > 4096 {
                self.framer.write(&std::mem::take(&mut out)).await?;
                if !at_once && let Some(condition) = self.await_go_ahead(tag, on_untagged).await? {
                    return Ok(Some(condition));
                }
                self.framer.allow_until(Instant::now() + upload_time(self.reply, literal.len()));
                self.framer.write(&literal).await?;
            } else {
                out.extend_from_slice(&literal);
            }
        }
        out.extend_from_slice(command.text.get(from..).unwrap_or_default());
        out.extend_from_slice(b"\r\n");
        self.framer.write(&out).await?;
        Ok(None)
    }

    async fn await_go_ahead(
        &mut self,
        tag: &str,
        on_untagged: &mut impl FnMut(Untagged) -> Option<Untagged>,
    ) -> Result<Option<Condition>, ImapError> {
        loop {
            match self.next().await? {
                Response::Continue(_) => return Ok(None),
                Response::Tagged { tag: t, condition } if t.as_ref() == tag.as_bytes() => {
                    if condition.status == Status::Ok {
                        return Err(self.broken("a command ended before its literal was sent"));
                    }
                    return Ok(Some(condition));
                }
                Response::Tagged { .. } => {}
                Response::Untagged(u) => {
                    if let Some(e) = self.dispatch(on_untagged(u)) {
                        return Err(e);
                    }
                }
            }
        }
    }

    /// Every command that was sent has been answered.
    pub(super) const fn settle(&mut self) {
        self.settled = true;
    }

    pub(super) fn broken(&mut self, text: &str) -> ImapError {
        self.settled = false;
        ImapError::protocol(text)
    }

    /// Notes what no verb asked for; an error when it ends the connection.
    pub(super) fn dispatch(&mut self, untagged: Option<Untagged>) -> Option<ImapError> {
        match untagged? {
            Untagged::Condition(c) if c.status == Status::Bye => return Some(bye_error(&c)),
            Untagged::Condition(Condition { code: Some(code), .. }) => {
                self.note_capability_code(&code);
            }
            Untagged::Condition(_) | Untagged::Unknown => {}
            Untagged::Exists(n) => self.unsolicited.exists = Some(n),
            Untagged::Expunge => self.unsolicited.expunged += 1,
            Untagged::Fetch(fetch) => match read_flags(&fetch) {
                Some(change) if self.unsolicited.flags.len() < MAX_UNSOLICITED_FLAGS => {
                    self.unsolicited.flags.push(change);
                }
                _ => self.unsolicited.incomplete = true,
            },
            Untagged::Data(name, cursor) => match name.as_str() {
                "VANISHED" => {
                    self.unsolicited.incomplete |= !self.gone.absorb(&read_vanished(cursor).1);
                }
                "CAPABILITY" => self.capabilities = read_capabilities(cursor),
                "STATUS" | "LIST" => self.unsolicited.elsewhere = true,
                _ => {}
            },
        }
        None
    }

    pub(super) fn note_capability_code(&mut self, code: &Code) -> bool {
        let told = code.name == "CAPABILITY";
        if told {
            self.capabilities = read_capabilities(Cursor::over(code.arguments.clone()));
        }
        told
    }

    /// Asks for the capabilities anew.
    ///
    /// # Errors
    /// Any [`ImapError`].
    pub async fn refresh_capabilities(&mut self) -> Result<(), ImapError> {
        self.run(Command::new("CAPABILITY"), Some).await.map(drop)
    }

    /// Gives the server the chance to tell news (NOOP); they are in [`Session::take_unsolicited`] afterwards.
    ///
    /// # Errors
    /// Any [`ImapError`].
    pub async fn noop(&mut self) -> Result<(), ImapError> {
        self.run(Command::new("NOOP"), Some).await.map(drop)
    }

    /// Says goodbye and closes. Whatever goes wrong here harms nobody, so nothing is reported.
    pub async fn logout(mut self) {
        self.reply = self.reply.min(Duration::from_secs(5));
        let _ = self.run(Command::new("LOGOUT"), |_| None).await;
    }
}

/// Time for a literal to go out: what an answer may take, and a second for each 32 KiB.
fn upload_time(reply: Duration, bytes: usize) -> Duration {
    reply + Duration::from_secs((bytes >> 15) as u64)
}

pub(super) fn read_capabilities(mut cursor: Cursor) -> Capabilities {
    let mut atoms = Vec::new();
    while let Some(value) = cursor.value() {
        atoms.push(value);
    }
    Capabilities::parse(atoms.iter().filter_map(|v| v.text()))
}

/// A set for a command: the only set with no UID in it that IMAP can write is none at all.
pub(super) fn set_chunks(uids: &UidSet) -> Vec<String> {
    uids.to_chunks(MAX_SET_BYTES)
}

pub(super) fn uid_of(value: &super::parse::Value) -> Option<Uid> {
    Uid::new(u32::try_from(value.number()?).ok()?)
}

#[cfg(test)]
mod tests;
