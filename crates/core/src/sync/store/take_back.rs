//! Changes of the tree that the server refuses for good are taken back, so that what clients see is again what the server
//! has. A mailbox that it refuses to make is the exception: see [`super::refusal`].

use mail::mailbox::{decode_name, split_last};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::pending::done;
use super::{edits, refusal};
use crate::domain::event::{self, MailboxDeleted, MailboxPart, MailboxUpdated};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, ChangeId, MailboxId};
use crate::sync::GIVE_UP_AFTER;

/// The server refused: counted, and taken back when it was the last attempt.
pub async fn refuse(
    tx: &mut TenantTx,
    account: AccountId,
    changes: &[ChangeId],
    error: &str,
) -> Result<(), DbError> {
    let ids: Vec<Uuid> = changes.iter().map(|c| c.0).collect();
    let given_up = sqlx::query(
        "UPDATE pending_changes SET attempts = attempts + 1, last_error = $3 WHERE tenant_id = $1 AND id = ANY ($2)
         RETURNING id, kind, mailbox_id, data, attempts",
    )
    .bind(tx.tenant())
    .bind(ids)
    .bind(error)
    .fetch_all(tx.conn())
    .await?;
    for row in given_up {
        if row.try_get::<i32, _>("attempts")? >= GIVE_UP_AFTER {
            take_back(tx, account, &row).await?;
        }
    }
    Ok(())
}

async fn take_back(tx: &mut TenantTx, account: AccountId, row: &PgRow) -> Result<(), DbError> {
    let mailbox: Option<MailboxId> = row.try_get("mailbox_id")?;
    let kind: &str = row.try_get("kind")?;
    if let Some(mailbox) = mailbox.filter(|_| kind == "create_mailbox") {
        edits::target_refused(tx, account, mailbox).await?;
    }
    if kind == "create_mailbox" && refusal::keep_uncreated(tx, account, mailbox).await? {
        // The change stays with the row: it keeps listings from removing a mailbox that the server does not have.
        return Ok(());
    }
    done(tx, &[row.try_get("id")?]).await?;
    match kind {
        "create_mailbox" => match mailbox {
            Some(id) => take_back_creation(tx, account, id).await,
            None => Ok(()),
        },
        "rename_mailbox" => match mailbox {
            Some(id) => take_back_rename(tx, account, id, row.try_get("data")?).await,
            None => Ok(()),
        },
        // A mailbox that was not deleted comes back with the next listing, and that tells its subscription too.
        _ => Ok(()),
    }
}

async fn take_back_creation(tx: &mut TenantTx, account: AccountId, id: MailboxId) -> Result<(), DbError> {
    let gone = sqlx::query("DELETE FROM mailboxes WHERE tenant_id = $1 AND id = $2 AND uidvalidity IS NULL")
        .bind(tx.tenant())
        .bind(id)
        .execute(tx.conn())
        .await?;
    if gone.rows_affected() == 1 {
        event::tell(tx, account, MailboxDeleted { id });
    }
    Ok(())
}

/// The old name for the mailbox and those below it, where nothing else has taken it meanwhile.
async fn take_back_rename(
    tx: &mut TenantTx,
    account: AccountId,
    id: MailboxId,
    data: Value,
) -> Result<(), DbError> {
    let told = |key: &str| data.get(key).and_then(Value::as_str).and_then(|h| hex::decode(h).ok());
    let Some((from, to)) = told("from_hex").zip(told("to_hex")) else { return Ok(()) };
    let rows = sqlx::query(
        "SELECT id, wire_name, delimiter FROM mailboxes WHERE tenant_id = $1 AND account_id = $2
           AND (id = $3 OR substring(wire_name FROM 1 FOR $4) = $5 || convert_to(coalesce(delimiter, ''), 'UTF8') AND delimiter IS NOT NULL)",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(id)
    .bind(i32::try_from(to.len() + 1).unwrap_or(i32::MAX))
    .bind(&to)
    .fetch_all(tx.conn())
    .await?;
    for row in rows {
        let wire: Vec<u8> = row.try_get("wire_name")?;
        let Some(rest) = wire.strip_prefix(to.as_slice()) else { continue };
        let name = [from.as_slice(), rest].concat();
        let path = decode_name(&name);
        let delimiter: Option<String> = row.try_get("delimiter")?;
        let (_, last) = split_last(&path, delimiter.and_then(|d| d.chars().next()));
        sqlx::query(
            "UPDATE mailboxes b SET wire_name = $3, path = $4, name = $5 WHERE tenant_id = $1 AND id = $2 AND NOT EXISTS (
               SELECT 1 FROM mailboxes o WHERE o.tenant_id = $1 AND o.account_id = b.account_id AND o.wire_name = $3 AND o.id <> b.id)",
        )
        .bind(tx.tenant())
        .bind(row.try_get::<Uuid, _>("id")?)
        .bind(&name)
        .bind(&path)
        .bind(last)
        .execute(tx.conn())
        .await?;
    }
    event::tell(tx, account, MailboxUpdated { id, changed: &[MailboxPart::Name] });
    Ok(())
}
