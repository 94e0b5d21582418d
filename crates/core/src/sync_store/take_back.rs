//! Edits that the server refuses for good are taken back, so that what clients see is again what the server has. A mailbox
//! that it refuses to make is the exception: see [`super::refusal`].

use mail::flags::{Flags, Keywords};
use mail::mailbox::{decode_name, split_last};
use mail::sync::{FlagState, diff};
use serde_json::{Value, json};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::pending::{GIVE_UP_AFTER, changes, done};
use super::view::EditRow;
use super::{refusal, status, vanish};
use crate::db::{DbError, TenantTx};
use crate::event;
use crate::id::{AccountId, ChangeId, MailboxId};

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
         RETURNING id, kind, placement_id, mailbox_id, target_placement_id, data, attempts",
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

/// The edits of one push that was refused.
pub async fn refuse_edits(
    tx: &mut TenantTx,
    account: AccountId,
    rows: &[EditRow],
    error: &str,
) -> Result<(), DbError> {
    refuse(tx, account, &changes(rows), error).await
}

async fn take_back(tx: &mut TenantTx, account: AccountId, row: &PgRow) -> Result<(), DbError> {
    let mailbox: Option<MailboxId> = row.try_get("mailbox_id")?;
    let kind: &str = row.try_get("kind")?;
    if kind == "create_mailbox" && refusal::keep_uncreated(tx, account, mailbox).await? {
        // The change stays with the row: it keeps listings from removing a mailbox that the server does not have.
        return Ok(());
    }
    done(tx, &[row.try_get("id")?]).await?;
    match kind {
        "move" | "copy" | "expunge" => {
            take_back_transfer(
                tx,
                account,
                kind,
                row.try_get("placement_id")?,
                row.try_get("target_placement_id")?,
            )
            .await
        }
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

/// The message does not come to `target`, nor to where our user sent it from there: it is where it was, with the flags it
/// got on the way. An original that was to be deleted because its copy stood elsewhere stays.
async fn take_back_transfer(
    tx: &mut TenantTx,
    account: AccountId,
    kind: &str,
    source: Option<Uuid>,
    target: Option<Uuid>,
) -> Result<(), DbError> {
    let unseen: Vec<Uuid> = sqlx::query_scalar(
        "SELECT m.id FROM message_mailboxes p JOIN messages m ON m.tenant_id = $1 AND m.id = p.message_id
         WHERE p.tenant_id = $1 AND p.id = ANY ($2) AND m.gone_at IS NOT NULL",
    )
    .bind(tx.tenant())
    .bind([source, target])
    .fetch_all(tx.conn())
    .await?;
    let dropped = sqlx::query(
        "WITH RECURSIVE way AS (
           SELECT id FROM message_mailboxes WHERE tenant_id = $1 AND id = $2 AND uid IS NULL
           UNION
           SELECT p.id FROM way JOIN pending_changes c ON c.tenant_id = $1 AND c.placement_id = way.id
           JOIN message_mailboxes p ON p.tenant_id = $1 AND p.id = c.target_placement_id AND p.uid IS NULL)
         DELETE FROM message_mailboxes p USING way WHERE p.tenant_id = $1 AND p.id = way.id
         RETURNING p.message_id, p.hidden_at IS NULL AS visible, p.flags, p.base_flags, p.keywords, p.base_keywords",
    )
    .bind(tx.tenant())
    .bind(target)
    .fetch_all(tx.conn())
    .await?;
    let seen = dropped.iter().find(|row| row.get("visible"));
    if let Some(seen) = seen.filter(|_| kind == "move") {
        keep_flags(tx, source, seen).await?;
    }
    if seen.is_some() && kind == "copy" {
        sqlx::query(
            "DELETE FROM pending_changes WHERE tenant_id = $1 AND placement_id = $2 AND kind = 'expunge'",
        )
        .bind(tx.tenant())
        .bind(source)
        .execute(tx.conn())
        .await?;
    }
    let shown: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE message_mailboxes p SET hidden_at = NULL WHERE tenant_id = $1 AND id = $2 AND hidden_at IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM pending_changes c WHERE c.tenant_id = $1 AND c.placement_id = p.id
             AND c.kind IN ('move', 'expunge'))
         RETURNING message_id",
    )
    .bind(tx.tenant())
    .bind(source)
    .fetch_all(tx.conn())
    .await?;
    let mut messages: Vec<Uuid> = dropped.iter().map(|row| row.get("message_id")).chain(shown).collect();
    messages.sort_unstable();
    messages.dedup();
    let unseen = unseen.into_iter().collect();
    vanish::announce_places(tx, account, &messages, &unseen, json!({ "changed": "mailboxes" })).await
}

/// Edits of flags made at the placement `seen` are edits of `source` from now on.
async fn keep_flags(tx: &mut TenantTx, source: Option<Uuid>, seen: &PgRow) -> Result<(), DbError> {
    let state = |flags: &str, keywords: &str| FlagState {
        flags: Flags::from_bits(seen.get(flags)),
        keywords: Keywords::from(seen.get::<Vec<String>, _>(keywords)),
    };
    let edit = diff(&state("base_flags", "base_keywords"), &state("flags", "keywords"));
    let removed: Vec<String> = edit.remove_keywords.iter().map(str::to_lowercase).collect();
    sqlx::query(
        "UPDATE message_mailboxes SET flags = (flags | $3) & ~$4::smallint,
           keywords = ARRAY(
             SELECT DISTINCT ON (lower(k) COLLATE \"C\") k FROM unnest(keywords || $5::text[]) AS u(k)
             WHERE lower(k) <> ALL ($6) ORDER BY lower(k) COLLATE \"C\", k)
         WHERE tenant_id = $1 AND id = $2",
    )
    .bind(tx.tenant())
    .bind(source)
    .bind(edit.add.bits())
    .bind(edit.remove.bits())
    .bind(edit.add_keywords.iter().collect::<Vec<_>>())
    .bind(removed)
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn take_back_creation(tx: &mut TenantTx, account: AccountId, id: MailboxId) -> Result<(), DbError> {
    let gone = sqlx::query("DELETE FROM mailboxes WHERE tenant_id = $1 AND id = $2 AND uidvalidity IS NULL")
        .bind(tx.tenant())
        .bind(id)
        .execute(tx.conn())
        .await?;
    if gone.rows_affected() == 1 {
        let event = status::mailbox_event("mailbox.deleted", id, json!({}));
        event::record(tx, Some(account), &[event]).await?;
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
    let event = status::mailbox_event("mailbox.updated", id, json!({ "changed": "name" }));
    event::record(tx, Some(account), &[event]).await
}
