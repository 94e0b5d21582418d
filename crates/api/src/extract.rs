//! The extractors of path, query and body. Each refuses with a problem document and the status the API promises.
//!
//! In a handler they stand in the order in which they refuse: [`crate::caller::Caller`] (token, tenant, limit, `Accept`
//! and content type), [`PathId`] or [`Path`], [`Query`], [`crate::idempotency::IdempotencyKey`], then one of [`Json`],
//! [`JsonNul`], [`Deferred`], or a reader of its own over [`body::Arriving`]. A type for a body or a query is a plain struct with `Deserialize`; unknown fields are refused
//! without saying so, hence do not use `flatten` (it hides the list of fields).

pub mod body;
mod typed;
mod value;

use std::str::FromStr;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, OptionalFromRequest, RawPathParams, Request};
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::context::Context;
use crate::error::{ApiError, FieldError};
use crate::form;
use crate::idempotency;
use crate::limits::PARAMETER_BYTES;
use crate::state::AppState;

use crate::negotiate::{self, rules};
pub(crate) use typed::escape;

/// Faults told at once.
const MAX_FAULTS: usize = 50;

/// A JSON body. Refuses 415, 413, 408, 400 `malformed-json`, and 422 `validation-error` with pointers (NUL included).
#[derive(Debug)]
pub struct Json<T>(pub T);

/// As [`Json`], but a NUL in a string is left to the handler (header fields have a code of their own for it).
#[derive(Debug)]
pub struct JsonNul<T>(pub T);

/// As [`Json`] (as [`JsonNul`] with `NUL`), for a route whose path names an object: bytes that are no JSON are refused at
/// once, but fields that mean nothing only by [`Deferred::meaning`], so that 404, 428 and 412 come before their 422.
#[derive(Debug)]
pub struct Deferred<T, const NUL: bool = false>(Result<T, ApiError>);

impl<T, const NUL: bool> Deferred<T, NUL> {
    /// The body, to be asked for after the object was found and the preconditions hold.
    ///
    /// # Errors
    /// 422 `validation-error` with pointers.
    pub fn meaning(self) -> Result<T, ApiError> {
        self.0
    }
}

/// The parameters of the query. An unknown, doubled or unreadable one is 400 `invalid-parameter`.
#[derive(Debug)]
pub struct Query<T>(pub T);

/// The parameters of the path as a struct; 400 `invalid-parameter`.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// The one id of the path; 400 `invalid-parameter` when it is malformed.
#[derive(Debug)]
pub struct PathId<Id>(pub Id);

/// Reads bytes as JSON and as a `T`.
///
/// # Errors
/// 400 `malformed-json` or 422 `validation-error`.
pub fn from_json<T: DeserializeOwned>(bytes: &[u8], nul_allowed: bool) -> Result<T, ApiError> {
    let value = value::parse(bytes).map_err(ApiError::malformed_json)?;
    from_value(&value, nul_allowed)
}

/// Reads a JSON value as a `T`.
///
/// # Errors
/// 422 `validation-error`.
pub fn from_value<T: DeserializeOwned>(value: &Value, nul_allowed: bool) -> Result<T, ApiError> {
    let mut faults = Vec::new();
    if !nul_allowed {
        let mut found = Vec::new();
        value::find_nul(value, "", &mut found, MAX_FAULTS);
        faults.extend(found.into_iter().map(|p| FieldError::new(p, "nul", "a NUL is not allowed")));
    }
    match typed::read(value, false) {
        Ok(read) if faults.is_empty() => return Ok(read),
        Ok(_) => {}
        Err(more) => faults.extend(more),
    }
    faults.truncate(MAX_FAULTS);
    Err(ApiError::validation("see errors for the fields").with_errors(faults))
}

/// What stands for a body that was not read to its end, in the hash of what was asked.
const UNREAD: &[u8] = b"unread";

/// Notes that nothing of the body was read to its end.
pub(crate) fn unread(context: &Context) {
    context.set_body_hash(Sha256::digest(UNREAD).into());
}

async fn read_value(parts: &Parts, body: Body) -> Result<Value, ApiError> {
    let context = Context::of(parts);
    unread(&context);
    if negotiate::has_body(&parts.headers) {
        negotiate::check_json_type(&parts.headers)?;
    }
    let bytes = body::read(parts, body, rules(parts).body_limit).await?;
    context.set_body_hash(Sha256::digest(&bytes).into());
    let value = value::parse(&bytes).map_err(ApiError::malformed_json)?;
    // Keys are sorted by the map, so equal bodies hash alike however they were written.
    let canonical = serde_json::to_vec(&value).map_err(ApiError::internal)?;
    context.set_body_hash(Sha256::digest(canonical).into());
    Ok(value)
}

/// Hands on what was read; a refusal is kept under the request's Idempotency-Key first, if it has one.
pub(crate) async fn settled<T: Send>(
    read: Result<T, ApiError>,
    state: &AppState,
    parts: &Parts,
) -> Result<T, ApiError> {
    match read {
        Ok(read) => Ok(read),
        Err(refused) => Err(idempotency::keep_refusal(state, parts, refused).await),
    }
}

