//! Lines under a budget: every read and write has a deadline, every reply a size.
//!
//! A reply is refused as soon as it passes a limit, so memory stays below [`MAX_REPLY_BYTES`] whatever the server sends.

use std::time::Duration;

use mail::smtp_reply::SmtpReply;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroize as _;

use super::SmtpError;

/// RFC 5321 §4.5.3.1.5 allows 512; servers with long explanations pass that.
const MAX_LINE_BYTES: usize = 4096;
/// An EHLO answer has about 20 lines; nothing legitimate comes near.
const MAX_REPLY_BYTES: usize = 64 << 10;
/// What is written under one deadline: at 10 kB/s it still fits in 10 s.
const WRITE_BYTES: usize = 64 << 10;

/// A TCP or TLS connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection that speaks in lines.
pub(super) struct LineStream {
    io: Box<dyn Duplex>,
    unread: Vec<u8>,
}

impl std::fmt::Debug for LineStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LineStream").field("unread_bytes", &self.unread.len()).finish_non_exhaustive()
    }
}

/// A reply and its lines without the codes, unshortened.
#[derive(Debug)]
pub(super) struct RawReply {
    pub reply: SmtpReply,
    pub lines: Vec<String>,
}

impl LineStream {
    pub fn new(io: Box<dyn Duplex>) -> Self {
        Self { io, unread: Vec::new() }
    }

    /// Gives the connection back for the switch to TLS.
    ///
    /// # Errors
    /// [`SmtpError::Protocol`] when bytes are waiting: they came in clear and would count as said under TLS.
    pub fn into_inner(self) -> Result<Box<dyn Duplex>, SmtpError> {
        if self.unread.is_empty() {
            Ok(self.io)
        } else {
            Err(SmtpError::protocol("the server spoke between STARTTLS and TLS"))
        }
    }

    /// Reads one reply, all of it within `limit`.
    pub async fn reply(&mut self, limit: Duration) -> Result<RawReply, SmtpError> {
        let until = Instant::now() + limit;
        let mut raw = String::new();
        let mut lines = Vec::new();
        loop {
            let line = self.line(until).await?;
            raw.push_str(&line);
            raw.push('\n');
            if raw.len() > MAX_REPLY_BYTES {
                return Err(SmtpError::protocol("the reply is too long"));
            }
            let last = line.as_bytes().get(3) != Some(&b'-');
            lines.push(line.get(4..).unwrap_or_default().to_owned());
            if last {
                break;
            }
        }
        let reply = SmtpReply::parse(&raw).map_err(|_| SmtpError::protocol("this is not an SMTP server"))?;
        Ok(RawReply { reply, lines })
    }

