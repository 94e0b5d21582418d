//! Renaming, moving, subscribing and deleting a mailbox.
//!
//! What the push job finds in `pending_changes.data`: for `rename_mailbox` the wire names `from_hex` and `to_hex`, for
//! `delete_mailbox` the wire name `wire_name_hex` (its row is gone by then), both as hexadecimal bytes because old names
//! need not be UTF-8, and, while the mailbox is removed here in portions, its id `after`. Both with what is known of the mailbox itself, see [`crate::domain::mailbox::meant::Meant`].

use mail::mailbox::Role;
use mail::mailbox::{check_blanks, decode_name, is_inbox, split_last};
use mail::uid::UidValidity;
use serde_json::json;
use sqlx::{AssertSqlSafe, Row as _};

use crate::domain::event::{self, MailboxDeleted, MailboxPart, MailboxUpdated};
use crate::domain::mailbox::create::Spot;
use crate::domain::mailbox::meant::Meant;
use crate::domain::mailbox::{Mailbox, MailboxError, get, remember};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId};
use crate::queue::lease;
use crate::sync::store::{edits, refusal, removal};

/// What is to change; an absent field stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// New last part of the name.
    pub name: Option<String>,
    /// New parent; `Some(None)` puts it at the top.
    pub parent: Option<Option<MailboxId>>,
    /// Subscribed or not.
    pub subscribed: Option<bool>,
}

struct Row {
    id: MailboxId,
    account: AccountId,
    wire: Vec<u8>,
    name: String,
    path: String,
    delimiter: Option<char>,
    subscribed: bool,
    meant: Meant,
}

/// A worker that takes over the server's tree sees all of what is done here, or nothing.
async fn lock_account(tx: &mut TenantTx, id: MailboxId) -> Result<(), DbError> {
    let account = sqlx::query_scalar("SELECT account_id FROM mailboxes WHERE tenant_id = $1 AND id = $2")
        .bind(tx.tenant())
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    lease::lock(tx, account.as_slice()).await
}

async fn lock(tx: &mut TenantTx, id: MailboxId) -> Result<Option<Row>, DbError> {
    // 0 stands for a server without UIDVALIDITY. While a rename waits, nobody knows the number: servers may give another one
    // with the new name.
    let row = sqlx::query(
        "SELECT account_id, wire_name, name, path, delimiter, subscribed, mailboxid,
           CASE WHEN NOT EXISTS (
             SELECT 1 FROM pending_changes c
             WHERE c.tenant_id = b.tenant_id AND c.account_id = b.account_id AND c.kind = 'rename_mailbox'
               AND (c.mailbox_id = b.id OR starts_with(encode(b.wire_name, 'hex'),
                      (c.data->>'to_hex') || encode(convert_to(b.delimiter, 'UTF8'), 'hex'))))
           THEN nullif(uidvalidity, 0) END AS uidvalidity
         FROM mailboxes b WHERE tenant_id = $1 AND id = $2 FOR UPDATE OF b",
    )
    .bind(tx.tenant())
    .bind(id)
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Row {
        id,
        account: row.try_get("account_id")?,
        wire: row.try_get("wire_name")?,
        name: row.try_get("name")?,
        path: row.try_get("path")?,
        delimiter: row.try_get::<Option<String>, _>("delimiter")?.and_then(|d| d.chars().next()),
        subscribed: row.try_get("subscribed")?,
        meant: Meant {
            uidvalidity: row
                .try_get::<Option<i64>, _>("uidvalidity")?
                .and_then(|v| UidValidity::try_from(v).ok()),
            mailboxid: row.try_get("mailboxid")?,
        },
    }))
}

/// Changes a mailbox and returns it as it is then; `None` when there is none.
///
/// # Errors
/// [`MailboxError`]; then the transaction must not be committed.
pub async fn update(
    tx: &mut TenantTx,
    id: MailboxId,
    change: &Change,
) -> Result<Option<Mailbox>, MailboxError> {
    lock_account(tx, id).await?;
    let Some(row) = lock(tx, id).await? else { return Ok(None) };
    let renamed = rename(tx, &row, change).await?;
    let mut resubscribed = false;
    if let Some(subscribed) = change.subscribed.filter(|wanted| *wanted != row.subscribed) {
        sqlx::query("UPDATE mailboxes SET subscribed = $3 WHERE tenant_id = $1 AND id = $2")
            .bind(tx.tenant())
            .bind(id)
            .bind(subscribed)
            .execute(tx.conn())
            .await?;
        let kind = if subscribed { "subscribe" } else { "unsubscribe" };
        remember(tx, row.account, Some(id), kind, json!({})).await?;
        resubscribed = true;
    }
    let changed: &[MailboxPart] = match (renamed, resubscribed) {
        (true, true) => &[MailboxPart::Name, MailboxPart::Attributes],
        (true, false) => &[MailboxPart::Name],
        (false, true) => &[MailboxPart::Attributes],
        (false, false) => &[],
    };
    if !changed.is_empty() {
        event::tell(tx, row.account, MailboxUpdated { id, changed });
    }
    Ok(get(tx, id).await?)
}

