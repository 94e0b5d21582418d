//! Moving, copying and deleting messages in our own rows, with a `pending_changes` row for each step that the server
//! is to follow.
//!
//! A placement that is left is hidden at once and removed when the server has confirmed; a placement in the target is
//! made at once, without UID. [`plan`] decides the steps of one message and knows no database; [`apply`] performs the
//! steps of many. Only the worker moves or deletes anything on a server.

mod plan;

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;
use uuid::Uuid;

pub use plan::{Action, Place, Step, StepKind, plan};

use super::edit::{lock_accounts, push, record};
use crate::db::{DbError, TenantTx};
use crate::id::{AccountId, MailboxId, MessageId, PlacementId, new_uuid};
use crate::mailbox;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The target does not exist.
    #[error("there is no such mailbox")]
    NoSuchMailbox,
    /// The target belongs to another account than one of the messages.
    #[error("the mailbox belongs to another account")]
    OtherAccount,
    /// The target holds no messages of its own (`\Noselect`).
    #[error("the mailbox cannot hold messages")]
    NotSelectable,
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Where messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// This mailbox.
    Mailbox(MailboxId),
    /// The mailbox of this role in each message's account; it is made where there is none.
    Role(&'a str),
}

/// Moves `ids` to `target`: all placements of each, or the one in `source`. Returns how many messages were affected.
///
/// # Errors
/// [`TransferError`]; then the transaction must not be committed.
pub async fn move_to(
    tx: &mut TenantTx,
    ids: &[MessageId],
    source: Option<MailboxId>,
    target: Target<'_>,
) -> Result<usize, TransferError> {
    to_target(tx, ids, source, target, Action::Move).await
}

/// Copies `ids` to the mailbox `target`; those that are there already stay as they are.
///
/// # Errors
/// [`TransferError`]; then the transaction must not be committed.
pub async fn copy_to(
    tx: &mut TenantTx,
    ids: &[MessageId],
    target: MailboxId,
) -> Result<usize, TransferError> {
    to_target(tx, ids, None, Target::Mailbox(target), Action::Copy).await
}

/// Moves `ids` to Trash; those that are in Trash and nowhere else, or all with `permanent`, are expunged.
///
/// # Errors
/// [`TransferError`]; then the transaction must not be committed.
pub async fn delete(
    tx: &mut TenantTx,
    ids: &[MessageId],
    source: Option<MailboxId>,
    permanent: bool,
) -> Result<usize, TransferError> {
    if !permanent {
        return to_target(tx, ids, source, Target::Role("trash"), Action::Delete).await;
    }
    let mut affected = 0;
    for (account, messages) in &places(tx, ids).await? {
        let steps = steps(messages, source, None, Action::Expunge);
        affected += apply(tx, *account, &steps, None).await?;
    }
    Ok(affected)
}

type Places = BTreeMap<MessageId, Vec<Place>>;

async fn to_target(
    tx: &mut TenantTx,
    ids: &[MessageId],
    source: Option<MailboxId>,
    target: Target<'_>,
    action: Action,
) -> Result<usize, TransferError> {
    let named = match target {
        Target::Mailbox(id) => Some(mailbox::get(tx, id).await?.ok_or(TransferError::NoSuchMailbox)?),
        Target::Role(_) => None,
    };
    let mut affected = 0;
    for (account, messages) in &places(tx, ids).await? {
        let (id, selectable) = match (&named, target) {
            (Some(named), _) if named.account_id != *account => return Err(TransferError::OtherAccount),
            (Some(named), _) => (named.id, named.selectable),
            (None, Target::Role(role)) => (mailbox::create::ensure_role(tx, *account, role).await?, true),
            (None, Target::Mailbox(_)) => return Err(TransferError::NoSuchMailbox),
        };
        if !selectable {
            return Err(TransferError::NotSelectable);
        }
        let steps = steps(messages, source, Some(id), action);
        affected += apply(tx, *account, &steps, Some(id)).await.map_err(|error| match error {
            // It was there a moment ago.
            DbError::MissingReference(_) => TransferError::NoSuchMailbox,
            error => error.into(),
        })?;
    }
    Ok(affected)
}

/// The visible placements of the messages, locked in one order, by account and message.
async fn places(tx: &mut TenantTx, ids: &[MessageId]) -> Result<BTreeMap<AccountId, Places>, DbError> {
    let raw: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    // Whether a message is gone hangs on all of its places: one that a worker adds while the last of the others is hidden
    // is seen by neither, and what both tell of it comes in the wrong order.
    lock_accounts(tx, &raw).await?;
    let rows = sqlx::query(
        "SELECT p.id, p.account_id, p.message_id, p.mailbox_id, coalesce(b.role = 'all', false) AS holds_all
         FROM message_mailboxes p JOIN mailboxes b ON b.tenant_id = p.tenant_id AND b.id = p.mailbox_id
         WHERE p.tenant_id = $1 AND p.message_id = ANY ($2) AND p.hidden_at IS NULL
         ORDER BY p.id FOR UPDATE OF p",
    )
    .bind(tx.tenant())
    .bind(&raw)
    .fetch_all(tx.conn())
    .await?;
    let mut found: BTreeMap<AccountId, Places> = BTreeMap::new();
    for row in &rows {
        let place = Place {
            id: row.try_get("id")?,
            mailbox: row.try_get("mailbox_id")?,
            holds_all: row.try_get("holds_all")?,
        };
        let message: MessageId = row.try_get("message_id")?;
        found.entry(row.try_get("account_id")?).or_default().entry(message).or_default().push(place);
    }
    Ok(found)
}

