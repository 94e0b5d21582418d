//! `Accept` and `Content-Type`, judged right after token, tenant and limit and before anything else is read.

use http::{HeaderMap, Method, header};

use http::request::Parts;

use crate::error::ApiError;

/// What a route makes and takes. Routes are JSON unless an `Extension` of this says otherwise:
/// `OpenApiRouter::new().routes(routes!(raw)).layer(Extension(Rules::ANY))`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether `Accept` must admit `application/json`.
    pub json_out: bool,
    /// Whether a body must be `application/json`.
    pub json_in: bool,
    /// Largest body of the JSON extractor, in bytes.
    pub body_limit: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self::JSON
    }
}

impl Rules {
    /// JSON in and out, 1 MiB.
    pub const JSON: Self = Self { json_out: true, json_in: true, body_limit: 1024 * 1024 };
    /// Neither is looked at: sources, attachments, uploads.
    pub const ANY: Self = Self { json_out: false, json_in: false, body_limit: 1024 * 1024 };
    /// Any body, but JSON out: uploads that answer with an object.
    pub const UPLOAD: Self = Self { json_out: true, json_in: false, body_limit: 1024 * 1024 };

    /// These rules with another limit, in bytes.
    #[must_use]
    pub const fn limit(self, body_limit: usize) -> Self {
        Self { body_limit, ..self }
    }

    /// Judges the headers of a request.
    ///
    /// # Errors
    /// 406 or 415.
    pub fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.json_out && !admits_json(headers) {
            return Err(ApiError::not_acceptable("this route answers application/json"));
        }
        if self.json_in && has_body(headers) && ![Method::GET, Method::HEAD].contains(method) {
            check_json_type(headers)?;
        }
        Ok(())
    }
}

/// True when the request announces a body of at least one byte.
#[must_use]
pub fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|v| v.as_bytes() != b"0")
}

/// Refuses anything but JSON in UTF-8 without a content encoding.
///
/// # Errors
/// 415.
pub fn check_json_type(headers: &HeaderMap) -> Result<(), ApiError> {
    check_encoding(headers)?;
    let (essence, charset) = content_type(headers);
    let json =
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if !json {
        return Err(ApiError::unsupported_media_type("send Content-Type: application/json"));
    }
    if charset.is_some_and(|c| !c.eq_ignore_ascii_case("utf-8")) {
        return Err(ApiError::unsupported_media_type("JSON is sent in UTF-8"));
    }
    Ok(())
}

/// Refuses compressed bodies.
///
/// # Errors
/// 415.
pub fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.all(|v| v.as_bytes().eq_ignore_ascii_case(b"identity")) {
        Ok(())
    } else {
        Err(ApiError::unsupported_media_type("send the body without a content encoding"))
    }
}

/// Type and subtype in lower case, and the charset if one is named.
#[must_use]
pub fn content_type(headers: &HeaderMap) -> (String, Option<String>) {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next().and_then(|v| v.to_str().ok()), values.next()) else {
        return (String::new(), None);
    };
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let charset = parts.find_map(|p| {
        let (name, value) = p.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_owned())
    });
    (essence, charset)
}

/// Whether `Accept` admits an answer in JSON. A client that names problem+json alone gets it too, because what it asks
/// for is only made of refusals.
#[must_use]
pub fn admits_json(headers: &HeaderMap) -> bool {
    match weighed(headers, "application", "json") {
        Some((_, weight)) => weight > 0.0,
        None => {
            !has_ranges(headers)
                || weighed(headers, "application", "problem+json").is_some_and(|(_, weight)| weight > 0.0)
        }
    }
}

/// Whether `Accept` admits this type (RFC 9110 §12.5.1): the most specific range decides, `q=0` refuses.
#[must_use]
pub fn accepts(headers: &HeaderMap, kind: &str, subtype: &str) -> bool {
    weighed(headers, kind, subtype).map_or_else(|| !has_ranges(headers), |(_, weight)| weight > 0.0)
}

fn ranges(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::ACCEPT).iter();
    values.flat_map(|v| v.to_str().unwrap_or_default().split(',').map(str::trim).filter(|r| !r.is_empty()))
}

fn has_ranges(headers: &HeaderMap) -> bool {
    ranges(headers).next().is_some()
}

/// How specific the most specific range for this type is, and its weight.
fn weighed(headers: &HeaderMap, kind: &str, subtype: &str) -> Option<(u8, f32)> {
    let mut best: Option<(u8, f32)> = None;
    for range in ranges(headers) {
        let mut parts = range.split(';').map(str::trim);
        let Some((t, s)) = parts.next().and_then(|e| e.split_once('/')) else { continue };
        let specificity = match (t.eq_ignore_ascii_case(kind), s.eq_ignore_ascii_case(subtype)) {
            (true, true) => 3,
            (true, false) if s == "*" => 2,
            _ if t == "*" && s == "*" => 1,
            _ => continue,
        };
        let weight =
            parts.find_map(|p| p.strip_prefix("q=").or(p.strip_prefix("Q="))).and_then(|q| q.parse().ok());
        if best.is_none_or(|(b, _)| specificity >= b) {
            best = Some((specificity, weight.unwrap_or(1.0)));
        }
    }
    best
}

/// The rules of the route that `parts` came in by.
pub(crate) fn rules(parts: &Parts) -> Rules {
    parts.extensions.get::<Rules>().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn the_most_specific_range_decides() {
        for good in [
            "*/*",
            "application/json",
            "text/html, application/*;q=0.2",
            "application/json;q=0.1,*/*;q=0",
            "APPLICATION/JSON",
            "",
        ] {
            assert!(accepts(&with(header::ACCEPT, good), "application", "json"), "{good}");
        }
        for bad in ["text/html", "application/json;q=0, */*", "image/*", "json"] {
            assert!(!accepts(&with(header::ACCEPT, bad), "application", "json"), "{bad}");
        }
        assert!(accepts(&HeaderMap::new(), "application", "json"));
    }

    #[test]
    fn problem_json_alone_is_answered_and_json_that_is_refused_is_not() {
        let rules = |accept: &str| Rules::JSON.check(&Method::GET, &with(header::ACCEPT, accept));
        for good in [
            "application/problem+json",
            "Application/Problem+JSON;q=0.1",
            "text/html, application/problem+json",
            "application/json",
            "",
        ] {
            assert!(rules(good).is_ok(), "{good}");
        }
        for bad in [
            "application/problem+json;q=0",
            "application/problem+xml",
            "application/json;q=0, application/problem+json",
            "text/html",
        ] {
            assert_eq!(rules(bad).unwrap_err().status(), 406, "{bad}");
        }
    }

    #[test]
    fn only_plain_utf8_json_is_read() {
        for good in ["application/json", "application/json; charset=UTF-8", "application/merge-patch+json"] {
            assert!(check_json_type(&with(header::CONTENT_TYPE, good)).is_ok(), "{good}");
        }
        for bad in ["text/plain", "application/json; charset=latin1", "application/x-www-form-urlencoded", ""]
        {
            assert_eq!(check_json_type(&with(header::CONTENT_TYPE, bad)).unwrap_err().status(), 415, "{bad}");
        }
        let mut zipped = with(header::CONTENT_TYPE, "application/json");
        zipped.insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
        assert!(check_json_type(&zipped).is_err());
    }
}
