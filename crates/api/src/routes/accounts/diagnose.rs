//! Walking to an account's servers, to find where the way ends.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use emailclient_core::connect;
use emailclient_core::domain::account;
use emailclient_core::platform::id::AccountId;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;
use wire::diagnose as walk;
use wire::tls::Certificate;

use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{AccountsManage, May, Unaudited};
use crate::ratelimit::Bucket;
use crate::reply::Reply;
use crate::state::AppState;

/// Walks of one account in [`WINDOW`]: each logs in twice, and servers lock accounts for less.
const QUOTA: u32 = 4;
const WINDOW: Duration = Duration::from_secs(60);

/// The certificate that a server showed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Certificate)]
pub struct CertificateView {
    /// Names and addresses it is for.
    names: Vec<String>,
    /// Who vouches for it.
    issuer: String,
    not_before: Option<DateTime<Utc>>,
    not_after: Option<DateTime<Utc>>,
}

/// What was seen in a step; what there was nothing to see of is left out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DiagnosisDetail)]
pub struct DetailView {
    /// Public addresses of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    /// The server's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    /// The server's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_code: Option<String>,
    /// What the server says it can do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    capabilities: Vec<String>,
    /// The certificate it showed, accepted or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateView>,
    /// Messages in INBOX.
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<u32>,
}

/// One step on the way to a server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DiagnosisStep)]
pub struct StepView {
    /// `dns`, `tcp`, `tls`, `greeting`, `starttls`, `ehlo`, `login`, `capabilities` or `select`.
    step: &'static str,
    /// `ok`, `failed` or `skipped`.
    outcome: &'static str,
    duration_ms: u64,
    /// What went wrong, or why it was skipped.
    code: Option<&'static str>,
    /// The same for people.
    text: Option<String>,
    detail: DetailView,
}

/// The way to one server.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DiagnosisWay)]
pub struct WayView {
    /// Whether no step failed.
    ok: bool,
    /// In order; nothing behind one that failed was tried.
    steps: Vec<StepView>,
}

/// The ways to both servers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Diagnosis)]
pub struct DiagnosisView {
    account_id: Uuid,
    imap: WayView,
    smtp: WayView,
}

impl From<Certificate> for CertificateView {
    fn from(c: Certificate) -> Self {
        Self { names: c.names, issuer: c.issuer, not_before: c.not_before, not_after: c.not_after }
    }
}

impl From<walk::Step> for StepView {
    fn from(s: walk::Step) -> Self {
        let outcome = match s.outcome {
            walk::Outcome::Ok => "ok",
            walk::Outcome::Failed => "failed",
            walk::Outcome::Skipped => "skipped",
        };
        let detail = DetailView {
            addresses: s.detail.addresses.iter().map(IpAddr::to_string).collect(),
            server: s.detail.server,
            response_code: s.detail.response_code,
            capabilities: s.detail.capabilities,
            certificate: s.detail.certificate.map(CertificateView::from),
            messages: s.detail.messages,
        };
        let duration_ms = u64::try_from(s.took.as_millis()).unwrap_or(u64::MAX);
        Self { step: s.name, outcome, duration_ms, code: s.code, text: s.text, detail }
    }
}

impl From<Vec<walk::Step>> for WayView {
    fn from(steps: Vec<walk::Step>) -> Self {
        let ok = steps.iter().all(|s| s.outcome != walk::Outcome::Failed);
        Self { ok, steps: steps.into_iter().map(StepView::from).collect() }
    }
}

/// Walks to both servers with what is stored, each step timed: where the way ends, with the server's words. Saves nothing.
#[utoipa::path(post, path = "/api/accounts/{id}/diagnose", tag = "accounts", security(("bearer" = ["accounts:manage"])), params(("id" = Uuid, Path)),
    responses((status = 200, body = DiagnosisView), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn diagnose(
    State(state): State<AppState>,
    caller: May<AccountsManage, Unaudited>,
    PathId(id): PathId<AccountId>,
    Query(NoQuery {}): Query<NoQuery>,
    key: IdempotencyKey,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut look = caller.aside(&state).await?;
        account::get(&mut look, id).await?.ok_or_else(ApiError::not_found)?;
        look.release();
        let limit = Bucket { key: format!("diagnose:{id}"), name: "diagnose", quota: QUOTA, window: WINDOW };
        let verdict = state.limiter.take(&[limit]).await;
        if !verdict.allowed {
            let wait = verdict.retry_after.as_millis().div_ceil(1000);
            return Err(ApiError::rate_limited(u64::try_from(wait).unwrap_or(u64::MAX)));
        }
        caller.context.tried_elsewhere();
        let of = (caller.tenant(), id);
        let (imap, smtp) =
            tokio::join!(connect::imap::diagnose(&state, of), connect::smtp::diagnose(&state, of));
        let (imap, smtp) = (imap?, smtp?);
        let tx = key.tx(&state, &caller).await?;
        Ok((tx, Reply::ok(&DiagnosisView { account_id: id.0, imap: imap.into(), smtp: smtp.into() })?))
    })
    .await
}
