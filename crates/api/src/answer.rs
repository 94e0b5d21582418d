//! Answers that are in memory while their reader takes them.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use emailclient_core::platform::budget::Held;
use http_body::{Frame, SizeHint};

use crate::context::Context;
use crate::error::ApiError;
use crate::state::AppState;

/// What is smaller fits into the buffer of its connection, where it goes at once.
const SMALL_BYTES: u64 = 64 * 1024;
const PIECE_BYTES: usize = 64 * 1024;

/// Counts large answers as in hand until their reader has taken them.
pub async fn hold(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let context = request.extensions().get::<Context>().cloned();
    let response = next.run(request).await;
    // An answer of unknown length is read as it is taken, and counts by itself.
    let Some(length) = http_body::Body::size_hint(response.body()).exact().filter(|n| *n > SMALL_BYTES)
    else {
        return response;
    };
    let tenant = context.as_ref().and_then(Context::tenant);
    // The handler is done with its body. Who held that and waited for this would wait for others who do the same.
    if let Some(context) = &context {
        context.let_go();
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let held = match state.lines.take(tenant, length).await {
        Ok(held) => held,
        Err(spent) => return ApiError::from(spent).into_response(),
    };
    let (parts, body) = response.into_parts();
    match to_bytes(body, length).await {
        Ok(rest) => Response::from_parts(parts, Body::new(InPieces { rest, _held: held })),
        Err(error) => ApiError::internal(error).into_response(),
    }
}

/// Bytes that leave piece by piece: hyper takes what its buffer has room for, and asks again.
struct InPieces {
    rest: Bytes,
    _held: Held,
}

impl http_body::Body for InPieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
