//! Saving an account whose servers let the person in.

use emailclient_core::access::audit::Action;
use emailclient_core::domain::account::{self, Account, AccountError, NewAccount, NewServer, Server};
use emailclient_core::domain::connect::{self, Standing};
use emailclient_core::domain::submission;
use emailclient_core::platform::db::{DbError, TenantTx};
use emailclient_core::platform::id::AccountId;
use emailclient_core::queue::lease;
use emailclient_core::sync::run;

use super::person::Person;
use super::refused::Refused;
use crate::error::ApiError;
use crate::state::AppState;

/// What became of it.
pub enum Stored {
    /// It is connected, by this form or by the same one sent before.
    Account(AccountId),
    /// The link was used meanwhile, without an account.
    Over,
}

/// The account of an address at these servers; what else `old` has stays.
pub fn account(email: &str, old: Option<&Account>, imap: NewServer, smtp: NewServer) -> NewAccount {
    NewAccount {
        email: email.to_owned(),
        name: old.map(|old| old.name.clone()).unwrap_or_default(),
        imap,
        smtp,
        identities: old.map(|old| old.identities.clone()).unwrap_or_default(),
        shared_mailboxes: old.is_some_and(|old| old.shared_mailboxes),
        grant: None,
        keep: old.map(|old| old.kept.wanted.clone()).unwrap_or_default(),
    }
}

/// Whether somebody who is let in at these servers has shown to be the account's user. Servers that they named themselves would show
/// nothing.
fn proves(old: &Account, new: &NewAccount) -> bool {
    let same = |old: &Server, new: &NewServer| {
        old.host.eq_ignore_ascii_case(&new.host)
            && old.port == new.port
            && old.security == new.security
            && old.username == new.username
    };
    same(&old.imap, &new.imap) && same(&old.smtp, &new.smtp)
}

/// Looks whether the address is connected at other servers, before anybody is asked for it.
///
/// # Errors
/// Then.
pub async fn look(state: &AppState, person: &Person, new: &NewAccount) -> Result<(), Refused> {
    let words = person.look.words();
    let refuse = |error: ApiError| Refused::of(words, &error, false);
    let mut tx = person.caller.aside(state).await.map_err(refuse)?;
    let old = account::of_email(&mut tx, &new.email).await.map_err(|error| refuse(error.into()))?;
    tx.release();
    match old {
        Some(old) if !proves(&old, new) => Err(Refused::exists(words)),
        _ => Ok(()),
    }
}

/// Saves the account and ends the session, in one. An address that is connected already at the same servers gets the new password, and
/// keeps its mail, as it does by a consent.
///
/// # Errors
/// What stands in the way.
pub async fn store(state: &AppState, person: &Person, new: &NewAccount) -> Result<Stored, Refused> {
    let words = person.look.words();
    let refuse = |error: Failed| match error {
        Failed::Gone => Refused::gone(words),
        Failed::Exists => Refused::exists(words),
        Failed::Api(error) => Refused::of(words, &error, false),
    };
    match once(state, person, new).await {
        // The same mailbox by another link, at the same moment.
        Err(Failed::Exists) => once(state, person, new).await.map_err(refuse),
        done => done.map_err(refuse),
    }
}

enum Failed {
    Gone,
    Exists,
    Api(ApiError),
}

impl From<DbError> for Failed {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Deleted => Self::Gone,
            other => Self::Api(other.into()),
        }
    }
}

impl From<AccountError> for Failed {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Db(DbError::Duplicate(_)) => Self::Exists,
            AccountError::Db(error) => error.into(),
            AccountError::Seal(error) => Self::Api(error.into()),
        }
    }
}

async fn once(state: &AppState, person: &Person, new: &NewAccount) -> Result<Stored, Failed> {
    let session = &person.session;
    let mut tx = person.caller.tx(state).await.map_err(Failed::Api)?;
    tx.wait_for_rows().await?;
    if let Standing::Over(known) = connect::take(&mut tx, session.id).await? {
        return Ok(known.map_or(Stored::Over, Stored::Account));
    }
    let old = match session.account_id {
        Some(id) => Some(id),
        None => account::of_email(&mut tx, &new.email).await?.map(|old| old.id),
    };
    let (account, action) = match old {
        Some(id) => {
            (renewed(state, &mut tx, (id, session.account_id.is_some()), new).await?, Action::AccountUpdate)
        }
        None => (account::create(&mut tx, &state.keyring, new).await?, Action::AccountCreate),
    };
    run::request(&mut tx, account.id).await?;
    if old.is_some() {
        submission::retry_unreached(&mut tx, account.id).await?;
    }
    let target = account.id.to_string();
    person.caller.record(&mut tx, action, &target, "ok").await.map_err(Failed::Api)?;
    connect::end(&mut tx, session.id, Some(account.id), state.clock.now()).await?;
    tx.commit().await?;
    Ok(Stored::Account(account.id))
}

/// The account with other credentials, as it is now: somebody may have changed it while the servers were tried.
async fn renewed(
    state: &AppState,
    tx: &mut TenantTx,
    (id, asked_for): (AccountId, bool),
    new: &NewAccount,
) -> Result<Account, Failed> {
    lease::lock(tx, &[id]).await?;
    let now = account::get_for_update(tx, id).await?.ok_or(Failed::Gone)?;
    if !proves(&now, new) {
        return Err(if asked_for { Failed::Gone } else { Failed::Exists });
    }
    let whole = account(&now.email, Some(&now), new.imap.clone(), new.smtp.clone());
    account::replace(tx, &state.keyring, id, &whole, true).await?.ok_or(Failed::Gone)
}
