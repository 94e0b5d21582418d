//! From an account to a submission server that takes its mail.
//!
//! - [`seat`], then [`Seat::connect`]: for sending, in one of the account's places. The place comes first, because an attempt
//!   is counted before its risk, and one that would have to wait for a place is none
//! - [`try_out`]: what a client entered, as far as the login
//! - [`diagnose`]: step by step, for a person

use std::time::Duration;

use super::places::{self, Place};
use super::{GrantLogin, Of, Process, Proof, login_of, of_account};
use crate::domain::account::NewServer;
use crate::domain::account::credential::Protocol;
use crate::platform::db::{DbError, TenantTx};
use crate::platform::id::{AccountId, TenantId};
use mail::envelope::Envelope;
use wire::diagnose::{Step, Way};
use wire::dial::Deadlines;
use wire::imap::Endpoint;
use wire::login::Login;
use wire::measured;
use wire::pace::Haste;
use wire::smtp::{self as wire_smtp, Connection, Dialler, Progress, SendError, Sent, SmtpError, SmtpServer};
use wire::trouble::Trouble;

type ConnectError = super::ConnectError<SmtpError>;

/// How long a person's diagnosis waits for a place.
const PATIENCE: Duration = Duration::from_secs(5);

/// The right to one connection to the account's submission server.
#[derive(Debug)]
pub struct Seat {
    process: Process,
    of: Of,
    place: Place,
}

/// Takes a seat if there is one; it counts from the commit of `tx` on. `None`: others have them all, come back in a moment.
pub async fn seat(tx: &mut TenantTx, process: &Process, account: AccountId) -> Result<Option<Seat>, DbError> {
    let of = (tx.tenant(), account);
    let place = places::take(tx, &process.db, account, Protocol::Smtp).await?;
    Ok(place.map(|place| Seat { process: process.clone(), of, place }))
}

/// Why there is no line.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: super::ConnectError<SmtpError>,
    /// The operator named the server in `OUTBOUND_ALLOW`.
    pub own_server: bool,
}

/// A submission server that has let us in.
#[derive(Debug)]
pub struct Line {
    connection: Connection,
    place: Place,
    /// The operator named the server in `OUTBOUND_ALLOW`.
    pub own_server: bool,
}

impl Seat {
    /// Connects and logs in with the stored credentials. Stands in line with the other connections of the process.
    ///
    /// # Errors
    /// [`Failure`]; nothing was said about a message yet, and the seat is given up.
    pub async fn connect(self) -> Result<Line, Failure> {
        let Self { process, of: (tenant, account), place } = self;
        let mut own_server = false;
        let connecting = async {
            let mut tx = process.db.tenant(tenant).await?;
            let stored = of_account::<SmtpError>(&mut tx, account, Protocol::Smtp).await?;
            tx.release();
            own_server = process.outbound.is_allowed_explicitly(&stored.endpoint.host, stored.endpoint.port);
            let mut proof = Proof::stored::<SmtpError>(&process, tenant, &stored).await?;
            loop {
                match log_in(&process, Haste::Round, &stored.endpoint, &proof.login).await {
                    Err(error) => proof.replace(&process, error).await?,
                    Ok(connection) => return Ok(connection),
                }
            }
        };
        match connecting.await {
            Ok(connection) => Ok(Line { connection, place, own_server }),
            Err(error) => {
                place.release().await;
                Err(Failure { error, own_server })
            }
        }
    }

    /// Gives the seat up without having connected.
    pub async fn release(self) {
        self.place.release().await;
    }
}

impl Line {
    /// [`wire_smtp::send`] over this line.
    ///
    /// # Errors
    /// As there.
    pub async fn send(
        &mut self,
        envelope: &Envelope,
        message: &[u8],
        progress: &mut impl Progress,
    ) -> Result<Sent, SendError> {
        wire_smtp::send(&mut self.connection, envelope, message, progress).await
    }

    /// Says goodbye and makes room for others.
    pub async fn quit(self) {
        self.connection.quit().await;
        self.place.release().await;
    }

    /// Hangs up, where the server is not to be spoken to any more, and makes room for others.
    pub async fn hang_up(self) {
        drop(self.connection);
        self.place.release().await;
    }
}

/// Tries what a client entered, as far as the login; where it left the password out, with the stored one of `kept`. Counts
/// in the pace and does not stand in line; needs no place, see [`super::imap::try_out`].
///
/// # Errors
/// [`ConnectError::Server`], [`ConnectError::Credentials`] or [`ConnectError::Db`].
pub async fn try_out(
    process: &Process,
    tenant: TenantId,
    server: &NewServer,
    kept: Option<AccountId>,
) -> Result<(), ConnectError> {
    let login = super::entered::<SmtpError>(process, tenant, server, (kept, Protocol::Smtp)).await?;
    let connection = log_in(process, Haste::User, &super::endpoint(server), &login).await?;
    connection.quit().await;
    Ok(())
}

/// Tries a server with a token, as far as the login.
///
/// # Errors
/// As [`try_out`], or [`ConnectError::Grant`].
pub async fn try_token(
    process: &Process,
    server: &NewServer,
    with: GrantLogin<'_>,
) -> Result<(), ConnectError> {
    let mut proof = Proof::with::<SmtpError>(process, server, with).await?;
    loop {
        match log_in(process, Haste::User, &super::endpoint(server), &proof.login).await {
            Err(error) => proof.replace(process, error).await?,
            Ok(connection) => break connection.quit().await,
        }
    }
    Ok(())
}

/// Walks to the account's server with what is stored. Where our own connections have all the places, or the password does
/// not open, the login tells it.
///
/// # Errors
/// [`ConnectError::NoSuchAccount`] or [`ConnectError::Db`]; what is wrong with the server is a step.
pub async fn diagnose(process: &Process, of: Of) -> Result<Vec<Step>, ConnectError> {
    let (tenant, account) = of;
    let mut tx = process.db.tenant(tenant).await?;
    let stored = of_account::<SmtpError>(&mut tx, account, Protocol::Smtp).await?;
    tx.release();
    let place = places::wait(&process.db, of, Protocol::Smtp, PATIENCE).await?;
    let login = match login_of(process, of, &stored).await {
        Ok(Login::Nobody) => Ok(Login::Nobody),
        login if place.is_some() => login,
        _ => Err(Trouble::ConnectionsInUse),
    };
    process.pace.wait(&stored.endpoint.host, Haste::User).await;
    let way = Way { outbound: &process.outbound, tls: &process.tls, endpoint: &stored.endpoint };
    let helo_name = &process.config.smtp_helo_name;
    let steps = wire_smtp::diagnose(way, helo_name, login.as_ref().map_err(|trouble| *trouble)).await;
    if let Some(place) = place {
        place.release().await;
    }
    Ok(steps)
}

/// The one place where a line to a submission server begins.
async fn log_in(
    process: &Process,
    haste: Haste,
    endpoint: &Endpoint,
    login: &Login,
) -> Result<Connection, SmtpError> {
    let dialler = Dialler {
        outbound: &process.outbound,
        tls: &process.tls,
        helo_name: &process.config.smtp_helo_name,
        deadlines: Deadlines { reply: process.config.smtp_command_timeout, ..Deadlines::default() },
    };
    process.pace.wait(&endpoint.host, haste).await;
    let server = SmtpServer { endpoint: endpoint.clone(), login: login.clone() };
    let connection = wire_smtp::connect(&dialler, &server).await;
    measured::connected("smtp", connection.as_ref().map_or_else(|error| error.trouble().code(), |_| "ok"));
    connection
}
