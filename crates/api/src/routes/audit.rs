//! `GET /api/audit`: who did what, newest first; as a page of JSON, or all of it a line each.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use emailclient_core::access::audit::{self, Filter, Line};
use http::{HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::caller::Caller;
use crate::error::{ApiError, Problem};
use crate::extract::Query;
use crate::negotiate::{self, Rules};
use crate::page::{Limit, Page, Scope};
use crate::permission::{AuditRead, May, Unaudited};
use crate::state::AppState;

/// The media type of a line each.
const LINES: &str = "application/x-ndjson";
/// Lines read at once.
const LINES_AT_ONCE: i64 = 1000;

/// The routes of the audit trail.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_audit)).layer(Extension(Rules::ANY))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AuditQuery {
    /// What this one did: `user:<id>`, `emailctl:<name>` or `anonymous`.
    actor: Option<String>,
    /// Of this action, `noun.verb`.
    action: Option<String>,
    /// What was done to this object, by its id or name.
    target: Option<String>,
    /// Not before this (RFC 3339).
    from: Option<DateTime<Utc>>,
    /// Before this (RFC 3339).
    to: Option<DateTime<Utc>>,
    /// Rows of a page, 1 to 200. Lines come all.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200, default = 50)]
    limit: Limit,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// A line of the audit trail.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AuditLine)]
struct LineView {
    /// Its id.
    id: Uuid,
    /// When.
    at: DateTime<Utc>,
    /// Who: `user:<id>`, `emailctl:<user of the operating system>` or `anonymous`.
    actor: String,
    /// What, `noun.verb`.
    action: String,
    /// The object's id or name.
    target: Option<String>,
    /// The client's address.
    address: Option<String>,
    /// `ok` or the code of the refusal.
    result: String,
    /// The id of the request.
    request_id: Option<String>,
    /// How many refusals this line stands for: beyond ten a minute of one caller they are counted.
    times: i32,
}

impl From<Line> for LineView {
    fn from(line: Line) -> Self {
        let Line { id, at, actor, action, target, address, result, request_id, times } = line;
        Self { id, at, actor, action, target, address, result, request_id, times }
    }
}

/// The audit trail, newest first; with `Accept: application/x-ndjson` all of it, a line each.
#[utoipa::path(get, path = "/api/audit", tag = "audit", security(("bearer" = ["audit:read"])), params(AuditQuery),
    responses((status = 200, content((Page<LineView> = "application/json"), (String = "application/x-ndjson"))),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
async fn list_audit(
    State(state): State<AppState>,
    caller: May<AuditRead, Unaudited>,
    headers: HeaderMap,
    Query(query): Query<AuditQuery>,
) -> Result<Response, ApiError> {
    let time = |at: Option<DateTime<Utc>>| at.map(|at| at.to_rfc3339()).unwrap_or_default();
    let words = [&query.actor, &query.action, &query.target].map(|w| w.clone().unwrap_or_default());
    let [actor, action, target] = &words;
    let (from, to) = (time(query.from), time(query.to));
    let scope = Scope::new(&state, caller.tenant(), "audit", &[actor, action, target, &from, &to]);
    let after: Option<(DateTime<Utc>, Uuid)> = scope.open(query.cursor.as_deref())?;
    let filter = Filter {
        actor: query.actor,
        action: query.action,
        target: query.target,
        from: query.from,
        to: query.to,
    };
    if !negotiate::admits_json(&headers) {
        if !negotiate::accepts(&headers, "application", "x-ndjson") {
            let text = "this route answers application/json or application/x-ndjson";
            return Err(ApiError::not_acceptable(text));
        }
        return Ok(all(state, (*caller).clone(), filter, after));
    }
    let mut tx = caller.tx(&state).await?;
    let rows = audit::list(&mut tx, &filter, after, query.limit.get() + 1).await?;
    tx.release();
    let page = Page::cut(rows, query.limit, |last| scope.seal(&(last.at, last.id)))?;
    Ok(Json(page.map(LineView::from)).into_response())
}

/// What an answer of lines goes on with; `None`: it is over.
type Rest = Option<(DateTime<Utc>, Uuid)>;

fn all(state: AppState, caller: Caller, filter: Filter, after: Rest) -> Response {
    let begin = Some((state, caller, filter, after));
    let lines = futures::stream::unfold(begin, async |rest| {
        let (state, caller, filter, after) = rest?;
        match portion(&state, &caller, &filter, after).await {
            Ok((bytes, next)) => {
                Some((Ok::<_, std::io::Error>(bytes), next.map(|after| (state, caller, filter, Some(after)))))
            }
            // The answer has begun: it breaks off, which its reader sees.
            Err(error) => Some((Err(std::io::Error::other(error.code().to_owned())), None)),
        }
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(LINES));
    response
}

async fn portion(
    state: &AppState,
    caller: &Caller,
    filter: &Filter,
    after: Rest,
) -> Result<(Bytes, Rest), ApiError> {
    if state.is_draining() || !caller.is_still_let_in(state).await {
        return Err(ApiError::unavailable("the trail is not told to its end"));
    }
    let mut tx = caller.aside(state).await?;
    let rows = audit::list(&mut tx, filter, after, LINES_AT_ONCE).await?;
    tx.release();
    let full = i64::try_from(rows.len()).is_ok_and(|n| n == LINES_AT_ONCE);
    let next = rows.last().filter(|_| full).map(|last| (last.at, last.id));
    let mut text = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut text, &LineView::from(row)).map_err(ApiError::internal)?;
        text.push(b'\n');
    }
    Ok((text.into(), next))
}