async fn rename(tx: &mut TenantTx, row: &Row, change: &Change) -> Result<bool, MailboxError> {
    if change.name.is_none() && change.parent.is_none() {
        return Ok(false);
    }
    // A name that is kept is the server's, whatever it is like.
    change.name.as_deref().map_or(Ok(()), check_blanks)?;
    let spot = match change.parent {
        Some(parent) => Spot::find(tx, row.account, parent).await?,
        None => Spot::beside(tx, row.account, &row.wire, row.delimiter).await?,
    };
    let to = spot.wire_name(change.name.as_deref().unwrap_or(&row.name))?;
    if to.as_bytes() == row.wire {
        return Ok(false);
    }
    if is_inbox(&row.wire) {
        return Err(MailboxError::Inbox);
    }
    if to.as_bytes().starts_with(&below(&row.wire, row.delimiter)) {
        return Err(MailboxError::BelowItself);
    }
    write_rename(tx, row, &to).await?;
    let below_it = below(to.as_bytes(), row.delimiter);
    if refusal::try_again(tx, row.account, row.id, below_it).await? {
        crate::domain::edits::ask::push(tx, row.account).await?;
        return Ok(true);
    }
    let data = row.meant.write(json!({ "from_hex": hex::encode(&row.wire), "to_hex": hex::encode(&to) }));
    remember(tx, row.account, Some(row.id), "rename_mailbox", data).await?;
    Ok(true)
}

/// What names below `wire` begin with.
fn below(wire: &[u8], delimiter: Option<char>) -> Vec<u8> {
    let mut prefix = wire.to_vec();
    prefix.extend(delimiter.into_iter().flat_map(|d| d.to_string().into_bytes()));
    prefix
}

/// Renames the row and those below it, as the server will (RFC 9051 §6.3.6).
async fn write_rename(tx: &mut TenantTx, row: &Row, to: &str) -> Result<(), MailboxError> {
    let taken: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND wire_name = $3)",
    )
    .bind(tx.tenant())
    .bind(row.account)
    .bind(to.as_bytes())
    .fetch_one(tx.conn())
    .await?;
    if taken {
        return Err(MailboxError::Exists);
    }
    let path = decode_name(to.as_bytes());
    let (_, name) = split_last(&path, row.delimiter);
    sqlx::query("UPDATE mailboxes SET wire_name = $3, path = $4, name = $5 WHERE tenant_id = $1 AND id = $2")
        .bind(tx.tenant())
        .bind(row.id)
        .bind(to.as_bytes())
        .bind(&path)
        .bind(name)
        .execute(tx.conn())
        .await?;
    let Some(delimiter) = row.delimiter else { return Ok(()) };
    let prefix = below(&row.wire, Some(delimiter));
    sqlx::query(
        "UPDATE mailboxes SET wire_name = $3 || substring(wire_name FROM $4), path = $5 || substr(path, $6)
         WHERE tenant_id = $1 AND account_id = $2 AND substring(wire_name FROM 1 FOR $7) = $8",
    )
    .bind(tx.tenant())
    .bind(row.account)
    .bind(to.as_bytes())
    .bind(length(row.wire.len()) + 1)
    .bind(&path)
    .bind(length(row.path.chars().count()) + 1)
    .bind(length(prefix.len()))
    .bind(&prefix)
    .execute(tx.conn())
    .await?;
    Ok(())
}

fn length(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX - 1)
}

