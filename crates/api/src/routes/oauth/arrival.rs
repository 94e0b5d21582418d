//! What happens once a provider has given tokens for a person: whose mailbox it is, whether its servers take them, and the account
//! that gets them. The same for a browser that came back and for a device.

use emailclient_core::access::audit::{self, Action, Entry};
use emailclient_core::access::principal::Scope;
use emailclient_core::access::{tenant, user};
use emailclient_core::connect::GrantLogin;
use emailclient_core::connect::oauth::{self, identity};
use emailclient_core::domain::account::{self, Account, NewAccount, NewServer, email_key};
use emailclient_core::domain::connect::{self, Standing};
use emailclient_core::domain::oauth::app::{self, Usable};
use emailclient_core::domain::oauth::grant::{self, Kind, NewGrant};
use emailclient_core::domain::oauth::provider::MailServer;
use emailclient_core::domain::submission;
use emailclient_core::platform::db::{DbError, TenantTx};
use emailclient_core::platform::id::{AccountId, AppId, ConnectId, TenantId, UserId};
use emailclient_core::queue::lease;
use emailclient_core::sync::run;
use wire::oauth::Tokens;

use crate::routes::accounts::trial;
use crate::state::AppState;

/// For whom and for what a person was asked.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Whose account it will be.
    pub tenant: TenantId,
    /// The app that asked.
    pub app: AppId,
    /// The account that is renewed; none: a new one.
    pub account: Option<AccountId>,
    /// Who sent the person.
    pub actor: UserId,
    /// The page that the person set out from.
    pub page: Option<ConnectId>,
}

/// Why a person comes back without an account, for a program and for people.
#[derive(Debug)]
pub struct Failure {
    /// For a program.
    pub code: &'static str,
    /// For people.
    pub text: String,
}

impl Failure {
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<DbError> for Failure {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Duplicate(_) => {
                Self::new("account-exists", "The address was connected by somebody else meanwhile.")
            }
            other => {
                tracing::error!(error = %anyhow::Error::from(other), "an account was not connected");
                Self::new("unavailable", "The account could not be stored; try again in a moment.")
            }
        }
    }
}

/// The app, opened, if its tenant may connect accounts, and who sent the person still may.
///
/// # Errors
/// [`Failure`].
pub async fn app_of(state: &AppState, wanted: Wanted) -> Result<Usable, Failure> {
    let mut system = state.db.system().await?;
    let key = tenant::find(&mut system, &wanted.tenant.to_string()).await?;
    system.release();
    if key.is_none_or(|key| key.suspended) {
        return Err(Failure::new("tenant-suspended", "Accounts cannot be connected at the moment."));
    }
    let mut tx = state.db.tenant(wanted.tenant).await?;
    let role = user::role_of(&mut tx, wanted.actor).await?;
    if !role.is_some_and(|role| role.scopes().contains(&Scope::AccountsManage)) {
        return Err(Failure::new("not-allowed", "Who asked for this may connect no accounts any more."));
    }
    let app = app::open(&mut tx, &state.oauth_apps, &state.keyring, wanted.app).await;
    tx.release();
    let gone = || Failure::new("app-gone", "The app that asked is not there any more.");
    app.map_err(|error| oauth_failure(&error.into()))?.ok_or_else(gone)
}

/// Connects the account of these tokens, or renews it. `nonce`: of the flow, where there was one.
///
/// # Errors
/// [`Failure`]; nothing was created or changed.
pub async fn arrived(
    state: &AppState,
    wanted: Wanted,
    app: &Usable,
    (tokens, nonce): (&Tokens, Option<&str>),
) -> Result<AccountId, Failure> {
    if tokens.refresh.is_none() {
        let text = "The provider gave no refresh token: the app may lack the right to offline access.";
        return Err(Failure::new("no-refresh-token", text));
    }
    let address = identity::of(state, app, tokens, nonce).await.map_err(|error| match error {
        identity::IdentityError::Untrusted(_) => Failure::new("identity-untrusted", error.to_string()),
        identity::IdentityError::Unknown => Failure::new("identity-unknown", error.to_string()),
        identity::IdentityError::Provider(error) => oauth_failure(&error),
    })?;
    let mut tx = state.db.tenant(wanted.tenant).await?;
    let old = renewed_account(&mut tx, wanted, &address).await?;
    tx.release();
    try_servers(state, &account_of(app, &address, old.as_ref()), tokens).await?;
    store(state, wanted, (app, &address, tokens), old.map(|old| old.id)).await
}

/// What a provider's refusal means for a person.
pub fn oauth_failure(error: &oauth::GrantError) -> Failure {
    use oauth::GrantError as E;
    match error {
        E::Refused(_) => Failure::new("provider-refused", error.to_string()),
        E::App(words) if words.contains("invalid_grant") => Failure::new(
            "code-refused",
            "The provider does not take the code: it was used already, or is too old.",
        ),
        E::App(_) => Failure::new("app-refused", error.to_string()),
        E::Later { .. } => Failure::new("provider-unavailable", error.words()),
        E::Gone => Failure::new("app-gone", error.to_string()),
        E::Seal(_) | E::Db(_) => {
            tracing::error!(%error, "an account was not connected");
            Failure::new("unavailable", "The account could not be stored; try again in a moment.")
        }
    }
}

