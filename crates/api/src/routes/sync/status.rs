//! How an account stands with its server.

use axum::extract::State;
use chrono::{DateTime, Utc};
use emailclient_core::account;
use emailclient_core::id::AccountId;
use emailclient_core::sync_run::{self, MailboxProgress};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::RunView;
use crate::caller::Caller;
use crate::error::{ApiError, Problem};
use crate::extract::{NoQuery, PathId, Query};
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
    role: Option<String>,
    /// `new`, `backfill`, `synced` or `failed`.
    state: String,
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
    state: String,
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
}

fn view(m: MailboxProgress) -> MailboxView {
    MailboxView {
        id: m.id.0,
        name: m.name,
        role: m.role,
        state: m.state,
        messages_synced: m.synced,
        messages_total: m.total,
        last_synced_at: m.last_synced_at,
        cause: m.cause.map(CauseView::from),
        audit: Audit { last_at: m.last_audit_at, repairs: m.audit_repairs },
    }
}

/// State, progress of each mailbox, cause of trouble, next try.
#[utoipa::path(get, path = "/api/sync/status/{account_id}", tag = "sync", security(("bearer" = [])),
    params(("account_id" = Uuid, Path)),
    responses((status = 200, body = Status), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub async fn status(
    State(state): State<AppState>,
    caller: Caller,
    PathId(id): PathId<AccountId>,
    Query(NoQuery {}): Query<NoQuery>,
) -> Result<Reply, ApiError> {
    let mut tx = caller.snapshot(&state).await?;
    let account = account::get(&mut tx, id).await?.ok_or_else(ApiError::not_found)?;
    let rounds = sync_run::latest(&mut tx, id).await?;
    let next_due_at = sync_run::next_due(&mut tx, id).await?;
    let mailboxes: Vec<MailboxView> = sync_run::progress(&mut tx, id).await?.into_iter().map(view).collect();
    tx.release();
    let sum = |of: fn(&MailboxView) -> i64| mailboxes.iter().map(of).sum();
    Reply::ok(&Status {
        account_id: id.0,
        state: account.state,
        cause: account.cause.map(CauseView::from),
        last_synced_at: account.last_synced_at,
        next_due_at,
        run: rounds.asked.map(RunView::from),
        background: rounds.background.map(RunView::from),
        progress: Progress {
            messages_synced: sum(|m| m.messages_synced),
            messages_total: sum(|m| m.messages_total),
        },
        audit: Audit {
            last_at: mailboxes.iter().map(|m| m.audit.last_at).min().flatten(),
            repairs: sum(|m| m.audit.repairs),
        },
        mailboxes,
    })
}
