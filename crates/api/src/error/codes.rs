//! A constructor for every code of the API: status, title and code are paired here and nowhere else.

use std::time::Duration;

use http::{StatusCode, header};
use wire::trouble::Trouble;

use super::{ApiError, FieldError};

macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident: $status:ident, $code:literal, $title:literal;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(detail: impl Into<String>) -> Self {
            Self::new(StatusCode::$status, $code, $title, detail)
        }
    )*
        /// Status, code and title of all above.
        const PLAIN: &[(u16, &str, &str)] = &[$((StatusCode::$status.as_u16(), $code, $title)),*];
    };
}

impl ApiError {
    plain! {
        /// A parameter of path or query cannot be read.
        invalid_parameter: BAD_REQUEST, "invalid-parameter", "A parameter is not valid";
        /// A cursor is not one of ours, or belongs to another list.
        invalid_cursor: BAD_REQUEST, "invalid-cursor", "The cursor does not belong to this list";
        /// A state is not one of ours, or belongs to something else.
        invalid_state: BAD_REQUEST, "invalid-state", "The state does not belong to this list of changes";
        /// The search query cannot be read; add the column.
        invalid_query: BAD_REQUEST, "invalid-query", "The search query is not valid";
        /// The body is not JSON.
        malformed_json: BAD_REQUEST, "malformed-json", "The body is not valid JSON";
        /// The body is not a form with files.
        malformed_multipart: BAD_REQUEST, "malformed-multipart", "The body is not valid multipart/form-data";
        /// No tenant was named.
        tenant_required: BAD_REQUEST, "tenant-required", "No tenant was named";
        /// The tenant was named twice, in two ways, or in a form that is none.
        invalid_tenant: BAD_REQUEST, "invalid-tenant", "The tenant is not named properly";
        /// The key is empty, too long or there twice.
        invalid_idempotency_key: BAD_REQUEST, "invalid-idempotency-key", "The Idempotency-Key is not valid";
        /// The tenant was switched off by the operator.
        tenant_suspended: FORBIDDEN, "tenant-suspended", "This tenant is suspended";
        /// The sender is not an identity of the account.
        sender_not_allowed: FORBIDDEN, "sender-not-allowed", "This sender is not an identity of the account";
        /// The caller may not do this.
        insufficient_scope: FORBIDDEN, "insufficient-scope", "This needs more rights";
        /// None of the acceptable forms can be made.
        not_acceptable: NOT_ACCEPTABLE, "not-acceptable", "No acceptable representation";
        /// The body did not arrive in time.
        request_timeout: REQUEST_TIMEOUT, "request-timeout", "The request took too long to arrive";
        /// The address is connected already.
        account_exists: CONFLICT, "account-exists", "This address is connected already";
        /// The account is not synchronised at present.
        account_paused: CONFLICT, "account-paused", "The account is paused";
        /// The mailbox has mail in it.
        mailbox_not_empty: CONFLICT, "mailbox-not-empty", "The mailbox is not empty";
        /// It is too late for that.
        already_sending: CONFLICT, "already-sending", "The message is on its way already";
        /// Nothing is sent to the webhook until it is enabled.
        webhook_disabled: CONFLICT, "webhook-disabled", "The webhook is disabled";
        /// An earlier replay has not ended.
        replay_running: CONFLICT, "replay-running", "A replay is running already";
        /// Accounts log in by the app.
        oauth_app_in_use: CONFLICT, "oauth-app-in-use", "Accounts use the app";
        /// The operator has not set what this needs.
        not_configured: CONFLICT, "not-configured", "The deployment is not set up for this";
        /// The log does not reach back to the state; add the present one.
        state_expired: GONE, "state-expired", "The state is older than what is kept";
        /// `If-Match` names another version.
        precondition_failed: PRECONDITION_FAILED, "precondition-failed", "The object has changed";
        /// The body is over the limit of the route.
        payload_too_large: PAYLOAD_TOO_LARGE, "payload-too-large", "The body is too large";
        /// The body's type, charset or encoding is not read here.
        unsupported_media_type: UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body's type is not supported";
        /// The range lies outside.
        range_not_satisfiable: RANGE_NOT_SATISFIABLE, "range-not-satisfiable", "The range cannot be satisfied";
        /// Fields are missing, of the wrong type, or not among those there are; add them.
        validation: UNPROCESSABLE_ENTITY, "validation-error", "The input is not valid";
        /// A header field contains what it must not.
        invalid_header: UNPROCESSABLE_ENTITY, "invalid-header", "A header field is not valid";
        /// A mail address cannot be used.
        invalid_address: UNPROCESSABLE_ENTITY, "invalid-address", "A mail address is not valid";
        /// This header is not the client's to set.
        header_not_allowed: UNPROCESSABLE_ENTITY, "header-not-allowed", "This header cannot be set";
        /// Nobody to send to.
        no_recipients: UNPROCESSABLE_ENTITY, "no-recipients", "The message has no recipients";
        /// Too many to send to.
        too_many_recipients: UNPROCESSABLE_ENTITY, "too-many-recipients", "The message has too many recipients";
        /// The time to send at is past or has no zone.
        invalid_send_at: UNPROCESSABLE_ENTITY, "invalid-send-at", "The time to send at is not valid";
        /// The key was used for something else.
        idempotency_key_reused: UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The Idempotency-Key was used for another request";
        /// `If-Match` is needed.
        precondition_required: PRECONDITION_REQUIRED, "precondition-required", "If-Match is required";
        /// Something this service needs is away.
        unavailable: SERVICE_UNAVAILABLE, "unavailable", "The service is not available";
    }

