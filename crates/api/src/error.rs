//! The one error of the edge: a problem document (RFC 9457) and, apart from it, the internal cause.
//!
//! The public text goes to the client, the cause to the log; nothing prints both. Each `code` of the API has a
//! constructor here or goes through [`ApiError::unprocessable`] and its likes. The next code: a constructor that fixes
//! status, title and code, so that no handler can pair them wrongly.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use emailclient_core::access::password::PasswordError;
use emailclient_core::connect::{ConnectError, Failed};
use emailclient_core::platform::budget::Spent;
use emailclient_core::platform::db::DbError;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

mod codes;
use crate::reply::Reply;

/// In the extensions of a refusal: a row was locked, the same request may succeed in a moment.
#[derive(Debug, Clone, Copy)]
pub struct Busy;

/// One fault of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Where, as a JSON Pointer (RFC 6901).
    pub pointer: String,
    /// Stable name of the fault.
    pub code: String,
    /// For people.
    pub detail: String,
}

impl FieldError {
    /// A fault at `pointer`.
    pub fn new(pointer: impl Into<String>, code: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code: code.into(), detail: detail.into() }
    }
}

/// What a mail server answered when it said no.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Upstream {
    /// `imap` or `smtp`.
    pub protocol: String,
    /// Its response code, for example `AUTHENTICATIONFAILED` or `535 5.7.8`.
    pub response_code: Option<String>,
    /// Its words, shortened and cleaned; absent where it said nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Whether the same attempt may succeed later.
    pub retryable: bool,
}

/// The body of every refusal (`application/problem+json`).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// Stable identifier of the kind, a relative reference into the documentation.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// This occurrence in words.
    pub detail: String,
    /// The path that was asked for.
    pub instance: String,
    /// The kind as a word.
    pub code: String,
    /// The request's id, as in the header.
    pub request_id: String,
    /// Faults of the input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// What a mail server answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// Where in a search query the fault is, from 1, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The state to go on from, once all was listed anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_state: Option<String>,
}

#[derive(Debug)]
struct Inner {
    problem: Problem,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<anyhow::Error>,
    replay: Option<Reply>,
    busy: bool,
    broken_off: bool,
}

/// A refusal on its way to the client.
#[derive(Debug)]
pub struct ApiError(Box<Inner>);

/// The problem inside a response, until the edge writes it out with the request's id and path.
#[derive(Debug, Clone)]
pub(crate) struct Pending(pub Problem);

impl ApiError {
    fn new(status: StatusCode, code: &str, title: &str, detail: impl Into<String>) -> Self {
        let problem = Problem {
            kind: format!("/docs/problems#{code}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            instance: String::new(),
            code: code.to_owned(),
            request_id: String::new(),
            errors: Vec::new(),
            upstream: None,
            column: None,
            new_state: None,
        };
        Self(Box::new(Inner {
            problem,
            headers: Vec::new(),
            cause: None,
            replay: None,
            busy: false,
            broken_off: false,
        }))
    }

    /// An answer that was given before under the same key: ends the handler through `?`.
    pub(crate) fn replay(reply: Reply) -> Self {
        let mut error = Self::new(reply.status(), "replayed", "", "");
        error.0.replay = Some(reply);
        error
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.0.replay.is_some()
    }

    /// Marks a refusal that the line is to blame for and not the client's words: the same request may succeed.
    #[must_use]
    pub(crate) fn broken_off(mut self) -> Self {
        self.0.broken_off = true;
        self
    }

    pub(crate) fn is_broken_off(&self) -> bool {
        self.0.broken_off
    }

    /// Adds faults of the input.
    #[must_use]
    pub fn with_errors(mut self, errors: impl IntoIterator<Item = FieldError>) -> Self {
        self.0.problem.errors.extend(errors);
        self
    }

    /// Adds what a mail server answered.
    #[must_use]
    pub fn with_upstream(mut self, upstream: Upstream) -> Self {
        self.0.problem.upstream = Some(upstream);
        self
    }

    /// Adds the place in a search query, from 1, in characters.
    #[must_use]
    pub fn with_column(mut self, column: usize) -> Self {
        self.0.problem.column = Some(column);
        self
    }

    /// Names the state to go on from.
    #[must_use]
    pub fn with_new_state(mut self, state: String) -> Self {
        self.0.problem.new_state = Some(state);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.headers.push((name, value));
        }
        self
    }

    /// Adds what is for the log only.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<anyhow::Error>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Whether a locked row was in the way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.0.busy
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// How many seconds to wait before the same is asked again, where that is said.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        let (_, value) = self.0.headers.iter().find(|(name, _)| name == header::RETRY_AFTER)?;
        value.to_str().ok()?.parse().ok()
    }

    /// The kind as a word.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.problem.code
    }

    /// What the client will read.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let inner = *self.0;
        if let Some(reply) = inner.replay {
            return reply.into_response();
        }
        if let Some(cause) = &inner.cause {
            let status = inner.problem.status;
            // One that runs again is no failure yet.
            if status >= 500 && !inner.busy {
                tracing::error!(code = %inner.problem.code, cause = format!("{cause:#}"), "request failed");
            } else {
                tracing::debug!(code = %inner.problem.code, cause = format!("{cause:#}"), "request refused");
            }
        }
        let status = StatusCode::from_u16(inner.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.headers_mut().extend(inner.headers);
        if inner.busy {
            response.extensions_mut().insert(Busy);
        }
        response.extensions_mut().insert(Pending(inner.problem));
        response
    }
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Unavailable(_) => Self::unavailable("the database does not answer").with_cause(error),
            // Once more it does not find what was deleted.
            DbError::Busy(_) | DbError::Deleted => {
                let mut refusal =
                    Self::busy("others are changing the same at this moment", Duration::from_secs(1))
                        .with_cause(error);
                refusal.0.busy = true;
                refusal
            }
            DbError::OutOfReach(_) => {
                Self::insufficient_scope("this belongs to an account out of reach").with_cause(error)
            }
            _ => Self::internal(error),
        }
    }
}

impl<E: Failed> From<ConnectError<E>> for ApiError {
    fn from(error: ConnectError<E>) -> Self {
        match (error.trouble(), error) {
            (_, ConnectError::NoSuchAccount) => Self::not_found(),
            (_, ConnectError::Db(error)) => error.into(),
            (Some(trouble), error) => Self::trouble(trouble, error.to_string()),
            (None, error) => Self::internal(error),
        }
    }
}

impl From<Spent> for ApiError {
    fn from(error: Spent) -> Self {
        Self::busy("too much is in hand at this moment", Duration::from_secs(1)).with_cause(error)
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::busy("too many log-ins at once", Duration::from_secs(2)),
            other => Self::internal(other),
        }
    }
}

impl From<emailclient_core::platform::seal::SealError> for ApiError {
    fn from(error: emailclient_core::platform::seal::SealError) -> Self {
        Self::internal(error)
    }
}
