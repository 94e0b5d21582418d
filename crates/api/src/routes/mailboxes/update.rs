//! `PATCH /api/mailboxes/{id}`

use axum::Json as JsonReply;
use axum::extract::State;
use emailclient_core::domain::mailbox::{self};
use emailclient_core::platform::id::MailboxId;
use emailclient_core::sync::mailbox_change::{self, Change};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

use super::refusal;
use crate::error::{ApiError, Problem};
use crate::extract::{Deferred, NoQuery, PathId, Query};
use crate::permission::{MailWrite, MailboxUpdate, May};
use crate::state::AppState;
use emailclient_core::view::mailbox::MailboxView;

/// What is to change; an absent field stays.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct MailboxPatch {
    /// New last part of the name.
    name: Option<String>,
    /// The mailbox to put it below; `null`: to the top.
    #[serde(default, deserialize_with = "told")]
    #[schema(value_type = Option<Uuid>)]
    parent_id: Option<Option<MailboxId>>,
    /// Whether it is subscribed to.
    subscribed: Option<bool>,
}

/// Tells `null` apart from a field that is not there.
fn told<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<MailboxId>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Renames, moves, subscribes or unsubscribes a mailbox.
#[utoipa::path(patch, path = "/api/mailboxes/{id}", tag = "mailboxes", security(("bearer" = ["mail:write"])), params(("id" = Uuid, Path)), request_body = MailboxPatch,
    responses((status = 200, body = MailboxView), (status = 404, body = Problem, content_type = "application/problem+json"),
              (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn update_mailbox(
    State(state): State<AppState>,
    caller: May<MailWrite, MailboxUpdate>,
    PathId(id): PathId<MailboxId>,
    _none: Query<NoQuery>,
    body: Deferred<MailboxPatch>,
) -> Result<JsonReply<MailboxView>, ApiError> {
    caller.turn(&state, id.0).await?;
    let mut tx = caller.tx(&state).await?;
    mailbox::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    let body = body.meaning()?;
    let change = Change { name: body.name, parent: body.parent_id, subscribed: body.subscribed };
    let changed = mailbox_change::update(&mut tx, id, &change)
        .await
        .map_err(refusal)?
        .ok_or_else(ApiError::not_found)?;
    caller.audit(&mut tx, &id.to_string()).await?;
    tx.commit().await?;
    Ok(JsonReply(changed.into()))
}
