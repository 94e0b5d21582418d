//! Watching: one IDLE connection for each account, on its INBOX.
//!
//! Which worker watches which account is a lease in `account_leases`, taken from the database every two seconds, so a
//! dead worker's accounts are watched by others within half a minute. News does not change any row here: it asks for a
//! round, which has the account's writing lease. What was missed while nobody watched is found by the periodic rounds.

use std::collections::HashMap;
use std::time::Duration;

use emailclient_core::db::DbError;
use emailclient_core::dial::Deadlines;
use emailclient_core::due;
use emailclient_core::heartbeat::Heartbeat;
use emailclient_core::id::{AccountId, TenantId};
use emailclient_core::imap::{self, Credentials, IdleEnd, ImapError, MAX_IDLE};
use emailclient_core::job::{Job, enqueue, priority};
use emailclient_core::seal::Place;
use emailclient_core::sync_store::view;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::environment::Environment;
use crate::part;

/// Time between two looks at which accounts there are to watch.
const LOOK: Duration = Duration::from_secs(2);
/// A watch nobody renewed for this long is free.
const LEASE: Duration = Duration::from_secs(30);
/// Accounts one worker watches at most; the rest is left to others.
const MOST: i64 = 10_000;
/// Pause after the first failure; grows to [`SLOWEST`].
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const SLOWEST: Duration = Duration::from_secs(300);

/// Watches until the environment's shutdown fires.
pub async fn watch(env: &Environment, heartbeat: &Heartbeat) {
    let mut watching: HashMap<AccountId, CancellationToken> = HashMap::new();
    let mut tasks = JoinSet::new();
    while !env.shutdown.is_cancelled() {
        match claim(env).await {
            Ok(claimed) => {
                heartbeat.beat(part::WATCH);
                watching.retain(|id, stop| {
                    let keep = claimed.iter().any(|(_, account)| account == id);
                    if !keep {
                        stop.cancel();
                    }
                    keep
                });
                for (tenant, account) in claimed {
                    if let std::collections::hash_map::Entry::Vacant(entry) = watching.entry(account) {
                        let stop = env.shutdown.child_token();
                        entry.insert(stop.clone());
                        tasks.spawn(watch_account(env.clone(), tenant, account, stop));
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the list of accounts to watch could not be read"),
        }
        while tasks.try_join_next().is_some() {}
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = env.shutdown.cancelled() => {}
        }
    }
    while tasks.join_next().await.is_some() {}
    if let Err(error) = release(env).await {
        tracing::warn!(%error, "watches could not be released; they run out instead");
    }
}

async fn claim(env: &Environment) -> Result<Vec<(TenantId, AccountId)>, DbError> {
    let mut tx = env.db.system().await?;
    let claimed = due::claim_watches(&mut tx, env.worker_id, LEASE, MOST).await?;
    tx.commit().await?;
    Ok(claimed)
}

async fn release(env: &Environment) -> Result<(), DbError> {
    let mut tx = env.db.system().await?;
    due::release_watches(&mut tx, env.worker_id).await?;
    tx.commit().await
}

async fn watch_account(env: Environment, tenant: TenantId, account: AccountId, stop: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    while !stop.is_cancelled() {
        let started = tokio::time::Instant::now();
        let ended = watch_once(&env, tenant, account, &stop).await;
        if stop.is_cancelled() {
            return;
        }
        if let Err(error) = ended {
            tracing::debug!(%tenant, %account, %error, "the watch connection ended");
        }
        if started.elapsed() > Duration::from_secs(60) {
            pause = FIRST_PAUSE;
        }
        // Jitter: a restarted server is not met by all its accounts in the same second.
        let wait = pause.mul_f64(0.75 + 0.5 * env.clock.unit());
        pause = (pause * 2).min(SLOWEST);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(transparent)]
    Imap(#[from] ImapError),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("the account cannot be watched: {0}")]
    Unfit(String),
}

async fn watch_once(
    env: &Environment,
    tenant: TenantId,
    account: AccountId,
    stop: &CancellationToken,
) -> Result<(), WatchError> {
    let mut tx = env.db.tenant(tenant).await?;
    let connection =
        view::connection(&mut tx, account).await?.ok_or(WatchError::Unfit("it is gone".into()))?;
    drop(tx);
    let sealed = connection.password.as_ref().ok_or(WatchError::Unfit("it has no password".into()))?;
    let place = Place { tenant, account, field: "imap_password" };
    let password = env.keyring.open(place, sealed).map_err(|e| WatchError::Unfit(e.to_string()))?;
    let credentials = Credentials::Password { user: connection.username, password };
    let deadlines = Deadlines { reply: env.config.imap_command_timeout, ..Deadlines::default() };
    let greeted = imap::connect(&env.outbound, &env.tls, &connection.endpoint, &deadlines).await?;
    let mut session = greeted.login(&credentials).await?;
    session.select(b"INBOX", None, true).await?;
    // What came between the last round and this SELECT is not announced any more.
    ask_for_round(env, tenant, account).await?;
    loop {
        // A closed connection, or any news, ends the wait.
        match session.idle(MAX_IDLE, stop.cancelled()).await? {
            IdleEnd::News => {
                drop(session.take_unsolicited());
                ask_for_round(env, tenant, account).await?;
            }
            IdleEnd::TimedOut => {}
            IdleEnd::Stopped => {
                session.logout().await;
                return Ok(());
            }
        }
    }
}

async fn ask_for_round(env: &Environment, tenant: TenantId, account_id: AccountId) -> Result<(), DbError> {
    let mut tx = env.db.tenant(tenant).await?;
    enqueue(&mut tx, &Job::SyncAccount { account_id }, Duration::ZERO, priority::USER).await?;
    tx.commit().await
}