    /// Status, code and title of every refusal there is.
    pub(crate) fn catalogue() -> Vec<(u16, String, String)> {
        let others = [
            Self::unauthenticated(),
            Self::invalid_token(),
            Self::token_expired(),
            Self::invalid_credentials(),
            Self::tenant_forbidden(),
            Self::not_found(),
            Self::method_not_allowed(),
            Self::idempotency_in_progress(),
            Self::rate_limited(1),
            Self::bare_internal(),
        ];
        let plain = Self::PLAIN
            .iter()
            .map(|(status, code, title)| (*status, (*code).to_owned(), (*title).to_owned()));
        let troubles = Trouble::ALL.iter().map(|trouble| Self::trouble(*trouble, ""));
        let others = others.into_iter().chain(troubles);
        let others = others.map(|e| (e.0.problem.status, e.0.problem.code, e.0.problem.title));
        let mut all: Vec<_> = plain.chain(others).collect();
        all.sort();
        all.dedup();
        all
    }

    /// 422: a mail server that was named cannot be used. Clients tell what a person has to do by five codes; which of the one
    /// table's words it was stands in `errors`.
    #[must_use]
    pub fn trouble(trouble: Trouble, detail: impl Into<String>) -> Self {
        let told = match trouble {
            Trouble::HostNotAllowed | Trouble::PortNotAllowed | Trouble::HostNotFound => trouble,
            Trouble::AuthFailed
            | Trouble::CredentialsUnusable
            | Trouble::ConsentWithdrawn
            | Trouble::AppRefused => Trouble::AuthFailed,
            _ => Trouble::Unreachable,
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, told.code(), told.text().trim_end_matches('.'), detail)
    }

