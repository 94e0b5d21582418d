//! Mailboxes that the server refused to make or to rename: what people are told of it, and for how long.
//!
//! The cause is in the mailbox's row, the server's words beside it. A mailbox that was never made keeps its row and its
//! `create_mailbox` change, so that its user sees why and renames or deletes it; that change is not sent again. The
//! cause of a rename is kept for a day, see [`super::checkpoint::visited`].

use mail::mailbox::decode_name;

use super::pending::{TreeChange, TreeChangeKind};
use super::status::Cause;
use super::vanish;
use crate::domain::event::{self, MailboxDeleted, MailboxPart, MailboxUpdated};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, ChangeId, MailboxId};
use crate::sync::GIVE_UP_AFTER;

/// Records at the mailbox of `change` what the server said; an event tells of the first refusal, from which on nothing more
/// can be put into a mailbox that our user wants made. Refusals to delete
/// or to subscribe are shown by the next listing alone.
pub async fn tell(
    tx: &mut TenantTx,
    account: AccountId,
    change: &TreeChange,
    said: &Cause,
) -> Result<(), DbError> {
    let (text, made) = match &change.kind {
        TreeChangeKind::Create { .. } => ("The mail server refuses to make this mailbox.".to_owned(), false),
        TreeChangeKind::Rename { to, .. } => {
            let to = decode_name(to);
            (format!("The mail server refuses to rename this mailbox to \u{201c}{to}\u{201d}."), true)
        }
        TreeChangeKind::Delete { .. } | TreeChangeKind::Subscribe { .. } => return Ok(()),
    };
    let told: Option<MailboxId> = sqlx::query_scalar(
        "UPDATE mailboxes b SET cause_code = 'refused', cause_text = $3, cause_upstream = $5, cause_since = now(),
           state = CASE WHEN $4 THEN b.state ELSE 'failed' END, selectable = b.selectable AND ($4 OR b.role IS NOT NULL)
         FROM pending_changes c WHERE c.tenant_id = $1 AND c.id = $2 AND b.tenant_id = $1 AND b.id = c.mailbox_id
           AND (b.cause_code IS DISTINCT FROM 'refused' OR b.cause_text IS DISTINCT FROM $3
                OR b.cause_upstream IS DISTINCT FROM $5)
         RETURNING b.id",
    )
    .bind(tx.tenant())
    .bind(change.id)
    .bind(text)
    .bind(made)
    .bind(said.upstream_json(false))
    .fetch_optional(tx.conn())
    .await?;
    if let Some(id) = told {
        event::tell(tx, account, MailboxUpdated { id, changed: &[MailboxPart::Cause] });
    }
    Ok(())
}

/// The server did what it had refused before: there is nothing to tell any more. Call it while the change is there.
pub async fn forget(tx: &mut TenantTx, change: ChangeId) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE mailboxes b SET cause_code = NULL, cause_text = NULL, cause_upstream = NULL, cause_since = NULL,
           state = CASE WHEN c.kind = 'create_mailbox' THEN 'new' ELSE b.state END,
           selectable = b.selectable OR c.kind = 'create_mailbox'
         FROM pending_changes c WHERE c.tenant_id = $1 AND c.id = $2 AND c.kind IN ('create_mailbox', 'rename_mailbox')
           AND b.tenant_id = $1 AND b.id = c.mailbox_id AND b.cause_code = 'refused'",
    )
    .bind(tx.tenant())
    .bind(change)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The last attempt to make `mailbox` was refused. Whether its row stays: one that its user made does, and can no longer
/// be chosen as a target. One that we made for its role must not stand in the way of another with that role.
pub(super) async fn keep_uncreated(
    tx: &mut TenantTx,
    account: AccountId,
    mailbox: Option<MailboxId>,
) -> Result<bool, DbError> {
    let kept: Option<MailboxId> = sqlx::query_scalar(
        "UPDATE mailboxes SET selectable = false WHERE tenant_id = $1 AND id = $2 AND role IS NULL AND uidvalidity IS NULL
         RETURNING id",
    )
    .bind(tx.tenant())
    .bind(mailbox)
    .fetch_optional(tx.conn())
    .await?;
    let Some(id) = kept else { return Ok(false) };
    event::tell(tx, account, MailboxUpdated { id, changed: &[MailboxPart::Selectable] });
    Ok(true)
}

