//! The listener: a thread with a runtime of its own, so that any test or program can hold an authority, and one that
//! is dropped is gone.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tower::ServiceExt as _;

use super::claims::Keys;
use super::keys::{SigningKey, new_key};
use super::model::{Asked, Endpoint};
use super::params::{Params, claimed};
use super::state::{DeviceAnswer, State};
use super::switches::Fault;
use super::{authorize, claims, device, issue, metadata, token};

/// What all handlers have.
pub(super) struct Shared {
    pub(super) base: String,
    pub(super) keys: Keys,
    pub(super) poured: AtomicU64,
    state: Mutex<State>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Server {
    pub(super) shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

const LARGEST_REQUEST: usize = 1 << 20;
const GIGABYTE: usize = 1 << 30;
const PIECE: usize = 1 << 16;

impl Server {
    pub(super) fn start(pem: &str, port: u16) -> Result<Self> {
        let keys = Keys {
            own: SigningKey::from_pem(pem, claims::KEY_ID)?,
            other: SigningKey::from_pem(&new_key()?, claims::KEY_ID)?,
        };
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("port {port}"))?;
        listener.set_nonblocking(true)?;
        let base = format!("http://{}", listener.local_addr()?);
        let shared =
            Arc::new(Shared { base, keys, poured: AtomicU64::new(0), state: Mutex::new(State::default()) });
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let router = router(Arc::clone(&shared));
        let serving = listen(listener, router, Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("oauth".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serving => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panicked at most, and has said so.
            let _ = thread.join();
        }
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(metadata::discovery))
        .route("/jwks", get(metadata::keys))
        .route("/authorize", get(authorize::show).post(authorize::answer))
        .route("/token", post(token::token))
        .route("/device", post(device::begin))
        .route("/activate", get(device::show).post(device::answer))
        .route("/revoke", post(metadata::revoke))
        .route("/userinfo", get(metadata::user_info).post(metadata::user_info))
        .route("/trap", any(|| async { "You should not be here." }))
        .with_state(shared)
}

async fn listen(listener: tokio::net::TcpListener, router: Router, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many files are open.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (router, shared) = (router.clone(), Arc::clone(&shared));
        let service =
            hyper::service::service_fn(move |request| serve(Arc::clone(&shared), router.clone(), request));
        tokio::spawn(async move {
            // Whoever hangs up, or is hung up on, is nobody's error.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Why a connection is closed without an answer. hyper does that when a service fails.
#[derive(Debug)]
struct HungUp;

impl std::fmt::Display for HungUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hung up")
    }
}

impl std::error::Error for HungUp {}

async fn serve(
    shared: Arc<Shared>,
    router: Router,
    request: Request<hyper::body::Incoming>,
) -> Result<Response, HungUp> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(Body::new(body), LARGEST_REQUEST).await.map_err(|_| HungUp)?;
    let (number, fault) = arrived(&shared, &parts, &body);
    let handled = || async {
        let request = Request::from_parts(parts, Body::from(body));
        router.oneshot(request).await.unwrap_or_else(|never| match never {})
    };
    let mut response = match fault {
        None => handled().await,
        Some(Fault::Slow(time)) => {
            tokio::time::sleep(time).await;
            handled().await
        }
        Some(Fault::SlowAnswer(time)) => {
            let response = handled().await;
            tokio::time::sleep(time).await;
            response
        }
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Closed) => return Err(HungUp),
        Some(Fault::AnswerLost) => {
            handled().await;
            return Err(HungUp);
        }
        Some(Fault::Answer { status, headers, body }) => instead(status, &headers, body),
        Some(Fault::Gigabyte) => gigabyte(Arc::clone(&shared)),
    };
    let mut state = shared.lock();
    if let Ok(date) = HeaderValue::from_str(&state.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string()) {
        response.headers_mut().insert(header::DATE, date);
    }
    if let Some(asked) = state.asked.get_mut(number) {
        asked.status = Some(response.status().as_u16());
    }
    Ok(response)
}

/// Notes a request, and finds the fault that is meant for it.
fn arrived(shared: &Shared, parts: &axum::http::request::Parts, body: &[u8]) -> (usize, Option<Fault>) {
    let endpoint = Endpoint::of(parts.uri.path());
    let form = Params::parse(body);
    let mut state = shared.lock();
    let token = endpoint == Endpoint::Token;
    let grant_type = form.any("grant_type").filter(|_| token).map(str::to_owned);
    let user = user_of(&state, endpoint, &form);
    let client = claimed(&parts.headers, &form);
    let fits = |at: &super::FaultAt| {
        at.endpoint == endpoint && at.times != Some(0) && (at.user.is_none() || at.user == user)
    };
    let fault = state.switches.faults.iter_mut().find(|at| fits(at)).map(|at| {
        at.times = at.times.map(|times| times - 1);
        at.fault.clone()
    });
    state.asked.push(Asked { endpoint, grant_type, client, user, status: None });
    (state.asked.len() - 1, fault)
}

/// Whose grant a request is about, as far as what it sends is known here.
fn user_of(state: &State, endpoint: Endpoint, form: &Params) -> Option<String> {
    let of_grant = |number: usize| state.grant(number).map(|grant| grant.user.clone());
    if endpoint == Endpoint::Revoke {
        let token = form.any("token")?;
        let access = || state.access.get(token).and_then(|access| access.user.clone());
        return state.refresh.get(token).and_then(|r| of_grant(r.grant)).or_else(access);
    }
    if endpoint != Endpoint::Token {
        return None;
    }
    match form.any("grant_type")? {
        "authorization_code" => of_grant(state.codes.get(form.any("code")?)?.grant),
        "refresh_token" => of_grant(state.refresh.get(form.any("refresh_token")?)?.grant),
        token::DEVICE => match &state.devices.get(form.any("device_code")?)?.answer {
            DeviceAnswer::Allowed(user) => Some(user.clone()),
            DeviceAnswer::Waiting | DeviceAnswer::Denied | DeviceAnswer::Spent => None,
        },
        token::BEARER => issue::claimed_subject(form.any("assertion")?),
        _ => None,
    }
}

fn instead(status: u16, headers: &[(String, String)], body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn gigabyte(shared: Arc<Shared>) -> Response {
    let head = Bytes::from_static(b"{\"token_type\":\"Bearer\",\"expires_in\":3600,\"access_token\":\"");
    let piece = Bytes::from(vec![b'x'; PIECE]);
    let pieces = std::iter::once(head).chain(std::iter::repeat_n(piece, GIGABYTE / PIECE));
    let stream = futures::stream::iter(pieces).map(move |piece| {
        shared.poured.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>(piece)
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(stream)).into_response()
}
