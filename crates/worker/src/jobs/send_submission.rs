//! Hands one submission to its SMTP server: claim, conversation, end. The decisions are `core::domain::submission`'s.
//!
//! Every step is committed before it is taken, so this process may die anywhere: before the dot another worker tries
//! again, from the dot on the submission is `unknown` until it is found.

use std::time::Duration;

use emailclient_core::domain::account;
use emailclient_core::domain::submission::{self, Attempt, Claim, Ending, Finished, Handover, LEASE, Mark};
use emailclient_core::platform::db::DbError;
use emailclient_core::platform::id::{SubmissionId, TenantId};
use mail::envelope::Envelope;
use mail::smtp_reply::SmtpReply;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use wire::dial::Deadlines;
use wire::smtp::{
    self, Connection, Dialler, Point, Progress, SendError, Sent, SmtpError, SmtpServer, Stopped,
};

use crate::environment::Environment;
use crate::error::JobError;

/// While SMTP is switched off, mail waits; this is how often the switch is looked at.
const SWITCHED_OFF: Duration = Duration::from_secs(60);
/// A verdict that cannot be written is tried again this often, a second apart: together under the rest of the lease.
const WRITE_TRIES: u32 = 20;

/// Sends the submission if it is due. A second run finds nothing to do.
///
/// # Errors
/// `retry_after` when it is to be tried again later; the database's errors.
pub async fn run(env: &Environment, tenant: TenantId, submission_id: SubmissionId) -> Result<(), JobError> {
    if !env.config.smtp_enabled {
        return Err(JobError::retry_after(SWITCHED_OFF, anyhow::anyhow!("sending is switched off")));
    }
    let Some(handover) = claim(env, tenant, submission_id).await? else { return Ok(()) };
    tracing::info!(submission = %submission_id, number = handover.attempt.number, "submission {submission_id}: attempt begins");
    let Attempted { ending, connection, own_server } = attempt(env, tenant, &handover).await;
    let finished = write_down(env, tenant, &handover, &ending, own_server).await;
    if let Some(connection) = connection {
        connection.quit().await;
    }
    let Some(finished) = finished? else {
        tracing::warn!(submission = %submission_id, "submission {submission_id}: the lease was lost, its end was not recorded");
        return Ok(());
    };
    tracing::info!(submission = %submission_id, state = finished.state, code = ending.code, "submission {submission_id}: {}", finished.state);
    match finished.retry_after {
        Some(wait) => {
            Err(JobError::retry_after(wait, anyhow::anyhow!("deferred with code {:?}", ending.code)))
        }
        None => Ok(()),
    }
}

async fn claim(env: &Environment, tenant: TenantId, id: SubmissionId) -> Result<Option<Handover>, JobError> {
    let mut tx = env.db.tenant(tenant).await?;
    // Left by a worker that died: released here too, so that nothing waits for the scheduler's turn.
    submission::release_expired(&mut tx, id).await?;
    let claimed = submission::claim(&mut tx, id, env.worker_id).await?;
    tx.commit().await?;
    match claimed {
        Claim::Ours(handover) => Ok(Some(*handover)),
        Claim::Later(wait) => {
            Err(JobError::retry_after(wait, anyhow::anyhow!("not due, or another worker has it")))
        }
        Claim::Nothing => Ok(None),
    }
}

/// What came of a conversation.
struct Attempted {
    ending: Ending,
    /// Still to be closed.
    connection: Option<Connection>,
    /// The operator named it in `OUTBOUND_ALLOW`.
    own_server: bool,
}

impl Attempted {
    fn without_connection(ending: Ending) -> Self {
        Self { ending, connection: None, own_server: false }
    }
}

/// The conversation, with the lease kept alive beside it.
async fn attempt(env: &Environment, tenant: TenantId, handover: &Handover) -> Attempted {
    let count = handover.recipients.len();
    let lost = CancellationToken::new();
    let _renewal =
        AbortOnDropHandle::new(tokio::spawn(keep_lease(env.clone(), tenant, handover.attempt, lost.clone())));
    let mut recorder = Recorder { env, tenant, handover, lost: &lost, offered: None, held: false };
    let connecting = async {
        let server = server(env, tenant, handover).await?;
        let (host, port) = (server.endpoint.host.clone(), server.endpoint.port);
        let own_server = env.outbound.is_allowed_explicitly(&host, port);
        Ok((smtp::connect(&dialler(env), &server).await, own_server))
    };
    let connected = tokio::select! {
        connected = connecting => connected,
        () = lost.cancelled() => return Attempted::without_connection(Ending::interrupted(count)),
    };
    let (connected, own_server) = connected.unwrap_or_else(|error| (Err(error), false));
    let mut connection = match connected {
        Ok(connection) => connection,
        Err(error) => {
            let ending = Ending::before(&error, count);
            return Attempted { own_server, ..Attempted::without_connection(ending) };
        }
    };
    let envelope = Envelope {
        sender: handover.sender.clone(),
        recipients: handover.recipients.iter().map(|(_, address)| address.clone()).collect(),
    };
    let result: Result<Sent, SendError> =
        smtp::send(&mut connection, &envelope, &handover.mime, &mut recorder).await;
    if recorder.held {
        return Attempted::without_connection(Ending::held(count));
    }
    let usable = matches!(&result, Ok(_) | Err(SendError::Before(SmtpError::Refused(_))));
    let ending = Ending::of(&result, recorder.offered.as_deref(), count);
    Attempted { ending, connection: usable.then_some(connection), own_server }
}