fn steps(
    messages: &Places,
    source: Option<MailboxId>,
    target: Option<MailboxId>,
    action: Action,
) -> Vec<(MessageId, Step)> {
    let of_one = |(id, places): (&MessageId, &Vec<Place>)| {
        plan(places, source, target, action).into_iter().map(|step| (*id, step)).collect::<Vec<_>>()
    };
    messages.iter().flat_map(of_one).collect()
}

/// Performs steps of one account: rows, what the server is to do, events and the job. Returns how many messages.
async fn apply(
    tx: &mut TenantTx,
    account: AccountId,
    steps: &[(MessageId, Step)],
    target: Option<MailboxId>,
) -> Result<usize, DbError> {
    if steps.is_empty() {
        return Ok(0);
    }
    let placed: Vec<Option<PlacementId>> =
        steps.iter().map(|(_, s)| (s.kind != StepKind::Expunge).then(PlacementId::new)).collect();
    if let Some(target) = target {
        place(tx, steps, &placed, target).await?;
    }
    hide(tx, steps).await?;
    remember(tx, account, steps, &placed, target).await?;
    let affected: BTreeSet<MessageId> = steps.iter().map(|(id, _)| *id).collect();
    let raw: Vec<Uuid> = affected.iter().map(|id| id.0).collect();
    let gone: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM messages WHERE tenant_id = $1 AND id = ANY ($2) AND gone_at IS NOT NULL",
    )
    .bind(tx.tenant())
    .bind(&raw)
    .fetch_all(tx.conn())
    .await?;
    let gone: BTreeSet<MessageId> = gone.into_iter().map(MessageId).collect();
    record(tx, account, "message.updated", affected.difference(&gone).copied(), "mailboxes").await?;
    record(tx, account, "message.deleted", gone.iter().copied(), "mailboxes").await?;
    if !gone.is_empty() {
        crate::thread::refresh(tx, &raw).await?;
    }
    push(tx, account).await?;
    Ok(affected.len())
}

/// Makes the placements in the target: flags as our user sees them over those that the server will carry along.
async fn place(
    tx: &mut TenantTx,
    steps: &[(MessageId, Step)],
    placed: &[Option<PlacementId>],
    target: MailboxId,
) -> Result<(), DbError> {
    let (mut ids, mut sources) = (Vec::new(), Vec::new());
    for ((_, step), id) in steps.iter().zip(placed) {
        if let Some(id) = id {
            ids.push(id.0);
            sources.push(step.placement.0);
        }
    }
    sqlx::query(
        "INSERT INTO message_mailboxes (tenant_id, id, account_id, mailbox_id, generation, uid, message_id, flags, base_flags,
                                        keywords, base_keywords, modseq, internal_date, sort_at, date_sort_at)
         SELECT s.tenant_id, n.id, s.account_id, b.id, b.generation, NULL, s.message_id, s.flags, s.base_flags,
                s.keywords, s.base_keywords, 0, s.internal_date, s.sort_at, s.date_sort_at
         FROM unnest($2::uuid[], $3::uuid[]) AS n(id, source)
         JOIN message_mailboxes s ON s.tenant_id = $1 AND s.id = n.source
         JOIN mailboxes b ON b.tenant_id = $1 AND b.id = $4",
    )
    .bind(tx.tenant())
    .bind(&ids)
    .bind(&sources)
    .bind(target)
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn hide(tx: &mut TenantTx, steps: &[(MessageId, Step)]) -> Result<(), DbError> {
    let left: Vec<Uuid> =
        steps.iter().filter(|(_, s)| s.kind != StepKind::Copy).map(|(_, s)| s.placement.0).collect();
    if left.is_empty() {
        return Ok(());
    }
    sqlx::query("UPDATE message_mailboxes SET hidden_at = now() WHERE tenant_id = $1 AND id = ANY ($2) AND hidden_at IS NULL")
        .bind(tx.tenant())
        .bind(&left)
        .execute(tx.conn())
        .await?;
    Ok(())
}

async fn remember(
    tx: &mut TenantTx,
    account: AccountId,
    steps: &[(MessageId, Step)],
    placed: &[Option<PlacementId>],
    target: Option<MailboxId>,
) -> Result<(), DbError> {
    let ids: Vec<Uuid> = steps.iter().map(|_| new_uuid()).collect();
    let kinds: Vec<&str> = steps.iter().map(|(_, s)| s.kind.as_str()).collect();
    let sources: Vec<Uuid> = steps.iter().map(|(_, s)| s.placement.0).collect();
    let mailboxes: Vec<Uuid> = steps.iter().map(|(_, s)| s.mailbox.0).collect();
    let placed: Vec<Option<Uuid>> = placed.iter().map(|id| id.map(|id| id.0)).collect();
    sqlx::query(
        "INSERT INTO pending_changes (tenant_id, id, account_id, kind, placement_id, mailbox_id, target_mailbox_id, target_placement_id)
         SELECT $1, c.id, $2, c.kind, c.placement_id, c.mailbox_id, CASE WHEN c.kind <> 'expunge' THEN $3::uuid END, c.target
         FROM unnest($4::uuid[], $5::text[], $6::uuid[], $7::uuid[], $8::uuid[]) AS c(id, kind, placement_id, mailbox_id, target)",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(target)
    .bind(&ids)
    .bind(&kinds)
    .bind(&sources)
    .bind(&mailboxes)
    .bind(&placed)
    .execute(tx.conn())
    .await?;
    Ok(())
}
