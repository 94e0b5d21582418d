//! Making a mailbox: the row at once, CREATE on the server by the push job.

use mail::mailbox::{NameError, Role, check_blanks, decode_name, is_inbox, prefixed_name, split_last};
use sqlx::Row as _;

use super::{Mailbox, MailboxError, get, remember};
use crate::domain::event::{self, MailboxCreated};
use crate::domain::namespaces;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, MailboxId};

/// Where a new level would stand.
pub(crate) struct Spot {
    /// What its wire name begins with: the parent's name and the delimiter, or the user's own namespace (RFC 2342).
    pub(crate) prefix: String,
    pub(crate) delimiter: Option<char>,
    /// At the top, or what stands for it.
    at_top: bool,
}

impl Spot {
    /// The place below `parent`, or at the top, with the delimiter that the account's server uses.
    pub(crate) async fn find(
        tx: &mut TenantTx,
        account: AccountId,
        parent: Option<MailboxId>,
    ) -> Result<Self, MailboxError> {
        let Some(parent) = parent else { return Ok(Self::at_top(tx, account).await?) };
        let row = sqlx::query(
            "SELECT wire_name, delimiter FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND id = $3",
        )
        .bind(tx.tenant())
        .bind(account)
        .bind(parent)
        .fetch_optional(tx.conn())
        .await?;
        let row = row.ok_or(MailboxError::NoSuchParent)?;
        // An 8-bit name cannot be continued in modified UTF-7.
        let wire = String::from_utf8(row.try_get("wire_name")?).map_err(|_| MailboxError::NoSuchParent)?;
        let own: Option<String> = row.try_get("delimiter")?;
        let delimiter = match own.and_then(|d| d.chars().next()) {
            Some(own) => Some(own),
            None => usual_delimiter(tx, account).await?,
        };
        Self::below(&wire, delimiter)
    }

    /// The top of what is the user's own.
    async fn at_top(tx: &mut TenantTx, account: AccountId) -> Result<Self, DbError> {
        let told = namespaces::of(tx, account).await?;
        let delimiter = match told.own_delimiter() {
            Some(own) => Some(own),
            None => usual_delimiter(tx, account).await?,
        };
        Ok(Self { prefix: told.own_prefix(), delimiter, at_top: true })
    }

    /// The place below this wire name.
    pub(crate) fn below(wire: &str, delimiter: Option<char>) -> Result<Self, MailboxError> {
        let d = delimiter.ok_or(NameError::Forbidden)?;
        Ok(Self { prefix: format!("{wire}{d}"), delimiter, at_top: false })
    }

    /// The same level as this wire name's.
    pub(crate) async fn beside(
        tx: &mut TenantTx,
        account: AccountId,
        wire: &[u8],
        delimiter: Option<char>,
    ) -> Result<Self, MailboxError> {
        let text = std::str::from_utf8(wire).unwrap_or_default();
        match split_last(text, delimiter).0 {
            Some(parent) => Self::below(parent, delimiter),
            None => {
                // Mailboxes of others may stand at the top where our user's own do not.
                let own = namespaces::of(tx, account).await?.own_prefix();
                let prefix = if text.starts_with(&own) { own } else { String::new() };
                Ok(Self { prefix, delimiter, at_top: true })
            }
        }
    }

    /// The wire name of `name` at this place.
    pub(crate) fn wire_name(&self, name: &str) -> Result<String, MailboxError> {
        let wire = prefixed_name(&self.prefix, self.delimiter, name)?;
        // A server with `INBOX.` before all names takes `INBOX.INBOX` for INBOX, or refuses it.
        let is_taken = is_inbox(wire.as_bytes()) || (self.at_top && is_inbox(name.trim().as_bytes()));
        if is_taken { Err(MailboxError::Exists) } else { Ok(wire) }
    }
}

/// The delimiter of the account's other mailboxes, INBOX first.
async fn usual_delimiter(tx: &mut TenantTx, account: AccountId) -> Result<Option<char>, DbError> {
    let found: Option<String> = sqlx::query_scalar(
        "SELECT delimiter FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND delimiter IS NOT NULL
         ORDER BY role = 'inbox' DESC NULLS LAST LIMIT 1",
    )
    .bind(tx.tenant())
    .bind(account)
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.and_then(|d| d.chars().next()))
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
pub async fn ensure_role(tx: &mut TenantTx, account: AccountId, role: Role) -> Result<MailboxId, DbError> {
    let known: Option<MailboxId> = sqlx::query_scalar(
        "SELECT id FROM mailboxes WHERE tenant_id = $1 AND account_id = $2 AND role = $3 ORDER BY id LIMIT 1",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(role.as_str())
    .fetch_optional(tx.conn())
    .await?;
    if let Some(id) = known {
        return Ok(id);
    }
    let spot = Spot::at_top(tx, account).await?;
    let name = format!("{}{}", spot.prefix, usual_name(role));
    if let Some(id) = insert(tx, account, &name, &spot, Some(role)).await? {
        return Ok(id);
    }
    let named = sqlx::query_scalar(
        "UPDATE mailboxes SET role = $4 WHERE tenant_id = $1 AND account_id = $2 AND wire_name = $3 RETURNING id",
    )
    .bind(tx.tenant())
    .bind(account)
    .bind(name.as_bytes())
    .bind(role.as_str())
    .fetch_one(tx.conn())
    .await?;
    Ok(named)
}

fn usual_name(role: Role) -> &'static str {
    match role {
        Role::Inbox => "INBOX",
        Role::Sent => "Sent",
        Role::Drafts => "Drafts",
        Role::Junk => "Junk",
        Role::Archive => "Archive",
        Role::All => "All Mail",
        Role::Trash => "Trash",
    }
}

/// `None` when there is a mailbox of that name.
async fn insert(
    tx: &mut TenantTx,
    account: AccountId,
    wire: &str,
    spot: &Spot,
    role: Option<Role>,
) -> Result<Option<MailboxId>, DbError> {
    let id = MailboxId::new();
    let path = decode_name(wire.as_bytes());
    let (_, name) = split_last(&path, spot.delimiter);
    let inserted = sqlx::query(
        "INSERT INTO mailboxes (tenant_id, id, account_id, wire_name, path, name, delimiter, role)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (tenant_id, account_id, wire_name) DO NOTHING",
    )
    .bind(tx.tenant())
    .bind(id)
    .bind(account)
    .bind(wire.as_bytes())
    .bind(&path)
    .bind(name)
    .bind(spot.delimiter.map(String::from))
    .bind(role.map(Role::as_str))
    .execute(tx.conn())
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(None);
    }
    remember(tx, account, Some(id), "create_mailbox", serde_json::json!({})).await?;
    event::tell(tx, account, MailboxCreated { id });
    Ok(Some(id))
}
