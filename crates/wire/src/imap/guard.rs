//! Complete responses from a byte stream that is not trusted.
//!
//! The only place that reads from an IMAP server. A response is its lines and literals up to the line end that
//! closes it; every part is bounded before it is kept (line, literal, depth of parentheses, bytes per command,
//! time). Literals are cut out of the receive buffer without copying. What a response means is `parse.rs`'s
//! matter; what may follow what, `command.rs`'s.
//!
//! A read that is abandoned half-way (a dropped future) loses nothing: all state is in [`Framer`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::ImapError;
use super::long_lines::{LongLines, Turn};

/// Largest message taken whole: the cap on stored messages (50 MB), with room for servers that count otherwise.
pub const MAX_LITERAL_BYTES: usize = 51 << 20;
/// What is no body: names, words of the server.
const MAX_OTHER_LITERAL_BYTES: usize = 1 << 20;
/// A larger literal is read and thrown away where the caller can live without it, up to this size.
const MAX_SKIPPED_BYTES: u64 = 2 << 30;
/// Ordinary lines; the longest seen from real servers are FETCH lines of some 4 KiB without literals.
const MAX_LINE_BYTES: usize = 64 << 10;
/// All of an ordinary response but its body: lines and literals.
const MAX_RESPONSE_BYTES: usize = 4 << 20;
/// Lines that list numbers: a million scattered UIDs in SEARCH are about 8 MB.
const MAX_LONG_LINE_BYTES: usize = 16 << 20;
/// Depth of parentheses. BODYSTRUCTURE, which we never ask for, is the only one that nests beyond five.
pub(super) const MAX_DEPTH: usize = 100;
/// Parts (lines and literals) of one response; our own requests produce at most a handful.
const MAX_PARTS: usize = 1_000;
const READ_BYTES: usize = 32 << 10;
/// So many bytes of a literal buy the time of one more answer: a large message over a slow line is no silence.
const PROGRESS_BYTES: u64 = 64 << 10;
/// All of a literal may take this many times the deadline of one answer: half an hour.
const LITERAL_PATIENCE: u32 = 30;
/// Bodies beyond it are large. Nearly all mail is below, and over a slow line such a body takes seconds.
const LARGE_BYTES: usize = 1 << 20;
/// While nothing but a word now and then is expected. Ten thousand connections wait like this.
const RESTING_READ_BYTES: usize = 512;

/// Anything that carries bytes both ways: a socket, TLS over it, a pipe in tests.
pub trait Transport: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Transport for T {}

/// A bound on the message bytes in memory, shared by all who load bodies: a permit travels with each body.
///
/// It is taken when the server announces the body, which may be long before its last byte is here: a large one over a slow
/// line takes minutes. So large bodies have a share of their own ([`Self::and_large`]), and wait for each other only.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    ordinary: Share,
    large: Option<Share>,
}

#[derive(Clone, Debug)]
struct Share {
    semaphore: Arc<Semaphore>,
    total: u32,
}

impl Share {
    fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self { semaphore: Arc::new(Semaphore::new(usize::try_from(total).unwrap_or(usize::MAX))), total }
    }
}

impl MemoryBudget {
    /// A budget of `bytes` (at most 2³²−1). A body larger than the whole budget takes all of it.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self { ordinary: Share::new(bytes), large: None }
    }

    /// With `bytes` more for bodies above 1 MiB, which then take nothing of the other.
    #[must_use]
    pub fn and_large(self, bytes: usize) -> Self {
        Self { large: Some(Share::new(bytes)), ..self }
    }

    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let share = self.large.as_ref().filter(|_| bytes > LARGE_BYTES).unwrap_or(&self.ordinary);
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX).min(share.total);
        Arc::clone(&share.semaphore).acquire_many_owned(wanted).await.ok()
    }
}

/// One piece of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Text up to a literal or the end, without the line end.
    Text(Bytes),
    /// A literal.
    Literal(Bytes),
    /// A literal that was too large and thrown away.
    Skipped(Oversized),
}

/// What is kept of a literal that was too large: enough to know it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oversized {
    /// Its bytes.
    pub size_bytes: u64,
    /// Their SHA-256, taken while they were thrown away.
    pub hash: [u8; 32],
}

/// A literal that is being thrown away.
struct Skipping {
    size: u64,
    left: u64,
    digest: digest::Context,
}

impl fmt::Debug for Skipping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Skipping").field("left", &self.left).finish_non_exhaustive()
    }
}

/// A complete response.
#[derive(Debug)]
pub(super) struct RawResponse {
    pub parts: Vec<Part>,
    pub permit: Option<OwnedSemaphorePermit>,
}

