//! Answers that come before the request was read to its end.
//!
//! What is left of such a request would be taken for the next one, so the connection cannot be used again. Closing it at
//! once is no way out: bytes that arrive after the close are answered with a reset, and the reset throws away the answer
//! that the client has not read yet (RFC 9112 §9.6). So the answer says `Connection: close`, then our side of the
//! connection ends, and what still comes is read and dropped for a while.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderValue, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};

/// How much of a request is read and dropped after its answer.
const DRAIN_BYTES: usize = 256 * 1024;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Shared {
    body: Incoming,
    ended: bool,
}

/// The body of a request as the handlers get it.
#[derive(Debug)]
pub struct Watched(Arc<Mutex<Shared>>);

/// What the connection keeps of a body that it gave away.
#[derive(Debug)]
pub struct Watch(Arc<Mutex<Shared>>);

/// Splits a body into the part that is read and the part that knows how far.
pub fn watch(body: Incoming) -> (Watched, Watch) {
    let ended = body.is_end_stream();
    let shared = Arc::new(Mutex::new(Shared { body, ended }));
    (Watched(Arc::clone(&shared)), Watch(shared))
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = ready!(Pin::new(&mut shared.body).poll_frame(context));
        shared.ended = frame.is_none() || shared.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).body.size_hint()
    }
}

impl Watch {
    fn ended(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ended
    }

    /// Adds `Connection: close` to an answer that comes before the end of its request. A request that succeeded without
    /// its body, on a route that has none, has its small body read and keeps its connection.
    pub async fn mark<B>(self, response: &mut http::Response<B>) {
        if self.ended() {
            return;
        }
        let refused = response.status().is_client_error() || response.status().is_server_error();
        if refused || !self.drained().await {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    async fn drained(self) -> bool {
        let mut rest = Watched(self.0);
        let drain = async {
            let mut left = DRAIN_BYTES;
            while let Some(frame) = rest.frame().await {
                let length = frame.ok().and_then(|f| f.into_data().ok()).map(|data| data.len())?;
                left = left.checked_sub(length)?;
            }
            Some(())
        };
        timeout(DRAIN_TIME, drain).await.ok().flatten().is_some()
    }
}

/// A stream that is closed in stages.
#[derive(Debug)]
pub struct Staged<S> {
    stream: S,
    closing: Option<Closing>,
}

#[derive(Debug)]
struct Closing {
    left: usize,
    end: Pin<Box<Sleep>>,
}

impl<S> Staged<S> {
    /// Over `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, closing: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Staged<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Staged<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Ends our side, then reads until the client ends its own, within [`DRAIN_BYTES`] and [`DRAIN_TIME`]. A client that
    /// sends more than that is not read any further, but it has the whole time to see the answer.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
        }
        let closing = this
            .closing
            .get_or_insert_with(|| Closing { left: DRAIN_BYTES, end: Box::pin(sleep(DRAIN_TIME)) });
        let mut place = [std::mem::MaybeUninit::uninit(); 16 * 1024];
        while closing.left > 0 {
            let mut buffer = ReadBuf::uninit(&mut place);
            match Pin::new(&mut this.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    closing.left = closing.left.saturating_sub(buffer.filled().len());
                }
                // The end, or a line that broke: nothing more will come.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
        }
        closing.end.as_mut().poll(context).map(Ok)
    }
}
