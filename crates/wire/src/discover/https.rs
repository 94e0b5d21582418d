//! One document over HTTPS, through the guarded way out: a host that may not be dialled is not asked, however it was named.
//!
//! Redirects are followed within HTTPS, a few, each judged as the first host was. No proxy, no cookies, no reuse.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::Discovery;
use crate::dial::{Deadlines, DialError};

/// A document of this kind has 2 KB; one that lists the domains of a provider ten times that.
const MAX_BYTES: usize = 64 << 10;
const MAX_REDIRECTS: usize = 3;
const STEP: Duration = Duration::from_secs(4);

/// Fetches `url`. `Ok(None)`: there is no such document.
///
/// # Errors
/// Why it could not be had, in words that tell nothing of the inside of our network.
pub(super) async fn get(way: Discovery<'_>, url: Url) -> Result<Option<Bytes>, String> {
    let mut url = url;
    for _ in 0..=MAX_REDIRECTS {
        let response = request(way, &url).await?;
        match response {
            Response::Document(bytes) => return Ok(Some(bytes)),
            Response::Nothing => return Ok(None),
            Response::Elsewhere(location) => {
                url = url.join(&location).map_err(|_| "a redirect leads nowhere".to_owned())?;
                if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() {
                    return Err("a redirect leads away from HTTPS".to_owned());
                }
            }
        }
    }
    Err("too many redirects".to_owned())
}

enum Response {
    Document(Bytes),
    Nothing,
    Elsewhere(String),
}

async fn request(way: Discovery<'_>, url: &Url) -> Result<Response, String> {
    let host = url.host_str().ok_or("no host")?;
    let port = url.port_or_known_default().unwrap_or(way.https_port);
    let deadlines = Deadlines { resolve: STEP, connect: STEP, tls: STEP, reply: STEP };
    let resolved = match way.outbound.resolve_web(host, port, STEP).await {
        Err(DialError::HostNotFound) => return Ok(Response::Nothing),
        other => other.map_err(|e| e.to_string())?,
    };
    let socket = way.outbound.dial_resolved(&resolved, &deadlines).await.map_err(|e| e.to_string())?;
    let stream = way.tls.connect(host, socket, STEP).await.map_err(|e| e.to_string())?;
    let ended = |e: hyper::Error| format!("not HTTP: {e}");
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_BYTES).handshake(TokioIo::new(stream)).await.map_err(ended)?;
    // Ends with this function, whatever the other side does.
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let authority = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let request = Request::get(target)
        .header(HOST, authority)
        .header(ACCEPT, "text/xml, application/xml")
        .header(USER_AGENT, "emailclient")
        .body(Empty::<Bytes>::new())
        .map_err(|_| "no request can be made of this address".to_owned())?;
    let response = sender.send_request(request).await.map_err(ended)?;
    let status = response.status();
    if status.is_redirection() {
        let location = response.headers().get(LOCATION).and_then(|v| v.to_str().ok());
        return Ok(location.map_or(Response::Nothing, |l| Response::Elsewhere(l.to_owned())));
    }
    if status == StatusCode::NOT_FOUND || status == StatusCode::GONE {
        return Ok(Response::Nothing);
    }
    if status != StatusCode::OK {
        return Err(format!("the server answers {}", status.as_u16()));
    }
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
    Ok(Response::Document(
        body.map_err(|_| "the document is too large, or was cut off".to_owned())?.to_bytes(),
    ))
}
