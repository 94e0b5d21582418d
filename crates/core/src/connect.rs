//! From an account to a session with one of its servers: the only place where a connection to a mail server is built.
//!
//! - [`imap`], [`smtp`]: one `connect` per protocol, for rounds, watches, jobs, trials and diagnoses
//! - [`process`]: what every connection needs of its process
//! - [`places`]: how many connections an account has at once, over all processes
//! - [`turns`], [`give_way`]: the watch and whoever works, where a server allows one connection
//! - [`capability_off`]: extensions that a server only says it has
//!
//! What is stored is read and opened here, or taken as a client entered it; pace, limits and extensions that are switched off
//! are applied here; `wire` is handed plain values. Callers get a session or a [`ConnectError`], and tell of it by its
//! [`Trouble`], the one table. They do not know how.
//!
//! - [`oauth`]: tokens, for accounts that have no passwords
//!
//! The next protocol: a file beside [`imap`] with its `connect`, its variant of
//! [`Protocol`], its places. The next kind of credential:
//! [`crate::domain::account::credential`].

pub mod capability_off;
pub mod give_way;
pub mod imap;
pub mod oauth;
pub mod places;
pub mod process;
pub mod smtp;
pub mod turns;

pub use process::Process;

use self::oauth::GrantError;

use crate::domain::account::NewServer;
use crate::domain::account::credential::{Protocol, Stored, Unusable, stored};
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, GrantId, TenantId};
use wire::imap::{Endpoint, ImapError};
use wire::login::Login;
use wire::secret::Secret;
use wire::smtp::SmtpError;
use wire::trouble::Trouble;

/// Whose connection: a tenant and one of its accounts.
pub type Of = (TenantId, AccountId);

/// Why there is no session; `E` is the error of the protocol.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError<E: Failed> {
    /// The account is gone.
    #[error("there is no such account")]
    NoSuchAccount,
    /// There is no password, or it does not open.
    #[error(transparent)]
    Credentials(#[from] Unusable),
    /// There is no token.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The account has as many connections as it may have: try again in a moment. Nothing was said to the server.
    #[error("the account has as many connections as it may have at once")]
    InUse,
    /// The server failed us. Of mail that is to be sent nothing was said yet.
    #[error(transparent)]
    Server(E),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// The error of a protocol.
pub trait Failed: std::error::Error + Send + Sync + 'static {
    /// Its row of the one table.
    fn trouble(&self) -> Trouble;
    /// Whether the same may succeed later, with nothing changed by anybody here.
    fn is_temporary(&self) -> bool;
}

impl Failed for ImapError {
    fn trouble(&self) -> Trouble {
        Self::trouble(self)
    }

    fn is_temporary(&self) -> bool {
        Self::is_temporary(self)
    }
}

impl Failed for SmtpError {
    fn trouble(&self) -> Trouble {
        Self::trouble(self)
    }

    fn is_temporary(&self) -> bool {
        Self::is_temporary(self)
    }
}

impl From<ImapError> for ConnectError<ImapError> {
    fn from(error: ImapError) -> Self {
        Self::Server(error)
    }
}

impl From<SmtpError> for ConnectError<SmtpError> {
    fn from(error: SmtpError) -> Self {
        Self::Server(error)
    }
}

impl<E: Failed> ConnectError<E> {
    /// Its row of the one table; `None`: it is ours, and no trouble with a server.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        match self {
            Self::Credentials(_) => Some(Trouble::CredentialsUnusable),
            Self::Grant(error) => error.trouble(),
            Self::InUse => Some(Trouble::ConnectionsInUse),
            Self::Server(error) => Some(error.trouble()),
            Self::NoSuchAccount | Self::Db(_) => None,
        }
    }

    /// Whether the same may succeed later, with nothing changed by anybody here.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Server(error) => error.is_temporary(),
            Self::InUse | Self::Db(_) | Self::Grant(GrantError::Later { .. } | GrantError::Db(_)) => true,
            Self::Grant(_) | Self::Credentials(_) | Self::NoSuchAccount => false,
        }
    }
}

