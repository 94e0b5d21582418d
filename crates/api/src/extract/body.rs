//! Reading a request body within its limit and its time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header;
use http::request::Parts;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout, timeout_at};

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

/// What the clock of a body measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The whole body within [`Patience`].
    Whole,
    /// Each piece within [`Patience`]: large uploads over slow lines.
    EachPiece,
}

/// Reads the whole body into memory.
///
/// # Errors
/// 413 as soon as it is over `limit` (by `Content-Length` before the first byte), 408 when it does not arrive in time,
/// 400 when the line breaks or the framing is wrong.
pub async fn read(parts: &Parts, body: Body, limit: usize, pace: Pace) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::payload_too_large(format!("this route takes at most {limit} bytes"));
    let Patience(time) = Patience::of(parts);
    let announced = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|n| usize::try_from(n).is_ok_and(|n| n > limit)) {
        return Err(too_large());
    }
    let late = |_| ApiError::request_timeout("the body did not arrive in time");
    let end = Instant::now() + time;
    let (mut body, mut all) = (body, BytesMut::new());
    loop {
        let frame = match pace {
            Pace::Whole => timeout_at(end, body.frame()).await.map_err(late)?,
            Pace::EachPiece => timeout(time, body.frame()).await.map_err(late)?,
        };
        let Some(frame) = frame else { return Ok(all.freeze()) };
        let broken = |e| ApiError::malformed_json("the body broke off").with_cause(e).broken_off();
        let frame = frame.map_err(broken)?;
        if let Some(data) = frame.data_ref() {
            if all.len() + data.len() > limit {
                return Err(too_large());
            }
            all.extend_from_slice(data);
        }
    }
}
