//! Reading a request body within its limit and its time.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use emailclient_core::platform::budget::Budget;
use futures::stream::{Stream, try_unfold};
use http::header;
use http::request::Parts;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use crate::again::Once;
use crate::context::Context;
use crate::error::ApiError;

/// How long a body may take as a whole, or an upload from one piece to the next: `API_BODY_TIMEOUT_SECONDS`. The edge
/// puts it into the extensions of every request.
#[derive(Debug, Clone, Copy)]
pub struct Patience(pub Duration);

impl Patience {
    /// That of a request; half a minute for one that did not come through the edge.
    #[must_use]
    pub fn of(parts: &Parts) -> Self {
        parts.extensions.get::<Self>().copied().unwrap_or(Self(Duration::from_secs(30)))
    }
}

/// An upload takes at most this long, however steadily it drips: 25 MB at 28 kB/s.
const LONGEST_UPLOAD: Duration = Duration::from_secs(900);

/// A body that is read as it comes, within its limit and its time.
#[derive(Debug)]
pub struct Arriving {
    body: Body,
    limit: usize,
    announced: Option<usize>,
    patience: Duration,
}

/// Why [`Arriving`] ended early. A parser between it and the handler hands on no more than words.
#[derive(Debug, Clone, Default)]
pub struct Refusal(Arc<Mutex<Option<ApiError>>>);

impl Refusal {
    fn put(&self, error: ApiError) -> io::Error {
        if let Ok(mut slot) = self.0.lock() {
            *slot = Some(error);
        }
        io::ErrorKind::InvalidData.into()
    }

    /// The refusal of the body, or `other` when it was not the body's fault.
    #[must_use]
    pub fn first_or(&self, other: ApiError) -> ApiError {
        self.0.lock().ok().and_then(|mut slot| slot.take()).unwrap_or(other)
    }

    /// The refusal behind an error of the stream.
    #[must_use]
    pub fn take(&self, error: io::Error) -> ApiError {
        self.first_or(ApiError::malformed_json("the body broke off").with_cause(error))
    }
}

impl Arriving {
    /// Nothing is read yet.
    ///
    /// # Errors
    /// 413 when `Content-Length` is over `limit`.
    pub fn new(parts: &Parts, body: Body, limit: usize) -> Result<Self, ApiError> {
        let announced = announced(parts);
        if announced.is_some_and(|n| n > limit) {
            return Err(too_large(limit));
        }
        if let Some(once) = parts.extensions.get::<Once>() {
            once.keep_nothing();
        }
        let Patience(patience) = Patience::of(parts);
        Ok(Self { body, limit, announced, patience })
    }

    /// How many bytes come, if the client said so.
    #[must_use]
    pub fn announced(&self) -> Option<usize> {
        self.announced
    }

    /// The pieces as they come, and the reason when they end with an error: 413 as soon as they are over the limit, 408 when
    /// the next does not come within [`Patience`] or all within a quarter of an hour, 400 when the line breaks.
    pub fn pieces(self) -> (impl Stream<Item = io::Result<Bytes>> + Send + 'static, Refusal) {
        let refusal = Refusal::default();
        let (end, told) = (Instant::now() + LONGEST_UPLOAD, refusal.clone());
        let pieces = try_unfold((self, 0usize), move |(mut arriving, mut read)| {
            let told = told.clone();
            async move {
                loop {
                    let next = end.min(Instant::now() + arriving.patience);
                    let frame = match timeout_at(next, arriving.body.frame()).await {
                        Err(_) => {
                            return Err(
                                told.put(ApiError::request_timeout("the body did not arrive in time"))
                            );
                        }
                        Ok(None) => return Ok(None),
                        Ok(Some(Err(error))) => {
                            let broken =
                                ApiError::malformed_json("the body broke off").with_cause(error).broken_off();
                            return Err(told.put(broken));
                        }
                        Ok(Some(Ok(frame))) => frame,
                    };
                    let Ok(data) = frame.into_data() else { continue };
                    read += data.len();
                    if read > arriving.limit {
                        return Err(told.put(too_large(arriving.limit)));
                    }
                    return Ok(Some((data, (arriving, read))));
                }
            }
        });
        (Box::pin(pieces), refusal)
    }
}

fn announced(parts: &Parts) -> Option<usize> {
    let text = parts.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    usize::try_from(text.parse::<u64>().ok()?).ok()
}

fn too_large(limit: usize) -> ApiError {
    ApiError::payload_too_large(format!("this route takes at most {limit} bytes"))
}

/// A body is there as it is read, and once more as it came, for another run (`again`).
const COPIES: usize = 2;
/// What a body of unknown length is thought to have at first.
const UNANNOUNCED_BYTES: usize = 16 * 1024;

/// Reads the whole body into memory, where it counts as in hand until the request ends.
///
/// # Errors
/// 413 as soon as it is over `limit` (by `Content-Length` before the first byte), 408 when it does not arrive in time,
/// 400 when the line breaks or the framing is wrong, 503 when there is no memory for it in time.
pub async fn read(parts: &Parts, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let Patience(time) = Patience::of(parts);
    let announced = announced(parts);
    if announced.is_some_and(|n| n > limit) {
        return Err(too_large(limit));
    }
    let context = Context::of(parts);
    let memory = parts.extensions.get::<Budget>();
    let mut counted = announced.unwrap_or(UNANNOUNCED_BYTES.min(limit));
    if let Some(memory) = memory {
        context.hold(memory.take(context.tenant(), COPIES * counted).await?);
    }
    let late = |_| ApiError::request_timeout("the body did not arrive in time");
    let end = Instant::now() + time;
    let (mut body, mut all) = (body, BytesMut::new());
    loop {
        let frame = timeout_at(end, body.frame()).await.map_err(late)?;
        let Some(frame) = frame else { return Ok(all.freeze()) };
        let broken = |e| ApiError::malformed_json("the body broke off").with_cause(e).broken_off();
        let frame = frame.map_err(broken)?;
        if let Some(data) = frame.data_ref() {
            if all.len() + data.len() > limit {
                return Err(too_large(limit));
            }
            if all.len() + data.len() > counted {
                // All that may still come at once: whoever waits for more and more is never done.
                if let Some(memory) = memory {
                    context.hold(memory.take(context.tenant(), COPIES * (limit - counted)).await?);
                }
                counted = limit;
            }
            all.extend_from_slice(data);
        }
    }
}