    async fn line(&mut self, until: Instant) -> Result<String, SmtpError> {
        let mut searched = 0;
        loop {
            let fresh = self.unread.get(searched..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=searched + at).collect();
                let text = line.trim_ascii_end();
                return Ok(String::from_utf8_lossy(text).into_owned());
            }
            searched = self.unread.len();
            if searched > MAX_LINE_BYTES {
                return Err(SmtpError::protocol("a line of the reply is too long"));
            }
            let mut chunk = [0; 2048];
            let read = timeout_at(until, self.io.read(&mut chunk)).await.map_err(|_| SmtpError::Timeout)?;
            match read {
                Ok(0) | Err(_) => return Err(SmtpError::Closed),
                Ok(n) => self.unread.extend_from_slice(chunk.get(..n).unwrap_or_default()),
            }
        }
    }

    /// Refuses to speak over an answer nobody asked for: taken for the answer to the next command it would say that a
    /// message was accepted before it was sent. A goodbye (421) is passed on as such.
    pub fn expect_silence(&self) -> Result<(), SmtpError> {
        if self.unread.is_empty() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&self.unread);
        let first = text.lines().next().unwrap_or_default();
        match SmtpReply::parse(first) {
            Ok(reply) if reply.code == 421 => Err(SmtpError::Refused(reply)),
            _ => Err(SmtpError::protocol("the server answered before it was asked")),
        }
    }

    /// Writes all of `bytes`, `limit` for each piece of 64 KiB, and flushes.
    pub async fn write(&mut self, bytes: &[u8], limit: Duration) -> Result<(), SmtpError> {
        for piece in bytes.chunks(WRITE_BYTES) {
            let until = Instant::now() + limit;
            timeout_at(until, self.io.write_all(piece))
                .await
                .map_err(|_| SmtpError::Timeout)?
                .map_err(|_| SmtpError::Closed)?;
        }
        let until = Instant::now() + limit;
        timeout_at(until, self.io.flush())
            .await
            .map_err(|_| SmtpError::Timeout)?
            .map_err(|_| SmtpError::Closed)
    }

    /// One command and its reply. The command is wiped afterwards, for it may be a password.
    pub async fn command(&mut self, mut command: String, limit: Duration) -> Result<RawReply, SmtpError> {
        self.expect_silence()?;
        let written = self.write(command.as_bytes(), limit).await;
        command.zeroize();
        written?;
        self.reply(limit).await
    }

    /// Tells the peer that nothing more comes.
    pub async fn shutdown(&mut self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.io.shutdown()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(300);

    async fn reply_to(bytes: &[u8]) -> Result<RawReply, SmtpError> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        theirs.write_all(bytes).await.unwrap();
        drop(theirs);
        LineStream::new(Box::new(ours)).reply(SOON).await
    }

    #[tokio::test]
    async fn a_reply_of_several_lines_is_read_to_its_end() {
        let r = reply_to(b"250-one\r\n250-TWO 2\r\n250 three\r\n").await.unwrap();
        assert_eq!(r.lines, ["one", "TWO 2", "three"]);
    }

    #[tokio::test]
    async fn a_line_that_never_ends_is_refused_before_it_is_kept() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let feed = tokio::spawn(async move {
            let mut written = 0usize;
            while theirs.write_all(&[b'2'; 1024]).await.is_ok() {
                written += 1024;
            }
            written
        });
        let mut stream = LineStream::new(Box::new(ours));
        assert!(matches!(stream.reply(Duration::from_secs(5)).await, Err(SmtpError::Protocol(_))));
        drop(stream);
        assert!(feed.await.unwrap() < 16 * 1024);
    }

    #[tokio::test]
    async fn a_reply_of_endless_lines_is_refused() {
        let bytes = b"250-more\r\n".repeat(20_000);
        assert!(matches!(reply_to(&bytes).await, Err(SmtpError::Protocol(_))));
    }

    #[tokio::test]
    async fn a_reply_cut_in_its_middle_is_a_closed_connection() {
        for cut in [&b""[..], b"25", b"250 o", b"250-first\r\n"] {
            assert_eq!(reply_to(cut).await.unwrap_err(), SmtpError::Closed);
        }
    }

    #[tokio::test]
    async fn a_server_that_drips_is_cut_off_at_the_deadline() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let drip = tokio::spawn(async move {
            while theirs.write_all(b"2").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut stream = LineStream::new(Box::new(ours));
        let started = Instant::now();
        assert_eq!(stream.reply(SOON).await.unwrap_err(), SmtpError::Timeout);
        assert!(started.elapsed() < Duration::from_secs(2));
        drip.abort();
    }

    #[tokio::test]
    async fn an_answer_before_the_question_is_not_taken_for_its_answer() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(b"220 hi\r\n250 2.0.0 queued\r\n").await.unwrap();
        let mut stream = LineStream::new(Box::new(ours));
        stream.reply(SOON).await.unwrap();
        let refused = stream.command("NOOP\r\n".to_owned(), SOON).await.unwrap_err();
        assert!(matches!(refused, SmtpError::Protocol(_)));
    }
}