/// What an account has for `protocol`.
async fn of_account<E: Failed>(
    tx: &mut TenantTx,
    account: AccountId,
    protocol: Protocol,
) -> Result<Stored, ConnectError<E>> {
    stored(tx, account, protocol).await?.ok_or(ConnectError::NoSuchAccount)
}

/// What a client entered, with the stored password of `kept` where it left that out.
async fn entered<E: Failed>(
    process: &Process,
    tenant: TenantId,
    server: &NewServer,
    (kept, protocol): (Option<AccountId>, Protocol),
) -> Result<Login, ConnectError<E>> {
    match (&server.password, kept) {
        (Some(password), _) => Ok(Login::of(&server.username, password.clone())),
        (None, _) if server.username.is_empty() => Ok(Login::Nobody),
        (None, None) => Err(Unusable(None).into()),
        (None, Some(account)) => {
            let mut tx = process.db.tenant(tenant).await?;
            let stored = of_account::<E>(&mut tx, account, protocol).await?;
            tx.release();
            // Somebody may have changed the account since it was compared: its password goes to its own server only.
            let own = stored.endpoint == endpoint(server) && stored.username == server.username;
            if own { Ok(stored.open(&process.keyring)?) } else { Err(Unusable(None).into()) }
        }
    }
}

fn endpoint(server: &NewServer) -> Endpoint {
    Endpoint { host: server.host.clone(), port: server.port, security: server.security }
}

/// Whose tokens to log in with.
#[derive(Debug, Clone, Copy)]
pub enum GrantLogin<'a> {
    /// One that is in hand.
    Token(&'a Secret),
    /// Those of a grant.
    Grant(TenantId, GrantId),
}

/// What proves who we are, and where there is another in its place.
struct Proof {
    login: Login,
    grant: Option<(TenantId, GrantId)>,
}

impl Proof {
    /// As it is stored: a password, or a token that is good now.
    async fn stored<E: Failed>(
        process: &Process,
        tenant: TenantId,
        stored: &Stored,
    ) -> Result<Self, ConnectError<E>> {
        match stored.grant {
            Some(grant) => Self::of_grant(process, &stored.username, (tenant, grant)).await,
            None => Ok(Self { login: stored.open(&process.keyring)?, grant: None }),
        }
    }

    /// For a trial.
    async fn with<E: Failed>(
        process: &Process,
        server: &NewServer,
        with: GrantLogin<'_>,
    ) -> Result<Self, ConnectError<E>> {
        match with {
            GrantLogin::Token(token) => {
                let login = Login::Token { user: server.username.clone(), token: token.clone() };
                Ok(Self { login, grant: None })
            }
            GrantLogin::Grant(tenant, grant) => {
                Self::of_grant(process, &server.username, (tenant, grant)).await
            }
        }
    }

    async fn of_grant<E: Failed>(
        process: &Process,
        user: &str,
        grant: (TenantId, GrantId),
    ) -> Result<Self, ConnectError<E>> {
        let token = oauth::token(process, grant, None).await?;
        Ok(Self { login: Login::Token { user: user.to_owned(), token }, grant: Some(grant) })
    }

    /// A server refused it with `error`. A token may have been withdrawn before its end, so the provider is asked for another, once.
    ///
    /// # Errors
    /// `error` itself where there is none, or why the provider gives none.
    async fn replace<E: Failed>(&mut self, process: &Process, error: E) -> Result<(), ConnectError<E>> {
        if error.trouble() != Trouble::AuthFailed {
            return Err(ConnectError::Server(error));
        }
        let (Some(grant), Login::Token { token, .. }) = (self.grant.take(), &mut self.login) else {
            return Err(ConnectError::Server(error));
        };
        *token = oauth::token(process, grant, Some(token)).await?;
        Ok(())
    }
}

/// What is stored, for a diagnosis, which tells what is the matter with it.
async fn login_of(process: &Process, (tenant, account): Of, stored: &Stored) -> Result<Login, Trouble> {
    let proof = Proof::stored::<ImapError>(process, tenant, stored).await;
    proof.map(|proof| proof.login).map_err(|error| {
        let trouble = error.trouble().unwrap_or(Trouble::CredentialsUnusable);
        tracing::warn!(account_id = %account, error = %anyhow::Error::from(error), "there is nothing to log in with");
        trouble
    })
}
