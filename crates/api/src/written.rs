//! Answers with a value as JSON.

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::error::ApiError;
use crate::reply::Reply;

impl Reply {
    /// `value` as JSON under any status.
    ///
    /// # Errors
    /// 500 when it cannot be written as JSON.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Self, ApiError> {
        let body = serde_json::to_vec(value).map_err(ApiError::internal)?;
        let headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Ok(Self::raw(status, headers, body))
    }

    /// The same answer, of which `value` is kept for repetitions.
    ///
    /// # Errors
    /// As [`Reply::json`].
    pub fn kept_as(self, value: &impl Serialize) -> Result<Self, ApiError> {
        Ok(self.keeping(serde_json::to_vec(value).map_err(ApiError::internal)?))
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
}
