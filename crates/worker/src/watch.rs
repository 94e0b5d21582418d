//! Watching: one connection for each account, in IDLE on its INBOX, with NOTIFY for all its mailboxes where offered.
//!
//! Which worker watches which account is a lease in `account_leases`, taken from the database every two seconds, so a
//! dead worker's accounts are watched by others within half a minute. New mail of INBOX is fetched at once on the same
//! connection, under the account's writing lease; other news asks for a round. What was missed while nobody watched is found by a listing at the
//! beginning of each watch, and by the periodic rounds.
//!
//! A connection is never taken for alive by default: each interval ([`keepalive`]) something is said and must be
//! answered, sooner where a server that speaks regularly falls silent. When to come back after a failure is
//! [`reconnect`]; how fast, the process's pace of connections.

mod keepalive;
mod reconnect;

use std::collections::HashMap;
use std::time::Duration;

use emailclient_core::db::DbError;
use emailclient_core::due;
use emailclient_core::heartbeat::Heartbeat;
use emailclient_core::id::{AccountId, TenantId};
use emailclient_core::imap::execute::{self, Fresh, SyncError};
use emailclient_core::imap::{Endpoint, Haste, IdleEnd, ImapError, Selected, Session, Unsolicited};
use emailclient_core::job::{Job, enqueue, priority};
use keepalive::Keepalive;
use reconnect::Reconnect;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::environment::Environment;
use crate::part;

/// Time between two looks at which accounts there are to watch.
const LOOK: Duration = Duration::from_secs(2);
/// Accounts one worker watches at most; the rest is left to others.
const MOST: i64 = 10_000;

/// Watches until the environment's shutdown fires.
pub async fn watch(env: &Environment, heartbeat: &Heartbeat) {
    let env = &Environment { haste: Haste::Watch, ..env.clone() };
    let mut watching: HashMap<AccountId, CancellationToken> = HashMap::new();
    let mut tasks = JoinSet::new();
    while !env.shutdown.is_cancelled() {
        match due::claim_watches(&env.db, env.worker_id, env.config.worker_lease, MOST).await {
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

async fn release(env: &Environment) -> Result<(), DbError> {
    let mut tx = env.db.system().await?;
    due::release_watches(&mut tx, env.worker_id).await?;
    tx.commit().await
}

async fn watch_account(env: Environment, tenant: TenantId, account: AccountId, stop: CancellationToken) {
    let (mut reconnect, mut keepalive) = (Reconnect::default(), Keepalive::default());
    while !stop.is_cancelled() {
        let started = Instant::now();
        let Err(error) = watch_once(&env, (tenant, account), &mut keepalive, &stop).await else { return };
        let next = reconnect.after(started.elapsed(), &error, env.clock.unit());
        tracing::debug!(%tenant, %account, %error, wait_ms = next.wait.as_millis() as u64, "the watch connection ended");
        if next.round
            && let Err(error) = ask_for_round(&env, tenant, account).await
        {
            tracing::debug!(%tenant, %account, %error, "no round could be asked for");
        }
        tokio::select! {
            () = tokio::time::sleep(next.wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Watches until the connection ends or `stop` fires, which is no error.
async fn watch_once(
    env: &Environment,
    (tenant, account): (TenantId, AccountId),
    keepalive: &mut Keepalive,
    stop: &CancellationToken,
) -> Result<(), SyncError> {
    // On the heap, where it is gone when it is done: ten thousand of these stand by, and none connects.
    let begun = tokio::select! {
        begun = Box::pin(begin(env, tenant, account)) => begun,
        () = stop.cancelled() => return Ok(()),
    };
    let mut open = begun?;
    loop {
        match open.session.idle(keepalive.interval(), stop.cancelled()).await {
            Ok(IdleEnd::News) => open = Box::pin(react(env, (tenant, account), open)).await?,
            Ok(IdleEnd::TimedOut) => {}
            Ok(IdleEnd::Stopped) => {
                open.session.logout().await;
                return Ok(());
            }
            Err(error) => {
                if error.is_final() {
                    keepalive.lost(open.session.silence());
                }
                Box::pin(execute::forgo(env, tenant, &open.server, &mut open.session, error)).await?;
                return Err(ImapError::Closed { bye: None }.into());
            }
        }
    }
}

/// A session that watches.
struct Open {
    session: Session,
    server: Endpoint,
    /// INBOX as it was opened, with the number of messages announced last.
    inbox: Selected,
}

/// New mail of INBOX is fetched here and now, everything else is a round's matter.
async fn react(
    env: &Environment,
    (tenant, account): (TenantId, AccountId),
    mut open: Open,
) -> Result<Open, SyncError> {
    let news = open.session.take_unsolicited();
    let Some(exists) = news.exists.filter(|n| *n > open.inbox.exists) else {
        if let Some(exists) = news.exists {
            open.inbox.exists = exists;
        }
        open.inbox.exists = open.inbox.exists.saturating_sub(gone(&news));
        ask_for_round(env, tenant, account).await?;
        return Ok(open);
    };
    open.inbox.exists = exists;
    let Open { session, server, inbox } = open;
    let ((session, server), fetched) =
        execute::fetch_new(env, (tenant, account), (session, server), &inbox).await;
    let more = news.elsewhere || news.incomplete || gone(&news) > 0 || !news.flags.is_empty();
    match fetched {
        Ok(Fresh::Stored(_)) if !more => {}
        // Whoever is at work may have passed INBOX.
        Ok(_) | Err(SyncError::Busy | SyncError::Lost) => ask_for_round(env, tenant, account).await?,
        Err(error) => {
            ask_for_round(env, tenant, account).await?;
            if !session.is_usable() {
                return Err(error);
            }
        }
    }
    Ok(Open { session, server, inbox })
}

fn gone(news: &Unsolicited) -> u32 {
    u32::try_from(news.expunged.saturating_add(news.vanished.len())).unwrap_or(u32::MAX)
}

/// From nothing to a session that will tell all news; what is news already is asked for.
async fn begin(env: &Environment, tenant: TenantId, account: AccountId) -> Result<Open, SyncError> {
    let (mut session, server) = execute::enter(env, tenant, account).await?;
    let inbox = session.select(b"INBOX", None, true).await?;
    if session.capabilities().notify {
        match session.notify_all().await {
            // Not for these events: INBOX alone, then.
            Ok(()) | Err(ImapError::Refused { .. }) => {}
            Err(error) => execute::forgo(env, tenant, &server, &mut session, error).await?,
        }
    }
    // What came between the last round and now is not announced any more.
    if !execute::is_current(env, (tenant, account), &mut session).await? {
        ask_for_round(env, tenant, account).await?;
    }
    Ok(Open { session, server, inbox })
}

async fn ask_for_round(env: &Environment, tenant: TenantId, account_id: AccountId) -> Result<(), DbError> {
    let mut tx = env.db.tenant(tenant).await?;
    enqueue(&mut tx, &Job::SyncAccount { account_id }, Duration::ZERO, priority::HEAD).await?;
    tx.commit().await
}
