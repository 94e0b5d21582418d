//! A form that came in.

use axum::extract::Request;
use emailclient_core::domain::connect;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use wire::secret::Secret;

use crate::error::ApiError;
use crate::extract::body;
use crate::form;
use crate::state::AppState;

/// All fields together; passwords have 1,024 bytes, which percent-encoded are three times as many.
pub const MAX_BYTES: usize = 32 * 1024;
const KIND: &str = "application/x-www-form-urlencoded";

/// The fields of a form.
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Reads a request's.
    ///
    /// # Errors
    /// 415, 413, 408, or 400 for what is none.
    pub async fn read(request: Request) -> Result<Self, ApiError> {
        let (parts, content) = request.into_parts();
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(KIND) {
            return Err(ApiError::unsupported_media_type(format!("{KIND} is expected")));
        }
        let bytes = body::read(&parts, content, MAX_BYTES).await?;
        let malformed = |_| ApiError::invalid_parameter("the form cannot be read");
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed(""))?;
        Ok(Self(form::pairs(text).map_err(malformed)?))
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A field without the blanks around it.
    pub fn text(&self, name: &str) -> String {
        self.field(name).unwrap_or_default().trim().to_owned()
    }

    /// A password as it was entered; `None`: nothing was.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.field(name).filter(|text| !text.is_empty()).map(|text| Secret::new(text.to_owned()))
    }

    /// Whether it is the page's own: it carries what only this session's pages have, and no other site sent it.
    pub fn is_of(&self, state: &AppState, token: &str, headers: &HeaderMap) -> bool {
        let expected = connect::form_token(&state.config.jwt_secret, token);
        // Compared by their codes, so that how long it takes says nothing.
        let code = |text: &str| connect::form_token(&state.config.jwt_secret, text);
        let own = self.field("form").is_some_and(|given| code(given) == code(&expected));
        let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
        own && !matches!(site, Some("cross-site" | "same-site"))
    }
}
