//! Strong entity tags and the conditions on them (RFC 9110 §8.8.3, §13).

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};
use sha2::{Digest as _, Sha256};

use crate::coding::plain;
use crate::error::ApiError;

/// A strong entity tag, quotes included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// The tag of an object at a version.
    pub fn version(id: impl std::fmt::Display, version: i64) -> Self {
        Self(format!("\"{id}.{version}\""))
    }

    /// The tag of these very bytes.
    #[must_use]
    pub fn content(bytes: &[u8]) -> Self {
        let mut text = hex::encode(Sha256::digest(bytes));
        text.truncate(32);
        Self(format!("\"{text}\""))
    }

    /// The header's value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for ETag {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// The conditions of a request. An extractor that refuses nothing; the handler asks once it knows the object.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    if_match: Option<Vec<String>>,
    if_none_match: Option<Vec<String>>,
}

impl Conditions {
    /// Refuses a change of another version than the client saw. Without `If-Match` everything passes.
    ///
    /// # Errors
    /// 412 when `If-Match` names other versions only.
    pub fn check_match(&self, current: &ETag) -> Result<(), ApiError> {
        match &self.if_match {
            Some(tags) if !tags.iter().any(|t| t == "*" || t == current.as_str()) => {
                Err(ApiError::precondition_failed("If-Match names another version than the current one"))
            }
            _ => Ok(()),
        }
    }

    /// As [`Conditions::check_match`], for objects that must not be changed blindly.
    ///
    /// # Errors
    /// 428 without `If-Match`, 412 when it names other versions only.
    pub fn require_match(&self, current: &ETag) -> Result<(), ApiError> {
        if self.if_match.is_none() {
            return Err(ApiError::precondition_required("send If-Match with the ETag that was read"));
        }
        self.check_match(current)
    }

    /// True when the client has this version already: answer 304, with the headers that the 200 would have. The comparison
    /// is weak (RFC 9110 §13.1.2). `*` is not looked at here: see [`crate::coding::mark`].
    #[must_use]
    pub fn is_current(&self, current: &ETag) -> bool {
        let weak = |t: &str| t.strip_prefix("W/").unwrap_or(t) == current.as_str();
        self.if_none_match.as_ref().is_some_and(|tags| tags.iter().any(|t| weak(t)))
    }
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<String>> {
    headers.contains_key(name).then(|| {
        let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).map(|t| plain(t.trim())).filter(|t| !t.is_empty()).collect()
    })
}

impl<S: Send + Sync> FromRequestParts<S> for Conditions {
    type Rejection = std::convert::Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self {
            if_match: tags(&parts.headers, &header::IF_MATCH),
            if_none_match: tags(&parts.headers, &header::IF_NONE_MATCH),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_compare_versions() {
        let tag = ETag::version("x", 3);
        let with =
            |m: Option<&str>| Conditions { if_match: m.map(|t| vec![t.to_owned()]), ..Conditions::default() };
        assert!(
            with(Some("\"x.3\"")).require_match(&tag).is_ok() && with(Some("*")).require_match(&tag).is_ok()
        );
        assert_eq!(with(Some("\"x.2\"")).check_match(&tag).unwrap_err().status(), 412);
        // A weak tag never matches where strength is asked for.
        assert_eq!(with(Some("W/\"x.3\"")).check_match(&tag).unwrap_err().status(), 412);
        assert_eq!(with(None).require_match(&tag).unwrap_err().status(), 428);
        assert!(with(None).check_match(&tag).is_ok());
        let none = Conditions { if_none_match: Some(vec!["W/\"x.3\"".into()]), ..Conditions::default() };
        assert!(none.is_current(&tag) && !none.is_current(&ETag::version("x", 4)));
    }
}