async fn read_json<T: DeserializeOwned + Send>(
    request: Request,
    state: &AppState,
    nul_allowed: bool,
) -> Result<T, ApiError> {
    let (parts, body) = request.into_parts();
    let read = read_value(&parts, body).await.and_then(|value| from_value(&value, nul_allowed));
    settled(read, state, &parts).await
}

async fn read_deferred<T: DeserializeOwned + Send, const NUL: bool>(
    request: Request,
    state: &AppState,
) -> Result<Deferred<T, NUL>, ApiError> {
    let (parts, body) = request.into_parts();
    let read = read_value(&parts, body).await;
    let value = settled(read, state, &parts).await?;
    Ok(Deferred(from_value(&value, NUL)))
}

impl<T: DeserializeOwned + Send, const NUL: bool> FromRequest<AppState> for Deferred<T, NUL> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        read_deferred(request, state).await
    }
}

/// An optional body: nothing when the request has none.
impl<T: DeserializeOwned + Send, const NUL: bool> OptionalFromRequest<AppState> for Deferred<T, NUL> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Option<Self>, ApiError> {
        if !negotiate::has_body(request.headers()) {
            return Ok(None);
        }
        read_deferred(request, state).await.map(Some)
    }
}

impl<T: DeserializeOwned + Send> FromRequest<AppState> for Json<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        read_json(request, state, false).await.map(Json)
    }
}

impl<T: DeserializeOwned + Send> FromRequest<AppState> for JsonNul<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        read_json(request, state, true).await.map(JsonNul)
    }
}

/// An optional body: nothing when the request has none.
impl<T: DeserializeOwned + Send> OptionalFromRequest<AppState> for Json<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &AppState) -> Result<Option<Self>, ApiError> {
        if !negotiate::has_body(request.headers()) {
            return Ok(None);
        }
        read_json(request, state, false).await.map(|v| Some(Json(v)))
    }
}

fn bad_parameters(faults: Vec<FieldError>) -> ApiError {
    let detail = faults
        .iter()
        .map(|f| format!("{}: {}", f.pointer.trim_start_matches('/'), f.detail))
        .collect::<Vec<_>>();
    ApiError::invalid_parameter(detail.join("; ")).with_errors(faults)
}

/// Reads `name=value` pairs as a `T`.
///
/// # Errors
/// 400 `invalid-parameter`.
pub fn from_query<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let mut map = Map::new();
    for (name, text) in
        form::pairs(query).map_err(|e| ApiError::invalid_parameter(format!("the query is not valid: {e}")))?
    {
        if text.contains('\0') || name.contains('\0') {
            return Err(bad_parameters(vec![FieldError::new(
                format!("/{}", name.replace('\0', "")),
                "nul",
                "a NUL is not allowed",
            )]));
        }
        if text.len() > PARAMETER_BYTES {
            let detail = format!("at most {PARAMETER_BYTES} bytes");
            return Err(bad_parameters(vec![FieldError::new(format!("/{name}"), "too-long", detail)]));
        }
        if map.contains_key(&name) {
            return Err(bad_parameters(vec![FieldError::new(
                format!("/{name}"),
                "twice",
                "the parameter is there twice",
            )]));
        }
        map.insert(name, Value::String(text));
    }
    typed::read(&Value::Object(map), true).map_err(bad_parameters)
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        from_query(parts.uri.query().unwrap_or_default()).map(Query)
    }
}

async fn path_params<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<Map<String, Value>, ApiError> {
    let bad = |_| ApiError::invalid_parameter("the path is not valid UTF-8");
    let params = RawPathParams::from_request_parts(parts, state).await.map_err(bad)?;
    Ok(params.iter().map(|(name, text)| (name.to_owned(), Value::String(text.to_owned()))).collect())
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = path_params(parts, state).await?;
        typed::read(&Value::Object(params), true).map(Path).map_err(bad_parameters)
    }
}

impl<S: Send + Sync, Id: FromStr> FromRequestParts<S> for PathId<Id> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = path_params(parts, state).await?;
        let text = params.values().next().and_then(Value::as_str).unwrap_or_default();
        text.parse().map(PathId).map_err(|_| ApiError::invalid_parameter("the id in the path is not a UUID"))
    }
}

/// Refuses any query parameter: for routes that have none.
#[derive(Debug, serde::Deserialize)]
pub struct NoQuery {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubled_unknown_and_nul_parameters_are_400() {
        #[derive(Debug, serde::Deserialize)]
        struct Q {
            a: Option<u8>,
        }
        assert_eq!(from_query::<Q>("a=3").unwrap().a, Some(3));
        for bad in ["a=3&a=3", "b=1", "a=%00", "a=300", "a="] {
            let error = from_query::<Q>(bad).unwrap_err();
            assert_eq!((error.status().as_u16(), error.code()), (400, "invalid-parameter"), "{bad}");
        }
        assert!(from_query::<NoQuery>("").is_ok() && from_query::<NoQuery>("x=1").is_err());
    }
}
