//! The REST API.
//!
//! How to write a route. One file `routes/<domain>/<verb>.rs` holds request, response, description and handler; one line
//! in `routes/<domain>.rs` adds it; queries live in `emailclient_core`. The arguments stand in the order in which they
//! refuse (path, query, body), so do not reorder them:
//!
//! ```text
//! #[utoipa::path(post, path = "/api/things/{id}/parts", tag = "things", security(("bearer" = ["mail:write"])),
//!     params(("id" = Uuid, Path)), request_body = NewPart,
//!     responses((status = 201, body = Part), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
//! pub async fn add(
//!     State(state): State<AppState>,
//!     caller: May<MailWrite, PartAdd>,        // token, tenant, permission, limit, Accept, Content-Type; its line in the audit trail
//!     PathId(id): PathId<ThingId>,            // 400
//!     Query(query): Query<AddQuery>,          // 400; routes without parameters take Query<NoQuery>
//!     key: IdempotencyKey,                    // every POST
//!     Json(new): Json<NewPart>,               // 415, 413, 408, 400, 422 with pointers; last, and only with a body
//! ) -> Result<Response, ApiError> {
//!     key.once(&state, &caller, async {
//!         let mut tx = key.tx(&state, &caller).await?;                      // other methods: caller.tx(&state)
//!         let part = thing::add_part(&mut tx, id, &new.name).await?.ok_or_else(ApiError::not_found)?;
//!         caller.audit(&mut tx, &part.id.to_string()).await?;
//!         Ok((tx, Reply::created(&format!("/api/parts/{}", part.id), &view(&part))?))
//!     })
//!     .await
//! }
//! ```
//!
//! Reads: `caller.tx`, query, `tx.release()`, `Ok(Reply::ok(&view)?)` (a `Reply` is a response). Raw bytes in or out:
//! add the route to a router of its own with `.layer(Extension(Rules::ANY))`, and read [`extract::body::Arriving`].
//! Lists: [`page`]. Versions: [`etag`]. Permissions and audited actions: [`permission`].

mod again;
mod answer;
pub mod caller;
mod coding;
pub mod context;
mod cors;
mod early;
pub mod error;
pub mod etag;
pub mod extract;
mod form;
mod headers;
mod host;
pub mod hub;
pub mod idempotency;
pub mod known;
mod limits;
mod line;
mod measured;
pub mod negotiate;
mod openapi;
pub mod page;
pub mod part_token;
pub mod permission;
pub mod ratelimit;
mod refusals;
pub mod reply;
mod router;
mod routes;
mod server;
pub mod state;
mod trail;
mod written;

use std::process::ExitCode;

use emailclient_core::platform::config::{Config, Keys};
use emailclient_core::platform::start::{self, StartError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::state::AppState;

/// The program `emailclient-api`, from its settings in the environment to its exit status: see [`start::service`].
pub async fn main() -> ExitCode {
    start::service("emailclient-api", Keys::Needed, async |config, shutdown| {
        let listener = TcpListener::bind(&config.api_listen).await.map_err(|e| {
            StartError::setting("API_LISTEN", format!("cannot listen on {}: {e}", config.api_listen))
        })?;
        serve(config, listener, shutdown).await
    })
    .await
}

/// Checks the database, then serves the API on `listener` until `shutdown`; running requests get 25 seconds to end.
///
/// # Errors
/// When a setting cannot be used, or the database is not the one this binary was built for.
pub async fn serve(config: Config, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
    let state = AppState::new(config)?;
    state.db.verify().await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    let (router, end) = (router::build(state.clone())?, CancellationToken::new());
    let serving = async {
        server::run(&state, router, listener, shutdown).await;
        end.cancel();
    };
    state.db.news.publish(state.redis.clone());
    let hub = state.hub.run(&state.db, &state.config.redis_url, &end);
    let pools = state.db.count_connections(&end);
    tokio::join!(serving, state.refusals.run(&state.db, &end), hub, pools);
    state.db.close().await;
    Ok(())
}
