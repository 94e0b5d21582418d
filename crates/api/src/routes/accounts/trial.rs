//! Trying credentials at the servers. Nothing is saved, and no transaction is open meanwhile. How often is limited in
//! [`super::tries`]: a caller counts before it comes here.

use std::time::Duration;

use emailclient_core::connect::{self, ConnectError, Failed, GrantLogin};
use emailclient_core::domain::account::NewAccount;
use emailclient_core::platform::id::AccountId;
use tokio::time::timeout;
use wire::imap::ImapError;
use wire::smtp::SmtpError;
use wire::trouble::Trouble;

use super::tries;
use crate::caller::Caller;
use crate::error::{ApiError, FieldError, Upstream};
use crate::state::AppState;

/// One server may take this long in all: a client waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a server did not let us in.
#[derive(Debug)]
pub struct Failure {
    /// Its row of the one table.
    pub trouble: Trouble,
    /// For people.
    pub text: String,
    /// What the server said.
    pub upstream: Upstream,
}

/// How both servers answered.
pub struct Outcomes {
    /// Where mail is read.
    pub imap: Result<(), Failure>,
    /// Where mail is handed in.
    pub smtp: Result<(), Failure>,
}

/// An error that a server may have had a part in.
trait Told: Failed {
    fn said(&self) -> Option<String>;
    fn response_code(&self) -> Option<String>;
}

impl Told for ImapError {
    fn said(&self) -> Option<String> {
        self.server_text().map(str::to_owned)
    }

    fn response_code(&self) -> Option<String> {
        Self::response_code(self).map(str::to_owned)
    }
}

impl Told for SmtpError {
    fn said(&self) -> Option<String> {
        self.server_text()
    }

    fn response_code(&self) -> Option<String> {
        self.code().map(|code| code.to_string())
    }
}

impl Failure {
    fn of<E: Told>(protocol: &str, error: ConnectError<E>) -> Result<Self, ApiError> {
        let (trouble, said, response_code) = match &error {
            ConnectError::Server(error) => (error.trouble(), error.said(), error.response_code()),
            other => match other.trouble() {
                Some(trouble) => (trouble, None, None),
                None => return Err(error.into()),
            },
        };
        let text = match &error {
            ConnectError::Grant(grant) if !grant.words().is_empty() => grant.words(),
            other => other.to_string(),
        };
        let protocol = protocol.to_owned();
        let upstream = Upstream { protocol, response_code, text: said, retryable: error.is_temporary() };
        Ok(Self { trouble, text, upstream })
    }
}

/// Tries both servers at once; a password that was left out is the stored one of `kept`.
///
/// # Errors
/// Those of the database; how the servers answered is the outcome.
pub async fn both(
    state: &AppState,
    caller: &Caller,
    new: &NewAccount,
    kept: Option<AccountId>,
) -> Result<Outcomes, ApiError> {
    let (imap, smtp) = tokio::join!(
        timeout(PATIENCE, connect::imap::try_out(state, caller.tenant(), &new.imap, kept)),
        timeout(PATIENCE, connect::smtp::try_out(state, caller.tenant(), &new.smtp, kept)),
    );
    let imap = imap.unwrap_or_else(|_| Err(ImapError::Timeout.into()));
    let smtp = smtp.unwrap_or_else(|_| Err(SmtpError::Timeout.into()));
    Ok(Outcomes { imap: outcome("imap", imap)?, smtp: outcome("smtp", smtp)? })
}

fn outcome<E: Told>(
    protocol: &str,
    tried: Result<(), ConnectError<E>>,
) -> Result<Result<(), Failure>, ApiError> {
    match tried {
        Ok(()) => Ok(Ok(())),
        Err(error) => Failure::of(protocol, error).map(Err),
    }
}

/// Tries both servers and refuses if one does not let us in.
///
/// # Errors
/// 422 with the word of what went wrong (`wire::trouble`).
pub async fn require(
    state: &AppState,
    caller: &Caller,
    new: &NewAccount,
    kept: Option<AccountId>,
) -> Result<(), ApiError> {
    let Outcomes { imap, smtp } = both(state, caller, new, kept).await?;
    tries::record(state, caller, new, (imap.as_ref().err(), smtp.as_ref().err())).await?;
    for (outcome, at) in [(imap, "/imap"), (smtp, "/smtp")] {
        if let Err(failure) = outcome {
            return Err(refusal(failure, at));
        }
    }
    Ok(())
}

/// Tries both servers at once with a token.
pub async fn with_token(
    state: &AppState,
    new: &NewAccount,
    with: GrantLogin<'_>,
) -> (Result<(), ConnectError<ImapError>>, Result<(), ConnectError<SmtpError>>) {
    let (imap, smtp) = tokio::join!(
        timeout(PATIENCE, connect::imap::try_token(state, &new.imap, with)),
        timeout(PATIENCE, connect::smtp::try_token(state, &new.smtp, with)),
    );
    (
        imap.unwrap_or_else(|_| Err(ImapError::Timeout.into())),
        smtp.unwrap_or_else(|_| Err(SmtpError::Timeout.into())),
    )
}

/// Refuses if a server, tried otherwise, did not let us in.
///
/// # Errors
/// As [`require`].
pub fn require_both(
    imap: Result<(), ConnectError<ImapError>>,
    smtp: Result<(), ConnectError<SmtpError>>,
) -> Result<(), ApiError> {
    for (outcome, at) in [(outcome("imap", imap)?, "/imap"), (outcome("smtp", smtp)?, "/smtp")] {
        if let Err(failure) = outcome {
            return Err(refusal(failure, at));
        }
    }
    Ok(())
}

fn refusal(failure: Failure, at: &str) -> ApiError {
    let field = match failure.trouble {
        Trouble::AuthFailed | Trouble::CredentialsUnusable => "password",
        // What the account has in place of passwords.
        Trouble::ConsentWithdrawn | Trouble::AppRefused | Trouble::NoToken => {
            return ApiError::trouble(failure.trouble, failure.text.clone())
                .with_errors([FieldError::new("/auth", failure.trouble.code(), failure.text)])
                .with_upstream(failure.upstream);
        }
        Trouble::PortNotAllowed => "port",
        _ => "host",
    };
    let code = failure.trouble.code();
    ApiError::trouble(failure.trouble, failure.text.clone())
        .with_errors([FieldError::new(format!("{at}/{field}"), code, failure.text)])
        .with_upstream(failure.upstream)
}