/// `mailbox` and those `below` it (its new name with the delimiter) were renamed by our user: those that the server had
/// refused to make are asked for again. Returns whether `mailbox` is one of them; then there is nothing to rename there.
pub async fn try_again(
    tx: &mut TenantTx,
    account: AccountId,
    mailbox: MailboxId,
    below: Vec<u8>,
) -> Result<bool, DbError> {
    let again: Vec<MailboxId> = sqlx::query_scalar(
        "WITH again AS (
           UPDATE pending_changes c SET attempts = 0 FROM mailboxes b
           WHERE c.tenant_id = $1 AND c.account_id = $2 AND c.kind = 'create_mailbox' AND c.attempts >= $5
             AND b.tenant_id = $1 AND b.id = c.mailbox_id AND (b.id = $3 OR substring(b.wire_name FROM 1 FOR length($4::bytea)) = $4)
           RETURNING b.id)
         UPDATE mailboxes b SET selectable = true, state = 'new', cause_code = NULL, cause_text = NULL, cause_upstream = NULL, cause_since = NULL
         FROM again WHERE b.tenant_id = $1 AND b.id = again.id RETURNING b.id",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(mailbox)
    .bind(below)
    .bind(GIVE_UP_AFTER)
    .fetch_all(tx.conn())
    .await?;
    Ok(again.contains(&mailbox))
}

/// A listing has a mailbox that the server had refused to make: somebody else made it. Ours is that one, from the next
/// round on.
pub(super) async fn made_elsewhere(
    tx: &mut TenantTx,
    account: AccountId,
    wire_name: &[u8],
) -> Result<(), DbError> {
    sqlx::query(
        "WITH made AS (
           DELETE FROM pending_changes c USING mailboxes b
           WHERE c.tenant_id = $1 AND c.account_id = $2 AND c.kind = 'create_mailbox' AND c.attempts >= $4
             AND b.tenant_id = $1 AND b.id = c.mailbox_id AND b.wire_name = $3
           RETURNING b.id)
         UPDATE mailboxes b SET state = 'new', cause_code = NULL, cause_text = NULL, cause_upstream = NULL, cause_since = NULL
         FROM made WHERE b.tenant_id = $1 AND b.id = made.id AND b.cause_code = 'refused'",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(wire_name)
    .bind(GIVE_UP_AFTER)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Another client gave these names to mailboxes that we know: what the server had refused to make under them goes, since a
/// name is one mailbox.
pub(super) async fn give_way(tx: &mut TenantTx, account: AccountId, names: &[&[u8]]) -> Result<(), DbError> {
    let ids: Vec<MailboxId> = sqlx::query_scalar(
        "SELECT b.id FROM pending_changes c JOIN mailboxes b ON b.tenant_id = c.tenant_id AND b.id = c.mailbox_id
         WHERE c.tenant_id = $1 AND c.account_id = $2 AND c.kind = 'create_mailbox' AND c.attempts >= $4
           AND b.wire_name = ANY ($3)",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(names)
    .bind(GIVE_UP_AFTER)
    .fetch_all(tx.conn())
    .await?;
    if ids.is_empty() {
        return Ok(());
    }
    vanish::empty(tx, account, &ids).await?;
    sqlx::query("DELETE FROM mailboxes WHERE tenant_id = $1 AND id = ANY ($2)")
        .bind(tx.tenant())
        .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
        .execute(tx.conn())
        .await?;
    let events: Vec<_> = ids.into_iter().map(|id| MailboxDeleted { id }.into()).collect();
    event::record(tx, account, &events);
    Ok(())
}
