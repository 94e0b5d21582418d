//! The listener: HTTP/1.1 connections with a deadline for headers, and an orderly end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::early::{self, Staged};
use crate::headers::Peer;
use crate::line::Line;
use crate::state::AppState;

/// Slow headers lose the connection after this time; idle connections too.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Of bytes, for each connection.
const BUFFER_BYTES: usize = 128 * 1024;
/// How long new connections are still taken after the shutdown began, so that a balancer sees "not ready".
const NOTICE: Duration = Duration::from_secs(1);
/// How long running requests may take to end.
const DRAIN: Duration = Duration::from_secs(25);
/// How long a client of a stream of events has to take what was written to it. It resumes elsewhere.
const STREAM_DRAIN: Duration = Duration::from_secs(2);

/// Serves `router` until `shutdown`, then lets running requests end.
pub async fn run(state: &AppState, router: Router, listener: TcpListener, shutdown: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).keep_alive(true).half_close(false);
    // What waits in a connection for its reader; a request's headers have to fit into it, too.
    builder.max_buf_size(BUFFER_BYTES);
    let stop = async {
        shutdown.cancelled().await;
        state.start_draining();
        tracing::info!("shutting down: not ready from now on");
        tokio::time::sleep(NOTICE).await;
    };
    tokio::pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(connection) => connection,
                Err(error) => {
                    // Out of descriptors, mostly: accepting again at once would spin.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        let streams = Arc::new(AtomicBool::new(false));
        let answers_a_stream = Arc::clone(&streams);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            // Boxed: a connection keeps room for it while it streams for hours.
            Box::pin(answer(router.clone(), peer, request, Arc::clone(&answers_a_stream)))
        });
        let line = TokioIo::new(Staged::new(Line::new(stream)));
        let connection = graceful.watch(builder.serve_connection(line, service));
        let draining = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                },
                // The stream ends by itself; a client that does not read would hold the process for the whole drain.
                () = ends_late(draining, &streams) => tracing::debug!("a stream was not read to its end"),
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still running after the drain time and are cut off");
    }
}

/// Waits until a stream of events should have ended long ago; for ever on a connection that carries none.
async fn ends_late(shutdown: CancellationToken, streams: &AtomicBool) {
    shutdown.cancelled().await;
    tokio::time::sleep(NOTICE + STREAM_DRAIN).await;
    if !streams.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

async fn answer(
    router: Router,
    peer: SocketAddr,
    mut request: Request<Incoming>,
    streams: Arc<AtomicBool>,
) -> Result<Response, Infallible> {
    request.extensions_mut().insert(Peer(peer));
    let (parts, body) = request.into_parts();
    let (body, watch) = early::watch(body);
    let mut response = router.oneshot(Request::from_parts(parts, Body::new(body))).await?;
    watch.mark(&mut response).await;
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    streams.store(kind.is_some_and(|kind| kind.starts_with(b"text/event-stream")), Ordering::Relaxed);
    Ok(response)
}