fn dialler(env: &Environment) -> Dialler<'_> {
    Dialler {
        outbound: &env.outbound,
        tls: &env.tls,
        helo_name: &env.config.smtp_helo_name,
        deadlines: Deadlines { reply: env.config.smtp_command_timeout, ..Deadlines::default() },
    }
}

/// The account's server and password. What is wrong on our side is no fault of the message: it waits.
async fn server(env: &Environment, tenant: TenantId, handover: &Handover) -> Result<SmtpServer, SmtpError> {
    let unreadable = |text: &str| SmtpError::Unreachable(text.to_owned());
    let mut tx = env.db.tenant(tenant).await.map_err(|_| unreadable("our database did not answer"))?;
    let credentials = account::credentials(&mut tx, &env.keyring, handover.attempt.account_id)
        .await
        .map_err(|_| unreadable("the stored password could not be read"))?
        .ok_or_else(|| unreadable("the account is gone"))?;
    Ok(SmtpServer {
        endpoint: credentials.smtp.endpoint(),
        username: credentials.smtp.username,
        password: credentials.smtp_password,
    })
}

/// Renews the lease until dropped; fires `lost` when another worker has it or the end is too near.
async fn keep_lease(env: Environment, tenant: TenantId, attempt: Attempt, lost: CancellationToken) {
    loop {
        tokio::time::sleep(LEASE / 3).await;
        let renewed = async {
            let mut tx = env.db.tenant(tenant).await?;
            let held = submission::renew(&mut tx, &attempt).await?;
            tx.commit().await?;
            Ok::<bool, DbError>(held)
        };
        match renewed.await {
            Ok(true) => {}
            Ok(false) => return lost.cancel(),
            // The next try may succeed; if none does, the row itself refuses the dot ten seconds before the end.
            Err(error) => {
                tracing::warn!(submission = %attempt.id, %error, "submission {}: the lease was not renewed", attempt.id)
            }
        }
    }
}

struct Recorder<'a> {
    env: &'a Environment,
    tenant: TenantId,
    handover: &'a Handover,
    lost: &'a CancellationToken,
    offered: Option<Vec<SmtpReply>>,
    /// The tenant was suspended in the middle.
    held: bool,
}

impl Recorder<'_> {
    async fn mark(&self, phase: &'static str, replies: &[SmtpReply]) -> Result<Mark, DbError> {
        let positions = self.handover.recipients.iter().map(|(position, _)| *position);
        let recipients: Vec<(i32, SmtpReply)> = positions.zip(replies.iter().cloned()).collect();
        let mut tx = self.env.db.tenant(self.tenant).await?;
        let mark = submission::mark(&mut tx, &self.handover.attempt, phase, &recipients).await?;
        tx.commit().await?;
        Ok(mark)
    }
}

impl Progress for Recorder<'_> {
    async fn reached(&mut self, point: Point<'_>) -> Result<(), Stopped> {
        if self.lost.is_cancelled() {
            return Err(Stopped);
        }
        let marked = match point {
            Point::Envelope => self.mark("envelope", &[]).await,
            Point::Data(replies) => {
                self.offered = Some(replies.to_vec());
                self.mark("data", replies).await
            }
            Point::Dot => self.mark("dot", &[]).await,
        };
        match marked {
            Ok(Mark::Entered) => Ok(()),
            Ok(Mark::Lost) => Err(Stopped),
            Ok(Mark::Held) => {
                self.held = true;
                Err(Stopped)
            }
            Err(error) => {
                let id = self.handover.attempt.id;
                tracing::warn!(submission = %id, %error, "submission {id}: the phase could not be recorded, the hand-over stops");
                Err(Stopped)
            }
        }
    }
}

/// Records the end, again and again while the lease lasts: a verdict that is lost turns a sent message into `unknown`.
async fn write_down(
    env: &Environment,
    tenant: TenantId,
    handover: &Handover,
    ending: &Ending,
    own_server: bool,
) -> Result<Option<Finished>, DbError> {
    let mut tries = 0;
    loop {
        let written = async {
            let mut tx = env.db.tenant(tenant).await?;
            let finished =
                submission::finish(&mut tx, handover, ending, own_server, env.clock.unit()).await?;
            if finished.is_none() && ending.verdicts.iter().any(|v| v.state == "accepted") {
                // The lease ran out while the server answered: if nobody else went on, its word still counts.
                submission::record_found(&mut tx, handover.attempt.id).await?;
            }
            tx.commit().await?;
            Ok(finished)
        };
        tries += 1;
        match written.await {
            Err(error) if tries < WRITE_TRIES => {
                tracing::warn!(submission = %handover.attempt.id, %error, "the end of an attempt could not be recorded yet");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            other => return other,
        }
    }
}
