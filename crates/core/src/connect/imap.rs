//! From an account to an IMAP session that is logged in and has its extensions switched on.
//!
//! - [`connect`]: for a round or a watch, of which the account's leases allow one each
//! - [`visit`]: for a short errand beside them, in one of the account's places
//! - [`try_out`]: what a client entered, as far as the login
//! - [`diagnose`]: step by step, for a person

use std::time::Duration;

use mail::backoff::CAPABILITY_OFF_FOR;
use tokio::time::sleep;

use super::places::{self, Place};
use super::{GrantLogin, Of, Process, Proof, capability_off, login_of, of_account, turns};
use crate::domain::account::NewServer;
use crate::domain::account::credential::{Protocol, Unusable};
use crate::platform::id::{AccountId, TenantId};
use crate::queue::suspension;
use wire::diagnose::{Step, Way};
use wire::dial::Deadlines;
use wire::imap::{self as wire_imap, Endpoint, ImapError, Session};
use wire::login::Login;
use wire::measured;
use wire::pace::Haste;

/// A watch of this process needs no longer to say goodbye.
const WATCH_ENDS_IN: Duration = Duration::from_millis(200);
/// One of another process is looked for every two seconds.
const OTHER_WATCH_ENDS_IN: Duration = Duration::from_millis(2_500);
/// Between attempts while a watch ends its connection: another process looks every two seconds whether it is to.
const WAITS_FOR_WATCH: [Duration; 5] = [
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1_000),
    Duration::from_millis(2_000),
    Duration::from_millis(3_000),
];
type ConnectError = super::ConnectError<ImapError>;

/// How long a person's diagnosis waits for a place.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects and logs in with the stored credentials; QRESYNC is enabled where offered, and what the server is known to
/// fail at is left alone. Stands in line with the other connections of the process, as `haste` allows. Only for who holds
/// the lease of the account, or that of its watch. Tells also where the session leads, for [`forgo`].
///
/// # Errors
/// Any [`ConnectError`] but [`ConnectError::InUse`].
pub async fn connect(process: &Process, of: Of, haste: Haste) -> Result<(Session, Endpoint), ConnectError> {
    let (tenant, account) = of;
    let mut tx = process.db.tenant(tenant).await?;
    let stored = of_account::<ImapError>(&mut tx, account, Protocol::Imap).await?;
    let off = capability_off::list(&mut tx, &stored.endpoint).await?;
    let is_one = turns::is_one(&mut tx, account).await?;
    tx.release();
    let mut proof = Proof::stored::<ImapError>(process, tenant, &stored).await?;
    somebody(&proof.login)?;
    let mut session = loop {
        match in_turn(process, of, (is_one, haste), (&stored.endpoint, &proof.login)).await {
            Err(ConnectError::Server(error)) => proof.replace(process, error).await?,
            other => break other?,
        }
    };
    session.count_for(tenant.0.as_u128());
    session.do_without(&off);
    if session.capabilities().can_qresync() {
        match session.enable(&["QRESYNC"]).await {
            Ok(enabled) if enabled.iter().any(|e| e == "QRESYNC") => {}
            Ok(_) => session.restrict(|c| c.qresync = false),
            Err(error) => forgo(process, tenant, &stored.endpoint, &mut session, error).await?,
        }
    }
    Ok((session, stored.endpoint))
}

/// A session in one of the account's places.
#[derive(Debug)]
pub struct Visit {
    /// The session.
    pub session: Session,
    place: Place,
}

impl Visit {
    /// Logs out and makes room for others.
    pub async fn end(self) {
        self.session.logout().await;
        self.place.release().await;
    }
}

/// [`connect`] for a job beside rounds and watches. It stands in line behind them, whoever waits for it: there may be
/// thousands of such jobs.
///
/// # Errors
/// As [`connect`]; [`ConnectError::InUse`] where others have all the places, or the tenant is suspended: come back in a moment.
pub async fn visit(process: &Process, of: Of) -> Result<Visit, ConnectError> {
    let mut tx = process.db.tenant(of.0).await?;
    let suspended = suspension::is_suspended(&mut tx).await?;
    tx.release();
    if suspended {
        return Err(ConnectError::InUse);
    }
    let place = places::wait(&process.db, of, Protocol::Imap, Duration::ZERO).await?;
    let place = place.ok_or(ConnectError::InUse)?;
    let (session, _) = Box::pin(connect(process, of, Haste::Round)).await?;
    Ok(Visit { session, place })
}

/// Tries what a client entered, as far as the login; where it left the password out, with the stored one of `kept`. Counts
/// in the pace and does not stand in line, and needs no place: the login may be another one than any account's, and how
/// often it is tried is limited.
///
/// # Errors
/// [`ConnectError::Server`], [`ConnectError::Credentials`] or [`ConnectError::Db`].
pub async fn try_out(
    process: &Process,
    tenant: TenantId,
    server: &NewServer,
    kept: Option<AccountId>,
) -> Result<(), ConnectError> {
    let login = super::entered::<ImapError>(process, tenant, server, (kept, Protocol::Imap)).await?;
    let endpoint = super::endpoint(server);
    somebody(&login)?;
    let session = log_in(process, Haste::User, &endpoint, &login).await?;
    session.logout().await;
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
    let mut proof = Proof::with::<ImapError>(process, server, with).await?;
    loop {
        match log_in(process, Haste::User, &super::endpoint(server), &proof.login).await {
            Err(error) => proof.replace(process, error).await?,
            Ok(session) => break session.logout().await,
        }
    }
    Ok(())
}

