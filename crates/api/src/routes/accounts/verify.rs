//! Trying credentials without saving anything.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::input::{AccountIn, check, check_hosts};
use super::trial::{self, Failure, Outcomes};
use super::tries;
use crate::error::{ApiError, Problem, Upstream};
use crate::extract::{Json, NoQuery, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{AccountsManage, May, Unaudited};
use crate::reply::Reply;
use crate::state::AppState;

/// How one server answered.
#[derive(Debug, Serialize, ToSchema)]
pub struct Outcome {
    /// Whether the log-in succeeded.
    ok: bool,
    /// Why not.
    code: Option<&'static str>,
    /// Why not, for people.
    text: Option<String>,
    /// What the server said.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<Upstream>,
}

/// How both servers answered.
#[derive(Debug, Serialize, ToSchema)]
pub struct Verified {
    imap: Outcome,
    smtp: Outcome,
}

impl From<Result<(), Failure>> for Outcome {
    fn from(result: Result<(), Failure>) -> Self {
        match result {
            Ok(()) => Self { ok: true, code: None, text: None, upstream: None },
            Err(f) => Self {
                ok: false,
                code: Some(f.trouble.code()),
                text: Some(f.text),
                upstream: Some(f.upstream),
            },
        }
    }
}

/// Logs in to both servers and saves nothing.
#[utoipa::path(post, path = "/api/accounts/verify", tag = "accounts", security(("bearer" = ["accounts:manage"])), request_body = AccountIn,
    responses((status = 200, body = Verified), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn verify(
    State(state): State<AppState>,
    caller: May<AccountsManage, Unaudited>,
    Query(NoQuery {}): Query<NoQuery>,
    key: IdempotencyKey,
    Json(body): Json<AccountIn>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let new = body.with_passwords()?;
        check(&new, None, state.clock.now())?;
        check_hosts(&state, &new, false).await?;
        tries::admit(&state, &caller, &new).await?;
        let Outcomes { imap, smtp } = trial::both(&state, &caller, &new, None).await?;
        tries::record(&state, &caller, &new, (imap.as_ref().err(), smtp.as_ref().err())).await?;
        let tx = key.tx(&state, &caller).await?;
        Ok((tx, Reply::ok(&Verified { imap: imap.into(), smtp: smtp.into() })?))
    })
    .await
}
