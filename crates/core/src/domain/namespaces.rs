//! What a server told of its namespaces (RFC 2342) and of the kind of its mailboxes, and names of ours that were made before
//! that was known.

use mail::mailbox::{decode_name, split_last};
use mail::namespace::Namespaces;
use sqlx::types::Json;

use crate::domain::event;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId};

/// What is known; nothing before the first round.
pub async fn of(tx: &mut TenantTx, account: AccountId) -> Result<Namespaces, DbError> {
    let told: Option<Option<Json<Namespaces>>> =
        sqlx::query_scalar("SELECT namespaces FROM account_leases WHERE tenant_id = $1 AND account_id = $2")
            .bind(tx.tenant())
            .bind(account)
            .fetch_optional(tx.conn())
            .await?;
    Ok(told.flatten().map(|told| told.0).unwrap_or_default())
}

/// The same, and whether mailboxes of others are to be read as well.
pub async fn with_choice(tx: &mut TenantTx, account: AccountId) -> Result<(Namespaces, bool), DbError> {
    let row: Option<(Option<Json<Namespaces>>, bool)> = sqlx::query_as(
        "SELECT l.namespaces, a.shared_mailboxes FROM account_leases l
         JOIN accounts a ON a.tenant_id = l.tenant_id AND a.id = l.account_id
         WHERE l.tenant_id = $1 AND l.account_id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?;
    Ok(row.map(|(told, shared)| (told.map(|t| t.0).unwrap_or_default(), shared)).unwrap_or_default())
}

/// Whether mailboxes of the account are labels of one store (Gmail's X-GM-EXT-1).
pub async fn are_labels(tx: &mut TenantTx, account: AccountId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar("SELECT labels FROM account_leases WHERE tenant_id = $1 AND account_id = $2")
        .bind(tx.tenant())
        .bind(account)
        .fetch_optional(tx.conn())
        .await?
        .unwrap_or(false))
}

/// Whether the server is to be asked: it never was since it was given, or was a day ago, or what it says now of its mailboxes
/// being labels is not what is noted.
pub async fn are_due(tx: &mut TenantTx, account: AccountId, labels: bool) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar(
        "SELECT coalesce(namespaces_at < now() - interval '1 day', true) OR labels IS DISTINCT FROM $3 FROM account_leases
         WHERE tenant_id = $1 AND account_id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(labels)
    .fetch_optional(tx.conn())
    .await?
    .unwrap_or(false))
}

/// Keeps the answer, and whether mailboxes are labels. What our user made meanwhile, and the server does not have, goes under the personal prefix and is asked
/// for again: names at the top could not be had.
pub async fn note(
    tx: &mut TenantTx,
    account: AccountId,
    told: &Namespaces,
    labels: bool,
) -> Result<(), DbError> {
    sqlx::query(
        "UPDATE account_leases SET namespaces = $3, namespaces_at = now(), labels = $4 WHERE tenant_id = $1 AND account_id = $2",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(Json(told))
    .bind(labels)
    .execute(tx.conn())
    .await?;
    let prefix = told.own_prefix();
    if prefix.is_empty() {
        return Ok(());
    }
    let waiting: Vec<(MailboxId, Vec<u8>)> = sqlx::query_as(
        "SELECT b.id, b.wire_name FROM pending_changes c JOIN mailboxes b ON b.tenant_id = c.tenant_id AND b.id = c.mailbox_id
         WHERE c.tenant_id = $1 AND c.account_id = $2 AND c.kind = 'create_mailbox' AND b.uidvalidity IS NULL ORDER BY c.id",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_all(tx.conn())
    .await?;
    for (id, wire) in waiting {
        if told.is_outside(&wire) {
            put_under(tx, account, id, &[prefix.as_bytes(), &wire].concat(), told.own_delimiter()).await?;
        }
    }
    Ok(())
}

/// Nothing where another mailbox has that name.
async fn put_under(
    tx: &mut TenantTx,
    account: AccountId,
    id: MailboxId,
    wire: &[u8],
    delimiter: Option<char>,
) -> Result<(), DbError> {
    let path = decode_name(wire);
    let (_, name) = split_last(&path, delimiter);
    let moved = sqlx::query(
        "UPDATE mailboxes SET wire_name = $4, path = $5, name = $6, delimiter = $7, selectable = true, state = 'new',
           cause_code = NULL, cause_text = NULL, cause_upstream = NULL, cause_since = NULL
         WHERE tenant_id = $1 AND id = $3 AND NOT EXISTS (
           SELECT 1 FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND wire_name = $4)",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(id)
    .bind(wire)
    .bind(&path)
    .bind(name)
    .bind(delimiter.map(String::from))
    .execute(tx.conn())
    .await?;
    if moved.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query(
        "UPDATE pending_changes SET attempts = 0, last_error = NULL
         WHERE tenant_id = $1 AND mailbox_id = $2 AND kind = 'create_mailbox'",
    )
    .bind(tx.tenant())
    .bind(id)
    .execute(tx.conn())
    .await?;
    event::tell(tx, account, event::MailboxUpdated { id, changed: &[event::MailboxPart::Name] });
    Ok(())
}
