//! An answer that can be kept: status, headers and bytes. What handlers with an Idempotency-Key return. Values are written into
//! one in `written`.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

/// An answer in memory.
#[derive(Debug, Clone)]
pub struct Reply {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Vec<u8>,
    kept: Option<Vec<u8>>,
}

impl Reply {
    pub(crate) fn raw(status: StatusCode, headers: Vec<(HeaderName, HeaderValue)>, body: Vec<u8>) -> Self {
        Self { status, headers, body, kept: None }
    }

    /// 204.
    #[must_use]
    pub fn no_content() -> Self {
        Self::empty(StatusCode::NO_CONTENT)
    }

    /// A status alone.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self::raw(status, Vec::new(), Vec::new())
    }

    /// With one header more; a value that no header can hold is left out.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// With an entity tag.
    #[must_use]
    pub fn etag(self, tag: &impl AsRef<str>) -> Self {
        self.header(header::ETAG, tag.as_ref())
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// With another body for repetitions under an `Idempotency-Key`, where this one has what must not be kept.
    pub(crate) fn keeping(mut self, body: Vec<u8>) -> Self {
        self.kept = Some(body);
        self
    }

    /// What repetitions are answered.
    pub(crate) fn kept(&self) -> &[u8] {
        self.kept.as_deref().unwrap_or(&self.body)
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.headers);
        response
    }
}
