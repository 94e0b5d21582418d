//! Bytes that never change, handed out whole or in part (RFC 9110 §14), and the parsing behind readable bodies.

use std::ops::Range;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse as _, Response};
use emailclient_core::platform::id::MessageId;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use mail::mime::Body as MailBody;
use mail::mime::html::Sanitized;
use tokio::sync::Semaphore;

use super::embed::{self, Signer};
use super::source::{Piecewise, stream};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::etag::{Conditions, ETag};
use crate::state::AppState;

/// Parsing and sanitising are CPU work on input of strangers: a few at a time, however many ask.
static PARSING: Semaphore = Semaphore::const_new(4);

/// Runs `work` off the threads that serve requests.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let _permit = PARSING.acquire().await.map_err(ApiError::internal)?;
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)
}

/// What readers see of a source, with its HTML made safe.
pub(super) struct Readable {
    pub(super) body: MailBody,
    pub(super) html: Option<Sanitized>,
}

/// How a message's own pictures come with its HTML.
#[derive(Debug, Clone)]
pub(super) enum Pictures {
    /// By the address of their attachment.
    Linked,
    /// By an address that a browser can load without a header.
    Signed(Signer),
    /// In the HTML itself; those for which there is no room by such an address.
    Embedded(Signer),
}

/// Parses a source; `remote` lets pictures be loaded from other servers. CPU work: see [`blocking`].
pub(super) fn readable(id: MessageId, raw: &[u8], remote: bool, pictures: &Pictures) -> Readable {
    let body = mail::mime::body(raw);
    let mut html = body.safe_html(remote, &|meta| match pictures {
        Pictures::Linked => Some(embed::address(id, meta.index)),
        Pictures::Signed(signer) | Pictures::Embedded(signer) => signer.address(id, meta.index),
    });
    if let (Some(safe), Pictures::Embedded(_)) = (&mut html, pictures) {
        safe.html = embed::embed(id, raw, &body.attachments, &safe.html);
    }
    Readable { body, html }
}

/// What of the bytes a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slice {
    Whole,
    Part { first: usize, last: usize },
    Outside,
}

/// Reads `Range` (one range of bytes). Several ranges and other units are answered with the whole, as RFC 9110 allows.
fn slice(range: Option<&str>, length: usize) -> Slice {
    let Some(spec) = range.and_then(|r| r.trim().strip_prefix("bytes=")) else { return Slice::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Slice::Whole };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // More digits than a number holds lie behind any end.
    let number = |text: &str| text.parse::<usize>().unwrap_or(usize::MAX);
    let (first, last) = match (digits(first), digits(last)) {
        (true, true) if number(last) < number(first) => return Slice::Whole,
        (true, true) => (number(first), number(last)),
        (true, false) if last.is_empty() => (number(first), usize::MAX),
        (false, true) if first.is_empty() => match number(last) {
            0 => return Slice::Outside,
            count => (length.saturating_sub(count), usize::MAX),
        },
        _ => return Slice::Whole,
    };
    if first >= length { Slice::Outside } else { Slice::Part { first, last: last.min(length - 1) } }
}

/// An answer without a body when the client has these bytes already. It needs the headers that its 200 has.
pub(super) fn unchanged(tag: &ETag, conditions: &Conditions) -> Option<Response> {
    conditions.is_current(tag).then(|| {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        set(&mut response, header::ETAG, tag.as_str());
        response
    })
}

/// As [`unchanged`], of bytes that [`serve`] hands out.
pub(in crate::routes) fn unchanged_content(tag: &ETag, conditions: &Conditions) -> Option<Response> {
    let mut response = unchanged(tag, conditions)?;
    set_immutable(&mut response);
    Some(response)
}

fn set_immutable(response: &mut Response) {
    set(response, header::CACHE_CONTROL, "private, immutable");
    set(response, header::ACCEPT_RANGES, "bytes");
    set(response, header::CONTENT_SECURITY_POLICY, SANDBOX);
}

/// What a browser may do with a body that a stranger wrote: nothing.
pub(super) const SANDBOX: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";

/// Where the bytes of an answer are.
pub(in crate::routes) enum Bytes {
    /// In memory.
    Here(Vec<u8>),
    /// In the database.
    Piecewise(Piecewise),
}

/// Bytes with what clients and browsers are told about them.
pub(in crate::routes) struct Content {
    pub(in crate::routes) bytes: Bytes,
    pub(in crate::routes) length: usize,
    pub(in crate::routes) content_type: String,
    pub(in crate::routes) disposition: String,
    pub(in crate::routes) tag: ETag,
}

/// The part that a request asks for. `Range` is read with GET only (RFC 9110 §14.2).
#[derive(Debug, Default)]
pub(in crate::routes) struct Asked {
    range: Option<String>,
    if_range: Option<String>,
}

impl Asked {
    fn of(method: &Method, headers: &HeaderMap) -> Self {
        if method != Method::GET {
            return Self::default();
        }
        let text =
            |name: header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        Self { range: text(header::RANGE), if_range: text(header::IF_RANGE) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self::of(&parts.method, &parts.headers))
    }
}

