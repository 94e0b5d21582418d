//! What a failure means for the account or the mailbox: its state, the cause people read, and when to try again.

use std::time::Duration;

use mail::backoff;
use mail::uid::UidSet;

use super::{SyncContext, SyncError};
use crate::connect::oauth::GrantError;
use crate::platform::db::DbError;
use crate::platform::id::{AccountId, TenantId};
use crate::queue::lease::Lease;
use crate::sync::store::status::{self, AccountState, Cause, Refused};
use wire::imap::ImapError;
use wire::provider::{self, TOKEN_PATIENCE};
use wire::trouble::Trouble;

/// Accounts whose user has to act are looked at once a day, in case the server changed its mind.
const IDLE_RETRY: Duration = Duration::from_secs(24 * 3600);

/// Whether the server refused to let us in and said nothing of the token. One that says what is wrong with it means it.
fn refuses_unsaid(error: &SyncError) -> bool {
    matches!(error, SyncError::Imap(ImapError::AuthRejected { refusal: None, .. }))
}

/// Why the server was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// A round: it was due, or somebody asked for it.
    Round,
    /// Edits are to be brought there.
    Edits,
}

/// Records what went wrong when the server was tried. Failures of ours (database, lease, shutdown) are no state of the account.
pub(super) async fn record(
    ctx: &SyncContext,
    lease: &Lease,
    error: &SyncError,
    reason: Reason,
) -> Result<(), SyncError> {
    let (mut state, mut cause) = match error {
        SyncError::Imap(error) => (state_of(error), cause_of(error)),
        SyncError::Grant(error) => of_grant(error),
        SyncError::Credentials(_) => (AccountState::NeedsReauth, Cause::of(Trouble::CredentialsUnusable)),
        _ => return Ok(()),
    };
    let mut tx = lease.begin(&ctx.db).await?;
    let (provider, tokens) = status::provider(&mut tx, lease.account).await?;
    let patience = provider.refuses_good_tokens_for.filter(|_| tokens && refuses_unsaid(error));
    let refused = match state {
        AccountState::NeedsReauth if patience.is_some() => Refused::MayPass,
        AccountState::NeedsReauth => Refused::Meant,
        _ => Refused::No,
    };
    let failing = status::fails(&mut tx, lease.account, refused).await?;
    let unit = ctx.clock.unit();
    let mut bounds = None;
    if let SyncError::Imap(error) = error {
        bounds = provider.pause(error);
        cause.text = provider.sentence(error).unwrap_or(cause.text);
    }
    let patience = patience.filter(|patience| failing.since < *patience);
    if patience.is_some() {
        state = AccountState::Throttled;
        cause.text = format!(
            "{} does not accept a token that is new. That passes within an hour after a change of licence or settings; if it does not, IMAP is off for the mailbox.",
            provider.name
        );
    }
    let retry_in = match (state, error) {
        // Its provider is asked then, and not before.
        (_, SyncError::Grant(GrantError::Later { wait, .. })) => *wait + Duration::from_secs(1),
        (AccountState::NeedsReauth, _) => backoff::auth(failing.since, unit).unwrap_or(IDLE_RETRY),
        (AccountState::Throttled, _) if patience.is_some() => {
            backoff::bounded(failing.since, TOKEN_PATIENCE, unit)
        }
        (AccountState::Throttled, SyncError::Imap(ImapError::Throttled { retry_after, .. })) => {
            match bounds {
                Some(bounds) => backoff::bounded(failing.since, bounds, unit),
                None => backoff::throttle(failing.since, *retry_after, unit),
            }
        }
        // An edit that found the server out of reach puts nothing off.
        _ if reason == Reason::Edits => backoff::network(failing.since, unit).min(failing.due_in),
        _ => backoff::network(failing.since, unit),
    };
    // A user who has it tried before its time must not wait longer for that.
    let retry_in = failing.left.map_or(retry_in, |left| retry_in.min(left));
    status::set_account(&mut tx, lease.account, state, Some(&cause), Some(retry_in)).await?;
    tx.commit().await?;
    tracing::info!(account_id = %lease.account, state = state.as_str(), code = cause.code, retry_s = retry_in.as_secs(), "round failed");
    Ok(())
}

/// What it means that there is no token.
fn of_grant(error: &GrantError) -> (AccountState, Cause) {
    let trouble = error.trouble().unwrap_or(Trouble::NoToken);
    let state = match error {
        GrantError::Refused(_) | GrantError::Gone | GrantError::Seal(_) => AccountState::NeedsReauth,
        GrantError::App(_) | GrantError::Later { .. } | GrantError::Db(_) => AccountState::Unreachable,
    };
    let words = error.words();
    let cause = Cause::of(trouble);
    (state, if words.is_empty() { cause } else { Cause { text: format!("{} {words}", cause.text), ..cause } })
}

/// The watch over an account, which has no lease, ended over something that trying again does not mend, until `wait` from now:
/// the account is read by its rounds, so its state stays.
///
/// # Errors
/// Those of the database.
pub async fn tell_watch_trouble(
    ctx: &SyncContext,
    (tenant, account): (TenantId, AccountId),
    error: &ImapError,
    wait: Duration,
) -> Result<(), DbError> {
    let text = "New mail is noticed late: what the mail server says while it is waited for cannot be used.";
    let cause = Cause { code: status::WATCH_FAILED, text: text.to_owned(), ..cause_of(error) };
    let mut tx = ctx.db.tenant(tenant).await?;
    status::watch_failed(&mut tx, account, &cause, wait).await?;
    tx.commit().await
}

/// The watch over an account does what it should.
///
/// # Errors
/// Those of the database.
pub async fn watch_is_well(
    ctx: &SyncContext,
    (tenant, account): (TenantId, AccountId),
) -> Result<(), DbError> {
    let mut tx = ctx.db.tenant(tenant).await?;
    status::watch_is_well(&mut tx, account).await?;
    tx.commit().await
}

fn state_of(error: &ImapError) -> AccountState {
    match error {
        ImapError::AuthRejected { .. } => AccountState::NeedsReauth,
        ImapError::Throttled { .. } => AccountState::Throttled,
        _ => AccountState::Unreachable,
    }
}

/// The sentence people read about an error of the server; what was said is beside it.
pub fn cause_of(error: &ImapError) -> Cause {
    let response_code = error.response_code().map(str::to_owned);
    let cause = Cause::of(error.trouble());
    let text = provider::of("").sentence(error).unwrap_or(cause.text);
    Cause { text, upstream: error.text(), response_code, ..cause }
}

/// UIDs named to people; the number of the others is.
const NAMED: usize = 20;

/// What is said of messages that cannot be read.
pub(super) fn missing(uids: &UidSet) -> String {
    let named: UidSet = uids.iter().take(NAMED).collect();
    let others = uids.len().saturating_sub(named.len());
    let others = if others > 0 { format!(" and {others} more") } else { String::new() };
    format!(
        "Some messages cannot be read (UID {named}{others}); they are tried again, in the end once a day."
    )
}
