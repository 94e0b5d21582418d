//! Trying credentials at the servers. Nothing is saved, and no transaction is open meanwhile. How often is limited in
//! [`super::tries`]: a caller counts before it comes here.

use std::time::Duration;

use emailclient_core::domain::account::{NewAccount, NewServer};
use wire::dial::{Deadlines, DialError};
use wire::imap::{self, Credentials, Endpoint, ImapError};
use wire::secret::Secret;
use wire::smtp::{self, Dialler, SmtpError, SmtpServer};

use super::tries;
use crate::caller::Caller;
use crate::error::{ApiError, FieldError, Upstream};
use crate::state::AppState;

/// One server may take this long in all: a client waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a server did not let us in.
#[derive(Debug)]
pub struct Failure {
    /// Our code.
    pub code: &'static str,
    /// For people.
    pub text: String,
    /// What the server said.
    pub upstream: Upstream,
}

/// Tries both servers at once.
pub async fn both(
    state: &AppState,
    new: &NewAccount,
    old: (&Secret, &Secret),
) -> (Result<(), Failure>, Result<(), Failure>) {
    let imap_password = new.imap.password.as_ref().unwrap_or(old.0);
    let smtp_password = new.smtp.password.as_ref().unwrap_or(old.1);
    tokio::join!(try_imap(state, &new.imap, imap_password), try_smtp(state, &new.smtp, smtp_password))
}

/// Tries both servers and refuses if one does not let us in.
///
/// # Errors
/// 422 `upstream-auth-failed`, `upstream-unreachable` or `host-not-allowed`.
pub async fn require(
    state: &AppState,
    caller: &Caller,
    new: &NewAccount,
    old: (&Secret, &Secret),
) -> Result<(), ApiError> {
    let (imap, smtp) = both(state, new, old).await;
    tries::record(state, caller, new, (imap.as_ref().err(), smtp.as_ref().err())).await?;
    for (outcome, at) in [(imap, "/imap"), (smtp, "/smtp")] {
        if let Err(failure) = outcome {
            return Err(refusal(failure, at));
        }
    }
    Ok(())
}

fn refusal(failure: Failure, at: &str) -> ApiError {
    let (error, field) = match failure.code {
        "upstream-auth-failed" => (ApiError::upstream_auth_failed(failure.text.clone()), "password"),
        "host-not-allowed" => (ApiError::host_not_allowed(failure.text.clone()), "host"),
        "host-not-found" => (ApiError::host_not_found(failure.text.clone()), "host"),
        _ => (ApiError::upstream_unreachable(failure.text.clone()), "host"),
    };
    error
        .with_errors([FieldError::new(format!("{at}/{field}"), failure.code, failure.text)])
        .with_upstream(failure.upstream)
}

fn endpoint(server: &NewServer) -> Endpoint {
    Endpoint { host: server.host.clone(), port: server.port, security: server.security }
}

fn deadlines(reply: Duration) -> Deadlines {
    Deadlines { reply: reply.min(PATIENCE), ..Deadlines::default() }
}

/// A name that resolves to nothing that may be dialled, in the words of a server that there is not.
async fn find(state: &AppState, protocol: &str, server: &NewServer) -> Result<(), Failure> {
    match state.outbound.resolve(&server.host, server.port, deadlines(PATIENCE).resolve).await {
        Err(DialError::HostNotFound) => {
            let text = DialError::HostNotFound.to_string();
            let upstream =
                Upstream { protocol: protocol.to_owned(), response_code: None, text: None, retryable: true };
            Err(Failure { code: "host-not-found", text, upstream })
        }
        // What else is wrong with it is told by the try itself.
        _ => Ok(()),
    }
}

async fn try_imap(state: &AppState, server: &NewServer, password: &Secret) -> Result<(), Failure> {
    find(state, "imap", server).await?;
    let credentials = Credentials::Password { user: server.username.clone(), password: password.clone() };
    let deadlines = deadlines(state.config.imap_command_timeout);
    let attempt = async {
        let connection = imap::connect(&state.outbound, &state.tls, &endpoint(server), &deadlines).await?;
        connection.login(&credentials).await?.logout().await;
        Ok(())
    };
    let outcome = tokio::time::timeout(PATIENCE, attempt).await.unwrap_or(Err(ImapError::Timeout));
    outcome.map_err(|error| {
        let (code, retryable) = match &error {
            ImapError::AuthRejected { .. } => ("upstream-auth-failed", false),
            ImapError::NotAllowed(_) => ("host-not-allowed", false),
            ImapError::Refused { .. } => ("upstream-unreachable", false),
            _ => ("upstream-unreachable", true),
        };
        let response_code = error.response_code().map(str::to_owned);
        let said = error.server_text().map(str::to_owned);
        Failure {
            code,
            upstream: Upstream { protocol: "imap".into(), response_code, text: said, retryable },
            text: error.to_string(),
        }
    })
}

async fn try_smtp(state: &AppState, server: &NewServer, password: &Secret) -> Result<(), Failure> {
    find(state, "smtp", server).await?;
    let dialler = Dialler {
        outbound: &state.outbound,
        tls: &state.tls,
        helo_name: &state.config.smtp_helo_name,
        deadlines: deadlines(state.config.smtp_command_timeout),
    };
    let server = SmtpServer {
        endpoint: endpoint(server),
        username: server.username.clone(),
        password: password.clone(),
    };
    let outcome = tokio::time::timeout(PATIENCE, smtp::verify(&dialler, &server))
        .await
        .unwrap_or(Err(SmtpError::Timeout));
    outcome.map_err(|error| {
        let code = match &error {
            SmtpError::AuthRejected(_) => "upstream-auth-failed",
            SmtpError::NotAllowed(_) => "host-not-allowed",
            _ => "upstream-unreachable",
        };
        let response_code = error.code().map(|c| c.to_string());
        let upstream = Upstream {
            protocol: "smtp".into(),
            response_code,
            text: error.server_text(),
            retryable: error.is_temporary(),
        };
        Failure { code, upstream, text: error.to_string() }
    })
}
