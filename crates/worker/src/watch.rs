//! Watching: one connection for each account, in IDLE on its INBOX, with NOTIFY for all its mailboxes where offered.
//!
//! Which worker watches which account is a lease in `account_leases`, taken from the database every two seconds, so a
//! dead worker's accounts are watched by others within half a minute. New mail of INBOX is fetched at once on the same
//! connection, under the account's writing lease; other news asks for a round. What was missed while nobody watched is found by a listing at the
//! beginning of each watch, and by the periodic rounds.
//!
//! A server that allows one connection has the watch and whoever works take turns: see [`Orders`].
//!
//! A connection is never taken for alive by default: each interval ([`keepalive`]) something is said and must be
//! answered, sooner where a server that speaks regularly falls silent. When to come back after a failure is
//! [`reconnect`]; how fast, the process's pace of connections.

mod keepalive;
mod reconnect;
mod watchers;

use std::time::Duration;

use emailclient_core::connect::imap as connect;
use emailclient_core::platform::db::DbError;
use emailclient_core::platform::heartbeat::Heartbeat;
use emailclient_core::platform::id::{AccountId, TenantId};
use emailclient_core::platform::metrics::table;
use emailclient_core::queue::job::{Job, enqueue_as, priority};
use emailclient_core::sync::driver::{self, Fresh, SyncError};
use emailclient_core::sync::due::{self, Watched};
use keepalive::Keepalive;
use reconnect::Reconnect;
use tokio::time::Instant;
use watchers::{Orders, Watchers};
use wire::imap::{Endpoint, IdleEnd, ImapError, Selected, Session, Unsolicited};
use wire::measured::Held;
use wire::pace::Haste;

use crate::environment::Environment;
use crate::part;

/// Time between two looks at which accounts there are to watch.
const LOOK: Duration = Duration::from_secs(2);
/// A watch that stood so long does what it should.
const PROVEN: Duration = Duration::from_secs(60);
/// A connection that lasted so long was not refused because of others.
const LASTED: Duration = Duration::from_secs(10);
/// Where one connection serves all in turns, a round follows the end of another no sooner.
const REST: Duration = Duration::from_secs(30);
/// Accounts one worker watches at most; the rest is left to others.
const MOST: i64 = 10_000;