/// Hands out immutable bytes, or the part of them that is asked for. A browser is to save them, never to run them.
pub(in crate::routes) async fn serve(
    state: &AppState,
    caller: &Caller,
    content: Content,
    asked: &Asked,
) -> Result<Response, ApiError> {
    let (range, mut response) = head(&content, asked)?;
    *response.body_mut() = match content.bytes {
        Bytes::Here(bytes) => Body::from(bytes.get(range).unwrap_or_default().to_vec()),
        Bytes::Piecewise(from) => stream(state, caller, from, range).await?,
    };
    Ok(response)
}

/// Which bytes are asked for, and the answer without them.
fn head(content: &Content, asked: &Asked) -> Result<(Range<usize>, Response), ApiError> {
    let length = content.length;
    // If-Range: a part is of use only if it belongs to the bytes that the client has (RFC 9110 §13.1.5).
    let same = asked.if_range.as_deref().is_none_or(|tag| tag == content.tag.as_str());
    let range = slice(asked.range.as_deref().filter(|_| same), length);
    let (status, wanted) = match range {
        Slice::Whole => (StatusCode::OK, 0..length),
        Slice::Part { first, last } => (StatusCode::PARTIAL_CONTENT, first..last + 1),
        Slice::Outside => {
            let refused = ApiError::range_not_satisfiable(format!("there are {length} bytes"));
            return Err(refused.with_header(header::CONTENT_RANGE, &format!("bytes */{length}")));
        }
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    set(&mut response, header::CONTENT_LENGTH, &wanted.len().to_string());
    if let Slice::Part { first, last } = range {
        set(&mut response, header::CONTENT_RANGE, &format!("bytes {first}-{last}/{length}"));
    }
    set(&mut response, header::CONTENT_TYPE, &content.content_type);
    set(&mut response, header::CONTENT_DISPOSITION, &content.disposition);
    set(&mut response, header::ETAG, content.tag.as_str());
    set_immutable(&mut response);
    Ok((wanted, response))
}

/// Sets a header; a value that no header can hold is left out.
pub(super) fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::embed::tests::signer;
    use super::*;

    #[test]
    fn one_range_of_bytes_is_cut_and_odd_ones_are_ignored() {
        let part = |first, last| Slice::Part { first, last };
        for (range, expected) in [
            ("bytes=0-0", part(0, 0)),
            ("bytes=2-", part(2, 9)),
            ("bytes=-3", part(7, 9)),
            ("bytes=-99", part(0, 9)),
            ("bytes=5-99999999999999999999999", part(5, 9)),
            ("bytes=10-", Slice::Outside),
            ("bytes=-0", Slice::Outside),
            ("bytes=99999999999999999999999-", Slice::Outside),
            ("bytes=5-2", Slice::Whole),
            ("bytes=0-1,3-4", Slice::Whole),
            ("bytes=a-b", Slice::Whole),
            ("bytes=-", Slice::Whole),
            ("lines=0-1", Slice::Whole),
        ] {
            assert_eq!(slice(Some(range), 10), expected, "{range}");
        }
        assert_eq!(slice(None, 10), Slice::Whole);
        assert_eq!(slice(Some("bytes=0-"), 0), Slice::Outside);
    }

    #[test]
    fn a_part_names_its_place_and_a_stale_if_range_gets_the_whole() {
        let content = || Content {
            bytes: Bytes::Here(b"0123456789".to_vec()),
            length: 10,
            content_type: "text/plain".into(),
            disposition: "attachment".into(),
            tag: ETag::content(b"x"),
        };
        let mut headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static("bytes=2-4"))]);
        let get =
            |headers: &HeaderMap| super::head(&content(), &Asked::of(&Method::GET, headers)).map(|h| h.1);
        let head =
            |headers: &HeaderMap| super::head(&content(), &Asked::of(&Method::HEAD, headers)).map(|h| h.1);
        let part = get(&headers).unwrap();
        assert_eq!(part.status(), 206);
        assert_eq!(part.headers()[header::CONTENT_RANGE], "bytes 2-4/10");
        assert_eq!(head(&headers).unwrap().status(), 200, "Range belongs to GET");
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"old\""));
        assert_eq!(get(&headers).unwrap().status(), 200);
        headers.remove(header::IF_RANGE);
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=10-"));
        assert_eq!(get(&headers).unwrap_err().status(), 416);
        assert_eq!(head(&headers).unwrap().status(), 200);
    }

    #[test]
    fn images_of_the_message_point_at_its_attachments() {
        let raw = b"Content-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<img src=\"cid:logo@x\"><img src=\"http://t.example/p.gif\">\r\n--b\r\nContent-Type: image/png\r\nContent-ID: <logo@x>\r\n\r\nPNG\r\n--b--\r\n";
        let id = MessageId::new();
        let html = readable(id, raw, false, &Pictures::Linked).html.unwrap();
        assert!(html.html.contains(&format!("/api/messages/{id}/attachments/0")), "{}", html.html);
        assert!(html.remote_blocked && !html.html.contains("t.example"));
        assert!(readable(id, raw, true, &Pictures::Linked).html.unwrap().html.contains("t.example"));
        let whole = readable(id, raw, false, &Pictures::Embedded(signer())).html.unwrap();
        assert!(whole.html.contains("src=\"data:image/png;base64,UE5H\""), "{}", whole.html);
        let signed = readable(id, raw, false, &Pictures::Signed(signer())).html.unwrap();
        let address = format!("src=\"/api/messages/{id}/attachments/0?part_token=");
        assert!(signed.html.contains(&address), "{}", signed.html);
    }
}
