//! One body posted to an address that a user named, through the guarded way out: over HTTPS, without redirects, with a bound on
//! everything that comes back.
//!
//! The address is judged by what it resolves to at each connection, whatever it resolved to before. A connection is kept for the
//! next body for a minute. The status of the answer decides; its body is read for the sake of the connection alone, and never
//! shown to anybody. No proxy, no cookies.

mod address;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, RETRY_AFTER};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

pub use address::{ADDRESS_BYTES, Address, AddressError};

use crate::dial::{Deadlines, DialError, Outbound};
use crate::tls::{TlsConfig, TlsError};
use crate::trouble::{Trouble, Unopened};

/// How long a receiver has.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// For one of the addresses of a name: the next one is tried while there is time for an answer.
const CONNECT: Duration = Duration::from_secs(4);
/// What is read of the answer, its head and its body each.
const MAX_BYTES: usize = 64 << 10;
/// For the body of an answer whose status is known.
const REST: Duration = Duration::from_secs(1);
/// So long a connection is used, then the address is judged anew.
const OLDEST: Duration = Duration::from_secs(60);

/// What the other side said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// When to come again, as it was written.
    pub retry_after: Option<String>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Whole {
    /// The status.
    pub status: u16,
    /// Its fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.code())]
pub struct PostError(pub Trouble);

impl From<DialError> for PostError {
    fn from(error: DialError) -> Self {
        Self(Unopened::from(error).trouble())
    }
}

impl From<TlsError> for PostError {
    fn from(error: TlsError) -> Self {
        Self(Unopened::from(error).trouble())
    }
}

impl From<hyper::Error> for PostError {
    fn from(error: hyper::Error) -> Self {
        let closed = error.is_closed() || error.is_canceled() || error.is_incomplete_message();
        let broken =
            !error.is_parse() && std::error::Error::source(&error).is_some_and(|s| s.is::<std::io::Error>());
        Self(if closed || broken { Trouble::Closed } else { Trouble::Protocol })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An open connection; it ends with this value.
#[derive(Debug)]
struct Line {
    sender: SendRequest<Full<Bytes>>,
    opened: Instant,
    _driver: AbortOnDropHandle<Result<(), hyper::Error>>,
}

/// Posts to one address; calls beside each other have a connection each.
#[derive(Debug)]
pub struct Poster {
    outbound: Arc<Outbound>,
    tls: TlsConfig,
    address: Address,
    patience: Duration,
    idle: Mutex<Vec<Line>>,
}

impl Poster {
    /// Connects to nothing yet. `patience`: for everything from the lookup of the name to the status of the answer, usually
    /// [`PATIENCE`].
    #[must_use]
    pub fn new(outbound: Arc<Outbound>, tls: TlsConfig, address: Address, patience: Duration) -> Self {
        Self { outbound, tls, address, patience, idle: Mutex::default() }
    }

    /// Posts `body` with these header fields, and ends within its patience and a second.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn post(&self, headers: &HeaderMap, body: &Bytes) -> Result<Answered, PostError> {
        let deadline = Instant::now() + self.patience;
        let talk = timeout_at(deadline, self.ask(headers, body)).await;
        let (line, response) = talk.unwrap_or(Err(PostError(Trouble::Timeout)))?;
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let status = response.status().as_u16();
        let rest = timeout(REST, Limited::new(response.into_body(), MAX_BYTES).collect()).await;
        if matches!(rest, Ok(Ok(_))) && line.opened.elapsed() < OLDEST {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        Ok(Answered { status, retry_after })
    }

    /// Asks once, over a connection of its own, and reads a body of at most `most` bytes. All of it has the patience together.
    ///
    /// # Errors
    /// Why there is no answer; [`Trouble::Protocol`] for a longer one.
    pub async fn ask_once(
        &self,
        method: Method,
        headers: &HeaderMap,
        body: &Bytes,
        most: usize,
    ) -> Result<Whole, PostError> {
        let talk = async {
            let mut line = self.open().await?;
            let mut request = self.request(headers, body)?;
            *request.method_mut() = method;
            let (head, body) = line.sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, most).collect().await.map_err(|error| {
                PostError(
                    error.downcast::<hyper::Error>().map_or(Trouble::Protocol, |e| PostError::from(*e).0),
                )
            })?;
            Ok(Whole { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
        };
        timeout(self.patience, talk).await.unwrap_or(Err(PostError(Trouble::Timeout)))
    }

    /// Over a connection that is there, or else over a new one. The other side may have hung up while nothing was said.
    async fn ask(
        &self,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<(Line, http::Response<Incoming>), PostError> {
        while let Some(mut line) = self.kept() {
            if line.sender.ready().await.is_err() {
                continue;
            }
            match line.sender.send_request(self.request(headers, body)?).await {
                Ok(response) => return Ok((line, response)),
                Err(error) => match PostError::from(error) {
                    PostError(Trouble::Closed) => {}
                    other => return Err(other),
                },
            }
        }
        let mut line = self.open().await?;
        let response = line.sender.send_request(self.request(headers, body)?).await?;
        Ok((line, response))
    }

    fn kept(&self) -> Option<Line> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|line| line.opened.elapsed() < OLDEST && !line.sender.is_closed());
        idle.pop()
    }

    fn request(&self, headers: &HeaderMap, body: &Bytes) -> Result<Request<Full<Bytes>>, PostError> {
        let mut request = Request::post(self.address.path())
            .header(HOST, self.address.authority())
            .header(CONTENT_LENGTH, body.len())
            .body(Full::new(body.clone()))
            .map_err(|_| PostError(Trouble::Protocol))?;
        for (name, value) in headers {
            request.headers_mut().insert(name, value.clone());
        }
        Ok(request)
    }

    async fn open(&self) -> Result<Line, PostError> {
        let (host, plain) = (self.address.target(), self.address.is_plain());
        let each = self.patience;
        let deadlines = Deadlines { resolve: each, connect: each.min(CONNECT), tls: each, reply: each };
        let resolved = self.outbound.resolve_post(host, plain, each).await?;
        let socket = self.outbound.dial_resolved(&resolved, &deadlines).await?;
        let stream: Box<dyn Stream> =
            if plain { Box::new(socket) } else { Box::new(self.tls.connect(host.0, socket, each).await?) };
        let (sender, connection) =
            http1::Builder::new().max_buf_size(MAX_BYTES).handshake(TokioIo::new(stream)).await?;
        let driver = AbortOnDropHandle::new(tokio::spawn(connection));
        Ok(Line { sender, opened: Instant::now(), _driver: driver })
    }
}

#[cfg(test)]
mod tests;