/// Watches until the environment's shutdown fires.
pub async fn watch(env: &Environment, heartbeat: &Heartbeat) {
    let env = &Environment { haste: Haste::Watch, ..env.clone() };
    let mut watchers = Watchers::new(env.give_way.clone());
    let start = |one: &Watched, orders: Orders| watch_account(env.clone(), (one.tenant, one.account), orders);
    while !env.shutdown.is_cancelled() {
        match due::claim_watches(&env.db, env.worker_id, env.config.worker_lease, MOST).await {
            Ok(claimed) => {
                heartbeat.beat(part::WATCH);
                watchers.set(&claimed, Instant::now(), &env.shutdown, start);
            }
            Err(error) => tracing::warn!(%error, "the list of accounts to watch could not be read"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = env.shutdown.cancelled() => {}
        }
    }
    watchers.end().await;
    if let Err(error) = release(env).await {
        tracing::warn!(%error, "watches could not be released; they run out instead");
    }
}

async fn release(env: &Environment) -> Result<(), DbError> {
    let mut tx = env.db.system().await?;
    due::release_watches(&mut tx, env.worker_id).await?;
    tx.commit().await
}

async fn watch_account(env: Environment, of: (TenantId, AccountId), mut orders: Orders) {
    let (tenant, account) = of;
    let (mut reconnect, mut keepalive) = (Reconnect::default(), Keepalive::default());
    // Whether it gave way just now, and whether it was refused since because of other connections.
    let (mut after_others, mut crowded) = (false, false);
    // Whether it is known that no cause of an earlier watch stands at the account.
    let mut well = false;
    while orders.until_free().await {
        let started = Instant::now();
        let error = match watch_once(&env, of, (&mut keepalive, &mut well), &mut orders, after_others).await {
            Ok(Over::Stopped) => return,
            Ok(Over::GaveWay) => {
                (after_others, crowded) = (true, false);
                continue;
            }
            Err(error) => error,
        };
        crowded &= started.elapsed() < LASTED;
        after_others = false;
        if !std::mem::replace(&mut crowded, is_crowded(&error)) && crowded {
            // Perhaps by a round of ours: the next look tells, and then it is over soon.
            if orders.stops_within(LOOK + LOOK / 2).await {
                return;
            }
            continue;
        }
        let next = reconnect.after(started.elapsed(), &error, env.clock.unit());
        metrics::counter!(table::RECONNECTS.name, "class" => error.class()).increment(1);
        if let SyncError::Imap(error @ ImapError::Protocol(_)) = &error {
            let told = driver::tell_watch_trouble(&env, of, error, next.wait).await;
            well &= told.is_err();
        }
        tracing::debug!(%tenant, %account, %error, wait_ms = next.wait.as_millis() as u64, "the watch connection ended");
        if next.round
            && let Err(error) = ask_for_round(&env, tenant, account, Duration::ZERO).await
        {
            tracing::debug!(%tenant, %account, %error, "no round could be asked for");
        }
        if orders.stops_within(next.wait).await {
            return;
        }
    }
}

fn is_crowded(error: &SyncError) -> bool {
    matches!(error, SyncError::Imap(error) if error.is_too_many_connections())
}

/// Why a watch ended that nothing was wrong with.
enum Over {
    Stopped,
    GaveWay,
}

/// Watches until the connection ends, or is not to be any more.
async fn watch_once(
    env: &Environment,
    (tenant, account): (TenantId, AccountId),
    (keepalive, well): (&mut Keepalive, &mut bool),
    orders: &mut Orders,
    after_others: bool,
) -> Result<Over, SyncError> {
    // On the heap, where it is gone when it is done: ten thousand of these stand by, and none connects.
    let begun = tokio::select! {
        begun = Box::pin(begin(env, tenant, account, after_others)) => begun,
        over = orders.until_over() => return Ok(over),
    };
    let mut open = begun?;
    let _counted = Held::new(metrics::gauge!(table::WATCHES.name));
    let begun = Instant::now();
    loop {
        let interval = if *well { keepalive.interval() } else { keepalive.interval().min(PROVEN) };
        match open.session.idle(interval, async { _ = orders.until_over().await }).await {
            Ok(IdleEnd::News) => open = Box::pin(react(env, (tenant, account), open)).await?,
            Ok(IdleEnd::TimedOut) => {
                if !*well && begun.elapsed() >= PROVEN {
                    *well = driver::watch_is_well(env, (tenant, account)).await.is_ok();
                }
            }
            Ok(IdleEnd::Stopped) => {
                open.session.logout().await;
                return Ok(orders.until_over().await);
            }
            Err(error) => {
                if error.is_final() {
                    keepalive.lost(open.session.silence());
                }
                Box::pin(connect::forgo(env, tenant, &open.server, &mut open.session, error)).await?;
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
        ask_for_round(env, tenant, account, Duration::ZERO).await?;
        return Ok(open);
    };
    open.inbox.exists = exists;
    let Open { session, server, inbox } = open;
    let ((session, server), fetched) =
        driver::fetch_new(env, (tenant, account), (session, server), &inbox).await;
    let more = news.elsewhere || news.incomplete || gone(&news) > 0 || !news.flags.is_empty();
    match fetched {
        Ok(Fresh::Stored(_)) if !more => {}
        // Whoever is at work may have passed INBOX.
        Ok(_) | Err(SyncError::Busy | SyncError::Lost) => {
            ask_for_round(env, tenant, account, Duration::ZERO).await?
        }
        Err(error) => {
            ask_for_round(env, tenant, account, Duration::ZERO).await?;
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

/// From nothing to a session that will tell all news; what is news already is asked for. `after_others`: this comes after work
/// that needed the connection, which must not follow from each of its ends.
async fn begin(
    env: &Environment,
    tenant: TenantId,
    account: AccountId,
    after_others: bool,
) -> Result<Open, SyncError> {
    let (mut session, mut server) = connect::connect(env, (tenant, account), env.haste).await?;
    let inbox = session.select(b"INBOX", None, true).await?;
    if session.capabilities().notify {
        match session.notify_all().await {
            // Not for these events: INBOX alone, then.
            Ok(()) | Err(ImapError::Refused { .. }) => {}
            Err(error) => connect::forgo(env, tenant, &server, &mut session, error).await?,
        }
    }
    // What came between the last round and now is not announced any more.
    if !driver::is_current(env, (tenant, account), &mut session).await? {
        let mut patience = Duration::ZERO;
        if after_others {
            // New mail does not wait for that.
            ((session, server), _) =
                driver::fetch_new(env, (tenant, account), (session, server), &inbox).await;
            patience = REST;
        }
        ask_for_round(env, tenant, account, patience).await?;
    }
    Ok(Open { session, server, inbox })
}

async fn ask_for_round(
    env: &Environment,
    tenant: TenantId,
    account_id: AccountId,
    patience: Duration,
) -> Result<(), DbError> {
    let mut tx = env.db.tenant(tenant).await?;
    enqueue_as(&mut tx, &Job::SyncAccount { account_id }, patience, priority::HEAD).await?;
    tx.commit().await
}
