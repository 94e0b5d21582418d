//! An answer that can be kept: status, headers and bytes. What handlers with an Idempotency-Key return.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::error::ApiError;

/// An answer in memory.
#[derive(Debug, Clone)]
pub struct Reply {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Vec<u8>,
}

impl Reply {
    pub(crate) fn raw(status: StatusCode, headers: Vec<(HeaderName, HeaderValue)>, body: Vec<u8>) -> Self {
        Self { status, headers, body }
    }

    /// `value` as JSON under any status.
    ///
    /// # Errors
    /// 500 when it cannot be written as JSON.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Self, ApiError> {
        let body = serde_json::to_vec(value).map_err(ApiError::internal)?;
        let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Ok(Self { status, headers, body })
    }

    /// 200 with `value`.
    ///
    /// # Errors
    /// As [`Reply::json`].
    pub fn ok(value: &impl Serialize) -> Result<Self, ApiError> {
        Self::json(StatusCode::OK, value)
    }

    /// 201 with `value`, which is now at `location`.
    ///
    /// # Errors
    /// As [`Reply::json`].
    pub fn created(location: &str, value: &impl Serialize) -> Result<Self, ApiError> {
        Ok(Self::json(StatusCode::CREATED, value)?.header(header::LOCATION, location))
    }

    /// 202 with `value`, whose progress is at `location`.
    ///
    /// # Errors
    /// As [`Reply::json`].
    pub fn accepted(location: &str, value: &impl Serialize) -> Result<Self, ApiError> {
        Ok(Self::json(StatusCode::ACCEPTED, value)?.header(header::LOCATION, location))
    }

    /// 204.
    #[must_use]
    pub fn no_content() -> Self {
        Self::empty(StatusCode::NO_CONTENT)
    }

    /// A status alone.
    #[must_use]
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
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
    pub fn etag(self, tag: &crate::etag::ETag) -> Self {
        self.header(header::ETAG, tag.as_str())
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
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
