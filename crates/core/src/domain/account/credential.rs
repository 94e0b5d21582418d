//! Who we are towards the servers of an account: sealed where it is written, opened for the one who connects
//! ([`crate::connect`]), known to nobody else.
//!
//! The next kind of credential: its columns in a migration, a variant of [`Login`] with what each protocol sends for it, and its
//! opening in [`Stored::open`].

use sqlx::Row as _;

use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, GrantId, TenantId};
use crate::platform::seal::{Keyring, Place, SealError, Sealed};
use wire::imap::Endpoint;
use wire::login::Login;
use wire::secret::Secret;

/// For what an account has a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Reading.
    Imap,
    /// Handing in.
    Smtp,
}

impl Protocol {
    /// As columns and answers have it: `imap` or `smtp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Smtp => "smtp",
        }
    }

    /// The column of the ciphertext, which is sealed to it.
    const fn field(self) -> &'static str {
        match self {
            Self::Imap => "imap_password",
            Self::Smtp => "smtp_password",
        }
    }
}

/// A stored credential that cannot be used: there is none, or it does not open.
#[derive(Debug, thiserror::Error)]
#[error("the stored credentials cannot be used")]
pub struct Unusable(#[source] pub Option<SealError>);

/// A server of an account as it lies in its row.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Where it is.
    pub endpoint: Endpoint,
    /// User name; empty where there is no login.
    pub username: String,
    tenant: TenantId,
    account: AccountId,
    protocol: Protocol,
    password: Option<Sealed>,
    /// It logs in with tokens of this grant.
    pub grant: Option<GrantId>,
}

impl Stored {
    /// Opens the password that is sealed. Where there is a grant, [`crate::connect::oauth`] has a token.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn open(&self, keyring: &Keyring) -> Result<Login, Unusable> {
        if self.username.is_empty() {
            return Ok(Login::Nobody);
        }
        let sealed = self.password.as_ref().ok_or(Unusable(None))?;
        let place = place(self.tenant, self.account, self.protocol);
        let password = keyring.open(place, sealed).map_err(|error| Unusable(Some(error)))?;
        Ok(Login::of(&self.username, password))
    }
}

/// Where and as whom an account connects; `None`: there is no such account.
pub async fn stored(
    tx: &mut TenantTx,
    account: AccountId,
    protocol: Protocol,
) -> Result<Option<Stored>, DbError> {
    let name = protocol.as_str();
    let sql = format!(
        "SELECT {name}_host AS host, {name}_port AS port, {name}_security AS security, {name}_username AS username,
                {name}_password AS password, {name}_password_key AS password_key, grant_id
         FROM accounts WHERE tenant_id = $1 AND id = $2"
    );
    let tenant = tx.tenant();
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(tenant).bind(account);
    let Some(row) = query.fetch_optional(tx.conn()).await? else { return Ok(None) };
    let password = match (row.try_get("password_key")?, row.try_get("password")?) {
        (Some(key_id), Some(bytes)) => Some(Sealed { key_id, bytes }),
        _ => None,
    };
    let endpoint = Endpoint {
        host: row.try_get("host")?,
        port: u16::try_from(row.try_get::<i32, _>("port")?).unwrap_or_default(),
        security: super::security(&row, "security")?,
    };
    let (username, grant) = (row.try_get("username")?, row.try_get("grant_id")?);
    Ok(Some(Stored { endpoint, username, tenant, account, protocol, password, grant }))
}

/// Seals a password for the row of its account.
///
/// # Errors
/// When the keyring cannot.
pub(super) fn seal(
    tx: &TenantTx,
    keyring: &Keyring,
    (account, protocol): (AccountId, Protocol),
    password: &Secret,
) -> Result<Sealed, SealError> {
    keyring.seal(place(tx.tenant(), account, protocol), password)
}

const fn place(tenant: TenantId, account: AccountId, protocol: Protocol) -> Place<'static> {
    Place { tenant, row: account.0, field: protocol.field() }
}
