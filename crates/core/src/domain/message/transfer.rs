//! Moving, copying and deleting messages: seen at once, followed by the server as `crate::domain::edits` says. Only the worker moves
//! or deletes anything on a server.

use crate::domain::edits::ask::{self, Transfer};
use crate::domain::mailbox;
use crate::domain::namespaces;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId, MessageId};
use mail::mailbox::Role;

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
pub enum Target {
    /// This mailbox.
    Mailbox(MailboxId),
    /// The mailbox of this role in each message's account; it is made where there is none.
    Role(Role),
}

/// Moves `ids` to `target`: all placements of each, or the one in `source`. Returns how many messages were affected.
///
/// # Errors
/// [`TransferError`]; then the transaction must not be committed.
pub async fn move_to(
    tx: &mut TenantTx,
    ids: &[MessageId],
    source: Option<MailboxId>,
    target: Target,
) -> Result<usize, TransferError> {
    to_target(tx, ids, source, target, Transfer::Move).await
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
    to_target(tx, ids, None, Target::Mailbox(target), Transfer::Copy).await
}

/// Moves `ids` to Trash; those that are in Trash and nowhere else, or all with `permanent`, are removed for good.
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
        return to_target(tx, ids, source, Target::Role(Role::Trash), Transfer::Delete).await;
    }
    let mut affected = 0;
    for (account, messages) in ask::lock(tx, ids).await? {
        let way = if namespaces::are_labels(tx, account).await? {
            Transfer::ExpungeIn(mailbox::create::ensure_role(tx, account, Role::Trash).await?)
        } else {
            Transfer::Expunge
        };
        affected += transfer(tx, account, &messages, source, way).await?;
    }
    Ok(affected)
}

/// What archiving is in a store of labels that shows all of its mail; `None`: in any other a move to the Archive.
async fn archive(tx: &mut TenantTx, account: AccountId) -> Result<Option<Transfer>, DbError> {
    if !namespaces::are_labels(tx, account).await? {
        return Ok(None);
    }
    let found: Option<(MailboxId, MailboxId)> = sqlx::query_as(
        "SELECT a.id, i.id FROM mailboxes a JOIN mailboxes i ON i.tenant_id = a.tenant_id AND i.account_id = a.account_id
         WHERE a.tenant_id = $1 AND a.account_id = $2 AND a.role = 'all' AND a.selectable AND i.role = 'inbox' ORDER BY a.id LIMIT 1",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.map(|(all, inbox)| Transfer::Archive { all, inbox }))
}

async fn to_target(
    tx: &mut TenantTx,
    ids: &[MessageId],
    source: Option<MailboxId>,
    target: Target,
    action: impl Fn(MailboxId) -> Transfer,
) -> Result<usize, TransferError> {
    let named = match target {
        Target::Mailbox(id) => Some(mailbox::get(tx, id).await?.ok_or(TransferError::NoSuchMailbox)?),
        Target::Role(_) => None,
    };
    let mut affected = 0;
    for (account, messages) in ask::lock(tx, ids).await? {
        if target == Target::Role(Role::Archive)
            && let Some(archive) = archive(tx, account).await?
        {
            affected += transfer(tx, account, &messages, source, archive).await?;
            continue;
        }
        let (id, selectable) = match (&named, target) {
            (Some(named), _) if named.account_id != account => return Err(TransferError::OtherAccount),
            (Some(named), _) => (named.id, named.selectable),
            (None, Target::Role(role)) => (mailbox::create::ensure_role(tx, account, role).await?, true),
            (None, Target::Mailbox(_)) => return Err(TransferError::NoSuchMailbox),
        };
        if !selectable {
            return Err(TransferError::NotSelectable);
        }
        affected +=
            transfer(tx, account, &messages, source, action(id)).await.map_err(|error| match error {
                // It was there a moment ago.
                DbError::MissingReference(_) => TransferError::NoSuchMailbox,
                error => error.into(),
            })?;
    }
    Ok(affected)
}

async fn transfer(
    tx: &mut TenantTx,
    account: AccountId,
    messages: &[uuid::Uuid],
    source: Option<MailboxId>,
    action: Transfer,
) -> Result<usize, DbError> {
    let wanted = |work: &crate::domain::edits::Work, visible: &[mail::sync::edits::Shown]| {
        ask::transfer((visible, &work.message), source, action)
    };
    Ok(ask::ask(tx, account, messages, wanted).await?.len())
}