/// Deletes a mailbox, with the placements in it if `with_messages` says so; `false` when there is none. However many they are,
/// nobody sees it any more. The worker moves what the server has in it to Trash before it deletes it there.
///
/// Messages on their way into it go back to where they came from: our user deleted the mailbox, not them.
///
/// # Errors
/// [`MailboxError`]; then the transaction must not be committed.
pub async fn delete(tx: &mut TenantTx, id: MailboxId, with_messages: bool) -> Result<bool, MailboxError> {
    // Before any other: what a worker records of these messages locks them in another order.
    lock_account(tx, id).await?;
    let Some(row) = lock(tx, id).await? else { return Ok(false) };
    if is_inbox(&row.wire) {
        return Err(MailboxError::Inbox);
    }
    if row.delimiter.is_some() && has_children(tx, &row).await? {
        return Err(MailboxError::HasChildren);
    }
    if !with_messages && shows_mail(tx, id).await? {
        return Err(MailboxError::NotEmpty);
    }
    if edits::leaves(tx, id).await? {
        return Err(MailboxError::MovesWait);
    }
    if holds_mail(tx, id).await? {
        // What is in it goes there on the server, before the mailbox does.
        crate::domain::mailbox::create::ensure_role(tx, row.account, Role::Trash).await?;
    }
    // A rename that waits must outlive the mailbox, or DELETE would name what the server never heard of. One that was never
    // made there needs neither.
    sqlx::query(
        "UPDATE pending_changes SET mailbox_id = NULL WHERE tenant_id = $1 AND mailbox_id = $2 AND kind = 'rename_mailbox'
           AND NOT EXISTS (SELECT 1 FROM pending_changes WHERE tenant_id = $1 AND mailbox_id = $2 AND kind = 'create_mailbox')",
    )
    .bind(tx.tenant())
    .bind(id)
    .execute(tx.conn())
    .await?;
    removal::mark(tx, row.account, &[id.0]).await?;
    event::tell(tx, row.account, MailboxDeleted { id });
    let wire_name_hex = hex::encode(&row.wire);
    let data = match removal::at_once(tx, row.account, id).await? {
        true => json!({ "wire_name_hex": wire_name_hex }),
        // What goes to Trash on the server is known again there by what has left here: it has to have left before.
        false => json!({ "wire_name_hex": wire_name_hex, "after": id }),
    };
    remember(tx, row.account, None, "delete_mailbox", row.meant.write(data)).await?;
    Ok(true)
}

/// SQL: what mailbox `b` holds nobody here knows, because it is not synchronised. It is empty where a listing said so, or where
/// the server has not made it yet.
const MAY_HOLD: &str = "(b.selectable AND NOT b.synchronised AND (b.exists_seen > 0 OR b.tail_uid <> 1 OR b.uidvalidity IS NULL)
    AND NOT EXISTS (SELECT 1 FROM pending_changes c WHERE c.tenant_id = b.tenant_id AND c.mailbox_id = b.id AND c.kind = 'create_mailbox'))";

/// Whether its user sees mail in it, or would if all of it were here.
async fn shows_mail(tx: &mut TenantTx, id: MailboxId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT {MAY_HOLD} OR total > 0 OR exists_seen > 0 AND (state <> 'synced' OR EXISTS (
           SELECT 1 FROM mailbox_outside o WHERE o.tenant_id = $1 AND o.mailbox_id = b.id AND o.generation = b.generation))
         FROM mailboxes b WHERE tenant_id = $1 AND id = $2"
    )))
    .bind(tx.tenant())
    .bind(id)
    .fetch_one(tx.conn())
    .await?)
}

async fn holds_mail(tx: &mut TenantTx, id: MailboxId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT EXISTS (SELECT 1 FROM message_mailboxes WHERE tenant_id = $1 AND mailbox_id = $2 AND uid IS NOT NULL)
           OR EXISTS (SELECT 1 FROM mailbox_outside WHERE tenant_id = $1 AND mailbox_id = $2)
           OR EXISTS (SELECT 1 FROM mailboxes b WHERE b.tenant_id = $1 AND b.id = $2 AND {MAY_HOLD})"
    )))
    .bind(tx.tenant())
    .bind(id)
    .fetch_one(tx.conn())
    .await?)
}

async fn has_children(tx: &mut TenantTx, row: &Row) -> Result<bool, DbError> {
    let prefix = below(&row.wire, row.delimiter);
    Ok(sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND id <> $5 AND substring(wire_name FROM 1 FOR $3) = $4)",
    )
    .bind(tx.tenant())
    .bind(row.account)
    .bind(length(prefix.len()))
    .bind(&prefix)
    .bind(row.id)
    .fetch_one(tx.conn())
    .await?)
}
