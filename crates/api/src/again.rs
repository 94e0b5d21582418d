//! A request that met a locked row runs again: while it waits it has no connection to the database.
//!
//! PostgreSQL lets a request's statement wait 200 ms for a row (`Db::for_requests`). Then its transaction ends, nothing of
//! it is left, and the handler runs once more with the same request, for ten seconds in all. The body was read into
//! memory by the first run and is handed to the next one; a larger one, as of an upload, is not kept, and its handler has to
//! see to itself.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use futures::StreamExt as _;
use http::Method;

use crate::context::Context;

/// How long a request may go on meeting locked rows.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Between two runs; others use the connection meanwhile.
pub const PAUSE: Duration = Duration::from_millis(25);
/// Largest body that is kept for another run: that of a draft, the largest of JSON.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// In the extensions of a refusal: a row was locked, the same request may succeed in a moment.
#[derive(Debug, Clone, Copy)]
pub struct Busy;

/// Runs what can edit until no row is in its way.
pub async fn run(request: Request, next: Next) -> Response {
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return next.run(request).await;
    }
    let until = Instant::now() + PATIENCE;
    let context = request.extensions().get::<Context>().cloned();
    let (mut parts, mut body) = request.into_parts();
    loop {
        let read = Arc::new(Mutex::new(Read::default()));
        let mut request = Request::new(recorded(body, &read));
        request.extensions_mut().extend(parts.extensions.clone());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.version_mut() = parts.version;
        *request.headers_mut() = std::mem::take(&mut parts.headers);
        parts.headers.clone_from(request.headers());
        let response = next.clone().run(request).await;
        if response.extensions().get::<Busy>().is_none() || Instant::now() >= until {
            return response;
        }
        let Some(whole) = Read::whole(&read) else { return response };
        if context.as_ref().is_some_and(|c| !c.begin_again()) {
            return response;
        }
        tokio::time::sleep(PAUSE).await;
        body = Body::from(whole);
    }
}

/// What of a body was read.
#[derive(Debug, Default)]
struct Read {
    pieces: Vec<Bytes>,
    size: usize,
    ended: bool,
}

impl Read {
    /// The body, if it was read to its end and kept.
    fn whole(read: &Mutex<Self>) -> Option<Bytes> {
        let mut read = read.lock().ok()?;
        (read.ended && read.size <= KEPT_BYTES).then(|| std::mem::take(&mut read.pieces).concat().into())
    }

    fn note(&mut self, piece: &Bytes) {
        self.size += piece.len();
        if self.size <= KEPT_BYTES {
            self.pieces.push(piece.clone());
        } else {
            self.pieces.clear();
        }
    }
}

/// The same body, noted as it is read. Pieces are shared, not copied.
fn recorded(body: Body, read: &Arc<Mutex<Read>>) -> Body {
    let hint = http_body::Body::size_hint(&body);
    if hint.exact() == Some(0) {
        if let Ok(mut read) = read.lock() {
            read.ended = true;
        }
        return body;
    }
    let (noting, ending) = (Arc::clone(read), Arc::clone(read));
    let pieces = body.into_data_stream().map(move |piece| {
        if let (Ok(piece), Ok(mut read)) = (&piece, noting.lock()) {
            read.note(piece);
        }
        piece
    });
    let end = futures::stream::poll_fn(move |_| {
        if let Ok(mut read) = ending.lock() {
            read.ended = true;
        }
        std::task::Poll::Ready(None)
    });
    Body::from_stream(pieces.chain(end))
}
