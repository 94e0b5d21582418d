//! `GET /api/accounts/{id}/changes`: what changed since a state (RFC 8620 §5.2).
//!
//! Whoever lists, and then follows the changes from the state that was given before the listing, ends equal to the list.

use axum::Json;
use axum::extract::State;
use emailclient_core::domain::mailbox::account_exists;
use emailclient_core::events::changes::{self, Changed, Type, Updated};
use emailclient_core::events::log;
use emailclient_core::platform::id::AccountId;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::error::{ApiError, Problem};
use crate::extract::{PathId, Query};
use crate::page::Scope;
use crate::permission::{MailRead, May, Unaudited};
use crate::state::AppState;

/// Objects of one answer, at most and unless asked.
const LIMIT: u16 = 500;

/// The routes of changes.
pub fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list_changes))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ChangesQuery {
    /// `new_state` of the answer before; without it the present state is told, and no change.
    since: Option<String>,
    /// What is asked for, with commas between: `message`, `mailbox`, `thread`, `submission`.
    #[serde(default)]
    #[param(value_type = Option<String>, default = "message", pattern = "^(message|mailbox|thread|submission)(,(message|mailbox|thread|submission))*$")]
    types: Types,
    /// Objects named in one answer, 1 to 500.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 500, default = 500)]
    limit: Limit,
}

#[derive(Debug, Clone, Copy)]
struct Limit(u16);

impl Default for Limit {
    fn default() -> Self {
        Self(LIMIT)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u16::deserialize(deserializer)?;
        let good = (1..=LIMIT).contains(&number);
        good.then_some(Self(number)).ok_or_else(|| serde::de::Error::custom("1 to 500 is expected"))
    }
}

/// In one order whatever order they were named in, each once.
#[derive(Debug, Clone)]
struct Types(Vec<Type>);

impl Default for Types {
    fn default() -> Self {
        Self(vec![Type::Message])
    }
}

impl<'de> Deserialize<'de> for Types {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let words: Option<Vec<Type>> = text.split(',').map(|word| Type::from_word(word.trim())).collect();
        let mut types = words
            .ok_or_else(|| serde::de::Error::custom("message, mailbox, thread or submission is expected"))?;
        types.sort_unstable();
        types.dedup();
        Ok(Self(types))
    }
}

/// An object that is another than before.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ChangedObject)]
struct UpdatedView {
    /// Its id.
    id: Uuid,
    /// What differs: `flags`, `keywords`, `mailboxes`, `thread` of a message; `name`, `cause`, `selectable`, `attributes`,
    /// `messages` of a mailbox; `messages`, `flags`, `keywords`, `mailboxes` of a thread; `state` of a submission.
    changed: Vec<String>,
}

/// What changed of one type.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = ChangesOfType)]
struct OfType {
    /// `message`, `mailbox`, `thread` or `submission`.
    r#type: &'static str,
    /// What was not there at the old state, and is at the new one.
    created: Vec<Uuid>,
    /// What was there and is another.
    updated: Vec<UpdatedView>,
    /// What was there and is no more.
    destroyed: Vec<Uuid>,
}

/// What changed between two states.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Changes)]
struct ChangesView {
    /// The state that was asked with.
    old_state: String,
    /// The state that these changes lead to.
    new_state: String,
    /// More changed: ask again with `new_state`.
    has_more: bool,
    /// What was not there at the old state, and is at the new one.
    created: Vec<Uuid>,
    /// What was there and is another.
    updated: Vec<UpdatedView>,
    /// What was there and is no more.
    destroyed: Vec<Uuid>,
    /// The same apart for each type, where several were asked for.
    by_type: Option<Vec<OfType>>,
}

fn of_type((of, changed): (Type, Changed)) -> OfType {
    let updated = |Updated { id, changed }| UpdatedView { id, changed: changed.into_iter().collect() };
    OfType {
        r#type: of.as_str(),
        created: changed.created,
        updated: changed.updated.into_iter().map(updated).collect(),
        destroyed: changed.destroyed,
    }
}

/// What changed in an account since a state.
#[utoipa::path(get, path = "/api/accounts/{id}/changes", tag = "events", security(("bearer" = ["mail:read"])), params(("id" = Uuid, Path), ChangesQuery),
    responses((status = 200, body = ChangesView), (status = 410, body = Problem, content_type = "application/problem+json", description = "the state is older than what is kept: list anew, and go on from new_state"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
async fn list_changes(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(account): PathId<AccountId>,
    Query(query): Query<ChangesQuery>,
) -> Result<Json<ChangesView>, ApiError> {
    let types = query.types.0;
    let words = types.iter().map(|t| t.as_str()).collect::<Vec<_>>().join(",");
    let scope = Scope::new(&state, caller.tenant(), "changes", &[&account.to_string(), &words]);
    let since: Option<i64> = scope
        .open(query.since.as_deref())
        .map_err(|_| ApiError::invalid_state("send a new_state of this account and these types, or none"))?;
    let mut tx = caller.tx(&state).await?;
    if !account_exists(&mut tx, account).await? {
        return Err(ApiError::not_found());
    }
    tx.release();
    // Only now: what was committed before this request is among it.
    let stream = log::make_durable(&state.db, caller.tenant()).await?;
    let now = stream.durable;
    let since = since.unwrap_or(now);
    // One moment: what is there now is not cut off while it is read.
    let mut tx = caller.snapshot(&state).await?;
    if !log::stream(&mut tx).await?.reaches_back_to(since) || since > now {
        let error = ApiError::state_expired("list anew what you keep, then go on from new_state");
        return Err(error.with_new_state(scope.seal(&now)?));
    }
    let limit = usize::from(query.limit.0);
    let found = changes::since(&mut tx, account, &types, (since, now), limit).await?;
    tx.release();
    let (new_state, has_more) = (scope.seal(&found.position)?, found.has_more);
    let parts: Vec<OfType> = found.of.into_iter().map(of_type).collect();
    let all = parts.iter().cloned().fold(OfType::default(), |mut all, part| {
        all.created.extend(part.created);
        all.updated.extend(part.updated);
        all.destroyed.extend(part.destroyed);
        all
    });
    Ok(Json(ChangesView {
        old_state: scope.seal(&since)?,
        new_state,
        has_more,
        created: all.created,
        updated: all.updated,
        destroyed: all.destroyed,
        by_type: (parts.len() > 1).then_some(parts),
    }))
}