    fn unauthorized(code: &str, title: &str, detail: &str, challenge: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, title, detail)
            .with_header(header::WWW_AUTHENTICATE, challenge)
    }

    /// 401: nothing usable was sent.
    #[must_use]
    pub fn unauthenticated() -> Self {
        Self::unauthorized(
            "unauthenticated",
            "Authentication is required",
            "send Authorization: Bearer with an access token",
            "Bearer",
        )
    }

    /// 401: the token is not one of ours, or its session is over.
    #[must_use]
    pub fn invalid_token() -> Self {
        Self::unauthorized(
            "invalid-token",
            "The token is not valid",
            "log in again",
            "Bearer error=\"invalid_token\"",
        )
    }

    /// 401: the token was good once.
    #[must_use]
    pub fn token_expired() -> Self {
        let challenge = "Bearer error=\"invalid_token\", error_description=\"expired\"";
        Self::unauthorized("token-expired", "The token has expired", "refresh it or log in again", challenge)
    }

    /// 401: no such user, or not its password; deliberately the same.
    #[must_use]
    pub fn invalid_credentials() -> Self {
        Self::unauthorized(
            "invalid-credentials",
            "The credentials are not valid",
            "address, password or tenant is wrong",
            "Bearer",
        )
    }

    /// 403: the tenant is not the caller's, or there is none of that name; deliberately the same.
    #[must_use]
    pub fn tenant_forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "tenant-forbidden",
            "This tenant is not yours",
            "the token belongs to another tenant",
        )
    }

    /// 404: nobody's, or another tenant's; deliberately the same.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", "there is no such object or path")
    }

    /// 405; the router adds `Allow`.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "The method is not allowed",
            "see the Allow header",
        )
    }

    /// 409: the first request with this key has not ended.
    #[must_use]
    pub fn idempotency_in_progress() -> Self {
        let title = "A request with this Idempotency-Key is running";
        Self::new(StatusCode::CONFLICT, "idempotency-in-progress", title, "try again in a second")
            .with_header(header::RETRY_AFTER, "1")
    }

    /// 429 with the seconds to wait.
    #[must_use]
    pub fn rate_limited(retry_after_seconds: u64) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate-limited",
            "Too many requests",
            "see the Retry-After header",
        )
        .with_header(header::RETRY_AFTER, &retry_after_seconds.max(1).to_string())
    }

    /// 503 `unavailable` for a while: more was asked for at once than can be done.
    #[must_use]
    pub fn busy(detail: &str, retry_after: Duration) -> Self {
        Self::unavailable(detail).with_header(header::RETRY_AFTER, &retry_after.as_secs().max(1).to_string())
    }

    /// 422 for one field, with the code `validation-error`.
    #[must_use]
    pub fn invalid_field(pointer: &str, code: &str, detail: &str) -> Self {
        Self::validation(detail).with_errors([FieldError::new(pointer, code, detail)])
    }

    /// 422 `validation-error`: an id in the body that is nobody's or another tenant's.
    #[must_use]
    pub fn unknown_reference(pointer: &str) -> Self {
        Self::invalid_field(pointer, "unknown", "there is no such object")
    }

    /// 500: a defect of ours; the cause goes to the log.
    #[must_use]
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self::bare_internal().with_cause(cause)
    }

    pub(crate) fn bare_internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "An internal error",
            "the log has the cause under this request's id",
        )
    }

    /// The problem for a status that the framework answered by itself.
    pub(crate) fn from_status(status: StatusCode) -> Self {
        match status {
            StatusCode::BAD_REQUEST => Self::invalid_parameter("the request cannot be read"),
            StatusCode::NOT_FOUND => Self::not_found(),
            StatusCode::METHOD_NOT_ALLOWED => Self::method_not_allowed(),
            StatusCode::NOT_ACCEPTABLE => Self::not_acceptable("no acceptable form or coding can be made"),
            StatusCode::REQUEST_TIMEOUT => Self::request_timeout("the request did not arrive in time"),
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::payload_too_large("the body is over the limit of this route")
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::unsupported_media_type("this type is not read here"),
            StatusCode::UNPROCESSABLE_ENTITY => Self::validation("the input cannot be used"),
            StatusCode::SERVICE_UNAVAILABLE => Self::unavailable("try again later"),
            other if other.is_server_error() => Self::bare_internal(),
            other => Self::new(
                other,
                "refused",
                other.canonical_reason().unwrap_or("Refused"),
                "the request was refused",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_the_docs_beside_its_status() {
        let page = include_str!("../../../../docs/api.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).collect();
        for (status, code, _) in ApiError::catalogue() {
            let told = |row: &&str| row.contains(&format!("`{code}`")) && row.contains(&status.to_string());
            assert!(rows.iter().any(told), "{status} {code} is not in docs/api.md");
        }
    }
}
