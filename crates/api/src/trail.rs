//! The layer that writes what was refused into the audit trail, as far as [`crate::refusals`] lets it.
//!
//! In a transaction of its own, since that of the request did nothing.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use emailclient_core::access::audit::{self, Entry};
use emailclient_core::platform::db::DbError;
use http::StatusCode;

use crate::context::Context;
use crate::error::Pending;
use crate::refusals::Refused;
use crate::state::AppState;

/// Writes the line of a request that was answered with 403, if what it asked for is audited.
pub async fn watch(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let context = request.extensions().get::<Context>().cloned();
    let response = next.run(request).await;
    if response.status() == StatusCode::FORBIDDEN
        && let Some(context) = context
        && let (Some(tenant), Some((actor, action))) = (context.tenant(), context.audited())
    {
        let code = response.extensions().get::<Pending>().map(|Pending(problem)| problem.code.clone());
        // A refusal that is kept under an Idempotency-Key is written out already.
        let Some(result) = code.or_else(|| context.refused()) else { return response };
        let refused = Refused { tenant, actor, action, result };
        if state.refusals.admit(&refused.actor, &refused) {
            // Of its own: a client that goes away ends the request, and not its line.
            let writing = tokio::spawn(async move {
                if let Err(error) = write(&state, &context, &refused).await {
                    tracing::error!(%error, ?refused, "a refusal could not be written to the audit trail");
                }
            });
            let _ = writing.await;
        }
    }
    response
}

async fn write(state: &AppState, context: &Context, refused: &Refused) -> Result<(), DbError> {
    let address = context.address().map(|a| a.to_string());
    let mut tx = state.db.tenant(refused.tenant).await?;
    let entry = Entry {
        actor: &refused.actor,
        action: refused.action,
        target: Some(context.path()),
        address: address.as_deref(),
        result: &refused.result,
        request_id: Some(context.request_id()),
        times: 1,
    };
    audit::record(&mut tx, &entry).await?;
    tx.commit().await
}