/// Walks to the account's server with what is stored. Where our own connections have all the places, or the password does
/// not open, the login tells it. Extensions that are switched off are listed and not relied on.
///
/// # Errors
/// [`ConnectError::NoSuchAccount`] or [`ConnectError::Db`]; what is wrong with the server is a step.
pub async fn diagnose(process: &Process, of: Of) -> Result<Vec<Step>, ConnectError> {
    let (tenant, account) = of;
    let mut tx = process.db.tenant(tenant).await?;
    let stored = of_account::<ImapError>(&mut tx, account, Protocol::Imap).await?;
    let off = capability_off::list(&mut tx, &stored.endpoint).await?;
    let is_one = turns::is_one(&mut tx, account).await?;
    tx.release();
    let place = places::wait(&process.db, of, Protocol::Imap, PATIENCE).await?;
    if is_one && make_way(process, of).await? {
        sleep(OTHER_WATCH_ENDS_IN).await;
    }
    let login = match place {
        Some(_) => login_of(process, of, &stored).await,
        None => Err(wire::trouble::Trouble::ConnectionsInUse),
    };
    process.pace.wait(&stored.endpoint.host, Haste::User).await;
    let way = Way { outbound: &process.outbound, tls: &process.tls, endpoint: &stored.endpoint };
    let steps = wire_imap::diagnose(way, login.as_ref().map_err(|trouble| *trouble), &off).await;
    if let Some(place) = place {
        place.release().await;
    }
    Ok(steps)
}

/// Logs in; where the connection of our own watch is in the way, once that has ended. A server that refuses a connection
/// because of others gets one of ours at a time from then on.
async fn in_turn(
    process: &Process,
    (tenant, account): Of,
    (is_one, haste): (bool, Haste),
    (endpoint, login): (&Endpoint, &Login),
) -> Result<Session, ConnectError> {
    let mut waits = WAITS_FOR_WATCH.into_iter();
    if is_one && haste != Haste::Watch && make_way(process, (tenant, account)).await? {
        sleep(WATCH_ENDS_IN).await;
    }
    loop {
        let refused = match log_in(process, haste, endpoint, login).await {
            Err(error) if error.is_too_many_connections() => error,
            other => return Ok(other?),
        };
        let mut tx = process.db.tenant(tenant).await?;
        turns::note_one(&mut tx, account).await?;
        tx.commit().await?;
        // The watch is the one that gives way, not the one that takes.
        if haste == Haste::Watch || !make_way(process, (tenant, account)).await? {
            return Err(refused.into());
        }
        let Some(wait) = waits.next() else { return Err(refused.into()) };
        tracing::info!(%account, wait_ms = wait.as_millis() as u64, "the server allows no more connections; the watch gives way");
        sleep(wait).await;
    }
}

/// The one place where an IMAP session begins.
async fn log_in(
    process: &Process,
    haste: Haste,
    endpoint: &Endpoint,
    login: &Login,
) -> Result<Session, ImapError> {
    let deadlines = Deadlines { reply: process.config.imap_command_timeout, ..Deadlines::default() };
    process.pace.wait(&endpoint.host, haste).await;
    let session = async {
        let connection = wire_imap::connect(&process.outbound, &process.tls, endpoint, &deadlines).await?;
        connection.login(endpoint, login).await
    };
    let session = session.await;
    measured::connected("imap", session.as_ref().map_or_else(|error| error.trouble().code(), |_| "ok"));
    session
}

/// IMAP has no session without a login.
fn somebody(login: &Login) -> Result<(), Unusable> {
    if matches!(login, Login::Nobody) { Err(Unusable(None)) } else { Ok(()) }
}

/// Whether there is a watch that may have a connection; it is told to end it.
async fn make_way(process: &Process, (tenant, account): Of) -> Result<bool, ConnectError> {
    let mut tx = process.db.tenant(tenant).await?;
    tx.wait_for_rows().await?;
    let watched = turns::want(&mut tx, account).await?;
    tx.commit().await?;
    process.give_way.tell(account, true);
    Ok(watched)
}

/// When `error` was a BAD to a command that relied on an extension: this session does without it, and so do others for a
/// week.
///
/// # Errors
/// `error` itself when it was something else, or the database's.
pub async fn forgo(
    process: &Process,
    tenant: TenantId,
    server: &Endpoint,
    session: &mut Session,
    error: ImapError,
) -> Result<(), ConnectError> {
    // Exchange Online and others say with BAD that they are asked too often.
    let refused = matches!(error, ImapError::Protocol(_)) && session.is_usable();
    let Some(capability) = session.take_broken_promise().filter(|_| refused) else {
        return Err(error.into());
    };
    tracing::warn!(
        host = server.host,
        port = server.port,
        capability,
        "the server offers it and answers BAD; not used for a week"
    );
    let mut tx = process.db.tenant(tenant).await?;
    let words = error.text().unwrap_or_default();
    capability_off::note(&mut tx, server, capability, &words, CAPABILITY_OFF_FOR).await?;
    Ok(tx.commit().await?)
}
