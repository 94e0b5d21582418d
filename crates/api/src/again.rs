//! A request that met a locked row runs again: while it waits it has no connection to the database.
//!
//! PostgreSQL lets a request's statement wait 200 ms for a row (`Db::for_requests`). Then its transaction ends, nothing of
//! it is left, and the handler runs once more with the same request, for ten seconds in all. What earlier
//! runs read of the body is kept for the next one; a larger one, as of an upload, is not, and its handler has to see to
//! itself.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Body as _, Frame, SizeHint};

use crate::context::Context;
use crate::error::Busy;

/// How long a request may go on meeting locked rows.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Between two runs; others use the connection meanwhile.
pub const PAUSE: Duration = Duration::from_millis(25);
/// Largest body that is kept for another run: that of a draft, the largest of JSON.
const KEPT_BYTES: usize = 4 * 1024 * 1024;

/// Runs a request until nothing is in its way. One that only reads, too: it meets the lock of a migration.
pub async fn run(request: Request, next: Next) -> Response {
    let until = Instant::now() + PATIENCE;
    let context = request.extensions().get::<Context>().cloned();
    let (parts, body) = request.into_parts();
    let kept =
        Arc::new(Mutex::new(Kept { hint: body.size_hint(), body, pieces: Vec::new(), size: 0, lost: false }));
    loop {
        let mut request = Request::new(Body::new(Again { kept: Arc::clone(&kept), next: 0 }));
        request.extensions_mut().extend(parts.extensions.clone());
        request.extensions_mut().insert(Once(Arc::clone(&kept)));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.version_mut() = parts.version;
        request.headers_mut().clone_from(&parts.headers);
        let response = next.clone().run(request).await;
        let again = response.extensions().get::<Busy>().is_some()
            && Instant::now() < until
            && kept.lock().is_ok_and(|kept| !kept.lost)
            && context.as_ref().is_none_or(Context::begin_again);
        if !again {
            return response;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// In the extensions of a request: the way to say that its body is not to be kept for another run.
#[derive(Clone)]
pub struct Once(Arc<Mutex<Kept>>);

impl Once {
    /// What is read as it comes is not held in memory here either.
    pub fn keep_nothing(&self) {
        if let Ok(mut kept) = self.0.lock() {
            kept.lost = true;
            kept.pieces.clear();
        }
    }
}

/// The body of a request, and what of it was read.
struct Kept {
    body: Body,
    hint: SizeHint,
    pieces: Vec<Bytes>,
    size: usize,
    /// It cannot be read again.
    lost: bool,
}

/// The body for one run: what earlier runs read of it, then the rest. Pieces are shared, not copied.
struct Again {
    kept: Arc<Mutex<Kept>>,
    next: usize,
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let shared = Arc::clone(&self.kept);
        let Ok(mut kept) = shared.lock() else { return Poll::Ready(None) };
        if let Some(piece) = kept.pieces.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let polled = ready!(Pin::new(&mut kept.body).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(piece) = frame.data_ref() {
                    kept.size += piece.len();
                    if kept.size <= KEPT_BYTES && !kept.lost {
                        kept.pieces.push(piece.clone());
                        self.next += 1;
                    } else {
                        kept.lost = true;
                        kept.pieces.clear();
                    }
                }
            }
            Some(Err(_)) => kept.lost = true,
            None => {}
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.kept.lock().is_ok_and(|kept| self.next == kept.pieces.len() && kept.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.kept.lock().map(|kept| kept.hint).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode;
    use axum::middleware::from_fn;
    use axum::response::IntoResponse as _;
    use axum::routing::post;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    /// Reads `take` pieces and meets a locked row, twice; then answers with all of the body.
    async fn answer(take: usize, body: Body) -> (StatusCode, Bytes) {
        let runs = Arc::new(Mutex::new(0));
        let handler = post(move |request: Request| async move {
            let mut body = request.into_body();
            let run = std::mem::replace(&mut *runs.lock().unwrap(), 0) + 1;
            *runs.lock().unwrap() = run;
            if run <= 2 {
                for _ in 0..take {
                    let _ = body.frame().await;
                }
                let mut busy = StatusCode::SERVICE_UNAVAILABLE.into_response();
                busy.extensions_mut().insert(Busy);
                return busy;
            }
            body.collect().await.unwrap().to_bytes().into_response()
        });
        let router: Router = Router::new().route("/", handler).layer(from_fn(run));
        let request = Request::post("/").body(body).unwrap();
        let response = router.oneshot(request).await.unwrap();
        (response.status(), response.into_body().collect().await.unwrap().to_bytes())
    }

    #[tokio::test(start_paused = true)]
    async fn each_run_reads_the_same_body_however_much_the_one_before_read() {
        for take in 0..5 {
            let pieces = ["one", "two", "three"].map(|piece| Ok::<_, axum::Error>(Bytes::from(piece)));
            let answered = answer(take, Body::from_stream(futures::stream::iter(pieces))).await;
            assert_eq!(answered, (StatusCode::OK, Bytes::from("onetwothree")), "{take} were read");
        }
        assert_eq!(answer(1, Body::empty()).await, (StatusCode::OK, Bytes::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_large_to_be_kept_runs_once() {
        let piece = Bytes::from(vec![b'x'; KEPT_BYTES / 2 + 1]);
        let pieces = [piece.clone(), piece].map(Ok::<_, axum::Error>);
        let (status, _) = answer(2, Body::from_stream(futures::stream::iter(pieces))).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