/// What a command allows the server: until when, and how many bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    pub until: Instant,
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Partial {
    parts: Vec<Part>,
    permit: Option<OwnedSemaphorePermit>,
    literal_bytes: usize,
    /// Text so far, and literals that are no body.
    other_bytes: usize,
    depth: usize,
    in_quotes: bool,
    skipping: Option<Skipping>,
    literal: Option<usize>,
    /// When the literal must be complete, however steadily it comes, and what of it came since it last bought time.
    latest: Option<Instant>,
    progress: u64,
    /// Bytes of the current line already looked at.
    scanned: usize,
    /// What allows the current line to be long.
    turn: Turn,
}

/// The stream with its receive buffer and limits.
pub(super) struct Framer {
    stream: Box<dyn Transport>,
    buffer: BytesMut,
    partial: Partial,
    allowance: Allowance,
    /// Time of one answer, as last allowed.
    step: Duration,
    memory: Option<MemoryBudget>,
    skip_oversized: bool,
    resting: bool,
    brief: bool,
    long_lines: LongLines,
}

impl fmt::Debug for Framer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framer").field("buffered", &self.buffer.len()).finish_non_exhaustive()
    }
}

impl Framer {
    pub fn new(stream: Box<dyn Transport>, allowance: Allowance) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            partial: Partial::default(),
            step: allowance.until.saturating_duration_since(Instant::now()),
            allowance,
            memory: None,
            skip_oversized: false,
            resting: false,
            brief: false,
            long_lines: LongLines::of_the_process(),
        }
    }

    /// From now on long lines count for this tenant, whose number the caller chooses.
    pub fn count_for(&mut self, tenant: u128) {
        self.long_lines.count_for(tenant);
    }

    /// With another bound on long lines than the process has.
    #[cfg(test)]
    pub(super) fn sharing(self, long_lines: LongLines) -> Self {
        Self { long_lines, ..self }
    }

    /// Sets what may happen until the next call: once per command.
    pub fn allow(&mut self, allowance: Allowance) {
        self.allowance = allowance;
        self.allow_until(allowance.until);
    }

    /// Moves the deadline without renewing the bytes.
    pub fn allow_until(&mut self, until: Instant) {
        self.allowance.until = until;
        self.step = until.saturating_duration_since(Instant::now());
    }

    /// While bodies are loaded: literals take permits from `memory` before they are read, and oversized ones
    /// are skipped instead of ending the connection. `None` ends that.
    pub fn load_bodies(&mut self, memory: Option<MemoryBudget>) {
        self.skip_oversized = memory.is_some();
        self.memory = memory;
    }

    /// Whether little is expected for long: then the receive buffer is given up and a small one does.
    pub fn rest(&mut self, resting: bool) {
        self.resting = resting;
        if resting && self.buffer.is_empty() && self.partial.literal.is_none() {
            self.buffer = BytesMut::new();
        }
    }

    /// Whether a whole response may have no more than an ordinary line: while nothing was asked for, thousands of servers may
    /// say something at once.
    pub const fn keep_brief(&mut self, brief: bool) {
        self.brief = brief;
    }

    /// The stream, for the switch to TLS.
    ///
    /// # Errors
    /// [`ImapError::Protocol`] when the server already sent something: bytes in clear that arrived before the
    /// switch must never count as said under TLS (the STARTTLS injection).
    pub fn into_stream(self) -> Result<Box<dyn Transport>, ImapError> {
        if self.buffer.is_empty() && self.partial.parts.is_empty() {
            Ok(self.stream)
        } else {
            Err(ImapError::protocol("unexpected bytes before the switch to TLS"))
        }
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), ImapError> {
        let work = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout_at(self.allowance.until, work).await {
            Err(_) => Err(ImapError::Timeout),
            Ok(Err(_)) => Err(ImapError::Closed { bye: None }),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// The next complete response.
    ///
    /// # Errors
    /// [`ImapError::Closed`] at the end of the stream, [`ImapError::Timeout`] when it is not complete in time,
    /// [`ImapError::Protocol`] when a limit is passed. After any of them the connection is useless.
    pub async fn read(&mut self) -> Result<RawResponse, ImapError> {
        loop {
            if let Some(response) = self.advance().await? {
                return Ok(response);
            }
            if self.partial.scanned > MAX_LINE_BYTES {
                // Waiting for others to let go of memory is not the server's fault.
                let start = Instant::now();
                self.partial.turn.suffice(&self.long_lines, self.partial.scanned).await;
                self.allowance.until += start.elapsed();
            }
            self.fill().await?;
        }
    }

    /// Uses up what is buffered; `None` when more is needed.
    async fn advance(&mut self) -> Result<Option<RawResponse>, ImapError> {
        loop {
            if self.skip_some() {
                return Ok(None);
            }
            if let Some(size) = self.partial.literal {
                if !self.take_literal(size).await? {
                    return Ok(None);
                }
                continue;
            }
            let Some(line) = self.take_line()? else { return Ok(None) };
            self.count(if self.partial.parts.is_empty() { 0 } else { line.len() })?;
            match self.announced_literal(&line)? {
                None => {
                    let mut done = std::mem::take(&mut self.partial);
                    done.parts.push(Part::Text(line));
                    return Ok(Some(RawResponse { parts: done.parts, permit: done.permit }));
                }
                Some((text, size)) => {
                    self.partial.parts.push(Part::Text(text));
                    self.announce(size)?;
                }
            }
        }
    }

    /// Throws away bytes of an oversized literal; true when it needs more of them.
    fn skip_some(&mut self) -> bool {
        let Some(skipping) = &mut self.partial.skipping else { return false };
        let here = self.buffer.len().min(usize::try_from(skipping.left).unwrap_or(usize::MAX));
        skipping.digest.update(&self.buffer.split_to(here));
        skipping.left = skipping.left.saturating_sub(here as u64);
        if skipping.left > 0 {
            return true;
        }
        if let Some(Skipping { size, digest, .. }) = self.partial.skipping.take() {
            let mut hash = [0; 32];
            hash.copy_from_slice(digest.finish().as_ref());
            self.partial.parts.push(Part::Skipped(Oversized { size_bytes: size, hash }));
        }
        false
    }

    fn announce(&mut self, size: u64) -> Result<(), ImapError> {
        if self.partial.parts.len() >= MAX_PARTS {
            return Err(ImapError::protocol("a response of too many parts"));
        }
        (self.partial.latest, self.partial.progress) =
            (Instant::now().checked_add(self.step * LITERAL_PATIENCE), 0);
        // Only the first literal of an answer to a request for bodies is a body, for which there is memory.
        let is_body = self.memory.is_some() && self.partial.permit.is_none();
        let most = if is_body { MAX_LITERAL_BYTES } else { MAX_OTHER_LITERAL_BYTES };
        let fits = usize::try_from(size)
            .ok()
            .filter(|n| *n <= most && n.saturating_add(self.partial.literal_bytes) <= MAX_LITERAL_BYTES);
        if let Some(bytes) = fits {
            self.partial.literal_bytes += bytes;
            self.count(if is_body { 0 } else { bytes })?;
            self.partial.literal = Some(bytes);
            return Ok(());
        }
        if self.skip_oversized && size <= MAX_SKIPPED_BYTES {
            let digest = digest::Context::new(&digest::SHA256);
            self.partial.skipping = Some(Skipping { size, left: size, digest });
            return Ok(());
        }
        Err(ImapError::protocol("a literal larger than the limit"))
    }

    async fn take_literal(&mut self, size: usize) -> Result<bool, ImapError> {
        if let Some(memory) = self.memory.clone().filter(|_| self.partial.permit.is_none() && size > 0) {
            // Waiting for others to let go of memory is not the server's fault.
            let start = Instant::now();
            self.partial.permit = memory.take(size).await;
            self.allowance.until += start.elapsed();
        }
        if self.buffer.len() < size {
            let missing = size - self.buffer.len();
            self.buffer.reserve(missing);
            return Ok(false);
        }
        self.partial.literal = None;
        let bytes = self.buffer.split_to(size).freeze();
        self.partial.parts.push(Part::Literal(bytes));
        Ok(true)
    }

    /// A whole line without its line end, if there is one.
    fn take_line(&mut self) -> Result<Option<Bytes>, ImapError> {
        let fresh = self.buffer.get(self.partial.scanned..).unwrap_or_default();
        let Some(found) = fresh.iter().position(|b| *b == b'\n') else {
            self.partial.scanned = self.buffer.len();
            let too_long = self.buffer.len() > MAX_LINE_BYTES
                && (self.buffer.len() > MAX_LONG_LINE_BYTES || !self.may_be_long(&self.buffer));
            return if too_long { Err(ImapError::protocol("a line without end")) } else { Ok(None) };
        };
        let length = self.partial.scanned + found;
        if length > MAX_LINE_BYTES && !self.may_be_long(&self.buffer) {
            return Err(ImapError::protocol("a line longer than the limit"));
        }
        self.partial.scanned = 0;
        self.partial.turn = Turn::default();
        let mut line = self.buffer.split_to(length + 1).freeze();
        line.truncate(length);
        if line.last() == Some(&b'\r') {
            line.truncate(length - 1);
        }
        Ok(Some(line))
    }

    fn may_be_long(&self, line: &[u8]) -> bool {
        const LONG: [&[u8]; 4] = [b"* SEARCH", b"* ESEARCH", b"* VANISHED", b"* SORT"];
        !self.brief
            && self.partial.parts.is_empty()
            && LONG.iter().any(|p| line.get(..p.len()).is_some_and(|l| l.eq_ignore_ascii_case(p)))
    }

    /// Counts what a response has beside its first line and its body.
    fn count(&mut self, bytes: usize) -> Result<(), ImapError> {
        self.partial.other_bytes = self.partial.other_bytes.saturating_add(bytes);
        let most = if self.brief { MAX_LINE_BYTES } else { MAX_RESPONSE_BYTES };
        if self.partial.other_bytes > most {
            return Err(ImapError::protocol("a response longer than the limit"));
        }
        Ok(())
    }

    /// Counts parentheses outside quotes and splits a `{n}` off the end. Status lines are free text in which
    /// neither means anything.
    fn announced_literal(&mut self, line: &Bytes) -> Result<Option<(Bytes, u64)>, ImapError> {
        if self.partial.parts.is_empty() && is_status_line(line) {
            return Ok(None);
        }
        let mut escaped = false;
        for byte in line.iter() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if self.partial.in_quotes => escaped = true,
                b'"' => self.partial.in_quotes = !self.partial.in_quotes,
                b'(' if !self.partial.in_quotes => self.partial.depth += 1,
                b')' if !self.partial.in_quotes => self.partial.depth = self.partial.depth.saturating_sub(1),
                _ => {}
            }
            if self.partial.depth > MAX_DEPTH {
                return Err(ImapError::protocol("parentheses nested too deeply"));
            }
        }
        // A quoted string ends with its line: what a stray quote opened must not hide parentheses further on.
        self.partial.in_quotes = false;
        let Some(open) = line.strip_suffix(b"}").and_then(|l| l.iter().rposition(|b| *b == b'{')) else {
            return Ok(None);
        };
        let digits = line.get(open + 1..line.len() - 1).unwrap_or_default();
        let digits = digits.strip_suffix(b"+").unwrap_or(digits);
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Ok(None);
        }
        let size = std::str::from_utf8(digits).ok().and_then(|d| d.parse().ok());
        let size = size.ok_or_else(|| ImapError::protocol("a literal larger than the limit"))?;
        Ok(Some((line.slice(..open), size)))
    }

    async fn fill(&mut self) -> Result<(), ImapError> {
        let size = if self.resting { RESTING_READ_BYTES } else { READ_BYTES };
        if self.buffer.capacity() - self.buffer.len() < size / 4 && self.partial.literal.is_none() {
            self.buffer.reserve(size);
        }
        let read = self.stream.read_buf(&mut self.buffer);
        let count = match timeout_at(self.allowance.until, read).await {
            Err(_) => return Err(ImapError::Timeout),
            // A reset, or TLS that ends without close_notify, is an end like any other here: only a tagged OK
            // ever ends a command, so nothing can be taken for complete.
            Ok(Err(_) | Ok(0)) => return Err(ImapError::Closed { bye: None }),
            Ok(Ok(count)) => count as u64,
        };
        self.allowance.bytes = self
            .allowance
            .bytes
            .checked_sub(count)
            .ok_or_else(|| ImapError::protocol("the answer is larger than the limit"))?;
        self.note_progress(count);
        Ok(())
    }
}

impl Framer {
    fn note_progress(&mut self, count: u64) {
        if self.partial.literal.is_none() && self.partial.skipping.is_none() {
            return;
        }
        self.partial.progress += count;
        if let Some(latest) = self.partial.latest.filter(|_| self.partial.progress >= PROGRESS_BYTES) {
            self.partial.progress = 0;
            self.allowance.until = self.allowance.until.max(latest.min(Instant::now() + self.step));
        }
    }
}

/// A tagged line, a continuation, or untagged OK, NO, BAD, BYE, PREAUTH.
fn is_status_line(line: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(b"* ") else { return true };
    let word = rest.split(|b| *b == b' ').next().unwrap_or_default();
    let status: [&[u8]; 5] = [b"OK", b"NO", b"BAD", b"BYE", b"PREAUTH"];
    status.iter().any(|s| word.eq_ignore_ascii_case(s))
}