/// The account that gets the tokens: the one that was named, which must be of this mailbox, or one of this address.
async fn renewed_account(
    tx: &mut TenantTx,
    wanted: Wanted,
    address: &str,
) -> Result<Option<Account>, Failure> {
    let found = match wanted.account {
        Some(id) => account::get(tx, id).await?,
        None => account::of_email(tx, address).await?,
    };
    match (wanted.account, found) {
        (Some(_), None) => Err(Failure::new("account-gone", "The account was removed meanwhile.")),
        (Some(_), Some(account)) if !is_of(&account, address) => {
            let text = format!("The consent is of {address}, the account is {}.", account.email);
            Err(Failure::new("identity-mismatch", text))
        }
        (_, found) => Ok(found),
    }
}

/// Whether the mailbox is the account's. A shared mailbox is read by a login that differs from its address.
fn is_of(account: &Account, address: &str) -> bool {
    email_key(&account.email) == email_key(address) || email_key(&account.imap.username) == email_key(address)
}

fn account_of(app: &Usable, address: &str, old: Option<&Account>) -> NewAccount {
    let server = |server: &MailServer, user: Option<&str>| NewServer {
        host: server.host.clone(),
        port: server.port,
        security: server.security,
        username: user.unwrap_or(address).to_owned(),
        password: None,
    };
    let endpoints = &app.terms.endpoints;
    // Whose user name is not the address reads a mailbox that is shared with them.
    let shared = old.filter(|old| email_key(&old.email) != email_key(address));
    NewAccount {
        email: old.map_or_else(|| address.to_owned(), |old| old.email.clone()),
        name: old.map(|old| old.name.clone()).unwrap_or_default(),
        imap: server(&endpoints.imap, shared.map(|old| old.imap.username.as_str())),
        smtp: server(&endpoints.smtp, shared.map(|old| old.smtp.username.as_str())),
        identities: old.map(|old| old.identities.clone()).unwrap_or_default(),
        shared_mailboxes: old.is_some_and(|old| old.shared_mailboxes),
        keep: old.map(|old| old.kept.wanted.clone()).unwrap_or_default(),
        grant: None,
    }
}

async fn try_servers(state: &AppState, new: &NewAccount, tokens: &Tokens) -> Result<(), Failure> {
    let (imap, smtp) = trial::with_token(state, new, GrantLogin::Token(&tokens.access)).await;
    let failed = |error: String, trouble: Option<wire::trouble::Trouble>| {
        Failure::new(trouble.map_or("unavailable", |t| t.code()), error)
    };
    imap.map_err(|error| failed(format!("Reading mail: {error}"), error.trouble()))?;
    smtp.map_err(|error| failed(format!("Sending mail: {error}"), error.trouble()))
}

async fn store(
    state: &AppState,
    wanted: Wanted,
    (app, address, tokens): (&Usable, &str, &Tokens),
    old: Option<AccountId>,
) -> Result<AccountId, Failure> {
    let mut tx = state.db.tenant(wanted.tenant).await?;
    tx.wait_for_rows().await?;
    if let Some(page) = wanted.page
        && let Standing::Over(_) = connect::take(&mut tx, page).await?
    {
        return Err(Failure::new("link-used", "The page was used to its end meanwhile."));
    }
    // As it is now: somebody may have changed it while the servers were tried.
    let wanted = Wanted { account: old, ..wanted };
    if let Some(id) = old {
        lease::lock(&mut tx, &[id]).await?;
        account::get_for_update(&mut tx, id).await?;
    }
    let now = if old.is_some() { renewed_account(&mut tx, wanted, address).await? } else { None };
    let new = account_of(app, address, now.as_ref());
    let refresh = tokens.refresh.as_ref();
    let (keyring, at) = (&state.keyring, state.clock.now());
    let seal = |error: grant::StoreError| oauth_failure(&error.into());
    let subject = new.imap.username.as_str();
    let fresh = NewGrant { app: app.id, provider: app.said.provider, kind: Kind::Person, subject, refresh };
    let id = grant::create(&mut tx, keyring, &fresh).await.map_err(seal)?;
    grant::renewed(&mut tx, keyring, (id, 1), tokens, at).await.map_err(seal)?;
    let new = NewAccount { grant: Some(id), ..new };
    let stored = match old {
        Some(old) => account::replace(&mut tx, keyring, old, &new, true).await,
        None => account::create(&mut tx, keyring, &new).await.map(Some),
    };
    let gone = || Failure::new("account-gone", "The account was removed meanwhile.");
    let account = match stored {
        Ok(account) => account.ok_or_else(gone)?,
        Err(account::AccountError::Db(error)) => return Err(error.into()),
        Err(account::AccountError::Seal(error)) => {
            return Err(oauth_failure(&oauth::GrantError::Seal(error)));
        }
    };
    run::request(&mut tx, account.id).await?;
    submission::retry_unreached(&mut tx, account.id).await?;
    line(&mut tx, wanted, account.id, old.is_some()).await?;
    if let Some(page) = wanted.page {
        connect::end(&mut tx, page, Some(account.id), at).await?;
    }
    tx.commit().await?;
    Ok(account.id)
}

/// The line of the audit trail: whoever sent the person did it.
async fn line(tx: &mut TenantTx, wanted: Wanted, id: AccountId, old: bool) -> Result<(), DbError> {
    let action = if old { Action::AccountUpdate } else { Action::AccountCreate };
    audit::record(tx, &Entry::here(&format!("user:{}", wanted.actor), action, &id.to_string())).await
}
