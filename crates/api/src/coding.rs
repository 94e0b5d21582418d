//! Entity tags of compressed answers.
//!
//! A strong tag names bytes, and compressed bytes are others (RFC 9110 §8.8.3.3). So a tag goes out with [`SUFFIX`] where
//! the answer was compressed, and [`crate::etag::Conditions`] takes it off again: a client may send back either.

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

/// Stands before the closing quote of a compressed answer's tag. No tag of ours ends so by itself: they end in a number or
/// in hexadecimal digits.
pub const SUFFIX: &str = "-gzip";

/// A tag as the handlers know it.
#[must_use]
pub fn plain(tag: &str) -> String {
    let inner = tag.strip_suffix('"').and_then(|t| t.strip_suffix(SUFFIX));
    inner.map_or_else(|| tag.to_owned(), |t| format!("{t}\""))
}

fn coded(tag: &str) -> Option<String> {
    Some(format!("{}{SUFFIX}\"", tag.strip_suffix('"')?))
}

/// Marks the tag of a compressed answer. Stands outside the layer that compresses. A 304 repeats the tag that the client
/// has (RFC 9110 §15.4.5), or its cache would not know which copy is meant, and says `Vary` as its 200 does.
///
/// `If-None-Match: *` is answered here: only of a 200 that was made is it known which tag and headers it has.
pub async fn mark(request: Request, next: Next) -> Response {
    let had = request.headers().get_all(header::IF_NONE_MATCH).iter().cloned().collect::<Vec<_>>();
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let mut response = next.run(request).await;
    let tag = response.headers().get(header::ETAG).and_then(|t| t.to_str().ok()).and_then(coded);
    let Some(tag) = tag else { return response };
    let unchanged = response.status() == StatusCode::NOT_MODIFIED;
    if (compressed(response.headers()) || unchanged && names(&had, &tag))
        && let Ok(tag) = HeaderValue::from_str(&tag)
    {
        response.headers_mut().insert(header::ETAG, tag);
    }
    if !reads {
        return response;
    }
    // What may be asked for in parts is never compressed.
    if !response.headers().contains_key(header::ACCEPT_RANGES)
        && !response.headers().contains_key(header::VARY)
    {
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    if response.status().is_success() && names(&had, "*") { without_content(response) } else { response }
}

/// The 304 of a 200: all its headers but those about the bytes that are left out.
fn without_content(response: Response) -> Response {
    let (mut parts, _) = response.into_parts();
    parts.status = StatusCode::NOT_MODIFIED;
    for about_the_bytes in [
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::CONTENT_DISPOSITION,
        header::TRANSFER_ENCODING,
    ] {
        parts.headers.remove(about_the_bytes);
    }
    Response::from_parts(parts, Body::empty())
}

fn compressed(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding == "gzip")
}

fn names(values: &[HeaderValue], tag: &str) -> bool {
    let tags = values.iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    tags.map(str::trim).any(|t| t.strip_prefix("W/").unwrap_or(t) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_comes_off_again_and_nothing_else_does() {
        assert_eq!(plain(&coded("\"x.3\"").unwrap()), "\"x.3\"");
        for other in ["\"x.3\"", "W/\"x.3\"", "*", "\"-gzip", "-gzip", ""] {
            assert_eq!(plain(other), other);
        }
        assert_eq!(plain("W/\"x.3-gzip\""), "W/\"x.3\"");
    }
}
