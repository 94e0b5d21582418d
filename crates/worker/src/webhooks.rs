//! Webhooks: which endpoints have something to do, and a task for each that this process sends to.
//!
//! An endpoint is sent to under its lease, so by one process at a time. Which have something to do is asked when Redis tells of news,
//! for the tenants it names, and once a second for all. A tenant has a quarter of the places, and endpoints that fail have half of
//! that, so neither a tenant's dead endpoints nor its many delay others.

mod endpoint;
mod work;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use emailclient_core::events::webhook::lease::{self, Due};
use emailclient_core::platform::db::DbError;
use emailclient_core::platform::heartbeat::Heartbeat;
use emailclient_core::platform::id::{TenantId, WebhookId};
use emailclient_core::platform::news;
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::environment::Environment;
use crate::part;

/// Between two looks at all endpoints.
const LOOK: Duration = Duration::from_secs(1);
/// Endpoints that one process sends to at once.
const PLACES: usize = 128;
/// Of which one tenant may have so many.
const PER_TENANT: usize = PLACES / 4;
/// Of which so many may be failing ones.
const FAILING: usize = PER_TENANT / 2;

/// Sends until the environment's shutdown fires and what is on its way has arrived.
pub async fn dispatch(env: &Environment, heartbeat: &Heartbeat) {
    let mut hints = news::listen(&env.config.redis_url);
    let mut places = Places::default();
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let tenants = tokio::select! {
            _ = tick.tick() => None,
            tenants = told(&mut hints) => Some(tenants),
            Some(ended) = places.tasks.join_next_with_id(), if !places.tasks.is_empty() => {
                // Where there was no place, everybody may wait for this one. Else: what came while it gave up its lease was
                // told to nobody.
                let full = places.of.len() >= PLACES;
                let tenant = places.free(ended);
                (!full).then(|| tenant.into_iter().collect())
            }
            () = env.shutdown.cancelled() => break,
        };
        match look(env, &mut places, tenants.as_ref()).await {
            Ok(()) => heartbeat.beat(part::WEBHOOKS),
            Err(error) => tracing::warn!(%error, "endpoints with something to do could not be found"),
        }
    }
    while places.tasks.join_next().await.is_some() {}
}

/// The tenants of all hints that are there, once there is one.
async fn told(hints: &mut Receiver<TenantId>) -> BTreeSet<TenantId> {
    let mut some = Vec::new();
    if hints.recv_many(&mut some, 1024).await == 0 {
        // Nobody will tell any more.
        std::future::pending::<()>().await;
    }
    some.into_iter().collect()
}

async fn look(
    env: &Environment,
    places: &mut Places,
    tenants: Option<&BTreeSet<TenantId>>,
) -> Result<(), DbError> {
    if let Some(tenants) = tenants {
        places.tell(tenants);
    }
    if places.tasks.len() >= PLACES || tenants.is_some_and(BTreeSet::is_empty) {
        return Ok(());
    }
    let some: Option<Vec<TenantId>> = tenants.map(|all| all.iter().copied().collect());
    let when = (env.clock.now(), env.config.worker_lease);
    let mut tx = env.db.system().await?;
    let due = lease::due(&mut tx, some.as_deref(), (PER_TENANT, PLACES), when).await?;
    tx.release();
    for due in places.in_turn(due) {
        if places.take(&due) {
            let news = Arc::new(Notify::new());
            let run = endpoint::run(env.clone(), due, Arc::clone(&news), tenants.is_none());
            let task = places.tasks.spawn(run);
            places.of.insert(task.id(), (due, news));
        }
    }
    Ok(())
}

/// The endpoints that this process sends to.
#[derive(Default)]
struct Places {
    tasks: JoinSet<()>,
    of: HashMap<Id, (Due, Arc<Notify>)>,
}

impl Places {
    /// Whether there is a place for this one.
    fn take(&self, due: &Due) -> bool {
        let (mut tenants, mut failing) = (0, 0);
        for (other, _) in self.of.values().filter(|(other, _)| other.tenant == due.tenant) {
            if other.webhook == due.webhook {
                return false;
            }
            tenants += 1;
            failing += usize::from(other.failing);
        }
        self.of.len() < PLACES && tenants < PER_TENANT && !(due.failing && failing >= FAILING)
    }

    /// Those of the tenants with the fewest places first, whatever many endpoints another one has.
    fn in_turn(&self, mut due: Vec<Due>) -> Vec<Due> {
        let mut has: HashMap<TenantId, usize> = HashMap::new();
        for (other, _) in self.of.values() {
            *has.entry(other.tenant).or_default() += 1;
        }
        due.sort_by_key(|due| due.failing);
        let mut turns: Vec<(usize, Due)> = Vec::with_capacity(due.len());
        for due in due {
            let places = has.entry(due.tenant).or_default();
            turns.push((*places, due));
            *places += 1;
        }
        turns.sort_by_key(|(places, due)| (due.failing, *places));
        turns.into_iter().map(|(_, due)| due).collect()
    }

    fn free(&mut self, ended: Result<(Id, ()), JoinError>) -> Option<TenantId> {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "sending to an endpoint broke off; it goes on when its lease runs out");
                error.id()
            }
        };
        self.of.remove(&id).map(|(due, _)| due.tenant)
    }

    /// Has those of these tenants look into the log.
    fn tell(&self, tenants: &BTreeSet<TenantId>) {
        for (_, news) in self.of.values().filter(|(due, _)| tenants.contains(&due.tenant)) {
            news.notify_one();
        }
    }
}

/// Which endpoint, for logs.
#[derive(Clone, Copy, Debug)]
struct Whose {
    tenant: TenantId,
    webhook: WebhookId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tenant_has_a_quarter_of_the_places_and_its_failing_endpoints_half_of_that() {
        let mut places = Places::default();
        let (one, other) = (TenantId::new(), TenantId::new());
        let due = |tenant, failing| Due { tenant, webhook: WebhookId::new(), failing };
        let mut put = |due: Due| {
            let free = places.take(&due);
            if free {
                let id = places.tasks.spawn(std::future::pending()).id();
                places.of.insert(id, (due, Arc::default()));
                assert!(!places.take(&due), "one endpoint has two places");
            }
            free
        };
        let failing = (0..PLACES).filter(|_| put(due(one, true))).count();
        let well = (0..PLACES).filter(|_| put(due(one, false))).count();
        assert_eq!((failing, well), (FAILING, PER_TENANT - FAILING));
        assert!(put(due(other, true)) && put(due(other, false)));
    }

    #[tokio::test]
    async fn a_place_is_for_the_tenant_that_has_the_fewest() {
        let mut places = Places::default();
        let (many, few, none) = (TenantId::new(), TenantId::new(), TenantId::new());
        let due = |tenant, failing| Due { tenant, webhook: WebhookId::new(), failing };
        for tenant in [many, many, many, few] {
            let id = places.tasks.spawn(std::future::pending()).id();
            places.of.insert(id, (due(tenant, false), Arc::default()));
        }
        let wait = vec![due(many, false), due(few, true), due(few, false), due(few, false), due(none, false)];
        let turns: Vec<TenantId> = places.in_turn(wait).into_iter().map(|due| due.tenant).collect();
        assert_eq!(turns, [none, few, few, many, few], "a failing one is the last");
    }
}
