//! The socket of a client, given up when the client takes too little of what it asked for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use emailclient_core::platform::metrics::table;
use metrics::{Counter, counter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A client that takes fewer bytes than this...
const PIECE_BYTES: usize = 64 * 1024;
/// ...in this time, though more are waiting for it, is cut off: what it asked for is held in memory meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);

/// A socket that fails with `TimedOut` when its other end reads slower than 64 KiB in 30 seconds.
#[derive(Debug)]
pub struct Line<S> {
    socket: S,
    // Set while bytes wait for the other end.
    until: Option<Pin<Box<Sleep>>>,
    taken: usize,
    received: Counter,
    sent: Counter,
}

impl<S> Line<S> {
    /// Wraps a socket.
    pub fn new(socket: S) -> Self {
        Self {
            socket,
            until: None,
            taken: 0,
            received: counter!(table::HTTP_RECEIVED.name),
            sent: counter!(table::HTTP_SENT.name),
        }
    }

    fn judge(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Ok(taken)) => {
                self.sent.increment(taken as u64);
                self.taken += taken;
                if self.taken >= PIECE_BYTES
                    && let Some(until) = &mut self.until
                {
                    self.taken = 0;
                    until.as_mut().reset(Instant::now() + PATIENCE);
                }
                Poll::Ready(Ok(taken))
            }
            Poll::Ready(failed) => Poll::Ready(failed),
            Poll::Pending => {
                let taken = &mut self.taken;
                let until = self.until.get_or_insert_with(|| {
                    *taken = 0;
                    Box::pin(sleep(PATIENCE))
                });
                ready!(until.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        self.received.increment((buf.filled().len() - before) as u64);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.judge(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.judge(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    // hyper 1 flushes when its own buffer is empty: nothing waits for the other end any more.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(Pin::new(&mut self.socket).poll_flush(cx));
        self.until = None;
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_cut_off_after_half_a_minute() {
        let (near, _far) = duplex(1024);
        let started = Instant::now();
        let error = Line::new(near).write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!((PATIENCE..PATIENCE + Duration::from_secs(1)).contains(&started.elapsed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_drop_now_and_then_does_not_help_and_64_kib_do() {
        for (bytes, fine) in [(1024, false), (PIECE_BYTES + 1024, true)] {
            let (near, mut far) = duplex(1024);
            let reader = tokio::spawn(async move {
                let mut taken = vec![0; bytes];
                loop {
                    tokio::time::sleep(Duration::from_secs(20)).await;
                    if far.read_exact(&mut taken).await.is_err() {
                        return;
                    }
                }
            });
            let written = Line::new(near).write_all(&vec![0; 1 << 20]).await;
            assert_eq!(written.is_ok(), fine, "{bytes} bytes each 20 s: {written:?}");
            reader.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_between_two_answers_is_no_slowness() {
        let (near, mut far) = duplex(1024);
        let mut line = Line::new(near);
        for _ in 0..3 {
            let mut taken = [0; 2048];
            let (sent, read) = tokio::join!(
                async {
                    line.write_all(&[0; 2048]).await?;
                    line.flush().await
                },
                far.read_exact(&mut taken)
            );
            sent.unwrap();
            read.unwrap();
            tokio::time::sleep(PATIENCE * 3).await;
        }
    }
}
