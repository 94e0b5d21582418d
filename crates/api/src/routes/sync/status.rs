//! How an account stands with its server.

use axum::extract::State;
use chrono::{DateTime, Utc};
use emailclient_core::domain::account;
use emailclient_core::platform::id::{AccountId, MailboxId};
use emailclient_core::sync::run::{self, MailboxProgress};
use mail::mailbox::Role;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::RunView;
use crate::error::{ApiError, Problem};
use crate::extract::{PathId, Query};
use crate::page::Scope;
use crate::permission::{MailRead, May, Unaudited};
use crate::reply::Reply;
use crate::routes::accounts::CauseView;
use crate::state::AppState;

/// How much is here of what there is; placements are counted.
#[derive(Debug, Serialize, ToSchema)]
pub struct Progress {
    messages_synced: i64,
    messages_total: i64,
}

/// The comparison with the server, done once a day.
#[derive(Debug, Serialize, ToSchema)]
pub struct Audit {
    /// When it was done last; of an account: when the mailbox that has waited longest was.
    last_at: Option<DateTime<Utc>>,
    /// What differed although the server's numbers said that nothing had changed, since the beginning. It was repaired;
    /// anything but 0 is a defect of this service.
    repairs: i64,
}

/// One mailbox.
#[derive(Debug, Serialize, ToSchema)]
pub struct MailboxView {
    id: Uuid,
    name: String,
    role: Option<&'static str>,
    /// `new`, `backfill`, `synced` or `failed`.
    state: &'static str,
    messages_synced: i64,
    messages_total: i64,
    last_synced_at: Option<DateTime<Utc>>,
    cause: Option<CauseView>,
    audit: Audit,
}

/// The account's synchronisation.
#[derive(Debug, Serialize, ToSchema)]
pub struct Status {
    account_id: Uuid,
    state: &'static str,
    cause: Option<CauseView>,
    last_synced_at: Option<DateTime<Utc>>,
    next_due_at: Option<DateTime<Utc>>,
    /// The round that a client asked for last, kept after its end.
    run: Option<RunView>,
    /// The last round that nobody asked for.
    background: Option<RunView>,
    progress: Progress,
    audit: Audit,
    mailboxes: Vec<MailboxView>,
    /// What to send as `mailboxes_cursor` for those that follow; a page has 1,000.
    mailboxes_next_cursor: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StatusQuery {
    /// `mailboxes_next_cursor` of the page before.
    mailboxes_cursor: Option<String>,
}

/// Mailboxes in one answer: 50,000 would make 11 MB of it.
const MAILBOXES: usize = 1000;

fn view(m: MailboxProgress) -> MailboxView {
    MailboxView {
        id: m.id.0,
        name: m.name,
        role: m.role.map(Role::as_str),
        state: m.state.as_str(),
        messages_synced: m.synced,
        messages_total: m.total,
        last_synced_at: m.last_synced_at,
        cause: m.cause.map(CauseView::from),
        audit: Audit { last_at: m.last_audit_at, repairs: m.audit_repairs },
    }
}

/// State, progress of each mailbox, cause of trouble, next try.
#[utoipa::path(get, path = "/api/sync/status/{account_id}", tag = "sync", security(("bearer" = ["mail:read"])),
    params(("account_id" = Uuid, Path), StatusQuery),
    responses((status = 200, body = Status), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn status(
    State(state): State<AppState>,
    caller: May<MailRead, Unaudited>,
    PathId(id): PathId<AccountId>,
    Query(query): Query<StatusQuery>,
) -> Result<Reply, ApiError> {
    let scope = Scope::new(&state, caller.tenant(), "sync-status", &[&id.to_string()]);
    let after: Option<MailboxId> = scope.open(query.mailboxes_cursor.as_deref())?;
    let mut tx = caller.snapshot(&state).await?;
    let account = account::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    let rounds = run::latest(&mut tx, id).await?;
    let next_due_at = run::next_due(&mut tx, id).await?;
    let sums = run::sums(&mut tx, id).await?;
    let limit = i64::try_from(MAILBOXES).unwrap_or(i64::MAX).saturating_add(1);
    let found = run::progress(&mut tx, id, after, limit).await?;
    let mut mailboxes =
        found.ok_or_else(|| ApiError::invalid_cursor("the mailbox it stood at is gone; begin anew"))?;
    tx.release();
    let more = mailboxes.len() > MAILBOXES;
    mailboxes.truncate(MAILBOXES);
    let last = mailboxes.last().filter(|_| more).map(|m| m.id);
    let mailboxes_next_cursor = last.map(|last| scope.seal(&last)).transpose()?;
    Reply::ok(&Status {
        account_id: id.0,
        state: account.state.as_str(),
        cause: account.cause.map(CauseView::from),
        last_synced_at: account.last_synced_at,
        next_due_at,
        run: rounds.asked.map(RunView::from),
        background: rounds.background.map(RunView::from),
        progress: Progress { messages_synced: sums.synced, messages_total: sums.total },
        audit: Audit { last_at: sums.last_audit_at, repairs: sums.audit_repairs },
        mailboxes: mailboxes.into_iter().map(view).collect(),
        mailboxes_next_cursor,
    })
}
