//! Whether this process lives, is ready, and what it sees of its surroundings. No token, and their own shape.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::state::AppState;

/// How long a check may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The routes of this domain.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(overview)).routes(routes!(live)).routes(routes!(ready))
}

/// One word on each of the surroundings.
#[derive(Debug, Serialize, ToSchema)]
struct Checks {
    /// `ok`, or `failed` when it does not answer or takes no writes, as on a full disk.
    database: &'static str,
    /// `ok`, or `failed` when it does not answer or takes no writes; without Redis limits are kept in each process.
    redis: &'static str,
    /// `ok`, or `failed` when the schema is older than this release. A newer one is `ok`: an update is under way.
    migrations: &'static str,
}

/// The state of the service.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `ok` or `degraded`.
    status: &'static str,
    /// The release.
    version: &'static str,
    /// The surroundings.
    checks: Checks,
}

fn word(good: bool) -> &'static str {
    if good { "ok" } else { "failed" }
}

async fn look(state: &AppState) -> Health {
    let database = async {
        let answers = matches!(tokio::time::timeout(PATIENCE, state.db.ping()).await, Ok(Ok(())));
        answers && state.writes.are_taken(&state.db).await
    };
    let redis = async { emailclient_core::platform::redis_pool::takes_writes(&state.redis).await.is_ok() };
    let schema =
        async { matches!(tokio::time::timeout(PATIENCE, state.db.schema_suffices()).await, Ok(Ok(true))) };
    let (database, redis, migrations) = tokio::join!(database, redis, schema);
    let status = if database && redis && migrations { "ok" } else { "degraded" };
    let checks = Checks { database: word(database), redis: word(redis), migrations: word(migrations) };
    Health { status, version: env!("CARGO_PKG_VERSION"), checks }
}

/// State of the service and its surroundings.
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = Health), (status = 503, body = Health)))]
async fn overview(State(state): State<AppState>) -> Response {
    let health = look(&state).await;
    // Redis is a help, not a need: without it the service is degraded and still answers.
    let usable = health.checks.database == "ok" && health.checks.migrations == "ok";
    let status = if usable { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(health)).into_response()
}

/// Whether the process answers at all; asks nothing of anything.
#[utoipa::path(get, path = "/health/live", tag = "health", responses((status = 200)))]
async fn live() -> Response {
    axum::Json(serde_json::json!({ "status": "ok" })).into_response()
}

/// Whether requests should be sent here: 503 while starting, draining, or without a database that takes writes.
#[utoipa::path(get, path = "/health/ready", tag = "health", responses((status = 200, body = Health), (status = 503, body = Health)))]
async fn ready(State(state): State<AppState>) -> Response {
    if state.is_draining() {
        let body = serde_json::json!({ "status": "draining" });
        return (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response();
    }
    overview(State(state)).await
}
