//! `POST /api/accounts/{id}/mailboxes`

use axum::extract::State;
use axum::response::Response;
use emailclient_core::domain::mailbox::{account_exists, create};
use emailclient_core::platform::id::{AccountId, MailboxId};
use serde::Deserialize;
use utoipa::ToSchema;

use super::refusal;
use crate::error::{ApiError, Problem};
use crate::extract::{Deferred, NoQuery, PathId, Query};
use crate::idempotency::IdempotencyKey;
use crate::permission::{MailWrite, MailboxCreate, May};
use crate::reply::Reply;
use crate::state::AppState;
use emailclient_core::view::mailbox::MailboxView;

/// A mailbox to be made.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct NewMailbox {
    /// One level of a name, without the delimiter.
    name: String,
    /// The mailbox to put it below; at the top without one.
    #[schema(value_type = Option<Uuid>)]
    parent_id: Option<MailboxId>,
}

/// Makes a mailbox.
#[utoipa::path(post, path = "/api/accounts/{id}/mailboxes", tag = "mailboxes", security(("bearer" = ["mail:write"])), params(("id" = Uuid, Path)), request_body = NewMailbox,
    responses((status = 201, body = MailboxView), (status = 404, body = Problem, content_type = "application/problem+json"),
              (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create_mailbox(
    State(state): State<AppState>,
    caller: May<MailWrite, MailboxCreate>,
    PathId(account): PathId<AccountId>,
    _none: Query<NoQuery>,
    key: IdempotencyKey,
    body: Deferred<NewMailbox>,
) -> Result<Response, ApiError> {
    key.once(&state, &caller, async {
        let mut tx = key.tx(&state, &caller).await?;
        if !account_exists(&mut tx, account).await? {
            return Err(ApiError::not_found());
        }
        let body = body.meaning()?;
        let made = create::create(&mut tx, account, &body.name, body.parent_id).await.map_err(refusal)?;
        caller.audit(&mut tx, &made.id.to_string()).await?;
        let location = format!("/api/mailboxes/{}", made.id);
        Ok((tx, Reply::created(&location, &MailboxView::from(made))?))
    })
    .await
}
