//! Making a mailbox: the row at once, CREATE on the server by the push job.

use mail::mailbox::{Role, check_blanks, child_name, decode_name, is_inbox, split_last};
use sqlx::Row as _;

use super::{Mailbox, MailboxError, get, record, remember};
use crate::db::{DbError, TenantTx};
use crate::id::{AccountId, MailboxId};

/// Where a new level would stand: the wire name of the parent and the delimiter behind it.
pub(super) struct Spot {
    pub(super) parent: Option<String>,
    pub(super) delimiter: Option<char>,
}

impl Spot {
    /// The place below `parent`, or at the top, with the delimiter that the account's server uses.
    pub(super) async fn find(
        tx: &mut TenantTx,
        account: AccountId,
        parent: Option<MailboxId>,
    ) -> Result<Self, MailboxError> {
        let row = sqlx::query(
            "SELECT (SELECT wire_name FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND id = $3) AS wire_name,
                    coalesce((SELECT delimiter FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND id = $3),
                             (SELECT delimiter FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND delimiter IS NOT NULL
                              ORDER BY role = 'inbox' DESC NULLS LAST LIMIT 1)) AS delimiter",
        )
        .bind(tx.tenant())
        .bind(account)
        .bind(parent)
        .fetch_one(tx.conn())
        .await?;
        let wire: Option<Vec<u8>> = row.try_get("wire_name")?;
        let delimiter: Option<String> = row.try_get("delimiter")?;
        let parent = match (parent, wire) {
            (None, _) => None,
            // An 8-bit name cannot be continued in modified UTF-7.
            (Some(_), Some(wire)) => Some(String::from_utf8(wire).map_err(|_| MailboxError::NoSuchParent)?),
            (Some(_), None) => return Err(MailboxError::NoSuchParent),
        };
        Ok(Self { parent, delimiter: delimiter.and_then(|d| d.chars().next()) })
    }

    /// The wire name of `name` at this place.
    pub(super) fn wire_name(&self, name: &str) -> Result<String, MailboxError> {
        let wire = child_name(self.parent.as_deref(), self.delimiter, name)?;
        if is_inbox(wire.as_bytes()) { Err(MailboxError::Exists) } else { Ok(wire) }
    }
}

/// Makes the mailbox `name` below `parent`, or at the top.
///
/// # Errors
/// [`MailboxError`]; the account is expected to exist.
pub async fn create(
    tx: &mut TenantTx,
    account: AccountId,
    name: &str,
    parent: Option<MailboxId>,
) -> Result<Mailbox, MailboxError> {
    check_blanks(name)?;
    let spot = Spot::find(tx, account, parent).await?;
    let wire = spot.wire_name(name)?;
    let id = insert(tx, account, &wire, &spot, None).await?.ok_or(MailboxError::Exists)?;
    get(tx, id).await?.ok_or(MailboxError::Exists)
}

/// The account's mailbox of this role; where there is none, one with the role's usual name is made or, if a mailbox of
/// that name is there, given the role.
///
/// # Errors
/// Only those of the database.
pub async fn ensure_role(tx: &mut TenantTx, account: AccountId, role: &str) -> Result<MailboxId, DbError> {
    let known: Option<MailboxId> = sqlx::query_scalar(
        "SELECT id FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND role = $3 ORDER BY id LIMIT 1",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(role)
    .fetch_optional(tx.conn())
    .await?;
    if let Some(id) = known {
        return Ok(id);
    }
    let name = usual_name(role);
    let spot = Spot { parent: None, delimiter: None };
    if let Some(id) = insert(tx, account, name, &spot, Some(role)).await? {
        return Ok(id);
    }
    let named = sqlx::query_scalar(
        "UPDATE mailboxes SET role = $4 WHERE tenant_id = $1 AND account_id = $2 AND wire_name = $3 RETURNING id",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(name.as_bytes())
    .bind(role)
    .fetch_one(tx.conn())
    .await?;
    Ok(named)
}

fn usual_name(role: &str) -> &'static str {
    match Role::parse(role) {
        Some(Role::Inbox) => "INBOX",
        Some(Role::Sent) => "Sent",
        Some(Role::Drafts) => "Drafts",
        Some(Role::Junk) => "Junk",
        Some(Role::Archive) => "Archive",
        Some(Role::All) => "All Mail",
        Some(Role::Trash) | None => "Trash",
    }
}

/// `None` when there is a mailbox of that name.
async fn insert(
    tx: &mut TenantTx,
    account: AccountId,
    wire: &str,
    spot: &Spot,
    role: Option<&str>,
) -> Result<Option<MailboxId>, DbError> {
    let id = MailboxId::new();
    let path = decode_name(wire.as_bytes());
    let (_, name) = split_last(&path, spot.delimiter);
    let inserted = sqlx::query(
        "INSERT INTO mailboxes (tenant_id, id, account_id, wire_name, path, name, delimiter, role)
         VALUES ($1, $2, $3, $4, $5, $6,
                 coalesce($7, (SELECT delimiter FROM mailboxes WHERE tenant_id = $1 AND account_id = $3 AND delimiter IS NOT NULL LIMIT 1)), $8)
         ON CONFLICT (tenant_id, account_id, wire_name) DO NOTHING",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(account)
    .bind(wire.as_bytes())
    .bind(&path)
    .bind(name)
    .bind(spot.delimiter.map(String::from))
    .bind(role)
    .execute(tx.conn())
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(None);
    }
    remember(tx, account, Some(id), "create_mailbox", serde_json::json!({})).await?;
    record(tx, account, id, "mailbox.created").await?;
    Ok(Some(id))
}
