//! Finding the servers of an address.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use mail::address;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::discover::{
    self, Answer, Candidate, Confidence, Discovered, Discovery, HTTPS_PORT, Note, Source, Suggestion,
};

use crate::caller::Caller;
use crate::error::{ApiError, FieldError, Problem};
use crate::extract::{Json, NoQuery, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{AccountsManage, May, Unaudited};
use crate::ratelimit::Bucket;
use crate::reply::Reply;
use crate::state::AppState;

/// Discoveries of one tenant in [`WINDOW`]: each asks name servers and web servers of whatever domain it is given.
const QUOTA: u32 = 30;
const WINDOW: Duration = Duration::from_secs(60);

/// Whose servers.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DiscoverIn {
    /// The address.
    email: String,
}

/// A server, as `POST /api/accounts` takes it, but for the password.
#[derive(Debug, Serialize, ToSchema)]
pub struct SuggestedServer {
    host: String,
    port: u16,
    /// `tls` or `starttls`.
    security: &'static str,
    username: String,
}

/// Settings that may work.
#[derive(Debug, Serialize, ToSchema)]
pub struct CandidateView {
    /// `table`, `autoconfig`, `srv` or `mx`.
    source: &'static str,
    /// Other sources that say the same.
    confirmed_by: Vec<&'static str>,
    /// `high` or `medium`.
    confidence: &'static str,
    /// The provider's name.
    provider: Option<String>,
    imap: Option<SuggestedServer>,
    smtp: Option<SuggestedServer>,
    /// What a user should know, in English.
    notes: Vec<&'static str>,
}

/// How a source answered.
#[derive(Debug, Serialize, ToSchema)]
pub struct SourceView {
    source: &'static str,
    /// `found`, `nothing` or `failed`.
    outcome: &'static str,
    /// Why it failed.
    text: Option<String>,
}

/// Why there are no candidates.
#[derive(Debug, Serialize, ToSchema)]
pub struct NothingFound {
    /// `nothing-found`, or `sources-failed` when trying later may help.
    code: &'static str,
    text: &'static str,
}

/// What was found.
#[derive(Debug, Serialize, ToSchema)]
pub struct DiscoveredView {
    email: String,
    /// The best first.
    candidates: Vec<CandidateView>,
    /// The sources that were asked, the most trusted first.
    sources: Vec<SourceView>,
    /// Only without candidates.
    cause: Option<NothingFound>,
}

impl From<Suggestion> for SuggestedServer {
    fn from(s: Suggestion) -> Self {
        let security = s.endpoint.security.as_str();
        Self { host: s.endpoint.host, port: s.endpoint.port, security, username: s.username }
    }
}

impl From<Candidate> for CandidateView {
    fn from(c: Candidate) -> Self {
        Self {
            source: c.source.as_str(),
            confirmed_by: c.confirmed_by.into_iter().map(Source::as_str).collect(),
            confidence: match c.confidence {
                Confidence::High => "high",
                Confidence::Medium => "medium",
            },
            provider: c.provider,
            imap: c.imap.map(SuggestedServer::from),
            smtp: c.smtp.map(SuggestedServer::from),
            notes: c.notes.into_iter().map(Note::text).collect(),
        }
    }
}

impl From<(Source, Answer)> for SourceView {
    fn from((source, answer): (Source, Answer)) -> Self {
        let (outcome, text) = match answer {
            Answer::Found => ("found", None),
            Answer::Nothing => ("nothing", None),
            Answer::Failed(text) => ("failed", Some(text)),
        };
        Self { source: source.as_str(), outcome, text }
    }
}

fn cause(candidates: &[CandidateView], sources: &[SourceView]) -> Option<NothingFound> {
    if !candidates.is_empty() {
        return None;
    }
    Some(if sources.iter().any(|s| s.outcome == "failed") {
        NothingFound {
            code: "sources-failed",
            text: "Not every source could be asked; enter the servers, or try again later.",
        }
    } else {
        NothingFound {
            code: "nothing-found",
            text: "The domain does not say where its mail servers are; enter them.",
        }
    })
}

/// Finds settings for an address: by the built-in table, the domain's configuration document, its SRV records and the hosts
/// that take its mail. Nothing is tried or saved.
#[utoipa::path(post, path = "/api/accounts/discover", tag = "accounts", security(("bearer" = ["accounts:manage"])), request_body = DiscoverIn,
    responses((status = 200, body = DiscoveredView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn discover(
    State(state): State<AppState>,
    caller: May<AccountsManage, Unaudited>,
    Query(NoQuery {}): Query<NoQuery>,
    key: IdempotencyKey,
    Json(body): Json<DiscoverIn>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let email = body.email.trim().to_owned();
        let found = find(&state, &caller, &email).await?;
        let candidates: Vec<_> = found.candidates.into_iter().map(CandidateView::from).collect();
        let sources: Vec<_> = found.sources.into_iter().map(SourceView::from).collect();
        let cause = cause(&candidates, &sources);
        let tx = key.tx(&state, &caller).await?;
        Ok((tx, Reply::ok(&DiscoveredView { email, candidates, sources, cause })?))
    })
    .await
}

/// Asks the sources for an address, which is trimmed, if the tenant has not asked too often.
///
/// # Errors
/// 422 `invalid-address` at `/email`, 429.
pub async fn find(state: &AppState, caller: &Caller, email: &str) -> Result<Discovered, ApiError> {
    let refuse = |detail: String| {
        ApiError::invalid_address(detail.clone()).with_errors([FieldError::new(
            "/email",
            "invalid-address",
            detail,
        )])
    };
    address::validate(email).map_err(|e| refuse(e.to_string()))?;
    let key = format!("{}:discover", caller.tenant());
    let limit = Bucket { key, name: "discover", quota: QUOTA, window: WINDOW };
    let verdict = state.limiter.take(&[limit]).await;
    if !verdict.allowed {
        let wait = verdict.retry_after.as_millis().div_ceil(1000);
        return Err(ApiError::rate_limited(u64::try_from(wait).unwrap_or(u64::MAX)));
    }
    let way =
        Discovery { dns: &state.dns, outbound: &state.outbound, tls: &state.tls, https_port: HTTPS_PORT };
    let found = discover::discover(way, email).await;
    found.ok_or_else(|| refuse("the domain of the address cannot have mail servers".to_owned()))
}
